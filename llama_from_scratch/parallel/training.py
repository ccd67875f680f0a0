"""The parts of a training step on a mesh: `train` runs on every rank, and nothing in it changes.

Every rank makes the same batch, from the same seed, and computes its rows of it. So the order of
the data does not depend on the number of ranks. The files of a checkpoint are the same as with one
process, because rank 0 writes them from whole tensors. With a `Saver`, every rank writes what it
holds, while training goes on. From both kinds a run may go on with another number of ranks.

Notebook 42.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.names import shapes
from llama_from_scratch.checkpoint.sharded import manifest
from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.checkpoint.sharded.saved import StateInPieces
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.context import padded, tokens_of
from llama_from_scratch.parallel.filling import fill_pieces
from llama_from_scratch.parallel.fits import refuse_unshared
from llama_from_scratch.parallel.mesh import Axes
from llama_from_scratch.parallel.saving import Pieces, SaveFailed, Saver
from llama_from_scratch.parallel.together import together
from llama_from_scratch.train import resume
from llama_from_scratch.train.data import Batch
from llama_from_scratch.train.optimizer import Group
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.protocols import Loss, Optimizer, StepBatch, Validation
from llama_from_scratch.train.records import Evaluation, Step, TrainConfig

_BY_MESH = ("share", "micro_batch", "accumulate", "reduce", "clip", "evaluate", "weights",
            "is_stopping", "begin", "save")


@runtime_checkable
class ModelOnMesh(Protocol):
    """What a step needs of a model on a mesh: `ShardedModel`, or `native.NativeModel`."""

    model: Llama
    axes: Axes

    @property
    def params(self) -> dict[str, nn.Parameter]: ...
    @property
    def weights(self) -> dict[str, nn.Parameter]: ...
    @property
    def regions(self) -> dict[str, Region]: ...
    @property
    def loss(self) -> Loss: ...
    def loss_by(self, loss: Loss) -> Loss: ...
    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]: ...
    def accumulate(self, model: Llama, micro_batches: Sequence[StepBatch], parts: TrainParts, *,
                   n_targets: int, is_bf16: bool = False) -> Tensor: ...
    def finish_gradients(self) -> None: ...
    def clip(self, max_norm: float) -> Tensor: ...
    def after_step(self) -> None: ...
    def fill(self, weights: Iterable[tuple[str, Tensor]]) -> None: ...
    def after_fill(self) -> None: ...
    def piece(self, name: str, whole: Tensor) -> Tensor: ...
    def whole(self, pieces: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]: ...


def parts_on(
    sharded: ModelOnMesh, parts: TrainParts | None = None, *, saver: Saver | None = None
) -> TrainParts:
    """Returns the parts of a step for this rank, with the reader's `parts` where they differ.

    The reader's may be `loss`, `make_optimizer`, `schedule` and `hold`. `saver`: saves checkpoints
    in parts; a save that fails raises SaveFailed on all ranks, in the next step. Without it, rank 0
    saves whole tensors, and all ranks wait. Raises ValueError for other parts of the reader and, in
    the first step, for a batch that the ranks cannot share evenly.
    """
    parts = TrainParts() if parts is None else parts
    _refuse_what_needs_all_ranks(parts)
    is_usual = parts.loss is TrainParts().loss
    axes, world = sharded.axes, sharded.axes.world

    def share(batch: StepBatch) -> StepBatch:
        return tokens_of(rows_of(batch, axes.data), axes.cp)

    def reduce(model: Llama, loss: Tensor) -> Tensor:
        sharded.finish_gradients()
        return total_of(loss, axes)

    def clip(parameters: object, *, max_norm: float) -> Tensor:
        return sharded.clip(max_norm)

    def make_optimizer(groups: Sequence[Group], config: TrainConfig) -> Optimizer:
        own = [dataclasses.replace(group, params={
            name: sharded.params[name] for name in group.params if name in sharded.params})
            for group in groups]
        return SteppedTogether(parts.make_optimizer([group for group in own if group.params],
                                                    config), sharded)

    def is_stopping(is_interrupted: bool) -> bool:
        has_failed = saver is not None and saver.has_failed
        asked = torch.tensor([int(is_interrupted), int(has_failed)], device=world.device)
        is_asked, is_failed = world.all_reduce(asked, op="max", note="stop?").tolist()
        if is_failed:
            saver.wait()
            raise SaveFailed("a checkpoint was not saved, and the one before it is unchanged; "
                             "another rank has the reason. Remove the cause, and resume")
        return bool(is_asked)

    def begin(run: resume.OngoingRun, folder: str | Path | None, *, is_resumed: bool) -> list[Step]:
        described = dataclasses.replace(run, model=unwritten(run.model.config))

        def put_back(_, folder: str | Path, state: Mapping[str, Tensor]) -> None:
            if isinstance(state, StateInPieces):
                own, pieces = _in_pieces(sharded, run.optimizer)
                fill_pieces(pieces, state.saved, world)
                sharded.after_fill()
                run.optimizer.load_state_dict(own)
            else:
                sharded.fill(saved_weights(folder))
                run.optimizer.load_whole(state)

        return resume.begin(described, folder, is_resumed=is_resumed, put_back=put_back)

    def save(folder: str | Path, run: resume.OngoingRun, *, steps: Sequence[Step]) -> None:
        if saver is not None:
            plain, record = unwritten(run.model.config), resume.record_of(run, steps)

            def describe(folder: Path) -> None:
                (folder / "training.json").write_text(record, encoding="utf-8")
                native.write_description(folder, plain, tokenizer=run.data.tokenizer)

            saver.save(folder, _in_pieces(sharded, run.optimizer)[1], describe=describe)
            return
        whole = gathered(sharded, run.optimizer, is_kept=world.rank == 0)
        if whole is not None:
            plain, state = whole
            resume.save(folder, dataclasses.replace(run, model=plain, optimizer=state),
                        steps=steps)

    def evaluate(model: Llama, data: Validation, **how) -> Evaluation:
        return evaluate_together(model, data, axes.data, loss=of_whole_rows(sharded.loss, axes.cp),
                                 **how)

    @contextlib.contextmanager
    def hold(folder: str | Path) -> Iterator[Path]:
        with contextlib.ExitStack() as stack:
            # Rank 0 tries a rename, so no rank reads before it is done.
            place, *_ = together(world, lambda: None if world.rank else stack.enter_context(
                parts.hold(folder)))
            stack.enter_context(waited_for(saver))
            yield place

    return dataclasses.replace(
        parts, share=share, micro_batch=sharded.micro_batch, accumulate=sharded.accumulate,
        reduce=reduce, clip=clip,
        loss=sharded.loss if is_usual else sharded.loss_by(parts.loss),
        make_optimizer=make_optimizer, evaluate=evaluate,
        weights=lambda model: sharded.weights.items(), is_stopping=is_stopping, begin=begin,
        save=save, hold=hold)


def total_of(loss: Tensor, axes: Axes) -> Tensor:
    """Returns the sum of what all ranks have computed of a loss; ranks along `tp` have the same."""
    total = axes.gradients.all_reduce(loss.clone(), note="loss")
    return axes.pp.all_reduce(total, note="loss")


def _refuse_what_needs_all_ranks(parts: TrainParts) -> None:
    usual = TrainParts()
    if own := [name for name in _BY_MESH if getattr(parts, name) is not getattr(usual, name)]:
        raise ValueError(f"on a mesh, parts_on makes {', '.join(_BY_MESH)}, because all ranks take "
                         f"part in them; got another {' and '.join(own)}. Change what parts_on "
                         f"returns instead: dataclasses.replace(parts_on(sharded), {own[0]}=...)")


def rows_of(batch: StepBatch, group: RankGroup) -> StepBatch:
    """Returns this rank's rows of a batch that all ranks of the group have.

    Raises ValueError if the number of ranks does not divide the number of rows.
    """
    refuse_unshared(len(batch.ids), n_ranks=group.size)
    return batch.split(len(batch.ids) // group.size)[group.rank]


class SteppedTogether:
    """An optimizer of this rank's pieces, after whose step all ranks compute with new weights."""

    def __init__(self, optimizer: Optimizer, sharded: ModelOnMesh) -> None:
        self._optimizer, self._sharded = optimizer, sharded

    def zero_grad(self) -> None:
        self._optimizer.zero_grad()

    def step(self, *, lr: float) -> None:
        self._optimizer.step(lr=lr)
        self._sharded.after_step()

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the state of this rank's pieces."""
        return self._optimizer.state_dict()

    def name_in(self, key: str) -> str | None:
        """Returns the parameter whose state an entry is; None for one that is not of a parameter.
        """
        return self._parts_of(key)[1]

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """Yields what `state_dict` would hold for the whole model. All ranks call it."""
        kinds: dict[str, dict[str, Tensor]] = {}
        for key, value in self.state_dict().items():
            kind, name = self._parts_of(key)
            if name is None:
                yield key, value
            else:
                kinds.setdefault(kind, {})[name] = value
        for kind, pieces in kinds.items():
            for name, tensor in self._sharded.whole(pieces):
                yield kind + name, tensor

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._optimizer.load_state_dict(state)

    def load_whole(self, state: Mapping[str, Tensor]) -> None:
        """Copies in this rank's pieces of a state of the whole model."""
        own = {}
        for key in self.state_dict():
            _, name = self._parts_of(key)
            own[key] = state[key] if name is None else self._sharded.piece(name, state[key])
        self._optimizer.load_state_dict(own)

    def _parts_of(self, key: str) -> tuple[str, str | None]:
        """Returns "mean." and "norm.weight" for "mean.norm.weight"; no name for other entries."""
        kind, dot, name = key.partition(".")
        if key in self._sharded.params:
            return "", key
        return (kind + dot, name) if name in self._sharded.params else (key, None)


class WholeState:
    """The state of an optimizer of the whole model, to be saved."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self._state = state

    def state_dict(self) -> dict[str, Tensor]:
        return self._state


def gathered(
    sharded: ModelOnMesh, optimizer: SteppedTogether, *, is_kept: bool
) -> tuple[Llama, WholeState] | None:
    """Returns the plain model and the optimizer's state, on ranks with `is_kept`; None on others.

    All ranks call it. Whole tensors are on the CPU; a rank that does not keep them has one at a
    time.
    """
    weights = _kept(sharded.whole(sharded.weights), is_kept)
    state = _kept(optimizer.whole_state(), is_kept)
    if not is_kept:
        return None
    model = unwritten(sharded.model.config)
    owners = dict(model.named_modules())
    for name, weight in weights.items():
        owner, _, leaf = name.rpartition(".")
        setattr(owners[owner], leaf, nn.Parameter(weight))
    if model.config.is_tied:
        model.output.weight = model.tok_embeddings.weight
    return model, WholeState(state)


def _kept(tensors: Iterator[tuple[str, Tensor]], is_kept: bool) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors:
        if is_kept:
            found[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return found


def saved_weights(folder: str | Path) -> Iterator[tuple[str, Tensor]]:
    """Yields the weights of a checkpoint in our format, one after the other."""
    yield from native.open_checkpoint(folder).tensors(None)


def _in_pieces(
    sharded: ModelOnMesh, optimizer: SteppedTogether
) -> tuple[dict[str, Tensor], Pieces]:
    """Returns the state of this rank's optimizer, and all that the rank holds as pieces."""
    regions, state = sharded.regions, optimizer.state_dict()
    pieces = {manifest.MODEL + name: (p.detach(), regions[name])
              for name, p in sharded.weights.items()}
    for key, value in state.items():
        name = optimizer.name_in(key)
        region = Region.whole(value.shape) if name is None else regions[name]
        pieces[manifest.OPTIMIZER + key] = value, region
    return state, pieces


@contextlib.contextmanager
def waited_for(saver: Saver | None) -> Iterator[None]:
    """A context that ends when the last save is on the disk.

    An error of the block comes first; one of the save is then a note to it.
    """
    if saver is None:
        yield
        return
    try:
        yield
    except BaseException as error:
        try:
            saver.wait()
        except SaveFailed as failed:
            error.add_note(str(failed))
        raise
    saver.wait()


def of_whole_rows(loss: Loss, cp: RankGroup) -> Loss:
    """Returns the loss of whole rows, on all ranks, of which each rank along `cp` has some tokens.
    """
    def of_all_ranks(model: Llama, batch: Batch, *, is_bf16: bool) -> Tensor:
        nats = loss(model, tokens_of(padded(batch, cp.size), cp), is_bf16=is_bf16)
        return cp.all_reduce(nats.clone(), note="loss")

    return loss if cp.size == 1 else of_all_ranks


def weights_to_resume(folder: str | Path) -> Iterator[tuple[str, Tensor]]:
    """Yields weights for a model that will be filled from the checkpoint when its run begins.

    A checkpoint in parts is read only then, by each rank for itself, so these weights are zeros.
    """
    if native.open_pieces(folder) is None:
        yield from saved_weights(folder)
        return
    for name, shape in shapes(native.load_config(folder)).items():
        yield name, torch.zeros(()).expand(shape)


@torch.no_grad()
def evaluate_together(
    model: Llama, data: Validation, group: RankGroup, *, loss: Loss, batch_size: int, seq_len: int,
    is_bf16: bool = False,
) -> Evaluation:
    """Returns what `train.evaluate` does; each rank predicts its share of the windows.

    Every rank runs the model equally often, because a sharded model computes on all ranks at once.
    A rank that has no more windows repeats its first one, which does not count.
    """
    batches = list(data.in_order(batch_size=batch_size, seq_len=seq_len))
    own = batches[group.rank :: group.size]
    n_rounds = math.ceil(len(batches) / group.size)
    totals = torch.zeros(3, dtype=torch.float64, device=group.device)
    for number in range(n_rounds):
        batch = (own or batches)[number if number < len(own) else 0]
        nats = loss(model, batch.to(model.device), is_bf16=is_bf16)
        if number < len(own):
            totals += torch.tensor([nats.item(), batch.n_targets, data.n_bytes_in(batch.targets)],
                                   dtype=torch.float64, device=group.device)
    nats, n_targets, n_bytes = group.all_reduce(totals, note="validation").tolist()
    return Evaluation(loss=nats / n_targets, bits_per_byte=nats / n_bytes / math.log(2),
                      n_targets=int(n_targets), n_bytes=int(n_bytes))
