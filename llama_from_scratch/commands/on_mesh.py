"""`llama train --mesh`: the processes of a training, one or many.

Every process runs the same command. Rank 0 prints, writes the files, and makes what is made once.
"""

import argparse
import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_from_scratch.commands.numbers import whole

if TYPE_CHECKING:
    from torch import Tensor

    from llama_from_scratch.config import LlamaConfig
    from llama_from_scratch.model.transformer import Llama
    from llama_from_scratch.parallel.mesh import Axes
    from llama_from_scratch.parallel.pipeline.plan import PipelinePlan
    from llama_from_scratch.train.parts import TrainParts
    from llama_from_scratch.train.records import TrainConfig

Made = TypeVar("Made")
Weights = Callable[[], "Iterable[tuple[str, Tensor]]"]
"""A function that returns whole weights by name, one after the other."""
_ONLY_ON_MESH = dict(zero="--zero", engine="--engine", sequence_parallel="--sequence-parallel",
                     context_parallel="--context-parallel",
                     sharded_checkpoints="--sharded-checkpoints", schedule="--schedule",
                     chunks="--chunks", together="--together", recompute="--recompute")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of a training on several processes."""
    parser.add_argument("--mesh", metavar="AXES",
                        help="train on many GPUs or processes, such as dp=8,tp=2: dp ranks read "
                        "different rows, tp ranks divide each matrix, cp ranks the tokens of a "
                        "row, pp ranks the layers, ep ranks the experts. torchrun starts a process "
                        "for each: torchrun --nproc-per-node 16 -m llama_from_scratch train --mesh "
                        "dp=8,tp=2")
    parser.add_argument("--zero", type=int, choices=range(4), metavar="STAGE",
                        help="what the dp ranks divide: 0 nothing, 1 the optimizer's averages, 2 "
                        "the gradients too, 3 the weights too (default 0)")
    parser.add_argument("--engine", choices=("own", "native"),
                        help="own: the course's code; native: PyTorch's DDP, fully_shard and "
                        "DTensor (default own)")
    parser.add_argument("--sequence-parallel", action="store_true", default=None,
                        help="the tp ranks also divide the tokens between the matrices")
    parser.add_argument("--context-parallel", choices=("gather", "ring"),
                        help="how attention reaches the tokens of other cp ranks: it gathers all "
                        "keys and values, or they travel from rank to rank (default gather)")
    parser.add_argument("--sharded-checkpoints", action="store_true", default=None,
                        help="every process saves its own part of a checkpoint, while the training "
                        "goes on; any mesh can resume from it, and so can one process")
    parser.add_argument("--schedule", metavar="NAME",
                        help="the order of the passes along pp: gpipe, 1f1b, interleaved or "
                        "zero_bubble (default 1f1b)")
    parser.add_argument("--chunks", type=whole(), metavar="V",
                        help="with interleaved: the pieces of the model on each pp rank "
                        "(default 2)")
    parser.add_argument("--together", type=whole(), metavar="N",
                        help="with interleaved: the micro-batches that a rank does with one piece "
                        "before the next (default: the number of pp ranks)")
    parser.add_argument("--recompute", action="store_true", default=None,
                        help="pp ranks keep only what they receive, and compute their layers again "
                        "in backward: less memory, more time")


@contextlib.contextmanager
def processes(args: argparse.Namespace) -> Iterator["OneProcess | MeshProcess"]:
    """Yields this process of a training. Raises ValueError if the mesh does not fit what runs."""
    from llama_from_scratch.parallel import torchrun
    from llama_from_scratch.parallel.mesh import Mesh

    if args.mesh is None:
        if given := [flag for name, flag in _ONLY_ON_MESH.items() if getattr(args, name)]:
            raise ValueError("only a training on several processes takes "
                             f"{' and '.join(given)}. Say how they share the model with --mesh, "
                             "such as --mesh dp=8")
        if torchrun.is_started() and torchrun.read_place(os.environ).size > 1:
            raise ValueError("torchrun has started several processes, and each would train the "
                             "same model. Say how they share it with --mesh, such as --mesh dp=8")
        yield OneProcess()
        return
    mesh, plan = Mesh.parse(args.mesh), _plan_of(args)
    if not torchrun.is_started():
        raise ValueError(f"--mesh {mesh} needs {mesh.size} processes, and this is one alone. Start "
                         f"them with torchrun --nproc-per-node {mesh.size} -m llama_from_scratch "
                         "train ...")
    device = (args.device or "cpu").partition(":")[0]
    with torchrun.from_environment(device=device) as world:
        yield MeshProcess(
            mesh.on(world), engine=args.engine or "own",
            saves_in_parts=bool(args.sharded_checkpoints),
            how=dict(stage=args.zero or 0, pipeline=plan, context=args.context_parallel or "gather",
                     is_sequence_parallel=bool(args.sequence_parallel)))


def _plan_of(args: argparse.Namespace) -> "PipelinePlan | None":
    """Returns the choices for ranks along pp, None without any. Raises ValueError."""
    from llama_from_scratch.parallel.pipeline.plan import PipelinePlan

    if not any((args.schedule, args.chunks, args.together, args.recompute)):
        return None
    schedule = args.schedule or "1f1b"
    return PipelinePlan(schedule=schedule, recomputes=bool(args.recompute),
                        n_chunks=args.chunks or (2 if schedule == "interleaved" else 1),
                        n_together=args.together)


class OneProcess:
    """The only process of a training.

    `is_first`: whether this process prints and writes the files. `can_write_text`: whether the
    model can generate while it trains. `can_fuse`: whether kernels can replace parts of the model.
    """

    is_first = True
    can_write_text = True
    can_fuse = True

    def say(self, text: str, **how: Any) -> None:
        """Prints on the first process."""
        print(text, flush=True, **how)

    def once(self, make: Callable[[], Made]) -> Made:
        """Returns what the first process has made."""
        return make()

    def hold(self, folder: Path) -> contextlib.AbstractContextManager[Path]:
        """A context in which no other training writes to the folder; yields its true path."""
        from llama_from_scratch.checkpoint.folders import held

        return held(folder)

    def n_own(self, n_params: int) -> int:
        """Returns how many of this number of parameters one process holds."""
        return n_params

    def refuse_unfit(self, sizes: "LlamaConfig", config: "TrainConfig") -> None:
        """Raises ValueError if the processes cannot share this model and these batches."""

    def device(self, name: str) -> str:
        """Returns the device of this process. Raises ValueError if it cannot be used."""
        from llama_from_scratch.commands.device import usable_device

        return usable_device(name)

    def model(
        self, config: "LlamaConfig", *, plain: Callable[[], "Llama"], weights: Weights
    ) -> "tuple[Llama, TrainParts | None]":
        """Returns the model and the parts of its training. `plain` makes it whole in one process.
        """
        return plain(), None


class MeshProcess(OneProcess):
    """One rank of a mesh, started by torchrun."""

    can_fuse = False

    def __init__(
        self, axes: "Axes", *, engine: str, saves_in_parts: bool, how: Mapping[str, Any]
    ) -> None:
        """`how`: the arguments of `shard` and `shard_natively`."""
        self._axes, self._engine, self._how = axes, engine, how
        self._stage, self._saves_in_parts = how["stage"], saves_in_parts
        self.is_first = axes.world.rank == 0
        # PyTorch's plan for tp gives logits in slices, from which no token can be drawn. Ranks
        # along pp and cp only compute losses together.
        self.can_write_text = (engine == "own" or axes.mesh.tp == 1) and (
            axes.mesh.pp == axes.mesh.cp == 1)

    def say(self, text: str, **how: Any) -> None:
        if self.is_first:
            super().say(text, **how)

    def once(self, make: Callable[[], Made]) -> Made:
        return self._axes.world.gather_objects(make() if self.is_first else None)[0]

    @contextlib.contextmanager
    def hold(self, folder: Path) -> Iterator[Path]:
        from llama_from_scratch.parallel.together import together

        with contextlib.ExitStack() as stack:
            # Rank 0 tries a rename, so no rank reads before it is done.
            place, *_ = together(self._axes.world, lambda: stack.enter_context(
                OneProcess.hold(self, folder)) if self.is_first else None)
            yield place

    def n_own(self, n_params: int) -> int:
        mesh = self._axes.mesh
        return math.ceil(n_params / mesh.tp / mesh.pp / (
            mesh.cp * mesh.dp if self._stage == 3 else 1))

    def refuse_unfit(self, sizes: "LlamaConfig", config: "TrainConfig") -> None:
        from llama_from_scratch.parallel.fits import refuse_unfit

        refuse_unfit(sizes, self._axes.mesh, batch_size=config.batch_size, seq_len=config.seq_len,
                     micro_batch_size=config.micro_batch_size, pipeline=self._how["pipeline"])

    def device(self, name: str) -> str:
        return str(self._axes.world.device)

    def model(
        self, config: "LlamaConfig", *, plain: Callable[[], "Llama"], weights: Weights
    ) -> "tuple[Llama, TrainParts]":
        """Returns the model and the parts of its training; no process ever holds all of it."""
        from llama_from_scratch.model.unwritten import unwritten
        from llama_from_scratch.parallel.native import shard_natively
        from llama_from_scratch.parallel.saving import Saver
        from llama_from_scratch.parallel.shard import shard
        from llama_from_scratch.parallel.training import parts_on

        engine = dict(own=shard, native=shard_natively)[self._engine]
        sharded = engine(unwritten(config), self._axes, weights=weights(), **self._how)
        self.say(f"{self._axes.world.size} ranks, mesh {self._axes.mesh}, ZeRO stage "
                 f"{self._stage}, engine {self._engine}")
        saver = Saver(self._axes.world) if self._saves_in_parts else None
        return sharded.model, parts_on(sharded, saver=saver)
