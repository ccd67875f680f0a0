"""What `python3 start.py gpu` runs on a machine with a GPU: checks every kernel, then times it.

It has named parts. First come single instructions, which must do on the GPU what the emulator says
they do. Then every kernel is compared with float64 and with the emulator. Then come the tables. The
results are written after each step of a part into one file for this device, so that a run that
stops early loses nothing and `--only` can add to it. The trial needs only Python, PyTorch and what
this package imports. It installs nothing and uses no network.

Notebook 30.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

import torch

from llama_from_scratch.config import nearest
from llama_from_scratch.kernels.trial import (
    bench,
    compare,
    conformance,
    results,
    timing,
    training_step,
    tuning,
    whole_decoding,
)
from llama_from_scratch.kernels.trial.contests import contests
from llama_from_scratch.kernels.trial.parts import (
    Child,
    Outcomes,
    Start,
    TrialPart,
    carry_out,
    lines_of,
    summary,
    supervise,
)

PARTS = (
    TrialPart(name="conformance", what="single instructions against their documentation and the "
                                       "emulator",
              minutes=1.0, step_seconds=30.0, steps=conformance.steps),
    TrialPart(name="correctness", what="every kernel against float64 and against the emulator",
              minutes=1.75, step_seconds=120.0, steps=compare.steps),
    TrialPart(name="tuning", what="the fastest shape of each kernel",
              minutes=0.5, step_seconds=60.0,
              steps=partial(tuning.steps, contests=contests)),
    TrialPart(name="memory-bound", what="times of norms, rotation, SwiGLU and AdamW",
              minutes=1.0, step_seconds=90.0, steps=partial(bench.steps, part="memory-bound")),
    TrialPart(name="attention", what="times of attention, forward and backward",
              minutes=0.75, step_seconds=90.0, steps=partial(bench.steps, part="attention")),
    TrialPart(name="loss", what="times of the loss with its linear layer",
              minutes=0.5, step_seconds=90.0, steps=partial(bench.steps, part="loss")),
    TrialPart(name="decode", what="times of attention to a cache",
              minutes=0.25, step_seconds=60.0, steps=partial(bench.steps, part="decode")),
    TrialPart(name="quantized", what="times of products with weights of 8 and 4 bits",
              minutes=0.25, step_seconds=60.0, steps=partial(bench.steps, part="quantized")),
    TrialPart(name="decoding", what="tokens per second of a whole model",
              minutes=0.5, step_seconds=90.0, steps=whole_decoding.steps),
    TrialPart(name="training", what="the time of a whole training step",
              minutes=0.5, step_seconds=120.0, steps=training_step.steps),
)
CHECKS = ("conformance", "correctness")   # what --no-bench leaves
# `parallel.trial` runs this part; `start.py gpu` starts it after this program.
ELSEWHERE = ("parallel",)
STOPPED_CODE = 130   # as a shell reports a program that Ctrl-C ended


def chosen(
    only: str | None, *, is_short: bool = False, parts: Sequence[TrialPart] = PARTS
) -> list[TrialPart]:
    """Returns the parts of a list such as "conformance,attention"; without a list, all parts.

    Raises ValueError for a name that no part has.
    """
    known = [*(part.name for part in parts), *ELSEWHERE]
    names = known if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"--only takes the names of parts, with commas between them; got "
                             f"{name!r}: {nearest(name, known)}")
    if is_short:
        names = [name for name in names if name in CHECKS]
    return [part for part in parts if part.name in names]


def run(
    parts: Sequence[TrialPart], path: Path, *, minutes: float | None, start: Callable[[str], Start],
    machine: dict[str, str], say: Callable[[str], None],
) -> int:
    """Runs the parts and writes their outcomes to `path`. Returns the exit code.

    `start(name)` returns what starts a child process for a part. `minutes`: for each part, instead
    of its own. Returns 0 if all that ran was right, 1 if anything was wrong or failed, and 130
    after Ctrl-C.
    """
    versions, is_right = timing.versions(), True
    for part in parts:
        began = time.monotonic()
        say(f"--- {part.name}: {part.what}")
        try:
            outcomes = supervise(start(part.name),
                                 seconds=60 * (part.minutes if minutes is None else minutes),
                                 step_seconds=part.step_seconds,
                                 save=partial(_save, results.read(path), path, machine, part.name,
                                              versions))
        except KeyboardInterrupt:
            say(f"stopped by Ctrl-C; what was found is in {path}")
            return STOPPED_CODE
        for line in lines_of(outcomes):
            say(line)
        say(f"{part.name}: {summary(outcomes)}, in {time.monotonic() - began:.0f} s")
        is_right &= not any(each["status"] in ("wrong", "failed") for each in outcomes.values())
    say(f"written to {path}")
    return 0 if is_right else 1


def _save(
    before: results.Report, path: Path, machine: dict[str, str], part: str,
    versions: dict[str, str], outcomes: Outcomes,
) -> None:
    results.write(results.merged(before, machine=machine, part=part, outcomes=outcomes,
                                 versions=versions), path)


def child_command(part: str, lines: Path, done: Sequence[str], seconds: float) -> list[str]:
    """Returns the command of a process that carries out a part's steps and writes `lines`."""
    return [sys.executable, "-m", "llama_from_scratch.kernels.trial.gpu", "--child", part, "--out",
            str(lines), "--done", json.dumps(list(done)), "--seconds", str(seconds)]


def _child(part: str, lines: Path, done: Sequence[str], seconds: float, errors: TextIO) -> Child:
    return subprocess.Popen(child_command(part, lines, done, seconds), stderr=errors)


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts that the arguments name, and writes `gpu-<name of the device>.json`.

    `lessons.measured` reads that file.

    Returns 0 if everything was right, 1 if not, 2 if there is no GPU or no such part, and 130
    after Ctrl-C.
    """
    names = ", ".join(f"{part.name} ({part.what}; {part.minutes:g} min)" for part in PARTS)
    parser = argparse.ArgumentParser(
        description="Checks every kernel on this machine's GPU, then times them. The parts are: "
                    f"{names}; {', '.join(ELSEWHERE)} (training on all GPUs).")
    parser.add_argument("--out", type=Path, required=True,
                        help="folder for the results; the chapters show benchmarks/results")
    parser.add_argument("--only", metavar="PART[,PART]", help="run only these parts")
    parser.add_argument("--minutes", type=float,
                        help="how long each part may begin new steps, instead of its own time")
    parser.add_argument("--no-bench", action="store_true", help="only check")
    for internal in ("--child", "--done"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        (part,) = chosen(options.child)
        carry_out(part.steps(torch.device("cuda")), into=options.out,
                  done=json.loads(options.done), seconds=options.seconds, say=_say)
        return 0
    if options.minutes is not None and options.minutes <= 0:
        parser.error(f"--minutes must be above 0; got {options.minutes:g}")
    try:
        parts = chosen(options.only, is_short=options.no_bench)
    except ValueError as error:
        parser.error(str(error))
    if not parts:
        return 0   # what was asked for runs elsewhere
    if not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} finds no CUDA device here, so nothing was checked or "
              "timed. On a machine with one, install a PyTorch built for CUDA and start this "
              "again. Without one, python3 start.py test runs the same kernels on the "
              "emulator.", file=sys.stderr)
        return 2
    # A request to end is the same as Ctrl-C: what was found is kept, and the child ends too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options.out.mkdir(parents=True, exist_ok=True)
    machine = timing.describe_machine()
    path = results.path_for(options.out, machine["device"])
    try:
        results.read(path)
    except ValueError as error:
        parser.error(str(error))
    return run(parts, path, minutes=options.minutes, start=lambda name: partial(_child, name),
               machine=machine, say=_say)


if __name__ == "__main__":
    sys.exit(main())
