"""The drawings of experts show the routing of the real layer."""

import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, links, noted

from llama_from_scratch.config import Experts
from llama_from_scratch.lessons.figures import experts
from llama_from_scratch.model.moe import MoE


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


def a_layer(*, n_experts=8, n_active=1, seed=0):
    torch.manual_seed(seed)
    moe = MoE(16, Experts(n_experts=n_experts, n_active=n_active, width=24, shared_width=32))
    moe.init_weights(n_additions=1)
    return moe


@pytest.mark.parametrize("n_experts", [2, 8])
@pytest.mark.parametrize("n_active", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_the_chosen_experts_are_joined_to_the_token_and_have_its_scores(
        n_experts, n_active, seed, made):
    moe, x_D = a_layer(n_experts=n_experts, n_active=n_active, seed=seed), torch.randn(16)
    experts.layer(moe, x_D)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    routing = moe.router(x_D[None])
    chosen = {f"expert {e}" for e in routing.experts[0].tolist()}
    joined = links(drawing)
    assert {end for start, end in joined if start == "×"} == chosen
    assert {start for start, end in joined if end == "+"} >= {"shared"} | chosen
    assert {node.name for node in drawing.nodes if node.kind == "focus"} == chosen
    assert sum(node.name.startswith("expert") for node in drawing.nodes) == n_experts
    told = {arrow.label for arrow in drawing.arrows if arrow.label}
    assert told == {f"{score:.2f}" for score in routing.scores[0].tolist()}
    assert f"The other {n_experts - n_active} experts are not computed" in figure.get_label()
    assert "24 in each expert, 32 in the shared one" in drawing.notes[-1].text


def test_too_many_experts_are_refused():
    with pytest.raises(ValueError, match="has room for 8 experts; got 9"):
        experts.layer(a_layer(n_experts=9), torch.randn(16))


@pytest.mark.parametrize(("n_tokens", "n_active"), [(1, 1), (12, 1), (6, 2)])
def test_tokens_are_drawn_in_their_order_and_sorted_by_the_real_routing(n_tokens, n_active, made):
    moe = a_layer(n_active=n_active)
    routing = moe.router(torch.randn(n_tokens, 16))
    names = [f"w{n}" for n in range(n_tokens)]
    experts.sorted_tokens(names, routing)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    assert [node.name for node in drawing.nodes[:n_tokens]] == names
    drawn = [(node.name, node.color) for node in sorted(
        drawing.nodes[n_tokens:], key=lambda node: node.x)]
    expected = [(names[n], experts.color_of(e)) for e in range(8) for n in range(n_tokens)
                if e in routing.experts[n].tolist()]
    assert drawn == expected
    assert sorted(links(drawing)) == sorted((name, name) for name, _ in expected)
    labels = [note.text for note in sorted(drawing.notes[1:], key=lambda note: note.x)]
    assert labels == [f"expert {e}" for e in sorted(set(routing.experts.flatten().tolist()))]


def test_too_many_copies_are_refused():
    with pytest.raises(ValueError, match="room for 12 copies of tokens; got 16"):
        experts.sorted_tokens(["w"] * 8, a_layer(n_active=2).router(torch.randn(8, 16)))


def test_eight_experts_have_eight_colors():
    assert len({experts.color_of(e) for e in range(8)}) == 8
    assert experts.color_of(9) == experts.color_of(1)
