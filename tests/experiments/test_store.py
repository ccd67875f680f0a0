import copy
import dataclasses
import json
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_experiments import tiny

from llama_from_scratch.experiments import store
from llama_from_scratch.experiments.parts import part
from llama_from_scratch.experiments.settings import changed
from llama_from_scratch.experiments.store import Store, planned, read, variant_name, write
from llama_from_scratch.files import locked


@pytest.fixture
def kept(tmp_path):
    return Store(tmp_path / "runs")


def saved(kept, tmp_path, *, base=None, state="complete", metrics=None, **values):
    """Returns a record that was written, of a run of the tiny experiment with these settings."""
    base = tiny(tmp_path) if base is None else base
    one = changed(base, values)
    place = kept.place(one, base=base)
    found = dataclasses.replace(planned(one, base=base, place=place), state=state,
                                metrics={"loss": 2.0} if metrics is None else metrics,
                                samples=((3, 'odd "text"\n💡 <b>\x1b'),), notes=("a note",))
    write(found)
    return found


def test_a_record_comes_back_as_it_was_written(kept, tmp_path):
    found = saved(kept, tmp_path)
    assert read(found.folder / "run.json") == found
    assert found.folder == tmp_path / "runs" / "tiny" / "baseline" / "seed-0"
    assert kept.find(found.folder) == found and kept.find(tmp_path) is None
    text = (found.folder / "run.json").read_text("utf-8")
    assert text.startswith('{\n "format": 1,') and "💡" in text, "a person can read it"


def test_runs_are_listed_by_experiment_baseline_first_and_by_seed(kept, tmp_path):
    for values in ({"train.peak_lr": 0.1}, {}, {"seed": 2}, {"seed": 10}):
        saved(kept, tmp_path, **values)
    saved(kept, tmp_path, base=dataclasses.replace(tiny(tmp_path), name="another"))
    runs, damaged = kept.runs()
    assert [(run.experiment, run.variant.partition("-")[0], run.seed) for run in runs] == [
        ("another", "baseline", 0), ("tiny", "baseline", 0), ("tiny", "baseline", 2),
        ("tiny", "baseline", 10), ("tiny", "peak_lr=0.1", 0)]
    assert damaged == [] and len(kept.runs("another")[0]) == 1


def test_an_experiment_without_runs_is_refused_with_the_nearest(kept, tmp_path):
    with pytest.raises(ValueError, match="it is empty"):
        kept.runs("tiny")
    saved(kept, tmp_path)
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        kept.runs("tinny")
    assert Store(tmp_path / "none").runs() == ([], [])


def test_a_damaged_run_does_not_hide_the_others(kept, tmp_path):
    good, bad = saved(kept, tmp_path), saved(kept, tmp_path, seed=1)
    (bad.folder / "run.json").write_text("{")
    half = saved(kept, tmp_path, seed=2).folder
    (half / "run.json").rename(half / "curves.npz")
    (kept.folder / "tiny" / "baseline" / "seed-3").mkdir()
    (kept.folder / "a file").write_text("")
    runs, damaged = kept.runs()
    assert runs == [good] and [one.folder.name for one in damaged] == ["seed-1", "seed-2"]
    assert "cannot be read" in damaged[0].reason and "has none" in damaged[1].reason


def test_a_store_of_a_newer_version_is_refused_as_a_whole(kept, tmp_path):
    file = saved(kept, tmp_path).folder / "run.json"
    file.write_text(file.read_text("utf-8").replace('"format": 1', '"format": 2'), "utf-8")
    for look in (kept.runs, lambda: kept.find(file.parent)):
        with pytest.raises(ValueError, match=r"newer version.*format 2.*reads up to 1.*Update"):
            look()


@pytest.mark.parametrize(("field", "value", "message"), [
    ("state", "done", "one of planned, running, complete"), ("seed", "0", "a whole number"),
    ("seed", True, "a whole number"), ("settings", [], "an object"), ("began", 3, "a text"),
    ("metrics", {"loss": "2"}, "finite numbers"), ("metrics", {}, "has the metric 'loss'"),
    ("metrics", {"loss": None}, "finite numbers"), ("samples", "abc", "pairs of steps and text"),
    ("samples", [["a", "b"]], "pairs of steps and text"), ("samples", [[1]], "pairs"),
    ("samples", [[1, 2]], "pairs"), ("notes", [1], "a list of texts"), ("notes", None, "texts"),
    ("parts", {"norm": 3}, "name, origin, source and digest"),
    ("parts", {"norm": {"name": "x"}}, "name, origin, source and digest"),
    ("format", 0, "format 0"), ("format", None, "format None"), ("format", "1", "format '1'"),
])
def test_a_field_of_another_kind_is_refused_by_name(kept, tmp_path, field, value, message):
    file = saved(kept, tmp_path).folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {field: value}), "utf-8")
    with pytest.raises(ValueError) as caught:
        read(file)
    assert message in str(caught.value) and str(file) in str(caught.value)
    assert "run the experiment again" in str(caught.value)


def test_missing_and_unknown_fields_are_refused_by_name(kept, tmp_path):
    file = saved(kept, tmp_path).folder / "run.json"
    plain = json.loads(file.read_text("utf-8"))
    for name in plain:
        file.write_text(json.dumps({key: value for key, value in plain.items() if key != name}))
        with pytest.raises(ValueError, match="has no '|has format None"):
            read(file)
    file.write_text(json.dumps(plain | {"shape": 3}))
    with pytest.raises(ValueError, match="the unknown 'shape'"):
        read(file)
    file.write_text("[1]")
    with pytest.raises(ValueError, match=r"must hold an object; got \[1\]"):
        read(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=5) | st.sampled_from(["name", "loss", "digest"]), inner, max_size=3),
    max_leaves=8)


@hypothesis_settings(max_examples=100, deadline=None,
                     suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_garbage_in_a_field_is_a_value_error(kept, tmp_path, data):
    file = saved(kept, tmp_path).folder / "run.json"
    plain = json.loads(file.read_text("utf-8"))
    for name in data.draw(st.lists(st.sampled_from([*plain, "x"]), min_size=1, max_size=3)):
        plain[name] = data.draw(JSON)
    file.write_text(json.dumps(plain))
    try:
        found = read(file)
    except ValueError as error:
        assert len(str(error)) < 2000
    else:
        assert found.to_json()


@hypothesis_settings(max_examples=60, deadline=None,
                     suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_garbage_in_a_file_is_a_value_error(kept, tmp_path, data):
    file = saved(kept, tmp_path).folder / "run.json"
    file.write_bytes(data)
    with pytest.raises(ValueError):
        read(file)
    assert len(kept.runs()[1]) == 1


def test_nothing_unreadable_is_ever_written(kept, tmp_path):
    found = saved(kept, tmp_path)
    with pytest.raises(ValueError):
        write(dataclasses.replace(found, metrics={"loss": float("nan")}))
    assert read(found.folder / "run.json") == found, "the old record stays"


def test_a_running_run_whose_process_ended_is_stopped(kept, tmp_path):
    found = saved(kept, tmp_path, state="running")
    assert kept.find(found.folder).state == "stopped"
    code = ("import sys\nfrom llama_from_scratch.files import locked\n"
            "with locked(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code, str(found.folder)], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == "held\n"
        assert kept.find(found.folder).state == "running"
        assert [run.state for run in kept.runs()[0]] == ["running"]
        with pytest.raises(ValueError, match=f"process {holder.pid} .* does now"):
            kept.delete(found.folder)
        assert (found.folder / "run.json").is_file()
        holder.stdin.close()
    assert kept.find(found.folder).state == "stopped"


def test_a_deleted_run_leaves_no_empty_folders_and_other_runs_stay(kept, tmp_path):
    first, second = saved(kept, tmp_path), saved(kept, tmp_path, seed=1)
    kept.delete(first.folder)
    assert kept.runs()[0] == [second]
    kept.delete(second.folder)
    assert list(kept.folder.iterdir()) == []


def test_only_runs_of_the_store_are_deleted(kept, tmp_path):
    found = saved(kept, tmp_path)
    for place in (tmp_path, kept.folder, found.folder.parent, found.folder / "checkpoint",
                  found.folder / ".." / "seed-7", tmp_path / "a" / "b" / "seed-0"):
        with pytest.raises(ValueError, match="a run is a folder EXPERIMENT/VARIANT/SEED"):
            kept.delete(place)
    assert kept.find(found.folder) == found


# --- names of variants ----------------------------------------------------------------------------

SAFE = re.compile(r"[A-Za-z0-9_.,=+-]+-[0-9a-f]{8}")


def named(base, **values):
    return variant_name(changed(base, values), base)


def test_the_name_tells_what_differs_and_the_seed_is_no_part_of_it(tmp_path):
    base = tiny(tmp_path)
    assert named(base) == named(base, seed=5) == "baseline"
    assert named(base, **{"train.peak_lr": 3e-3}).startswith("peak_lr=0.003-")
    both = named(base, **{"data.max_documents": 3, "tokenizer.max_documents": 2})
    assert both.startswith("data.max_documents=3,tokenizer.max_documents=2-")
    exchanged = dataclasses.replace(base, parts={"mask": part(lambda q, k: k <= q)})
    assert variant_name(exchanged, base).startswith("mask=_lambda-")


def test_the_parts_of_the_experiment_itself_are_no_difference(tmp_path):
    base = dataclasses.replace(tiny(tmp_path), parts={"norm": part("torch.nn:LayerNorm")})
    assert variant_name(base, base) == "baseline"
    other = dataclasses.replace(base, parts={"norm": part("torch.nn:RMSNorm")})
    assert variant_name(other, base).startswith("norm=RMSNorm-")


@given(prompt=st.text(st.characters(codec="utf-8"), max_size=200))
@hypothesis_settings(deadline=None)
def test_the_name_is_a_safe_folder_whatever_the_values_are(tmp_path_factory, prompt):
    base = tiny(tmp_path_factory.getbasetemp())
    name = named(base, **{"sample.prompt": f"a {prompt}"})
    assert SAFE.fullmatch(name) and len(name) <= 70 and name != named(base)


def test_values_that_look_alike_have_other_names(tmp_path):
    base = tiny(tmp_path)
    prompts = ["a/b", "a\\b", "a:b", "a b", "a\nb", "A b", "a" * 100, "a" * 101, "é", "è", ".", ""]
    names = [named(base, **{"sample.prompt": prompt}).lower() for prompt in prompts]
    assert len(set(names)) == len(names)
    rates = [named(base, **{"train.peak_lr": rate}) for rate in (0.1, 1e-1, 0.1 + 1e-16)]
    assert len(set(rates)) == 2, "equal values, equal names"


def test_a_copied_store_is_the_same_store(kept, tmp_path):
    found = saved(kept, tmp_path)
    other = Store(tmp_path / "others")
    theirs = saved(other, tmp_path, seed=4)
    target = kept.folder / theirs.folder.relative_to(other.folder)
    theirs.folder.rename(target)
    assert kept.runs()[0] == [found, dataclasses.replace(theirs, folder=target)]


def test_the_default_folder_is_in_the_course(monkeypatch, tmp_path):
    assert Store().folder == store.bundled.DATA.parent / "runs" / "experiments"
    monkeypatch.setattr(store.bundled, "DATA", tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    assert Store().folder == tmp_path / "runs" / "experiments"
    monkeypatch.setenv("LLAMA_RUNS", "mine")
    assert Store().folder == tmp_path / "mine"
    monkeypatch.setenv("LLAMA_RUNS", "")
    assert Store().folder == tmp_path / "runs" / "experiments"
    assert repr(Store(tmp_path)) == f"Store({str(tmp_path)!r})"


def test_a_record_is_not_shared_with_what_it_came_from(kept, tmp_path):
    found = saved(kept, tmp_path)
    plain = copy.deepcopy(found.to_json())
    found.to_json()["metrics"]["loss"] = 9.0
    assert found.to_json() == plain
    with locked(found.folder, waits=False):
        pass
