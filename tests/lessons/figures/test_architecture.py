"""Every drawing is measured: words in their boxes, boxes apart, shapes as the modules have them."""

import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, links, noted

from llama_from_scratch import bundled, family, load
from llama_from_scratch.lessons.figures import architecture
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.shapes import LEGEND


@pytest.fixture(scope="module")
def mini():
    return load(bundled.path("mini"))


@pytest.fixture
def drawn(monkeypatch):
    """The drawings behind the figures that are made."""
    yield noted(monkeypatch)
    plt.close("all")


def all_of(model, tokenizer):
    architecture.text_to_vectors(model, tokenizer, text="Once upon a time, there")
    architecture.attention(model)
    architecture.feed_forward(model.layers[0].feed_forward)
    architecture.model(model)


def test_every_drawing_is_legible_and_its_letters_are_those_of_the_legend(mini, drawn):
    all_of(*mini)
    assert len(drawn) == 4
    for drawing, figure in drawn:
        assert faults(figure, drawing) == [], drawing.title
        for node in drawing.nodes:
            if node.kind.startswith("tensor") and len(node.lines) == 3:
                names, sizes = node.lines[1].split(), node.lines[2].split(" × ")
                assert set(names) <= LEGEND.keys() and len(names) == len(sizes)


@pytest.mark.parametrize("name", ["llama-1", "llama-3.2"])
def test_shapes_are_those_of_the_model_that_is_drawn(name, drawn):
    config = family.tiny(name)
    model = Llama(config)
    architecture.attention(model, n_tokens=5)
    architecture.model(model, n_tokens=5)
    lines = {node.name: node.lines for drawing, _ in drawn for node in drawing.nodes}
    assert lines["q"][2] == f"1 × 5 × {config.n_heads} × {config.head_dim}"
    assert lines["k"][2] == lines["v"][2] == f"1 × 5 × {config.n_kv_heads} × {config.head_dim}"
    assert lines["out"][2] == f"1 × 5 × {config.dim}"
    assert lines["logits"][2] == f"1 × 5 × {config.vocab_size:,}"
    assert f"{config.n_layers} times" in drawn[1][0].frames[0][0]


def test_arrows_join_what_the_model_joins(mini, drawn):
    all_of(*mini)
    vectors, attention, feed_forward, whole = (links(drawing) for drawing, _ in drawn)
    n = len(mini[1].encode("Once upon a time, there"))
    assert sum(a == "tokenizer.encode" for a, _ in vectors) == n
    assert sum(b == "tok_embeddings" for _, b in vectors) == n
    assert sum(a == "tok_embeddings" for a, _ in vectors) == n and len(vectors) == 1 + 4 * n
    for name in "qkv":
        assert {("x", f"w{name}"), (f"w{name}", name)} <= set(attention)
    ends = [b for _, b in attention]
    assert [ends.count(name) for name in ("RoPE", "KV cache", "softmax of q·k / √K", "×")] == [
        2, 2, 2, 2]
    assert attention[-2:] == [("found", "wo"), ("wo", "out")] and len(attention) == 17
    assert feed_forward == [
        ("x", "w_gate"), ("x", "w_up"), ("w_gate", "silu"), ("silu", "×"), ("w_up", "×"),
        ("×", "hidden"), ("hidden", "w_down"), ("w_down", "out")]
    assert whole == [
        ("ids", "embed"), ("embed", "+"), ("+", "+"), (None, "RMSNorm"), ("RMSNorm", "Attention"),
        ("Attention", "+"), (None, "RMSNorm"), ("RMSNorm", "FeedForward"), ("FeedForward", "+"),
        ("+", "norm, output"), ("norm, output", "logits")]


def test_vectors_are_the_rows_of_the_table(mini, drawn):
    model, tokenizer = mini
    architecture.text_to_vectors(model, tokenizer, text="the cat")
    ((drawing, _),) = drawn
    ids = tokenizer.encode("the cat")
    columns = [list(map(float, n.lines)) for n in drawing.nodes if n.kind == "vector"]
    expected = model.tok_embeddings.weight[ids, :12].tolist()
    assert columns == pytest.approx(expected) if len(ids) == 1 else columns == expected
    assert [f"{i:,}" for i in ids] == [n.name for n in drawing.nodes
                                       if n.name.replace(",", "").isdigit()]


def test_a_drawing_leaves_the_model_as_it_is(mini):
    model, tokenizer = mini
    before = [p.clone() for p in model.parameters()]
    all_of(model, tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    plt.close("all")
