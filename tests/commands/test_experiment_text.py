import dataclasses

from tiny_experiments import tiny

from llama_from_scratch.commands import experiment_text
from llama_from_scratch.experiments.running import variants_of
from llama_from_scratch.experiments.store import Store, planned
from llama_from_scratch.experiments.variant import grouped


def runs_of(base, folder, values, **changes):
    ones = variants_of(base, settings=values, replace=None, seeds=len(changes.pop("states")))
    return [planned(one, base=base, place=Store(folder).place(one, base=base)) for one in ones]


def with_states(base, folder, values, states):
    runs = runs_of(base, folder, values, states=states)
    return [dataclasses.replace(run, state=state, metrics=(
        {"validation_loss": 2.0 + i} if state == "complete" else {}))
        for i, (run, state) in enumerate(zip(runs, states, strict=True))]


def test_a_line_for_each_variant_with_states_and_results(tmp_path):
    base = tiny(tmp_path)
    variants = grouped([*with_states(base, tmp_path, {}, ["complete"] * 2),
                        *with_states(base, tmp_path, {"train.peak_lr": 0.5},
                                     ["complete", "diverged", "stopped", "stopped"])])
    assert experiment_text.overview("tiny", base, variants).splitlines() == [
        "tiny: Does it work?",
        "  baseline     2 complete  validation loss 2.000 3.000",
        "  peak_lr=0.5  1 complete, 2 stopped, 1 diverged  validation loss 2.000"]
    assert experiment_text.overview("other", None, []).splitlines() == [
        "other", "  no runs yet; llama experiment run other"]


def test_a_variant_of_an_unknown_experiment_shows_what_the_record_has(tmp_path):
    base = tiny(tmp_path)
    one, = grouped(with_states(base, tmp_path, {"data.separator": None}, ["planned"]))
    text = experiment_text.variant(one, None)
    assert "data.separator  None\n" in text, "no other value is known"
    assert "  (changed)\n  data.suffixes" in text
    assert r"'\n\n'" in experiment_text.variant(one, base), "an odd text is quoted"


def test_every_setting_and_part_of_an_experiment_is_listed(tmp_path):
    text = experiment_text.experiment("tiny", tiny(tmp_path), [])
    for word in ("train.peak_lr ", "model.n_layers ", "sample.prompt ", "optimizer ", "mask "):
        assert f"  {word}" in text
