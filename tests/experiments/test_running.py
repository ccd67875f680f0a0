import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_experiments import STORIES, tiny
from torch import nn

from llama_from_scratch.experiments import provenance, running, store
from llama_from_scratch.experiments.curves import Curves
from llama_from_scratch.experiments.parts import part
from llama_from_scratch.experiments.running import load, prepare, run
from llama_from_scratch.experiments.settings import settings
from llama_from_scratch.experiments.store import Store
from llama_from_scratch.model.moe import BestScores
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.train import evaluate
from llama_from_scratch.train.balance import BiasedSteps


def quiet(moment):
    """Shows nothing."""


@pytest.fixture
def base(tmp_path):
    return tiny(tmp_path)


@pytest.fixture
def once(base, tmp_path, monkeypatch):
    """Returns a function that runs the tiny experiment and counts trainings in `once.n`."""
    plain = running.train

    def counted(*arguments, **options):
        call.n += 1
        return plain(*arguments, **options)

    def call(experiment=base, **options):
        options = {"kept_in": tmp_path / "runs", "show": quiet} | options
        return run(experiment, **options).runs[0]

    call.n = 0
    monkeypatch.setattr(running, "train", counted)
    return call


def same(one, other):
    """Asserts that two runs have the same numbers, samples and settings, bit for bit."""
    for name in Curves.__dataclass_fields__:
        if name != "seconds":
            np.testing.assert_array_equal(getattr(one.curves, name), getattr(other.curves, name))
    assert one.samples == other.samples and dict(one.settings) == dict(other.settings)
    ours, theirs = ({name: value for name, value in r.metrics.items() if name != "seconds"}
                    for r in (one, other))
    assert ours == theirs and one.state == other.state


def test_a_run_remembers_everything(once, base, tmp_path):
    found = once()
    assert found.state == "complete" and found.curves.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.curves.validation_steps.tolist() == [3, 6]
    assert [steps for steps, _ in found.samples] == [3, 6]
    assert all(text.startswith("The") for _, text in found.samples)
    assert dict(found.settings) == settings(base) and found.difference == {} == found.parts
    assert found.metrics["validation_loss"] == pytest.approx(found.curves.validation_loss[-1])
    assert found.metrics["n_params"] == base.model.n_params and found.metrics["n_steps"] == 6
    assert found.data["n_documents"] == 7 and found.code == provenance.code()
    assert found.versions == provenance.versions() and found.began.endswith("+00:00")
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "checkpoint", "curves.npz", "run.json"]
    assert Store(tmp_path / "runs").find(found.folder) == found


def test_the_same_run_is_remembered_and_trained_again_on_demand(once):
    first, second = once(), once()
    assert once.n == 1 and second == first
    again = once(is_again=True)
    assert once.n == 2
    same(again, first)


def test_a_run_leaves_the_random_state_of_the_reader(once, base):
    state = torch.get_rng_state()
    found = once(replace={"norm": RMSNorm})
    load(found, base=base, replace={"norm": RMSNorm})
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("change", ["text", "code", "part", "helper", "settings"])
def test_what_changed_is_trained_anew(once, base, tmp_path, monkeypatch, change):
    scale = [1.0]

    def norm(dim, eps):
        return Scaled(dim, scale[0])

    replace = {"norm": norm} if change in ("part", "helper") else {}
    first = once(replace=replace)
    if change == "text":
        (tmp_path / "stories.txt").write_text("\n\n".join([*STORIES, STORIES[0]]), "utf-8")
    elif change == "code":
        code = provenance.code() | {"digest": "another"}
        monkeypatch.setattr(provenance, "code", lambda: code)
    elif change == "part":
        replace = {"norm": lambda dim, eps: Scaled(dim, 2.0)}
    elif change == "helper":
        scale[0] = 2.0
    else:
        base = dataclasses.replace(base, train=dataclasses.replace(base.train, peak_lr=0.02))
    second = once(base, replace=replace)
    assert (once.n == 2 and second.metrics["loss"] != first.metrics["loss"]) or change == "code"
    assert once(base, replace=replace) == second and once.n == 2


class Scaled(nn.Module):
    """A norm that multiplies."""

    def __init__(self, dim, scale):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.ones(dim)), scale

    def forward(self, x):
        return x * self.weight * self.scale


@pytest.mark.parametrize("damage", ["run.json gone", "run.json bad", "curves gone", "curves bad"])
def test_what_cannot_be_read_is_trained_anew(once, damage):
    first = once()
    name, _, how = damage.partition(" ")
    file = first.folder / ("curves.npz" if name == "curves" else name)
    file.unlink() if how == "gone" else file.write_text("{bad")
    same(once(), first)
    assert once.n == 2 or damage == "run.json gone"


def test_a_record_of_a_newer_version_is_never_replaced(once):
    file = once().folder / "run.json"
    file.write_text(file.read_text("utf-8").replace('"format": 1', '"format": 9'), "utf-8")
    with pytest.raises(ValueError, match="newer version"):
        once()
    assert once.n == 1 and '"format": 9' in file.read_text("utf-8")


# --- stopped, killed, diverged, failed ------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_stopped_run_continues_and_equals_the_uninterrupted_one(once, tmp_path, after):
    whole = once(kept_in=tmp_path / "whole")

    def stop(moment):
        if moment.n_done == after:
            raise KeyboardInterrupt

    stopped = once(show=stop)
    assert stopped.state == "stopped" and stopped.curves.steps.tolist() == list(range(1, after + 1))
    seen = []
    same(once(show=seen.append), whole)
    assert seen[0].n_done == after + 1, "it went on where it was"


def test_an_interrupt_of_the_process_stops_the_run_and_all_seeds_after_it(base, tmp_path):
    def interrupt(moment):
        if moment.n_done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    variant = run(base, seeds=3, kept_in=tmp_path / "runs", show=interrupt)
    assert [(one.seed, one.state) for one in variant.runs] == [(0, "stopped")]
    variant = run(base, seeds=3, kept_in=tmp_path / "runs", show=quiet)
    assert [one.state for one in variant.runs] == ["complete"] * 3


def program(tmp_path, ending, *, replace=""):
    return textwrap.dedent(f'''
        import os, signal, sys, time
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from tiny_experiments import tiny
        from llama_from_scratch.experiments.running import run
        def show(moment):
            print(moment.n_done, flush=True)
            {ending}
        run(tiny({str(tmp_path)!r}), kept_in={str(tmp_path / "runs")!r}, show=show, {replace})
    ''')


@pytest.mark.parametrize("after", [1, 5])
@pytest.mark.parametrize("is_exchanged", [False, True])
def test_a_killed_run_continues_and_equals_the_uninterrupted_one(once, tmp_path, after,
                                                                 is_exchanged):
    replace = {"norm": "torch.nn:LayerNorm"} if is_exchanged else {}
    whole = once(kept_in=tmp_path / "whole", replace=replace)
    ending = f"moment.n_done == {after} and os.kill(os.getpid(), signal.SIGKILL)"
    code = program(tmp_path, ending, replace=f"replace={replace!r}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,), damaged = Store(tmp_path / "runs").runs()
    assert (left.state, damaged) == ("stopped", [])
    seen = []
    same(once(show=seen.append, replace=replace), whole)
    # Without parts it goes on after the last checkpoint; with parts there is none.
    assert seen[0].n_done == (1 if is_exchanged or after == 1 else 5)


def test_two_processes_with_the_same_run_wait_for_each_other(once, tmp_path):
    gate = tmp_path / "gate"
    ending = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    with subprocess.Popen([sys.executable, "-c", program(tmp_path, ending)], text=True,
                          stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "1\n", "it holds the run"
        found = []
        waiting = threading.Thread(target=lambda: found.append(once()))
        waiting.start()
        time.sleep(0.2)
        assert not found and once.n == 0
        gate.touch()
        waiting.join()
        assert found[0].state == "complete" and once.n == 0, "the other one's result"
        other.stdout.read()


def test_a_diverging_run_is_remembered_with_its_curves(once):
    found = once(**{"train.peak_lr": 1e30, "train.n_warmup": 0})
    assert found.state == "diverged" and "learning rate" in found.error
    assert 1 <= len(found.curves.steps) < 6 and np.isfinite(found.metrics["loss"])
    assert once(**{"train.peak_lr": 1e30, "train.n_warmup": 0}) == found and once.n == 1


def test_a_run_whose_last_update_breaks_the_model_diverged_too(once):
    found = once(replace={"norm": nn.LayerNorm},
                 **{"train.peak_lr": 1e38, "train.n_steps": 1, "train.n_warmup": 0})
    assert found.state == "diverged" and "not finite" in found.error
    assert "validation_loss" not in found.metrics and json.loads(
        (found.folder / "run.json").read_text("utf-8"))


class FailsLater(nn.Module):
    """Fails at the third training step."""

    def forward(self, gate, up):
        if self.training and torch.is_grad_enabled() and len(gate) == 2 and gate.shape[1] == 16:
            FailsLater.n += 1
            if FailsLater.n == 3:
                raise RuntimeError("odd \x1b[31m \ud800 words")
        return gate * up


def test_a_part_that_fails_in_the_middle_is_remembered_and_its_error_is_raised(once, tmp_path):
    FailsLater.n = 0
    with pytest.raises(RuntimeError, match="odd"):
        once(replace={"activation": FailsLater})
    (found,), _ = Store(tmp_path / "runs").runs()
    assert found.state == "failed" and found.error.startswith("RuntimeError: odd")
    assert found.error.isprintable() and found.curves.steps.tolist() == [1, 2]
    FailsLater.n = 99
    assert once(replace={"activation": FailsLater}).state == "complete"


def test_an_error_of_show_is_raised_and_the_run_goes_on_later(once, tmp_path):
    def show(moment):
        if moment.n_done == 3:
            raise ZeroDivisionError("mine")

    whole = once(kept_in=tmp_path / "whole")
    with pytest.raises(ZeroDivisionError, match="mine"):
        once(show=show)
    same(once(), whole)


@pytest.mark.parametrize("where", ["run.json", "curves.npz", "weights.safetensors"])
def test_a_full_disk_is_the_error_and_the_run_goes_on_later(once, tmp_path, monkeypatch, where):
    replace = {"norm": nn.LayerNorm} if where.startswith("weights") else {}
    whole = once(kept_in=tmp_path / "whole", replace=replace)
    plain, n_written = os.replace, [0]

    def full(source, target):
        if Path(target).name == where:
            n_written[0] += 1
            if n_written[0] >= 2 or where != "run.json":
                raise OSError(errno.ENOSPC, "No space left on device")
        return plain(source, target)

    monkeypatch.setattr("llama_from_scratch.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        once(replace=replace)
    monkeypatch.setattr("llama_from_scratch.files.os.replace", plain)
    (left,), damaged = Store(tmp_path / "runs").runs()
    assert left.state in ("stopped", "failed") and damaged == []
    again = once(replace=replace)
    if where == "run.json":  # the sample that did not fit on the disk
        again = dataclasses.replace(again, samples=(whole.samples[0], *again.samples))
    same(again, whole)


def test_a_damaged_checkpoint_is_named_with_a_cure(once):
    stopped = once(show=lambda moment: (_ for _ in ()).throw(KeyboardInterrupt))
    file = stopped.folder / "checkpoint" / "training.json"
    file.write_text("{")
    with pytest.raises(ValueError, match="train from the beginning: delete the folder"):
        once()
    assert once(is_again=True).state == "complete"


def test_a_run_folder_without_its_checkpoint_begins_again(once, tmp_path):
    from llama_from_scratch.files import remove

    whole = once(kept_in=tmp_path / "whole")
    stopped = once(show=lambda moment: (_ for _ in ()).throw(KeyboardInterrupt))
    remove(stopped.folder / "checkpoint")
    same(once(), whole)


# --- what is refused before anything is trained ---------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"train.peaklr": 1}, "did you mean 'train.peak_lr'"),
    ({"train.n_steps": "many"}, "train.n_steps must be a whole number"),
    ({"model.n_heads": 3}, "n_heads must divide"),
    ({"replace": {"nrom": RMSNorm}}, "did you mean 'norm'"),
    ({"replace": {"norm": nn.Linear}}, "the part 'norm' must be called as norm"),
    ({"replace": {"norm": "torch.nn:Nrom"}}, "torch.nn has no 'Nrom'"),
    ({"seeds": 0}, "at least one seed"), ({"seeds": []}, "a list of different ones"),
    ({"seeds": [1, 1]}, "a list of different ones"), ({"seeds": [-1]}, "from 0 to"),
    ({"data.path": "/nowhere.txt"}, "/nowhere.txt does not"),
    ({"tokenizer.path": "/nowhere"}, "/nowhere does not"),
])
def test_what_cannot_be_is_refused_before_anything_is_written(once, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        once(**options)
    assert once.n == 0 and Store(tmp_path / "runs").runs() == ([], [])


def test_a_vocabulary_that_does_not_fit_is_refused(once, tmp_path):
    found = once()
    with pytest.raises(ValueError, match=r"264 tokens and model.vocab_size is 100"):
        once(**{"tokenizer.path": str(found.folder / "checkpoint"), "model.vocab_size": 100})
    assert once(**{"tokenizer.path": str(found.folder / "checkpoint")}).state == "complete"


# --- variants, seeds, odd values ------------------------------------------------------------------


def test_seeds_are_a_number_or_a_list_and_give_other_numbers(base, tmp_path):
    two = run(base, seeds=2, kept_in=tmp_path / "runs", show=quiet)
    assert [one.seed for one in two.runs] == [0, 1] and len(set(two.finals())) == 2
    one = run(base, seeds=[1], kept_in=Store(tmp_path / "runs"), show=quiet)
    assert one.runs == two.runs[1:]
    assert [r.seed for r in run(base, seeds=2, kept_in=tmp_path / "runs", show=quiet,
                                seed=1).runs] == [1, 2]


ODD = ["with space", "it's", 'a "b"', "ünï 💡", "new\nline", "$HOME;&", "a,b=c", "-x"]


@pytest.mark.parametrize("name", ODD)
def test_odd_paths_and_prompts_are_only_values(once, tmp_path, name):
    file = tmp_path / name / f"{name}.txt"
    file.parent.mkdir()
    file.write_text("\n\n".join(STORIES), encoding="utf-8")
    found = once(kept_in=tmp_path / name / "runs",
                 **{"data.path": str(file), "sample.prompt": name})
    assert found.state == "complete" and found.samples[0][1].startswith(name)
    assert Store(tmp_path / name / "runs").runs() == ([found], [])


def test_a_folder_of_texts_is_read_and_its_files_count(once, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for i, text in enumerate(STORIES):
        (folder / f"{i}.txt").write_text(text, encoding="utf-8")
    values = {"data.path": str(folder), "data.separator": None, "data.suffixes": [".txt"]}
    assert once(**values).data["n_documents"] == 7
    (folder / "9.txt").write_text("One more story of a cat.", encoding="utf-8")
    assert once(**values).data["n_documents"] == 8 and once.n == 2


def test_a_prompt_that_cannot_be_continued_is_told_in_the_sample(once):
    found = once(**{"sample.prompt": "The cat saw a mouse. " * 20})
    assert found.state == "complete" and found.samples[0][1].startswith("(no sample: ValueError")
    assert once(**{"sample.n_tokens": 0}).samples == ()


# --- parts ----------------------------------------------------------------------------------------


def test_the_librarys_own_norm_as_a_part_gives_the_unchanged_losses(once):
    plain, exchanged = once(), once(replace={"norm": RMSNorm})
    assert once.n == 2 and exchanged.variant.startswith("norm=RMSNorm-")
    np.testing.assert_array_equal(plain.curves.loss, exchanged.curves.loss)
    assert exchanged.parts["norm"]["source"].startswith("class RMSNorm(nn.Module)")
    assert sorted(path.name for path in exchanged.folder.iterdir()) == [
        "curves.npz", "run.json", "weights.safetensors"]


def test_a_torch_optimizer_goes_on_where_it_was(once, tmp_path):
    replace = {"optimizer": torch.optim.AdamW}
    whole = once(kept_in=tmp_path / "whole", replace=replace)
    once(replace=replace, show=lambda moment: (_ for _ in ()).throw(KeyboardInterrupt)
         if moment.n_done == 3 else None)
    seen = []
    same(once(replace=replace, show=seen.append), whole)
    assert seen[0].n_done == 4


def test_notes_tell_of_frozen_parameters(once):
    found = once(replace={"activation": lambda gate, up: gate.relu().square()})
    assert len(found.notes) == 1 and "w_up" in found.notes[0]


@pytest.mark.parametrize("replace", [None, {"norm": nn.LayerNorm}])
def test_the_model_of_a_run_is_loaded_as_it_was_trained(once, base, replace):
    found = once(replace=replace)
    model, tokenizer = load(found, base=base, replace=replace)
    from llama_from_scratch.train.loss import evaluate

    again = evaluate(model, prepare(base).validation, batch_size=2, seq_len=16)
    assert again.loss == pytest.approx(found.metrics["validation_loss"])
    assert tokenizer.vocab_size == 264


def test_another_model_is_not_loaded(once, base):
    found = once(replace={"norm": nn.LayerNorm})
    for replace in (None, {"norm": nn.RMSNorm}):
        with pytest.raises(ValueError, match=r"the run exchanged norm; got .* Give the same"):
            load(found, base=base, replace=replace)
    (found.folder / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match="weights.safetensors, which does not exist"):
        load(found, base=base, replace={"norm": nn.LayerNorm})
    stopped = once(seed=3, show=lambda moment: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(ValueError, match="only a complete run has a trained model.*stopped"):
        load(stopped, base=base)


def test_an_experiment_may_have_parts_of_its_own(once, base):
    own = dataclasses.replace(base, parts={"norm": part(nn.LayerNorm)})
    found = once(own)
    assert found.variant == store.UNCHANGED and found.parts["norm"]["name"] == "LayerNorm"
    assert once(own, replace={"norm": RMSNorm}).variant.startswith("norm=RMSNorm-")


def test_a_run_with_a_balance_has_weights_and_no_checkpoint_and_is_loaded_without_it(once, base):
    plain = {"kind": "experts", "n_experts": 4, "n_active": 1, "width": 16, "shared_width": 16}
    balance = {"balance": BiasedSteps(rate=0.1)}
    done = once(replace=balance, **{"model.layers.feed_forward": plain})
    assert done.is_complete and (done.folder / "weights.safetensors").is_file()
    assert not (done.folder / "checkpoint").exists()
    model, _ = load(done, base=base, replace=balance)
    assert isinstance(model.layers[0].feed_forward.router.choose, BestScores)
    found = prepare(base).validation
    evaluated = evaluate(model, found, batch_size=2, seq_len=16)
    assert evaluated.loss == pytest.approx(done.metrics["validation_loss"], rel=1e-6)
    with pytest.raises(ValueError, match="exchanged balance; got no part"):
        load(done, base=base)
