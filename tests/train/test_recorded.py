import dataclasses
import json

import pytest
import torch
from tiny_runs import CONFIG, equal, make, run

from llama_from_scratch.train.recorded import refuse_other_count


def edited_record(folder, change):
    """The folder of a run of four steps, its training.json changed."""
    run(config=dataclasses.replace(CONFIG, n_steps=4), folder=folder)
    file = folder / "training.json"
    training = json.loads(file.read_text())
    change(training)
    file.write_text(json.dumps(training))
    (folder / "checksums.json").unlink()  # which would tell that the file was changed, and no more
    return folder


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t["steps"].pop(), "has 3, and the optimizer.safetensors next to it has 4"),
    (lambda t: t["steps"].append(t["steps"][-1] | {"step": 4}), "has 5, and .* has 4"),
    (lambda t: t["steps"].pop(0), "steps are numbered from 0 without gaps; step 0 is numbered 1"),
    (lambda t: t["steps"].reverse(), "step 0 is numbered 3"),
    (lambda t: t["steps"][2].update(loss=None), "'loss' is a number, 0 or more; step 2 has None"),
    (lambda t: t["steps"][2].update(step=True), "'step' is an int, 0 or more; step 2 has True"),
    (lambda t: t["steps"][2].pop("lr"), "Step needs lr"),
    (lambda t: t["steps"][2].update(lrr=1.0), "Step has no field 'lrr'; did you mean 'lr'"),
    (lambda t: t["steps"].__setitem__(1, []), "a step is a JSON object; step 1 is"),
    (lambda t: t["steps"][1].update(validation=[1]), "a validation is a JSON object; step 1"),
    (lambda t: t["steps"][1].update(validation={"loss": "x"}), "'loss' is a number"),
    (lambda t: t.update(steps={}), "the object \"settings\", with a"),
    (lambda t: t.update(settings=None), "the object \"settings\", with a"),
    (lambda t: t["settings"].update(config=[]), "the object \"settings\", with a"),
])
def test_a_record_that_is_not_the_optimizers_is_refused_before_a_weight_changes(
    change, message, tmp_path
):
    folder, model, fresh = edited_record(tmp_path / "run", change), make(seed=9), make(seed=9)
    with pytest.raises(ValueError, match=message) as caught:
        run(model, config=dataclasses.replace(CONFIG, n_steps=4), folder=folder, is_resumed=True)
    assert equal(model, fresh) and str(folder) in str(caught.value)


def test_an_optimizer_that_counts_nothing_is_not_compared(tmp_path):
    refuse_other_count([], {}, where=tmp_path)
    with pytest.raises(ValueError, match="has 3. Take both from the same save"):
        refuse_other_count([], {"n_steps": torch.tensor(3)}, where=tmp_path)
