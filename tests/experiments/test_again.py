import dataclasses

import pytest
from tiny_experiments import tiny

from llama_from_scratch.experiments.again import task_of
from llama_from_scratch.experiments.running import variants_of
from llama_from_scratch.experiments.store import Store, planned, read, write


def stored(folder, values=None, parts=None):
    base, kept_in = tiny(folder), Store(folder / "S")
    one, = variants_of(base, settings=values or {}, replace=parts, seeds=[3])
    write(planned(one, base=base, place=kept_in.place(one, base=base)))
    return base, one, read(kept_in.place(one, base=base) / "run.json")


def test_a_record_gives_back_the_experiment_it_was_made_from(tmp_path):
    base, one, run = stored(tmp_path, {"train.peak_lr": 0.5, "model.n_layers": 2},
                            {"norm": "torch.nn:LayerNorm"})
    task = task_of(run, own=base)
    assert task.base == base and task.experiment == one


def test_an_experiment_that_is_not_known_or_has_changed_is_left(tmp_path):
    base, _, run = stored(tmp_path, {"train.peak_lr": 0.5})
    with pytest.raises(ValueError, match=r"seed-3 belongs to an exp.*--from FILE.py:NAME"):
        task_of(run)
    other = dataclasses.replace(base, train=dataclasses.replace(base.train, n_steps=7))
    with pytest.raises(ValueError, match=r"planned with another train.n_steps: 6, now 7"):
        task_of(run, own=other)


def test_a_part_of_a_notebook_or_an_edited_one_is_left(tmp_path):
    base, _, run = stored(tmp_path, parts={"mask": lambda q, k: k <= q})
    with pytest.raises(ValueError, match="uses the mask .*<lambda>, which was written in a note"):
        task_of(run, own=base)
    file = tmp_path / "mine.py"
    file.write_text("def mask(q, k):\n    return k <= q\n")
    base, one, run = stored(tmp_path, parts={"mask": f"{file}:mask"})
    assert task_of(run, own=base).experiment.parts["mask"].source == one.parts["mask"].source
    file.write_text("def mask(q, k):\n    return k < q + 1\n")
    with pytest.raises(ValueError, match="mine.py:mask, whose text has changed since"):
        task_of(run, own=base)
