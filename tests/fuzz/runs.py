"""Many cases in a process of their own, which is limited in memory and killed when it hangs."""

import json
import resource
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60
"""Real seconds of one case, which takes a hundredth of one: no load of a machine makes it hang."""
MEMORY_BYTES = 1 << 30
"""What a process may take beyond what it has when the first case begins."""


def run(n: int, *, seed: int, on_outcome: Callable[[int, list[str]], object]) -> None:
    """Runs cases 0 to n - 1; `on_outcome(number, [kind, seed, damage, detail])` for each in order.

    A process that hangs or dies is a finding of its case, and the next process goes on after it.
    """
    number = 0
    while number < n:
        command = [sys.executable, "-m", "tests.fuzz", "--from", str(number), "--mutations", str(n),
                   "--seed", str(seed), "--worker"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as worker, \
                selectors.DefaultSelector() as selector:
            selector.register(worker.stdout, selectors.EVENT_READ)
            state, begun = "died", number
            while number < n:
                if not selector.select(DEADLINE_S):
                    state = f"hung for {DEADLINE_S} s"
                    worker.kill()
                    break
                line = worker.stdout.readline()
                if not line:
                    break
                on_outcome(number, json.loads(line))
                number += 1
        if number == begun == 0 and state == "died":
            raise RuntimeError(f"the process of case {number} died before it could say anything of "
                               f"it ({worker.returncode}), so the fuzzer itself is broken")
        if number < n:
            on_outcome(number, ["FINDING", "?", "?", f"the process {state} ({worker.returncode})"])
            number += 1


def work(first: int, n: int, *, seed: int) -> None:
    """The process itself: a line of JSON on standard output for each case."""
    import warnings

    import torch

    from .cases import run_case
    from .seeds import all_seeds

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # PyTorch's, of sparse, nested and quantized tensors
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        folder = Path(scratch)
        (folder / "seeds").mkdir()
        (folder / "cases").mkdir()
        seeds = all_seeds(folder / "seeds")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in range(first, n):
            outcome = run_case(number, seed=seed, seeds=seeds, folder=folder / "cases")
            print(json.dumps(outcome), flush=True)


class Table:
    """Counts of outcomes by seed, and of findings by kind, with the first number of each."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.findings: dict[str, list[str]] = {}

    def add(self, number: int, outcome: list[str]) -> None:
        """Counts one outcome."""
        kind, seed, damage, detail = outcome
        self.counts[seed, kind] += 1
        if kind == "FINDING":
            place = detail.partition(": ")[0]
            self.findings.setdefault(place, []).append(f"case {number}, {seed}, {damage}: {detail}")

    def __str__(self) -> str:
        kinds = ("read", "refused", "FINDING")
        rows = [f"{'':20}" + "".join(f"{kind:>10}" for kind in kinds)]
        for seed in dict.fromkeys(seed for seed, _ in sorted(self.counts)):
            rows.append(f"{seed:20}"
                        + "".join(f"{self.counts[seed, kind]:10,}" for kind in kinds))
        for place, cases in sorted(self.findings.items(), key=lambda item: -len(item[1])):
            rows.append(f"{len(cases):6,} x {place}\n         {cases[0]}")
        return "\n".join(rows)
