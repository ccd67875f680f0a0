"""Measures how fast a checkpoint of the 1B shape becomes a model, on one thread.

It is compared with safetensors' own `load_file` and with transformers. A folder in Hugging Face's
format with 2.5 GB of random bf16 weights is written once and stays in the system's file cache, so
the disk is not measured. `load_file` returns tensors, not a model. It maps the file and reads
nothing until a tensor is used, so it is compared twice: when both have returned, and when both have
also read every byte once. Contestants take turns. The clock counts processor seconds, including the
operating system's work for this process.

    python benchmarks/bench_load.py [--folder DIR]

It prints the table and writes benchmarks/results/load.json.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts its threads

import torch
import transformers
from measure import race, ratio, write
from safetensors.torch import load_file
from torch import Tensor

from llama_from_scratch import family
from llama_from_scratch.checkpoint.hugging_face_config import config_to
from llama_from_scratch.checkpoint.load import open_checkpoint
from llama_from_scratch.checkpoint.names import HUGGING_FACE
from llama_from_scratch.checkpoint.opened import build
from llama_from_scratch.checkpoint.translation import translation

MODEL = "llama-3.2-1b"


def write_checkpoint(folder: Path) -> None:
    """Writes config.json and model.safetensors.

    One block of random weights is repeated, because the time does not depend on their values.
    """
    config = family.config(MODEL)
    header, end = {}, 0
    for name, shape in translation(HUGGING_FACE, config).theirs.items():
        n_bytes = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + n_bytes]}
        end += n_bytes
    head = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    head += b" " * (-len(head) % 8)
    block = (torch.randn(1 << 22) / 45).bfloat16().view(torch.uint8).numpy().data
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for done in range(0, end, len(block)):
            file.write(block[: end - done])
    (folder / "config.json").write_text(json.dumps(config_to(config, dtype=torch.bfloat16)))


def touch(tensors: Iterable[Tensor]) -> None:
    """Reads every byte once."""
    for tensor in tensors:
        tensor.detach().view(torch.int64).sum()


@torch.no_grad()
def first_token(model: torch.nn.Module) -> None:
    model(torch.zeros(1, 1, dtype=torch.int64))


def ours(
    folder: Path, then: Callable[[torch.nn.Module], object] | None = None,
    dtype: torch.dtype | None = None
) -> None:
    model = build(open_checkpoint(folder), dtype=dtype)
    if then is not None:
        then(model)


def theirs(
    folder: Path, then: Callable[[Iterable[Tensor]], object] | None = None,
    dtype: torch.dtype | None = None
) -> None:
    tensors = load_file(folder / "model.safetensors")
    if dtype is not None:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    if then is not None:
        then(tensors.values())


def transformers_model(folder: Path) -> None:
    first_token(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16))


def rows_of(folder: Path, n_rounds: int) -> list[dict]:
    races = {
        "opened": {"ours": partial(ours, folder), "load_file": partial(theirs, folder)},
        "opened, then every byte read once": {
            "ours": partial(ours, folder, lambda model: touch(model.parameters())),
            "load_file": partial(theirs, folder, touch)},
        "as float32": {
            "ours": partial(ours, folder, dtype=torch.float32),
            "load_file": partial(theirs, folder, dtype=torch.float32)},
        "opened, then the first token": {
            "ours": partial(ours, folder, first_token),
            "transformers": partial(transformers_model, folder)},
    }
    rows = []
    for what, contestants in races.items():
        times = race(contestants, n_rounds=n_rounds, clock=time.process_time)
        other = next(name for name in contestants if name != "ours")
        rows.append({"what": what, "rounds": n_rounds, "against": other,
                     "ratio": round(ratio(times, "ours", other), 3),
                     "processor_s": {name: round(statistics.median(seconds), 4)
                                     for name, seconds in times.items()}})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="keep the 2.5 GB there (default: a temporary "
                                                    "folder)")
    args = parser.parse_args()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(folder)
        n_bytes = (folder / "model.safetensors").stat().st_size
        rows = rows_of(folder, args.rounds)
    write("load",
          {"model": MODEL, "n_bytes": n_bytes, "n_threads": 1, "clock": "processor", "rows": rows},
          packages=("torch", "safetensors", "transformers"))
    for row in rows:
        seconds = "  ".join(f"{name} {value:.3f} s" for name, value in row["processor_s"].items())
        print(f"{row['what']:<36} {seconds:<44} {row['ratio']:.2f} x as long")


if __name__ == "__main__":
    main()
