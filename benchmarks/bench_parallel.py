"""Measures what ranks on this machine cost: their start, the log, and the debug mode.

A step of data parallel is measured against the same step with PyTorch's DDP, and one with ZeRO 3
against `fully_shard`, on equal ranks. A save that goes on while the ranks train is measured against
one that they wait for. Of context parallel, the ring is measured against gathered keys and values,
in time and in the bytes that the log shows, at two lengths.
The log is measured on whole training steps with ZeRO 3, which has the most collectives per step, in
processor seconds of rank 0. Steps with and without it take turns on the same ranks. The debug mode
is measured on a collective of 4 bytes, in milliseconds, against the same without it.

    python benchmarks/bench_parallel.py

It prints the table and writes benchmarks/results/parallel.json.
"""

import argparse
import os
import statistics
import tempfile
import time
from functools import partial

os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts its threads

import cloudpickle
import measure
import torch
from measure import race, ratio, write
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import comm, trial
from llama_from_scratch.parallel.context import STYLES, ContextParallel
from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.parallel.launch import Ranks, launch
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.saving import Saver
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.parallel.sharded import Sharded
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer

MODEL = "llama-3"
N_ROWS, SEQ_LEN = 4, 128
SAVED_BYTES = 64 << 20
CONTEXTS = (512, 2048)
"""Tokens of a row that context parallel cuts."""


def nothing(world) -> None:
    """What is launched when only the launch is measured."""


def start_times(n_ranks: int, n_rounds: int) -> dict:
    """Returns the seconds of the first launch of this process and of the next ones."""
    began = time.perf_counter()
    launch(nothing, n_ranks)
    first = time.perf_counter() - began
    later = race({"launch": partial(launch, nothing, n_ranks)}, n_rounds=n_rounds)["launch"]
    return {"what": f"launch of {n_ranks} ranks", "rounds": n_rounds, "first_s": round(first, 3),
            "later_s": round(statistics.median(later), 3)}


def silent_wait(self) -> torch.Tensor:
    """`Pending.wait` without the log."""
    if self._about and self._work is not None:
        self._work.wait()
    self._about = {}
    return self._result


def steps_with_and_without_log(world, n_rounds: int) -> dict[str, list[float]]:
    """Returns the processor seconds of this rank's steps of each kind."""
    config = family.tiny(MODEL)
    torch.manual_seed(0)
    sharded = shard(Llama(config), Mesh(dp=world.size).on(world), stage=3)
    batch = trial.batch_of(config, n_rows=N_ROWS * world.size, seq_len=SEQ_LEN)
    logged_wait = comm.Pending.wait

    def step(wait) -> None:
        comm.Pending.wait = wait
        trial.step(sharded, batch)
        for p in sharded.params.values():
            p.grad = None
        sharded.after_step()

    return race({"with": partial(step, logged_wait), "without": partial(step, silent_wait)},
                n_rounds=n_rounds, n_warmup=5, clock=time.process_time)


def steps_of_ours_and_of_pytorch(world, n_rounds: int, clock: str) -> dict[str, list[float]]:
    """Returns the seconds of this rank's steps with ZeRO 3, ours and `fully_shard`, with SGD."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    config = family.tiny(MODEL)
    mine, theirs = Llama(config), Llama(config)
    sharded = Sharded(mine, world, stage=3)
    mesh = init_device_mesh("cpu", (world.size,))
    for block in theirs.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(theirs, mesh=mesh)
    of_mine, of_theirs = (torch.optim.SGD(list(params), lr=0.1)
                          for params in (sharded.params.values(), theirs.parameters()))
    ids = torch.randint(0, config.vocab_size, (N_ROWS, SEQ_LEN))

    def loss(model):
        return F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())

    def ours():
        with sharded.micro_batch(is_last=True):
            loss(mine).backward()
        sharded.finish()
        of_mine.step()
        of_mine.zero_grad()
        sharded.after_step()
        world.barrier()

    def pytorchs():
        loss(theirs).backward()
        of_theirs.step()
        of_theirs.zero_grad()
        world.barrier()

    return race({"ours": ours, "fully_shard": pytorchs}, n_rounds=n_rounds, n_warmup=5,
                clock=getattr(time, clock))


def steps_of_ours_and_of_ddp(world, n_rounds: int, clock: str) -> dict[str, list[float]]:
    """Returns the seconds of this rank's steps of data parallel, ours and PyTorch's, with SGD.

    Both have buckets of 100 KB, so that this small model has several.
    """
    from torch.nn.parallel import DistributedDataParallel

    config = family.tiny(MODEL)
    mine, theirs = Llama(config), Llama(config)
    shared = DataParallel(mine, world, bucket_bytes=100_000)
    ddp = DistributedDataParallel(theirs, process_group=world.process_group, bucket_cap_mb=0.1)
    of_mine, of_theirs = (torch.optim.SGD(model.parameters(), lr=0.1) for model in (mine, theirs))
    ids = torch.randint(0, config.vocab_size, (N_ROWS, SEQ_LEN))

    def loss(model):
        return F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())

    def ours():
        with shared.micro_batch(is_last=True):
            (loss(mine) / world.size).backward()
        shared.finish()
        of_mine.step()
        of_mine.zero_grad()
        world.barrier()

    def pytorchs():
        loss(ddp).backward()
        of_theirs.step()
        of_theirs.zero_grad()
        world.barrier()

    return race({"ours": ours, "DDP": pytorchs}, n_rounds=n_rounds, n_warmup=5,
                clock=getattr(time, clock))


def passes_of_both_styles(
    world, n_rounds: int, seq_len: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Returns the seconds of forward and backward in each style, and the bytes that a rank sends.

    One row of `seq_len` tokens, which is one document.
    """
    config = family.tiny(MODEL)
    batch = trial.batch_of(config, n_rows=1, seq_len=seq_len)
    models = {style: Llama(config) for style in STYLES}
    own = {style: ContextParallel(model, world, style=style).tokens_of(batch)
           for style, model in models.items()}

    def one_pass(style: str) -> None:
        logits = own[style].logits(models[style])
        F.cross_entropy(logits.flatten(0, 1), own[style].targets.flatten()).backward()
        world.barrier()

    sent = {}
    for style in STYLES:
        world.log.clear()
        one_pass(style)
        sent[style] = int(world.log.sent_bytes())
    return race({style: partial(one_pass, style) for style in STYLES}, n_rounds=n_rounds,
                n_warmup=2), sent


def ring_against_gather(n_ranks: int, n_rounds: int) -> list[dict]:
    """Returns a row for each length of a pass with context parallel on this many ranks."""
    rows = []
    with Ranks(n_ranks, timeout_s=600.0) as ranks:
        for seq_len in CONTEXTS:
            times, sent = ranks.run(passes_of_both_styles, n_rounds, seq_len)[0]
            rows.append({
                "what": f"pass over {seq_len} tokens on {n_ranks} ranks, ring against gather",
                "rounds": n_rounds, "ratio": round(ratio(times, "ring", "gather"), 3),
                "sent_bytes": sent})
    return rows


def tiny_collectives(world, n_rounds: int) -> list[float]:
    """Returns the seconds of collectives of 4 bytes."""
    x = torch.zeros(1)
    return race({"x": partial(world.all_reduce, x)}, n_rounds=n_rounds, n_warmup=10)["x"]


def stalls_of_saves(world, folder: str, n_rounds: int) -> dict[str, list[float]]:
    """Returns the seconds until `save` returns, and until its checkpoint is on the disk.

    A training that saves asynchronously waits for the first, and a synchronous one for both. Every
    rank has 16 tensors of 4 MB.
    """
    n = SAVED_BYTES // 16 // 4
    pieces = {f"model.{i}": (torch.full((n,), float(i)), Region.whole((world.size, n)).span(
        world.rank * n, n)) for i in range(16)}
    config = family.tiny(MODEL)
    tokenizer = Tokenizer.train("", 258, special_tokens=BEGIN_AND_END)
    saver, times = Saver(world), {"asynchronous": [], "synchronous": []}
    for number in range(n_rounds + 1):
        world.barrier()
        began = time.perf_counter()
        saver.save(folder, pieces, describe=partial(
            native.write_description, model=unwritten(config), tokenizer=tokenizer))
        returned = time.perf_counter()
        saver.wait()
        if number:  # the first one makes the buffers
            times["asynchronous"].append(returned - began)
            times["synchronous"].append(time.perf_counter() - began)
    return times


def row_of_saves(n_ranks: int, n_rounds: int) -> dict:
    """Returns the row of asynchronous saves on this many ranks."""
    with tempfile.TemporaryDirectory() as folder, Ranks(n_ranks, timeout_s=600.0) as ranks:
        times = ranks.run(stalls_of_saves, f"{folder}/run", n_rounds)[0]
    return {"what": f"stall of an asynchronous save on {n_ranks} ranks, against a synchronous one",
            "rounds": n_rounds, "megabytes_per_rank": SAVED_BYTES >> 20,
            "ratio": round(ratio(times, "asynchronous", "synchronous"), 4),
            "milliseconds": {name: round(1e3 * statistics.median(seconds), 1)
                             for name, seconds in times.items()}}


def against_ddp(n_ranks: int, n_rounds: int) -> dict:
    """Returns the row of a step of data parallel on this many ranks."""
    with Ranks(n_ranks, timeout_s=600.0) as ranks:
        times = {clock: ranks.run(steps_of_ours_and_of_ddp, n_rounds, clock)[0]
                 for clock in ("perf_counter", "process_time")}
    return {"what": f"step of data parallel on {n_ranks} ranks, ours against DDP",
            "rounds": n_rounds, "ratio": round(ratio(times["perf_counter"], "ours", "DDP"), 3),
            "processor_ratio": round(ratio(times["process_time"], "ours", "DDP"), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    cloudpickle.register_pickle_by_value(measure)
    start = start_times(4, n_rounds=15)
    with Ranks(2, timeout_s=600.0) as ranks:
        times = ranks.run(steps_with_and_without_log, args.rounds)[0]
        plain = ranks.run(tiny_collectives, args.rounds)[0]
        zero = {clock: ranks.run(steps_of_ours_and_of_pytorch, args.rounds // 2, clock)[0]
                for clock in ("perf_counter", "process_time")}
    data = [against_ddp(n_ranks, args.rounds // 2) for n_ranks in (2, 4)]
    saves = row_of_saves(2, n_rounds=15)
    contexts = [row for n_ranks in (2, 4)
                for row in ring_against_gather(n_ranks, max(args.rounds // 10, 1))]
    with Ranks(2, timeout_s=600.0, is_debug=True) as ranks:
        checked = ranks.run(tiny_collectives, args.rounds)[0]
    log = {"what": "training step with the log, against without", "rounds": args.rounds,
           "ratio": round(ratio(times, "with", "without"), 4),
           "processor_ms": {name: round(1e3 * statistics.median(seconds), 3)
                            for name, seconds in times.items()}}
    debug = {"what": "collective of 4 bytes in debug mode, against without", "rounds": args.rounds,
             "ratio": round(statistics.median(checked) / statistics.median(plain), 1),
             "milliseconds": {name: round(1e3 * statistics.median(seconds), 3)
                              for name, seconds in (("debug", checked), ("plain", plain))}}
    twin = {"what": "step with ZeRO 3, ours against fully_shard", "rounds": args.rounds // 2,
            "ratio": round(ratio(zero["perf_counter"], "ours", "fully_shard"), 3),
            "processor_ratio": round(ratio(zero["process_time"], "ours", "fully_shard"), 3)}
    write("parallel", {"model": f"tiny {MODEL}", "n_rows": N_ROWS, "seq_len": SEQ_LEN,
                       "rows": [start, log, debug, *data, twin, *contexts, saves]},
          packages=("torch", "cloudpickle"))
    print(f"{start['what']:<56} first {start['first_s']} s, then {start['later_s']} s")
    for row in (log, debug, *data, twin, *contexts, saves):
        print(f"{row['what']:<56} {row['ratio']} x")


if __name__ == "__main__":
    main()
