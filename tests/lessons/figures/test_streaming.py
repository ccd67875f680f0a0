"""The drawn states are a softmax, and the drawn tiles are those that the kernel reads."""

import math

import drawings
import matplotlib.pyplot as plt
import pytest
import torch

from llama_from_scratch.kernels.attention import FORWARD_RUNGS, rule_for
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.machinery.launch import program
from llama_from_scratch.lessons.figures import streaming
from llama_from_scratch.lessons.figures.look import BLUE, ORANGE
from llama_from_scratch.model.mask import Everything, Tokens, Visible, plain_tokens

SCORES = [0.4, 1.2, -0.6, 0.9, 2.1, 0.3, -1.0, 1.6, 3.0, 0.2, 2.4, -0.3]
DOCUMENTS = Tokens(positions=torch.arange(150)[None], is_plain=False,
                   documents=torch.tensor([0] * 40 + [1] * 70 + [0] * 10 + [2] * 30)[None])
RULES = {
    "causal": (Visible(tokens=plain_tokens(150), n_queries=150), (150, 150)),
    "few queries": (Visible(tokens=plain_tokens(150), n_queries=70), (70, 150)),
    "one query": (Visible(tokens=plain_tokens(150), n_queries=1), (1, 150)),
    "documents": (Visible(tokens=DOCUMENTS, n_queries=150), (150, 150)),
    "chunks": (Visible(tokens=plain_tokens(150), n_queries=150, chunk_size=45), (150, 150)),
    "everything": (Everything(), (70, 150)),
}


@pytest.fixture
def made(monkeypatch):
    yield drawings.noted(monkeypatch)
    plt.close("all")


@pytest.mark.parametrize("size", [1, 3, 5, 12])
@pytest.mark.parametrize("order", [None, range(11, -1, -1)])
def test_the_last_state_is_a_softmax(size, order):
    state = streaming.states_of(SCORES, streaming.cut(12, size=size, order=order))[-1]
    weights = torch.tensor(SCORES, dtype=torch.float64).softmax(0).tolist()
    assert [state.weights[key] / state.total for key in range(12)] == pytest.approx(weights)
    assert state.largest == 3.0


def test_without_rescaling_the_sum_is_right_only_if_the_first_tile_has_the_largest_score():
    for order, is_right in (([8, 0, 1, 2, 3], True), ([0, 1, 2, 3, 8], False)):
        tiles = streaming.cut(12, size=2, order=order)
        state = streaming.states_of(SCORES, tiles, is_rescaled=False)[-1]
        exact = sum(math.exp(SCORES[key] - 3.0) for key in order)
        assert (state.total == pytest.approx(exact)) == is_right


@pytest.mark.parametrize("size", [2, 3, 12])
def test_a_bar_is_a_term_of_the_sum(made, size):
    figure = streaming.states(SCORES, size=size)
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    found = streaming.states_of(SCORES, streaming.cut(12, size=size))
    bars = [node for node in drawing.nodes if node.kind == "cell"][:-2]   # without the key
    terms = [(weight, ORANGE if key in state.tile else BLUE)
             for state in found for key, weight in state.weights.items()]
    assert [(bar.height, bar.color) for bar in bars] == [
        (pytest.approx(max(streaming._BAR * weight, 0.02)), color) for weight, color in terms]
    notes = [note.text for note in drawing.notes]
    assert all(f"{state.total:.2f}" in notes for state in found)
    assert f"The last sum is {found[-1].total:.2f}" in figure.get_label()


@pytest.mark.parametrize("n_parts", [2, 3, 4])
def test_parts_are_joined_to_the_log_sum_exp_of_all_keys(made, n_parts):
    figure = streaming.joined(SCORES, n_parts=n_parts)
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    exact = torch.tensor(SCORES, dtype=torch.float64).logsumexp(0)
    assert drawing.nodes[-1].lines == ("all keys", f"output, lse {exact:.2f}")
    assert f"The last lse is {exact:.2f}" in figure.get_label()
    labels = [float(arrow.label.strip("× ")) for arrow in drawing.arrows]
    assert len(labels) == 2 * (n_parts - 1)
    assert [a + b for a, b in zip(labels[::2], labels[1::2], strict=True)] == pytest.approx(
        [1.0] * (n_parts - 1), abs=0.011)


@pytest.mark.parametrize("name", RULES)
def test_the_tiles_are_those_that_the_kernel_reads(name):
    visible, (T, S) = RULES[name]
    kernel = FORWARD_RUNGS["scalar"].kernels_for(8)[0]
    rule = rule_for(visible, batch=1, n_queries=T, n_keys=S)
    q, k, v = (torch.ones(1, n, 1, 8, dtype=torch.float16) for n in (T, S, S))
    n_blocks = -(-T // kernel.queries)
    found = trace(
        program("attention", q.dtype), kernel.entry,
        [q, k, v, torch.empty_like(q), torch.empty(1, 1, T), rule.groups, rule.first, None,
         T, S, 1, 1, 8, *q.stride()[:3], *k.stride()[:3], 0, int(rule.is_causal), 0.35],
        grid=(n_blocks, 1, 1), block=kernel.threads, shared_bytes=kernel.shared_bytes)
    keys = next(array for array in found.known if array.name == "k")
    rows = found.table[found.table["array"] == found.known.index(keys)]
    read = {(n_blocks - 1 - int(row["block"]), (int(row["address"]) - keys.begin) // 16)
            for row in rows}   # the last queries are in the first block; a row has 16 bytes
    drawn = {(tile.query // kernel.queries, key)
             for tile in streaming.visited(visible, queries=kernel.queries, keys=kernel.keys,
                                           shape=(T, S))
             for key in range(tile.key, tile.key_end)}
    assert read == drawn


@pytest.mark.parametrize("name", RULES)
def test_a_whole_tile_has_no_hidden_pair_and_no_seen_pair_is_outside(made, name):
    visible, (T, S) = RULES[name]
    figure = streaming.tiles(visible, queries=32, keys=16, shape=(T, S))
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    seen_TS = torch.ones(T, S, dtype=torch.bool)
    if isinstance(visible, Visible):
        seen_TS = seen_TS.tril(S - T) if visible.mask is None else visible.mask[0, 0]
    found = streaming.visited(visible, queries=32, keys=16, shape=(T, S))
    left_TS = seen_TS.clone()
    for tile in found:
        part = (slice(tile.query, tile.query_end), slice(tile.key, tile.key_end))
        assert tile.is_whole == bool(seen_TS[part].all())
        left_TS[part] = False
    assert not left_TS.any()
    colors = [node.color for node in drawing.nodes]
    assert colors.count(streaming.WHOLE) == sum(tile.is_whole for tile in found) + 1
    assert colors.count(streaming.PART) == sum(not tile.is_whole for tile in found) + 1
    cells = [node for node in drawing.nodes if node.height != 0.17]   # without the key
    scale = streaming._MAP_INCHES / max(T, S)
    assert sum(node.width * node.height for node in cells) == pytest.approx(T * S * scale**2)
    assert f"{len(found)} of {-(-T // 32) * -(-S // 16)} tiles" in figure.get_label()


def test_what_has_no_space_is_refused():
    with pytest.raises(ValueError, match="17 keys in 6 tiles"):
        streaming.states([0.0] * 17, size=3)
    with pytest.raises(ValueError, match="joins 2 to 4 parts.*got 5 parts of 12 keys"):
        streaming.joined(SCORES, n_parts=5)
    with pytest.raises(ValueError, match="tiles of 64 x 32 are too small to see among 8192 x 8192"):
        streaming.tiles(Visible(tokens=plain_tokens(8192), n_queries=8192), queries=64, keys=32,
                        shape=(8192, 8192))
