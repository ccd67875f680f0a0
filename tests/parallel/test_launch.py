"""Ranks from anywhere: what comes back, what is printed, and that nothing is left when they fail.

Each test has a temporary folder of its own, which must be empty afterwards, and no rank may live.
"""

import functools
import gc
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import nbformat
import on_ranks
import pytest
import torch

from llama_from_scratch.lessons.authoring.executing import client
from llama_from_scratch.parallel.agreement import Disagreement
from llama_from_scratch.parallel.launch import RankFailed, Ranks
from llama_from_scratch.parallel.launch import launch as launch_ranks
from llama_from_scratch.parallel.processes import context

launching = importlib.import_module("llama_from_scratch.parallel.launch")

on_ranks.by_value(__name__)
launch = functools.partial(launch_ranks, timeout_s=on_ranks.TIMEOUT_S)
LOCK = threading.Lock()
PATH = os.pathsep.join(filter(None, sys.path))
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def processes():
    """The numbers, parents and states of all processes; a zombie is "Z"."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it ended meanwhile
                continue
            found[int(folder.name)] = int(parent), state
    return found


def ranks_alive():
    server = forkserver._forkserver._forkserver_pid
    mine = (server, os.getpid())
    kept = {server, resource_tracker._resource_tracker._pid}
    return {pid for pid, (parent, _) in processes().items()
            if parent in mine and pid not in kept}


def left_in(folder):
    """What is in a folder for temporary files, except the cache that PyTorch always makes there."""
    return [path for path in folder.iterdir() if not path.name.startswith("torchinductor_")]


def soon(claim, patience_s=20):
    """Whether a claim comes true: the system ends processes a moment after it was asked to."""
    deadline = time.monotonic() + patience_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module", autouse=True)
def server():
    """Started before there are temporary folders to look at: it stays."""
    context()


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    # Not tmp_path, because a socket there would have too long a path.
    folder = Path(tempfile.mkdtemp(prefix="ranks-"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = ranks_alive() if Path("/proc/self/stat").exists() else set()
    yield
    left = left_in(folder)
    shutil.rmtree(folder)
    assert left == []
    if Path("/proc/self/stat").exists():
        assert soon(lambda: ranks_alive() <= before), ranks_alive()


def add_up(world, x, *, times=1):
    return world.all_reduce(torch.tensor([x + world.rank])).item() * times


def test_results_come_back_in_the_order_of_the_ranks():
    assert launch(add_up, 4, 10) == [46] * 4
    assert launch(add_up, 2, 10, times=2) == [42] * 2
    assert launch(lambda world: (world.rank, world.size), 3) == [(0, 3), (1, 3), (2, 3)]
    assert launch(lambda world: world.rank, 1) == [0]


def test_large_arguments_and_results_are_copied():
    x = torch.arange(1 << 20)
    found = launch(lambda world, x: x + world.rank, 2, x)
    assert torch.equal(found[0], x) and torch.equal(found[1], x + 1)


def surroundings(world):
    return (os.environ.get("LLAMA_TEST"), os.getcwd(), torch.get_num_threads(),
            torch.rand(1).item(), os.environ["OMP_NUM_THREADS"])


def test_a_rank_has_the_environment_and_folder_of_now_one_thread_and_seed_0(monkeypatch, tmp_path):
    monkeypatch.setenv("LLAMA_TEST", "now")
    monkeypatch.chdir(tmp_path)
    seeded = torch.rand(1, generator=torch.Generator().manual_seed(0)).item()
    assert launch(surroundings, 2) == [("now", str(tmp_path), 1, seeded, "1")] * 2


def test_ranks_that_stay_keep_what_a_function_leaves():
    def put(world, x):
        world.kept.x = x * (world.rank + 1)

    with Ranks(2, timeout_s=on_ranks.TIMEOUT_S) as ranks, Ranks(3) as others:
        assert ranks.run(put, 5) == [None, None]
        assert others.run(lambda world: vars(world.kept)) == [{}] * 3, "two at once"
        assert ranks.run(lambda world: world.kept.x) == [5, 10]
        with pytest.raises(ValueError, match="the global 'LOCK', a lock, cannot be copied"):
            ranks.run(lambda world: LOCK)
        assert ranks.run(add_up, 1) == [3, 3], "nothing was sent, so they live"
    with pytest.raises(RankFailed, match=r"they have been closed. Start new ones with Ranks"):
        ranks.run(add_up, 1)
    ranks.close()


def raises(world, who):
    if world.rank == who:
        raise KeyError("no such thing")
    world.barrier()


@pytest.mark.parametrize("who", (0, 1, 3))
def test_a_rank_that_raises_is_shown_with_its_lines_and_the_others_end(who):
    began = time.monotonic()
    with Ranks(4, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        with pytest.raises(RankFailed) as caught:
            ranks.run(raises, who)
        assert time.monotonic() - began < 60, "at once, not after the timeout"
        said = str(caught.value)
        assert said.startswith(f"rank {who} raised KeyError: 'no such thing'\n\nTraceback")
        assert '    raise KeyError("no such thing")\n' in said and "in raises" in said
        assert "worker.py" not in said
        assert isinstance(caught.value.__cause__, KeyError)
        assert caught.value.__cause__.args == ("no such thing",)
        with pytest.raises(RankFailed, match=f"because rank {who} raised KeyError: 'no such"):
            ranks.run(add_up, 1)


@pytest.mark.parametrize(("end", "message"), [
    (lambda: os.kill(os.getpid(), signal.SIGKILL),
     "rank 1 died: its process was ended by SIGKILL; its memory may have run out"),
    (lambda: os.kill(os.getpid(), signal.SIGABRT),
     "rank 1 died: its process was ended by SIGABRT; ranks may have sent different sizes, which "
     "is_debug=True would name"),
    (lambda: os._exit(3), "rank 1 died: its process ended with status 3"),
    (lambda: os._exit(0), "rank 1 died: its process ended with status 0"),
    (lambda: sys.exit("enough"), "rank 1 raised SystemExit: enough"),
], ids=("kill -9", "abort", "exit 3", "exit 0", "sys.exit"))
def test_a_rank_that_dies_is_named_and_takes_the_others_along(end, message):
    def die(world):
        if world.rank == 1:
            print("last words")
            end()
        world.barrier()

    with pytest.raises(RankFailed) as caught:
        launch(die, 3)
    assert str(caught.value).split("\n")[0] == message


def test_a_rank_that_dies_between_two_functions_is_named():
    def later(world):
        if world.rank == 1:
            threading.Timer(0.1, os._exit, (7,)).start()

    with Ranks(2, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        ranks.run(later)
        ranks._ranks[1].process.join()
        with pytest.raises(RankFailed, match="rank 1 died: its process ended with status 7"):
            ranks.run(add_up, torch.zeros(1 << 20))


def test_a_result_that_cannot_be_copied_is_named_with_its_rank():
    def make(world):
        return [1, threading.Lock()] if world.rank == 1 else 1

    with pytest.raises(RankFailed) as caught:
        launch(make, 2)
    assert "rank 1 raised ValueError: what a function returns is copied" in str(caught.value)
    assert "the result[1], a lock, cannot be copied" in str(caught.value)


def test_an_error_that_cannot_be_copied_is_still_told():
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")
            self.lock = threading.Lock()

    def fail(world):
        raise Odd("this", "that")

    with pytest.raises(RankFailed, match="rank 0 raised Odd: this and that"):
        launch(fail, 2)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system cannot ask where a rank is")
def test_a_rank_that_hangs_is_named_with_where_it_stands_and_who_waits_for_it():
    def hang(world):
        if world.rank == 1:
            time.sleep(1000)  # here
        world.barrier()

    with pytest.raises(RankFailed) as caught:
        launch_ranks(hang, 3, timeout_s=2.0)
    said = str(caught.value)
    assert said.startswith(
        "every rank must finish within timeout_s=2 seconds; rank 1 did not, and ranks 0, 2 can "
        "only wait in a collective. If it only needs longer, raise timeout_s\n")
    first = hang.__code__.co_firstlineno
    stands = said.split("\n\n")[1:]
    assert stands == [f'rank {rank} is in\n  File "{__file__}", line '
                      f"{first + 2 + (rank != 1)} in hang" for rank in range(3)]


def test_ranks_that_wait_for_each_other_or_for_one_that_returned_are_told_how_to_find_out():
    def cross(world):
        world.broadcast(torch.ones(1), source=1 - world.rank)
        world.receive(torch.ones(1), source=1 - world.rank)

    def leave(world):
        if world.rank == 0:
            world.barrier()

    for function, right in (
            (cross, "ranks 0, 1 did not: they wait for each other in different collectives"),
            (leave, "rank 0 did not: rank 1 returned, without the collective that the rest wait "
                    "in")):
        with pytest.raises(RankFailed) as caught:
            launch_ranks(function, 2, timeout_s=1.5)
        assert f"{right}. is_debug=True names the two calls" in str(caught.value)


def test_a_rank_that_prints_without_end_is_also_ended(capsys):
    def chatter(world):
        while True:
            print("again")
            time.sleep(0.001)

    with pytest.raises(RankFailed, match="within timeout_s=1 seconds; ranks 0, 1 did not. If it"):
        launch_ranks(chatter, 2, timeout_s=1.0)
    assert capsys.readouterr().out.count("[rank 1] again\n") > 1


def test_the_timeout_covers_the_start():
    with pytest.raises(RankFailed, match="within timeout_s=0.001 seconds; ranks 0, 1 did not"):
        launch_ranks(add_up, 2, 1, timeout_s=0.001)


def test_in_debug_mode_the_error_is_that_of_the_ranks():
    def differ(world):
        return world.broadcast(torch.ones(2)) if world.rank else world.all_reduce(torch.ones(2))

    with pytest.raises(RankFailed, match="rank . raised Disagreement") as caught:
        launch(differ, 2, is_debug=True)
    assert isinstance(caught.value.__cause__, Disagreement)


def talk(world):
    print("one", world.rank)
    print("tw", end="", flush=True)
    world.barrier()
    print("o 🦙\n", file=sys.stderr)
    sys.stdout.write("".join(f"line {number}\n" for number in range(300)))
    print("no newline", end="")


def test_output_has_the_number_of_its_rank_and_the_same_order_every_time(capsys):
    right = "".join(f"[rank {rank}] {line}\n" for rank in range(3) for line in (
        f"one {rank}", "two 🦙", "", *(f"line {number}" for number in range(300)), "no newline"))
    for _ in range(3):
        launch(talk, 3)
        assert capsys.readouterr().out == right


def test_a_function_that_leaves_another_standard_output_harms_nobody(capsys):
    def steal(world):
        print("mine", end="")
        sys.stdout = None

    with Ranks(1) as ranks:
        ranks.run(steal)
    assert capsys.readouterr().out == "[rank 0] mine\n"


def test_what_was_printed_before_an_error_is_shown(capsys):
    def fail(world):
        print("before", world.rank)
        world.barrier()
        raise KeyError

    with pytest.raises(RankFailed):
        launch(fail, 2)
    assert capsys.readouterr().out == "[rank 0] before 0\n[rank 1] before 1\n"


def test_a_rank_cannot_launch_ranks():
    def nested(world):
        from llama_from_scratch.parallel.launch import launch

        return launch(len, 2)

    with pytest.raises(RankFailed, match="ValueError: a rank cannot launch ranks"):
        launch(nested, 2)


@pytest.mark.parametrize(("n_ranks", "message"), [
    (0, "a whole number of at least 1; got 0"), (-2, "got -2"), (True, "got True"),
    (100_000, "at most 64 ranks, because each is a process.*got 100000.*torchrun")])
def test_a_number_of_ranks_that_cannot_be_is_refused(n_ranks, message):
    with pytest.raises(ValueError, match=message):
        launch(add_up, n_ranks, 1)


@pytest.mark.parametrize("timeout_s", (0.0, -1.0, float("nan"), float("inf")))
def test_a_timeout_that_cannot_be_is_refused(timeout_s):
    with pytest.raises(ValueError, match="timeout_s must be above 0 and at most 1000000 seconds"):
        launch_ranks(add_up, 2, 1, timeout_s=timeout_s)


def test_too_little_memory_is_refused(monkeypatch):
    monkeypatch.setattr(sys.modules[Ranks.__module__], "free_bytes", lambda device: 100 << 20)
    with pytest.raises(ValueError, match="got 4 ranks and 100 MB that are free. Launch fewer"):
        launch(add_up, 4, 1)
    monkeypatch.setattr(sys.modules[Ranks.__module__], "free_bytes", lambda device: None)
    assert launch(add_up, 2, 1) == [3, 3], "a system that does not report it"


def test_a_file_that_an_earlier_run_left_does_not_matter(tmp_path):
    left = Path(tempfile.gettempdir(), "llama-ranks-old")
    left.mkdir()
    (left / "rendezvous").write_bytes(b"\0" * 100)
    assert launch(add_up, 2, 1) == [3, 3]
    (left / "rendezvous").unlink()
    left.rmdir()


def test_ranks_that_are_dropped_end_by_themselves():
    ranks = Ranks(2)
    ranks.run(add_up, 1)
    del ranks
    gc.collect()


def test_where_there_is_no_fork_server_it_works_the_same(monkeypatch, capsys):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])

    def both(world):
        print("hello", world.rank)
        if world.kept.__dict__.setdefault("n_calls", 0):
            raise KeyError
        world.kept.n_calls += 1
        return add_up(world, 1), torch.get_num_threads()

    with Ranks(2, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        assert ranks.run(both) == [(3, 1)] * 2
        with pytest.raises(RankFailed, match="rank . raised KeyError"):
            ranks.run(both)
    assert capsys.readouterr().out == "[rank 0] hello 0\n[rank 1] hello 1\n" * 2


# --- programs -------------------------------------------------------------------------------------

BEGIN = """\
import os, sys, time
from llama_from_scratch.parallel.launch import launch, Ranks
def where(world):
    return os.getpid()
def hang(world):
    open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
    world.barrier()
    if world.rank == 0:
        open(f"{sys.argv[1]}/hangs", "w").close()
    time.sleep(1000)
"""
PROGRAMS = {
    "plain": BEGIN + """\
print("begin")
ranks = Ranks(2)
print(len(set(ranks.run(where))))
for wrong in ("4", 2.0, None):
    try:
        launch(where, wrong)
    except ValueError as error:
        print(error)
""",
    "interrupted": BEGIN + "launch(hang, 2, timeout_s=600)",
    "killed": BEGIN + "launch(hang, 2, timeout_s=600)",
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The three programs, started together. None has `if __name__ == "__main__"`."""
    started = {}
    for name, source in PROGRAMS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "temporary").mkdir()
        (folder / "pids").mkdir()
        (folder / "my_script.py").write_text(source)
        environment = os.environ | {"PYTHONPATH": PATH, "TMPDIR": str(folder / "temporary")}
        started[name] = folder, subprocess.Popen(
            [sys.executable, "my_script.py", "pids"], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    yield started
    for _, process in started.values():
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_a_script_needs_no_main_guard_and_ends_ranks_that_it_forgot(programs):
    folder, process = programs["plain"]
    out, error = process.communicate(timeout=on_ranks.TIMEOUT_S)
    rule = "the number of ranks must be a whole number of at least 1; got "
    assert out == f"begin\n2\n{rule}'4'\n{rule}2.0\n{rule}None\n", error
    assert error == "" and process.returncode == 0
    assert left_in(folder / "temporary") == []


@needs_proc
@pytest.mark.parametrize(("name", "which"), [("interrupted", "SIGINT"), ("killed", "SIGKILL")])
def test_a_program_that_is_ended_leaves_no_rank_and_no_file(programs, name, which):
    folder, process = programs[name]
    assert soon((folder / "pids" / "hangs").exists, on_ranks.TIMEOUT_S), process.poll()
    pids = {int(path.name) for path in (folder / "pids").iterdir() if path.name != "hangs"}
    session = os.getpgid(process.pid)
    assert len(pids) == 2 and pids <= processes().keys()
    if which == "SIGINT":
        os.killpg(session, signal.SIGINT)  # as a terminal and a notebook do
    else:
        process.kill()
    _, error = process.communicate(timeout=on_ranks.TIMEOUT_S)
    assert soon(lambda: not pids & processes().keys())
    assert soon(lambda: not left_in(folder / "temporary"))
    if which == "SIGINT":
        assert error.rstrip().endswith("KeyboardInterrupt") and error.count("Traceback") == 1


CELLS = ["""\
import os, torch
from llama_from_scratch.parallel.launch import launch, Ranks
torch.set_num_threads(2)
w = torch.randn(400, 400, requires_grad=True)
for _ in range(3):
    (w @ w).square().sum().backward()
scale = 3""", """\
def step(world):
    weight = torch.full((50, 50), float(world.rank + 1), requires_grad=True)
    (scale * weight @ weight).sum().backward()
    print("norm", weight.grad.norm().item())
    return world.all_reduce(weight.grad).sum().item()
launch(step, 2, timeout_s=300)""", """\
def bad(world):
    if world.rank == 1:
        raise KeyError("here")
    world.barrier()
try:
    launch(bad, 2)
except RuntimeError as error:
    print(error)""", """\
def differ(world):
    if world.rank == 1: return world.barrier()
    return world.all_reduce(torch.ones(3))
try:
    launch(differ, 2, is_debug=True)
except RuntimeError as error:
    print(str(error).split("\\n")[0])""", """\
ranks = Ranks(2)
ranks.run(lambda world: os.getpid())"""]


@needs_proc
def test_cells_launch_after_computing_with_threads_and_may_run_again(tmp_path):
    order = [0, 1, 1, 2, 3, 4, 4]
    cells = [{"cell_type": "code", "metadata": {}, "source": CELLS[number], "outputs": [],
              "execution_count": None, "id": f"c{place}"} for place, number in enumerate(order)]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    notebook = nbformat.from_dict(notebook)
    began = set(Path(tempfile.gettempdir()).iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", tempfile.gettempdir())
        patch.setenv("PYTHONPATH", PATH)
        client(notebook, tmp_path, 300).execute()
    _, first, second, bad, differ, _, last = (
        "".join(output.get("text", "") or output["data"]["text/plain"] for output in cell.outputs)
        for cell in notebook.cells)
    assert first == second == ("[rank 0] norm 15000.0\n[rank 1] norm 30000.0\n"
                               "[2250000.0, 2250000.0]")
    assert bad.startswith("rank 1 raised KeyError: 'here'\n\nTraceback")
    assert '  File "<cell>", line 3, in bad\n    raise KeyError("here")\n' in bad
    assert "(<cell>:2 in differ)" in differ and "(<cell>:3 in differ)" in differ
    pids = set(eval(last))
    assert soon(lambda: not pids & processes().keys()), "the kernel was killed"
    assert soon(lambda: not [path for path in set(Path(tempfile.gettempdir()).iterdir()) - began
                             if path.name.startswith("llama-ranks")])
