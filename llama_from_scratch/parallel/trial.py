"""What `python3 start.py gpu` does with many ranks: checks every strategy, then times training.

torchrun starts one rank on each GPU of the machine, also on a single one. First, steps of a tiny
model on a mesh are compared with the same steps on one GPU alone. Then a model with the shape of
Llama 3.2 1B trains in bfloat16, with this library's code and with PyTorch's, and the table gives
tokens per second and MFU: the share of the GPU's peak that the model's own operations used.

Notebook 42. MFU: PaLM, arXiv:2204.02311, appendix B; backward counts twice forward.
"""

import argparse
import datetime
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch import family
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.files import replacing_file
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import torchrun
from llama_from_scratch.parallel.fresh import fresh_weights
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.native import shard_natively
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.parallel.training import ModelOnMesh, rows_of
from llama_from_scratch.parallel.world import World
from llama_from_scratch.train.data import Batch
from llama_from_scratch.train.loop import gradients

PART = "parallel"   # its name in `start.py gpu --only`
ENGINES: dict[str, Callable[..., ModelOnMesh]] = {"own": shard, "native": shard_natively}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Operations per second in bfloat16 without sparsity, by the maker's data sheets."""
TOLERANCE = 1e-4  # of fp32, relative to the largest gradient


def batch_of(config: LlamaConfig, *, n_rows: int, seq_len: int, seed: int = 0) -> Batch:
    """Returns a batch of random ids."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, config.vocab_size, (n_rows, seq_len), generator=draw)
    return Batch(ids=ids, targets=ids.roll(-1, dims=1), documents=torch.zeros_like(ids),
                 positions=torch.arange(seq_len).expand(n_rows, seq_len).contiguous())


def checks(world: World) -> list[dict[str, Any]]:
    """Returns a row for each engine, stage and mesh: the largest difference from one rank alone."""
    config, found = family.tiny("llama-3"), []
    batch = batch_of(config, n_rows=2 * world.size, seq_len=32)
    alone = _whole(config).to(world.device)
    gradients(alone, batch)
    known = {name: p.grad for name, p in alone.named_parameters()}
    largest = max(float(grad.abs().max()) for grad in known.values())
    for engine, stage, sizes in _cases(world.size):
        sharded = ENGINES[engine](_whole(config).to(world.device), Mesh(**sizes).on(world),
                                  stage=stage)
        step(sharded, batch)
        grads = dict(sharded.whole({name: p.grad for name, p in sharded.params.items()}))
        worst = max(float((grads[name] - known[name]).abs().max()) for name in known)
        found.append({"engine": engine, "stage": stage, "mesh": str(Mesh(**sizes)),
                      "error": worst / largest, "is_right": worst / largest < TOLERANCE})
    return found


def _cases(n_ranks: int) -> Iterator[tuple[str, int, dict[str, int]]]:
    for engine, stages in (("own", (0, 1, 2, 3)), ("native", (0, 2, 3))):
        for stage in stages:
            yield engine, stage, dict(dp=n_ranks)
        if n_ranks % 2 == 0:
            yield engine, 3, dict(dp=n_ranks // 2, tp=2)


def _whole(config: LlamaConfig) -> Llama:
    torch.manual_seed(0)
    return Llama(config)


def step(sharded: ModelOnMesh, batch: Batch, *, is_bf16: bool = False) -> None:
    """One forward and backward pass of this rank's rows, up to complete gradients."""
    mine = rows_of(batch, sharded.axes.data).to(sharded.axes.world.device)
    with sharded.micro_batch(is_last=True):
        (sharded.loss(sharded.model, mine, is_bf16=is_bf16) / batch.n_targets).backward()
    sharded.finish_gradients()


def throughput(
    world: World, config: LlamaConfig, *, rows_per_rank: int, seq_len: int, n_steps: int
) -> list[dict[str, Any]]:
    """Returns a row for each engine: tokens per second and rank, MFU, and memory in GiB.

    ZeRO 3 over all ranks, weights gathered in bfloat16, one update per step.
    """
    found = []
    batch = batch_of(config, n_rows=rows_per_rank * world.size, seq_len=seq_len)
    for engine in ENGINES:
        if world.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        sharded = ENGINES[engine](
            unwritten(config), Mesh(dp=world.size).on(world), stage=3,
            param_dtype=torch.bfloat16, weights=fresh_weights(config, seed=0))
        optimizer = torch.optim.AdamW(sharded.params.values(), lr=1e-4)
        times = []
        for _ in range(n_steps + 3):
            world.barrier()
            began = time.perf_counter()
            step(sharded, batch)
            sharded.clip(1.0)
            optimizer.step()
            optimizer.zero_grad()
            sharded.after_step()
            _wait(world)
            times.append(time.perf_counter() - began)
        took = statistics.median(times[3:])
        per_s = rows_per_rank * seq_len / took
        found.append({"engine": engine, "ms_per_step": 1000 * took, "tokens_per_s_and_rank": per_s,
                      "mfu": _mfu(config, per_s, seq_len, world), "memory_gib": _memory(world)})
        del sharded, optimizer
    return found


def _wait(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize()


def _memory(world: World) -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if world.device.type == "cuda" else None


def _mfu(config: LlamaConfig, tokens_per_s: float, seq_len: int, world: World) -> float | None:
    """Returns the share of the peak, None for a device whose peak is not listed."""
    name = torch.cuda.get_device_name() if world.device.type == "cuda" else ""
    peak = next((peak for known, peak in PEAKS.items() if known in name), None)
    # A token sees half of the window on average.
    operations = 3 * config.flops_per_token(context=seq_len // 2)
    return None if peak is None else tokens_per_s * operations / peak


def on_this_rank(out: Path, *, is_short: bool) -> int:
    """Checks and times on every rank; rank 0 writes `gpu-parallel-<device>.json`."""
    with torchrun.from_environment(device="cuda") as world:
        about = {"device": torch.cuda.get_device_name(), "n_ranks": world.size,
                 "date": datetime.date.today().isoformat(), "torch": torch.__version__,
                 "python": platform.python_version()}
        results: dict[str, Any] = {"machine": about, "checks": checks(world)}
        if not is_short:
            results["throughput"] = throughput(world, family.config("llama-3.2-1b"),
                                               rows_per_rank=4, seq_len=2048, n_steps=10)
        wrong = [row for row in results["checks"] if not row["is_right"]]
        if world.rank == 0:
            name = re.sub(r"[^a-z0-9]+", "-", about["device"].lower())
            path = out / f"gpu-parallel-{name}.json"
            with replacing_file(path) as unfinished:
                unfinished.write_text(json.dumps(results, indent=1))
            print(f"{len(results['checks'])} checks on {world.size} ranks, {len(wrong)} wrong")
            for row in (*wrong, *results.get("throughput", [])):
                print(row)
            print(f"written to {path}", flush=True)
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Starts one rank per GPU. Returns 0 if all is right, 1 if not, 2 without a GPU."""
    parser = argparse.ArgumentParser(description="Checks and times training on this machine's GPUs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--no-bench", action="store_true", help="only check")
    parser.add_argument("--only", metavar="PART[,PART]",
                        help=f"do nothing unless {PART} is one of these parts of the whole trial")
    parser.add_argument("--minutes", type=float,
                        help="limits the parts that run before this one; this one has no limit")
    options = parser.parse_args(arguments)
    if options.only is not None and PART not in map(str.strip, options.only.split(",")):
        return 0
    if torchrun.is_started():
        return on_this_rank(options.out, is_short=options.no_bench)
    if not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} finds no CUDA device here, so no training was checked "
              "or timed.", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
         str(torch.cuda.device_count()), "-m", "llama_from_scratch.parallel.trial",
         *(sys.argv[1:] if arguments is None else map(str, arguments))]).returncode


if __name__ == "__main__":
    sys.exit(main())
