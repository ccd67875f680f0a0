import matplotlib.pyplot as plt
import numpy as np
import pytest
from chat_dialogs import SMALL
from matplotlib.colors import to_rgb
from pictures import faults, styled

from llama_from_scratch.lessons.figures import answers
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune import rows
from llama_from_scratch.tune.dialogs import exchange
from llama_from_scratch.tune.evals import Share
from llama_from_scratch.tune.world.words import NAMES, THINGS, is_held_out

TOKENIZER, FORMAT = SMALL["llama-3.1"], FORMATS["llama-3.2"]


def examples(n):
    return [rows.example_of(exchange("Rome " * (i % 4 + 1), "today " * (i % 3 + 1)), TOKENIZER,
                            FORMAT) for i in range(n)]


def test_learned_tokens_have_their_color_and_no_other_has_it(monkeypatch):
    styled(monkeypatch)
    [example] = examples(1)
    figure = answers.learned(example, TOKENIZER, title="A dialog")
    assert faults(figure) == []
    boxes = figure.axes[0].patches
    colored = [to_rgb(box.get_facecolor()) == to_rgb(TINTS[1]) for box in boxes]
    assert colored == list(example.is_learned)
    assert f"{sum(colored)} are learned" in figure.get_label()
    plt.close("all")


def test_rows_show_the_targets_of_the_batch(monkeypatch):
    styled(monkeypatch)
    told = examples(8)
    data = rows.Rows(told, TOKENIZER)
    figure = answers.rows(data, n_dialogs=8, seq_len=120)
    assert faults(figure) == []
    padded, packed = (np.asarray(ax.images[0].get_array()) for ax in figure.axes)
    n_learned = sum(example.n_learned for example in told)
    assert np.nansum(padded) == np.nansum(packed) == n_learned
    assert len(padded) == 8 > len(packed)
    batch = next(data.in_order(batch_size=8, seq_len=120))
    for row, targets in zip(padded, batch.targets.tolist(), strict=True):
        learned = [t for t, target in enumerate(targets) if target >= 0]
        assert np.flatnonzero(row == 1).tolist() == learned
    plt.close("all")


def test_bars_are_the_shares_with_two_errors(monkeypatch):
    styled(monkeypatch)
    before, after = (
        {"one": Share(n_right=n, n=40), "two": Share(n_right=2 * n, n=40)} for n in (10, 18))
    figure = answers.shares({"before": before, "after": after}, title="Obeyed")
    assert faults(figure) == []
    ax = figure.axes[0]
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([25, 50, 45, 90])
    spans = [segment[:, 1] for lines in ax.collections for segment in lines.get_segments()]
    assert spans[0] == pytest.approx([25 - 200 * before["one"].error,
                                      25 + 200 * before["one"].error])
    assert "before: one 25 ± 7 %" in figure.get_label()
    plt.close("all")


def test_a_row_ends_with_its_last_learned_token():
    assert answers._n_real([-100, 3, -100]) == 2
    assert answers._n_real([-100, -100]) == 0


@pytest.mark.parametrize(("name", "thing"), [("Tom", "ball"), ("Tom", "kite"), ("Mia", "kite")])
def test_held_out_pairs_are_where_the_rule_says(monkeypatch, name, thing):
    styled(monkeypatch)
    figure = answers.held_out()
    assert faults(figure) == []
    cells = np.asarray(figure.axes[0].images[0].get_array())
    assert cells[THINGS.index(thing), NAMES.index(name)] == is_held_out(name, thing)
    assert f"{int(cells.sum())} of {cells.size}" in figure.get_label()
    plt.close("all")
