import dataclasses
import itertools

import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted
from made_runs import TINY, made

from llama_from_scratch.lessons.figures import experiments


def constant(step, *, n_steps, peak, n_warmup, final_ratio):
    return peak


def joined(drawing):
    """Pairs (name, name) of the nodes that the arrows join; None where an arrow begins freely."""
    def at(point):
        (name,) = [n.name for n in drawing.nodes
                   if abs(n.x - point[0]) < n.width / 2 + 0.01
                   and abs(n.y - point[1]) < n.height / 2 + 0.01] or [None]
        return name

    return [(at(arrow.points[0]), at(arrow.points[-1])) for arrow in drawing.arrows]


def test_the_tree_has_each_variant_and_each_run_with_its_result(monkeypatch, tmp_path):
    drawn = noted(monkeypatch)
    plain = made(tmp_path, [3.1, 3.2, 3.3, 3.4, 3.5])
    rate = made(tmp_path, [2.9, 2.8], settings={"train.peak_lr": 3e-3})
    part = made(tmp_path, [3.7], replace={"schedule": constant})
    wild = made(tmp_path, [9.9], settings={"train.peak_lr": 1e9}, state="diverged")
    experiments.tree(TINY, [plain, rate, part, wild])
    ((drawing, figure),) = drawn
    assert faults(figure, drawing) == []
    assert joined(drawing) == [
        ("tiny", "baseline"), ("baseline", "seed 0"), ("tiny", "peak_lr=0.003"),
        ("peak_lr=0.003", "seed 0"), ("tiny", "schedule=constant"),
        ("schedule=constant", "seed 0"), ("tiny", "peak_lr=1e+09"), ("peak_lr=1e+09", "seed 0")]
    cells = [node for node in drawing.nodes if node.kind == "cell" and node.name]
    rows = [[node.lines for node in row]
            for _, row in itertools.groupby(cells, key=lambda node: node.y)]
    assert rows == [[(f"seed {i}", f"{3.1 + i / 10:.3f}") for i in range(5)],
                    [("seed 0", "2.900"), ("seed 1", "2.800")],
                    [("seed 0", "3.700")], [("seed 0", "diverged")]]
    assert len({cell.color for cell in cells[:-1]}) == 1 != len({cell.color for cell in cells})
    assert f"{TINY.model.n_params:,} weights" in drawing.nodes[0].lines
    plt.close("all")


def test_what_does_not_belong_in_the_tree_or_does_not_fit_is_refused(tmp_path):
    plain = made(tmp_path, [3.1])
    with pytest.raises(ValueError, match="variants of 'other'; got one of 'tiny'"):
        experiments.tree(dataclasses.replace(TINY, name="other"), [plain])
    with pytest.raises(ValueError, match="1 to 8 variants; got 0"):
        experiments.tree(TINY, [])
    with pytest.raises(ValueError, match="1 to 5 runs; baseline has 6"):
        experiments.tree(TINY, [made(tmp_path, [3.1] * 6)])


@pytest.mark.parametrize(("settings", "replace", "words"), [
    ({}, None, ("0 of them", "parts: none exchanged")),
    ({"train.peak_lr": 3e-3, "seed": 2}, {"schedule": constant},
     ("1 of them", "parts: constant"))])
def test_the_path_of_a_run_has_its_numbers(monkeypatch, tmp_path, settings, replace, words):
    drawn = noted(monkeypatch)
    (run,) = made(tmp_path, [3.1], settings=settings, replace=replace).runs
    experiments.path(run)
    ((drawing, figure),) = drawn
    assert faults(figure, drawing) == []
    assert joined(drawing) == [
        ("record", "try out"), ("try out", "look up"), ("look up", "train"), ("train", "store"),
        ("look up", "store"), ("store", "compare")]
    assert [arrow.label for arrow in drawing.arrows if arrow.label] == [
        "no", "yes: nothing is trained"]
    record, training = (next(n for n in drawing.nodes if n.name == name)
                        for name in ("record", "train"))
    text = " ".join(record.lines)
    assert f"{len(run.settings)} settings" in text and all(word in text for word in words)
    assert "40 steps, 1,280 tokens loss 5.95 → 3.10" in " ".join(training.lines)
    plt.close("all")


def test_the_path_of_a_run_that_is_not_complete_is_refused(tmp_path):
    (run,) = made(tmp_path, [3.1], state="stopped").runs
    with pytest.raises(ValueError, match="seed-0 is stopped. Run it again"):
        experiments.path(run)
