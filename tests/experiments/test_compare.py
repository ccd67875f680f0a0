"""Comparisons of runs that were not trained: tables, what is refused, and the saved baseline."""

import dataclasses
import json
import math
import re

import matplotlib
import pytest
from made_runs import MACHINE, TINY, made

from llama_from_scratch.experiments.compare import baseline, compare
from llama_from_scratch.experiments.verdict import judge

matplotlib.use("Agg")
FEW = {"train.peak_lr": 3e-3}


@pytest.fixture
def plain(tmp_path):
    return made(tmp_path, [3.0, 3.01, 3.02])


def changed(tmp_path, ends=(2.0, 2.01, 2.02), **fields):
    return made(tmp_path, ends, **{"settings": FEW} | fields)


def test_a_row_has_mean_spread_difference_and_verdict(plain, tmp_path):
    found = compare(plain, changed(tmp_path))
    first, row = found.rows
    assert (first.label, row.label) == ("baseline", "peak_lr=0.003")
    assert row.values == {0: 2.0, 1: 2.01, 2: 2.02}
    assert row.mean == pytest.approx(2.01) and row.spread == pytest.approx(0.01)
    assert first.verdict is None and row.verdict.is_lower
    assert row.verdict == judge([3.0, 3.01, 3.02], [2.0, 2.01, 2.02])
    assert [str(each) for each in row.changes] == ["train.peak_lr: 0.01 -> 0.003"]


def test_the_text_table_is_aligned_and_says_how_it_is_judged(plain, tmp_path):
    text = repr(compare(plain, changed(tmp_path)))
    assert text == repr(compare(plain, changed(tmp_path)))
    lines = text.splitlines()
    assert lines[0] == "tiny: validation loss (nats per token) at the end; lower is better"
    assert re.fullmatch(r"peak_lr=0\.003 +3 +2\.0100 +0\.0100 +-1\.0000 +-1\.02\d\d to "
                        r"-0\.97\d\d  lower", lines[4])
    assert lines[2].index("mean") + 4 == lines[4].index("2.0100") + 6, "numbers end in one column"
    assert "  train.peak_lr: 0.01 -> 0.003" in lines
    assert lines[-1].endswith("judges each difference from baseline, at level 0.05.")


def test_several_comparisons_share_the_level(plain, tmp_path):
    others = [changed(tmp_path), made(tmp_path, [3.0] * 3, settings={"train.peak_lr": 4e-3})]
    found = compare(plain, *others, level=0.1)
    assert [row.verdict.level for row in found.rows[1:]] == [0.05, 0.05]
    assert "at level 0.1, shared among 2 comparisons (Bonferroni)" in repr(found)


def test_parts_are_named_and_their_sources_distinguished(plain, tmp_path):
    text = "import torch\n\nclass MyNorm(torch.nn.LayerNorm):\n    "
    (tmp_path / "one.py").write_text(text + "pass")
    (tmp_path / "two.py").write_text(text + '"""Another one with the same name."""')
    first, second = (made(tmp_path / "runs", [3.0], replace={"norm": f"{tmp_path / name}:MyNorm"})
                     for name in ("one.py", "two.py"))
    assert str(compare(plain, first).rows[1].changes[0]) == "norm: as in the library -> MyNorm"
    found = compare(first, second)
    assert all(re.fullmatch(r"norm=MyNorm \(\w+\)", row.label) for row in found.rows)
    assert found.rows[0].label != found.rows[1].label
    change = found.rows[1].changes[0]
    assert re.search(r"MyNorm \(source \w{6}\)$", change.before) and change.before != change.after


@pytest.mark.parametrize("state, error, words", [
    ("diverged", "the loss is NaN", "peak_lr=0.003, seed 2: diverged: the loss is NaN"),
    ("stopped", "", "seed 2: stopped"), ("failed", "OSError: full", "failed: OSError: full")])
def test_runs_that_did_not_end_are_named_and_not_averaged(plain, tmp_path, state, error, words):
    other = changed(tmp_path)
    bad = dataclasses.replace(other.runs[2], state=state, error=error)
    other = dataclasses.replace(other, runs=(*other.runs[:2], bad))
    found = compare(plain, other)
    assert found.rows[1].values == {0: 2.0, 1: 2.01}
    assert "2 of 3" in repr(found) and words in repr(found)
    assert words in found._repr_html_()


def test_a_complete_run_that_ends_with_nan_is_not_averaged(plain, tmp_path):
    other = changed(tmp_path, [2.0, 2.1])
    lost = dataclasses.replace(other.runs[1], metrics={"validation_loss": math.nan})
    found = compare(plain, dataclasses.replace(other, runs=(other.runs[0], lost)))
    assert found.rows[1].values == {0: 2.0}
    assert "seed 1: no finite validation loss" in repr(found)


def test_a_variant_without_a_complete_run_has_a_row_and_no_verdict(plain, tmp_path):
    found = compare(plain, changed(tmp_path, [2.0], state="diverged", error="NaN"))
    assert found.rows[1].verdict is None and "no complete run" in repr(found)
    assert "0 of 1" in found._repr_html_()


def test_a_baseline_without_a_complete_run_is_refused(plain, tmp_path):
    bad = changed(tmp_path, [2.0], state="diverged", error="the loss is NaN")
    with pytest.raises(ValueError, match="at least one complete run; peak_lr=0.003 has none "
                                         r"\(seed 0: diverged: the loss is NaN\)"):
        compare(bad, plain)


def test_one_seed_each_gets_no_verdict(tmp_path):
    found = compare(made(tmp_path, [3.0]), changed(tmp_path, [2.0]))
    assert "too few seeds" in repr(found) and "run more: seeds=3" in repr(found)
    assert "nan" not in repr(found) and "nan" not in found._repr_html_()


def test_what_a_reader_named_is_escaped(plain, tmp_path):
    other = changed(tmp_path, settings={"data.path": "<script>"})
    assert "<script>" not in compare(plain, other)._repr_html_()
    assert "path=&lt;script&gt;" in compare(plain, other)._repr_html_()


def test_the_page_has_a_caption_and_headings_of_rows(plain, tmp_path):
    page = compare(plain, changed(tmp_path))._repr_html_()
    assert page.count('scope="row"') == 2 and page.count('scope="col"') == 8
    assert "<caption>tiny: validation loss" in page
    assert "train.peak_lr: 0.01 -&gt; 0.003" in page


# --- what is refused ------------------------------------------------------------------------------


def test_variants_of_two_experiments_are_refused(plain, tmp_path):
    other = made(tmp_path, [2.0], base=dataclasses.replace(TINY, name="other"))
    with pytest.raises(ValueError, match="got tiny and other. Run the change on one experiment"):
        compare(plain, other)


def test_a_single_variant_and_one_given_twice_are_refused(plain):
    with pytest.raises(ValueError, match="at least one other variant; got 1"):
        compare(plain)
    with pytest.raises(ValueError, match="the same runs were given twice, as baseline"):
        compare(plain, plain)


def test_an_unknown_metric_is_refused_with_the_nearest(plain, tmp_path):
    with pytest.raises(ValueError, match="called 'bits_per_bit'; did you mean 'bits_per_byte'"):
        compare(plain, changed(tmp_path), metric="bits_per_bit")


def test_a_variant_that_mixes_settings_is_refused(plain, tmp_path):
    edited = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, n_steps=50))
    newer = made(tmp_path, [2.0], base=edited, seeds=[7])
    mixed = dataclasses.replace(plain, runs=(*plain.runs, *newer.runs))
    with pytest.raises(ValueError, match="seeds 0 and 7 of baseline differ in train.n_steps: 40 "
                                         "-> 50. The experiment was edited"):
        compare(mixed, changed(tmp_path))


def test_other_texts_are_compared_in_bits_per_byte(plain, tmp_path):
    other = changed(tmp_path, settings={"data.path": "text.txt"},
                    data={"digest": "07e4", "files": "07e4"})
    found = compare(plain, other)
    assert found.metric == "bits_per_byte" and found.rows[0].mean == pytest.approx(3.01 / 1.5)
    assert "bits per byte are compared and not nats per token" in repr(found)
    assert "validated on different texts" in repr(found)
    for metric in ("validation_loss", "loss"):
        with pytest.raises(ValueError, match=f"'{metric}'. Use metric=\"bits_per_byte\""):
            compare(plain, other, metric=metric)
        with pytest.raises(ValueError, match="Use metric=\"bits_per_byte\""):
            found.picture(metric=metric)
    assert compare(plain, other, metric="bits_per_byte").metric == "bits_per_byte"
    found.picture(metric="lr")


def test_another_tokenizer_of_the_same_text_needs_no_word_about_texts(plain, tmp_path):
    found = compare(plain, changed(tmp_path, settings={"model.vocab_size": 310},
                                   data={"digest": "07e4", "files": "f11e"}))
    assert found.metric == "bits_per_byte" and "validated on different" not in repr(found)


def test_other_machines_are_compared_by_loss_and_not_by_seconds(plain, tmp_path):
    other = changed(tmp_path, machine=MACHINE | {"processor": "Difference Engine"})
    found = compare(plain, other)
    assert found.rows[1].verdict.is_lower
    assert ("from different machines: Abacus 9000 (cpu, threads: 1) and Difference Engine (cpu, "
            "threads: 1). Losses are comparable") in repr(found)
    with pytest.raises(ValueError, match="Abacus 9000 .* and Difference Engine .*Draw against"):
        found.picture(axis="seconds")
    found.picture(axis="tokens")


def test_other_code_and_another_pytorch_are_noted(plain, tmp_path):
    text = repr(compare(plain, changed(tmp_path, code={"digest": "beef"},
                                       versions={"torch": "9.9"})))
    assert "different versions of this library (c0de and beef)" in text
    assert "different versions of PyTorch (2.13 and 9.9)" in text
    assert "different" not in repr(compare(plain, changed(tmp_path))).replace("difference", "")


def test_the_notes_of_the_runs_are_shown_once(plain, tmp_path):
    text = repr(compare(plain, changed(tmp_path, notes=("3 tensors have no effect",))))
    assert text.count("peak_lr=0.003: 3 tensors have no effect") == 1


def test_the_picture_draws_the_judged_metric_unless_another_is_given(plain, tmp_path):
    found = compare(plain, changed(tmp_path), metric="bits_per_byte")
    assert "bits per byte" in found.picture().axes[0].get_ylabel()
    assert "gradient" in found.picture(metric="grad_norm").axes[0].get_ylabel()


# --- the saved baseline ---------------------------------------------------------------------------


def test_the_saved_baseline_is_found(plain, tmp_path):
    found = baseline(TINY, kept_in=tmp_path)
    assert found.name == "baseline" and [run.seed for run in found.runs] == [0, 1, 2]
    assert compare(found, changed(tmp_path)).rows[1].verdict.is_lower


def test_by_default_it_is_in_the_data_of_the_course(tmp_path, monkeypatch):
    monkeypatch.setattr("llama_from_scratch.bundled.DATA", tmp_path)
    with pytest.raises(ValueError, match=r"run\(EXPERIMENT, seeds=3\) of the experiment 'tiny'"):
        baseline(TINY)
    saved = made(tmp_path / "experiments", [3.0, 3.1])
    assert baseline(TINY).finals() == [3.0, 3.1]
    own = made(tmp_path.parent / "own", [3.0, 3.1])
    assert [row.label for row in compare(saved, own).rows] == ["baseline (saved)", "baseline"]


def test_a_stale_baseline_is_refused_with_what_changed(plain, tmp_path):
    edited = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, n_steps=50))
    with pytest.raises(ValueError, match="since it was made, train.n_steps changed from 40 to 50. "
                                         "Make it again with `python data/make_baselines.py tiny`"):
        baseline(edited, kept_in=tmp_path)


def test_an_experiment_without_a_baseline_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a saved baseline must exist; .* has no runs of 'tiny'"):
        baseline(TINY, kept_in=tmp_path)
    changed(tmp_path)
    with pytest.raises(ValueError, match="has no folder baseline"):
        baseline(TINY, kept_in=tmp_path)


def test_a_damaged_baseline_is_refused(plain, tmp_path):
    file = plain.runs[1].folder / "run.json"
    file.write_text(json.dumps({"format": 1}))
    with pytest.raises(ValueError, match="a saved baseline must be whole; .*seed-1"):
        baseline(TINY, kept_in=tmp_path)
