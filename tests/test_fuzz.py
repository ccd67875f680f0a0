"""Damaged files of every format are read or refused in words, and nothing else ever happens.

More of it: `python -m tests.fuzz --mutations 100000 --seed 1`.
"""

import os
import random
import sys
from pathlib import Path

import pytest
from fuzz.cases import FINDING, READ, REFUSED, run_case
from fuzz.mutations import POINTER, mutate
from fuzz.runs import Table, run
from fuzz.seeds import all_seeds

N = 2500
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes, and limits on memory")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return all_seeds(tmp_path_factory.mktemp("seeds"))


def test_damaged_files_are_read_or_refused_in_words():
    table = Table()
    run(N, seed=0, on_outcome=table.add)
    assert not table.findings, f"\n{table}"
    kinds = {kind: sum(n for (_, each), n in table.counts.items() if each == kind)
             for kind in (READ, REFUSED)}
    assert sum(kinds.values()) == N and min(kinds.values()) > N // 10, kinds


def test_cases_are_the_same_for_the_same_seed(seeds, tmp_path):
    def first(seed):
        return [run_case(i, seed=seed, seeds=seeds, folder=tmp_path)[:3] for i in range(30)]

    again = first(3)
    assert again == first(3) and again != first(4)


def test_a_seed_as_it_is_can_be_read(seeds, tmp_path, monkeypatch):
    monkeypatch.setattr("fuzz.cases.mutate", lambda *args: ("nothing", {}))
    kinds = {run_case(i, seed=0, seeds=[seed], folder=tmp_path).kind
             for i, seed in enumerate(seeds)}
    assert kinds == {READ}


@pytest.mark.parametrize(("content", "words"), [
    (POINTER, "Run `git lfs pull` in /"), (os.mkfifo, "there is a pipe"),
    (lambda path: path.mkdir(), "there is a folder"), (b"", "it cannot be read (it is empty)"),
])
def test_what_is_no_file_is_refused_in_the_place_of_any_file(
    content, words, seeds, tmp_path, monkeypatch
):
    """A tokenizer.model is not needed beside a tokenizer.json.

    Where our own layout, or a file alone, is recognized by a regular file, it counts as absent; and
    where there are checksums, these find it first.
    """
    absent = ("has no tokenizer.model", "resuming needs a folder with", "m.gguf has none of these",
              "must be those that were saved", "one for each row of the embedding")
    for seed in seeds:
        for name in seed.files:
            monkeypatch.setattr("fuzz.cases.mutate",
                                lambda *args, name=name: ("replaced", {name: content}))
            found = run_case(0, seed=0, seeds=[seed], folder=tmp_path)
            is_unread = name == "tokenizer.model" and "tokenizer.json" in seed.files
            is_said = any(said in found.detail for said in (words, *absent))
            assert found.kind == (READ if is_unread else REFUSED), found
            assert is_unread or is_said, found


@pytest.mark.parametrize(("error", "fault"), [
    (RecursionError("deep"), "RecursionError at"), (ValueError("bad"), "no path, no cure at"),
    (ValueError("a.json: \x1b[1m. Cure"), "no path, not printable at"),
    (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), "UnicodeDecodeError in place of ValueError"),
])
def test_another_error_and_a_message_without_path_or_cure_are_findings(
    error, fault, seeds, tmp_path, monkeypatch
):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("fuzz.cases.read", fail)
    found = run_case(0, seed=0, seeds=seeds, folder=tmp_path)
    assert found.kind == FINDING and found.detail.startswith(fault)


def test_a_process_that_hangs_or_dies_is_a_finding_and_the_next_goes_on(tmp_path, monkeypatch):
    worker = tmp_path / "worker"
    worker.write_text(f"""#!{sys.executable}
import sys, time
first, n = int(sys.argv[4]), int(sys.argv[6])
for i in range(first, n):
    if i == 1:
        sys.exit(7)
    if i == 3:
        time.sleep(600)
    print('["read", "s", "d", ""]', flush=True)
""")
    os.chmod(worker, 0o755)
    monkeypatch.setattr("fuzz.runs.sys.executable", str(worker))
    monkeypatch.setattr("fuzz.runs.DEADLINE_S", 10)
    found = []
    run(6, seed=0, on_outcome=lambda number, outcome: found.append((number, outcome[0])))
    assert found == [(0, "read"), (1, "FINDING"), (2, "read"), (3, "FINDING"), (4, "read"),
                     (5, "read")]


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, of the kinds of tensors
def test_mutations_leave_the_seed_as_it_is(seeds):
    before = [dict(seed.files) for seed in seeds]
    rng = random.Random(0)
    for _ in range(200):
        mutate(rng, rng.choice(seeds), seeds)
    assert [seed.files for seed in seeds] == before
    assert all(isinstance(seed.path, str) and not Path(seed.path).is_absolute() for seed in seeds)
