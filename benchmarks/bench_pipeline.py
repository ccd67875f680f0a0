"""Measures a step through a pipeline, ours against `torch.distributed.pipelining`.

Both run the same schedule on the same two ranks with the same model and batch, and take turns. A
step is forward and backward of all micro-batches and complete gradients. The ratio of the wall
clock is the one that counts; processor seconds are given, too, because this machine is shared.

    python benchmarks/bench_pipeline.py

It prints the table and writes benchmarks/results/pipeline.json.
"""

import argparse
import dataclasses
import os
import statistics
import time
from functools import partial

os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts its threads

import cloudpickle
import measure
import torch
from measure import race, ratio, write

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel import trial
from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.native import shard_natively
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.train.parts import TrainParts

MODEL, N_LAYERS = "llama-3", 6
N_ROWS, SEQ_LEN = 8, 64
PLANS = {"gpipe": PipelinePlan(schedule="gpipe"), "1f1b": PipelinePlan(),
         "interleaved, 2 chunks": PipelinePlan(schedule="interleaved", n_chunks=2),
         "zero bubble": PipelinePlan(schedule="zero_bubble")}


def steps_of_both(world, plan: PipelinePlan, n_rounds: int, clock: str) -> dict[str, list[float]]:
    """Returns the seconds of this rank's steps, ours and PyTorch's."""
    tiny = family.tiny(MODEL)
    config = dataclasses.replace(tiny, layers=tiny.layers[:1] * N_LAYERS)
    batch = trial.batch_of(config, n_rows=N_ROWS, seq_len=SEQ_LEN)

    def steps(engine):
        torch.manual_seed(0)
        sharded = engine(Llama(config), Mesh(pp=world.size).on(world), pipeline=plan)
        parts = dataclasses.replace(TrainParts(), loss=sharded.loss,
                                    micro_batch=sharded.micro_batch)

        def step():
            sharded.accumulate(sharded.model, batch.split(1), parts, n_targets=batch.n_targets)
            sharded.finish_gradients()
            for p in sharded.params.values():
                p.grad = None
            sharded.after_step()
            world.barrier()

        return step

    return race({"ours": steps(shard), "pytorch": steps(shard_natively)}, n_rounds=n_rounds,
                n_warmup=5, clock=getattr(time, clock))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    cloudpickle.register_pickle_by_value(measure)
    rows = []
    for name, plan in PLANS.items():
        with Ranks(2, timeout_s=600.0) as ranks:
            times = {clock: ranks.run(partial(steps_of_both), plan, args.rounds, clock)[0]
                     for clock in ("perf_counter", "process_time")}
        rows.append({
            "what": f"step of {name} on 2 ranks, ours against torch.distributed.pipelining",
            "rounds": args.rounds, "ratio": round(ratio(times["perf_counter"], "ours", "pytorch"),
                                                  3),
            "processor_ratio": round(ratio(times["process_time"], "ours", "pytorch"), 3),
            "milliseconds": {who: round(1e3 * statistics.median(seconds), 2)
                             for who, seconds in times["perf_counter"].items()}})
        print(f"{name:<24} {rows[-1]['ratio']} x (processor {rows[-1]['processor_ratio']} x), "
              f"{rows[-1]['milliseconds']}", flush=True)
    write("pipeline", {"model": f"tiny {MODEL}, {N_LAYERS} layers", "n_rows": N_ROWS,
                       "seq_len": SEQ_LEN, "rows": rows}, packages=("torch", "cloudpickle"))


if __name__ == "__main__":
    main()
