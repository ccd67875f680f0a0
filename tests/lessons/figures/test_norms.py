import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, links, noted
from tiny_checkpoints import sized

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import norms
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.transformer import Llama


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


def test_the_flow_has_the_shapes_of_the_norm(made):
    norms.rms_norm(RMSNorm(48, eps=1e-6), n_tokens=5)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    lines = {node.name: node.lines for node in drawing.nodes}
    assert lines["x"][2] == lines["out"][2] == "1 × 5 × 48"
    assert lines["mean square"][1:] == ("B T", "1 × 5") and lines["weight"][1] == "D = 48"
    assert lines["1 / √(… + eps)"][1] == "eps = 1e-06"
    assert links(drawing) == [
        ("x", "square"), ("square", "mean"), ("mean", "mean square"),
        ("mean square", "1 / √(… + eps)"), ("x", "×"), ("1 / √(… + eps)", "×"), ("×", "×"),
        ("weight", "×"), ("×", "out")]


def test_norms_are_counted_and_their_sizes_measured_in_the_model(made):
    model = Llama(family.tiny("llama-3"))
    with torch.no_grad():
        model.norm.weight.fill_(3.0)
    norms.in_model(model, [1, 2, 3])
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    n = model.config.n_layers
    assert drawing.title.startswith(f"{2 * n + 1} norms: two in each of {n} blocks")
    sizes = norms.measured(model, [1, 2, 3])
    with torch.no_grad():
        stream = model.tok_embeddings(torch.tensor([[1, 2, 3]]))
    assert sizes["layers.0.attention_norm"][0] == pytest.approx(
        float(stream.square().mean().sqrt()), rel=1e-5)
    assert sizes["norm"][1] == pytest.approx(3.0, rel=1e-2)
    drawn = [node.lines[1] for node in drawing.nodes if node.name == "RMSNorm"]
    names = ["layers.0.attention_norm", "layers.0.ffn_norm", f"layers.{n - 1}.attention_norm",
             f"layers.{n - 1}.ffn_norm", "norm"]
    assert drawn == [f"{sizes[name][0]:.2f} → {sizes[name][1]:.2f}" for name in names]
    half = [(None, "RMSNorm"), ("RMSNorm", "Attention"), ("Attention", "+"), ("+", "+"),
            (None, "RMSNorm"), ("RMSNorm", "FeedForward"), ("FeedForward", "+")]
    assert links(drawing) == [("embed", "+"), *half, ("+", "…"), ("…", "+"), *half,
                              ("+", "RMSNorm"), ("RMSNorm", "output")]
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_of_one_layer_is_refused():
    model = Llama(sized(family.tiny("llama-3"), n_layers=1))
    with pytest.raises(ValueError, match="at least 2 layers; got 1"):
        norms.in_model(model, [1])
