"""What `python3 start.py gpu` runs on a machine with a GPU: checks every kernel, then times it.

First it compares every kernel with float64. Then it compares the GPU with the emulator on the same
inputs, so that what the chapters write about the emulated machine is known to hold on a real one.
The table of times comes last. It needs only Python, PyTorch and what this package imports. It
installs nothing and uses no network.

Notebook 30.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from llama_from_scratch.files import replacing_file
from llama_from_scratch.kernels.trial import bench, compare


def sweep(device: torch.device, *, is_large: bool = True) -> dict:
    """Returns the comparisons with float64 and with the emulator as JSON data; prints errors."""
    start = time.monotonic()
    comparisons = list(compare.sweep(device, is_large=is_large))
    wrong = [str(comparison) for comparison in comparisons if not comparison.verdict.is_ok]
    print(f"{len(comparisons)} comparisons with float64 in {time.monotonic() - start:.0f} s, "
          f"{len(wrong)} wrong", flush=True)
    differing = []
    try:
        pairs = [comparison for operation in compare.OPERATIONS for dtype in compare.DTYPES
                 for size in operation.sizes for comparison in compare.compare_with_emulator(
                     operation, size, dtype=dtype, device=device)]
        differing = [str(comparison) for comparison in pairs if not comparison.verdict.is_ok]
        print(f"{len(pairs)} comparisons of GPU and emulator, {len(differing)} differ by more than "
              "rounding", flush=True)
    except RuntimeError as error:
        print(f"The emulator could not be built here, so it was not compared: {error}", flush=True)
    for line in (*wrong, *differing):
        print(line, flush=True)
    return {"n_comparisons": len(comparisons), "wrong": wrong, "differ_from_emulator": differing}


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks, then times, and writes `gpu-<name of the device>.json`.

    `lessons.measured` reads that file.

    Returns 0 if everything was right, 1 if not, and 2 if there is no GPU.
    """
    parser = argparse.ArgumentParser(
        description="Checks every kernel on this machine's GPU, then times them.")
    parser.add_argument("--out", type=Path, required=True,
                        help="folder for the results; the chapters show benchmarks/results")
    parser.add_argument("--no-bench", action="store_true", help="only check")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} finds no CUDA device here, so nothing was checked or "
              "timed. On a machine with one, install a PyTorch built for CUDA and start this "
              "again. Without one, python3 start.py test runs the same kernels on the "
              "emulator.", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    results = {"machine": bench.describe_machine(), "sweep": sweep(torch.device("cuda"))}
    name = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower())
    path = options.out / f"gpu-{name}.json"
    _write(results, path)   # already now, in case the timing is interrupted
    if not options.no_bench:
        results |= bench.run(torch.device("cuda"), say=lambda text: print(text, flush=True))
        _write(results, path)
    print(f"written to {path}")
    return 1 if results["sweep"]["wrong"] or results["sweep"]["differ_from_emulator"] else 0


def _write(results: dict, path: Path) -> None:
    with replacing_file(path) as unfinished:
        unfinished.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    sys.exit(main())
