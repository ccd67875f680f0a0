"""Saves a checkpoint in parts from many ranks, while they go on training.

`save` copies what this rank writes into buffers, and returns. A thread writes the buffers to a file
in a new folder. When all ranks have written theirs, rank 0 writes the manifest and renames the
folder. Until then the folder of the save before is the checkpoint, whatever ends a process.

    save()      copy | train, train, train ...          | copy | train ...
    thread           | file -> all done? -> rename      |      | file ...

There is one set of buffers, so the next save waits for the save before it. The ranks agree through
a group of their own with a timeout of its own, so a slow disk never ends a training.

Notebook 47.
"""

import contextlib
import contextvars
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from llama_from_scratch.checkpoint import checksums, native
from llama_from_scratch.checkpoint.sharded import manifest, shard_file
from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.checkpoint.sharded.shard_file import Written
from llama_from_scratch.parallel import writers
from llama_from_scratch.parallel.agreement import seconds
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.comm_log import CommLog
from llama_from_scratch.parallel.together import together
from llama_from_scratch.parallel.world import World

Pieces = Mapping[str, tuple[Tensor, Region]]
"""What a rank holds, by the names of a manifest: a tensor, and which elements it is."""


class SaveFailed(OSError):
    """A checkpoint was not saved. The checkpoint that was in its folder before is unchanged."""


class Saver:
    """Saves checkpoints in parts from all ranks of `world`. A collective.

    `timeout_s`: how long a rank waits for the slowest disk of the others, at each stage of a save.
    """

    def __init__(self, world: World, *, timeout_s: float = 3600.0) -> None:
        made = None if world.size == 1 else dist.new_group(
            backend="gloo", timeout=seconds(timeout_s), group_desc="saves")
        self._group = RankGroup(range(world.size), own=world.rank, name="saves", log=CommLog(),
                                process_group=made, device=torch.device("cpu"))
        self._held: dict[str, writers.Holding] | None = None
        self._plan: writers.Plan = []
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def has_failed(self) -> bool:
        """Whether a save has failed on this rank and `wait` has not raised it yet."""
        return self._error is not None

    def save(
        self, folder: str | Path, pieces: Pieces, *, describe: Callable[[Path], None]
    ) -> None:
        """Copies the pieces, and begins to write them as the checkpoint `folder`. A collective.

        The tensors may change as soon as it returns. `describe(folder)`: writes the other files, on
        rank 0. Raises what the save before has failed with, and ValueError if the pieces of all
        ranks are not the whole of every tensor.
        """
        self.wait()
        self._make_plan(pieces)
        staged = self._copied(pieces)
        # The thread has the locks of this one, so that rank 0 may write to a folder it holds.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self._write, Path(folder), staged, describe), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when the last save is on the disk. Raises SaveFailed if it has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise SaveFailed(f"a checkpoint was not saved, and the one before it is unchanged; "
                             f"{error}. Remove the cause, and resume") from error

    # --- in the thread of the training ------------------------------------------------------------

    def _make_plan(self, pieces: Pieces) -> None:
        """Agrees on who writes what, again if any rank holds something else than before."""
        about = shard_file.about_all({name: tensor for name, (tensor, _) in pieces.items()})
        own: dict[str, writers.Holding] = {}

        def describe() -> bool:
            own.update(writers.holdings(about, {n: region for n, (_, region) in pieces.items()}))
            return own != self._held

        if any(together(self._group, describe)):
            self._plan = writers.plan(self._group.gather_objects(own))
            self._held, self._buffers = own, {}

    def _copied(self, pieces: Pieces) -> dict[str, Tensor]:
        """Returns what this rank writes, in buffers that the next save uses again."""
        is_on_gpu = False
        for name, holding in self._plan[self._group.rank].items():
            (tensor, held), region = pieces[name], holding.region
            begin = region.first - held.first
            part = tensor.detach().reshape(-1)[begin : begin + region.n]
            if name not in self._buffers:
                self._buffers[name] = torch.empty(region.n, dtype=tensor.dtype,
                                                  pin_memory=tensor.is_cuda)
            self._buffers[name].copy_(part, non_blocking=True)
            is_on_gpu |= tensor.is_cuda
        if is_on_gpu:
            torch.cuda.synchronize()
        return self._buffers

    # --- in the thread that writes ----------------------------------------------------------------

    def _write(
        self, folder: Path, staged: Mapping[str, Tensor], describe: Callable[[Path], None]
    ) -> None:
        is_first = self._group.rank == 0
        try:
            with contextlib.ExitStack() as stack:
                unfinished, *_ = together(self._group, lambda: stack.enter_context(
                    native.replacing(folder)) if is_first else None)
                written = together(self._group, lambda: self._write_own(unfinished, staged))
                together(self._group, lambda: self._complete(unfinished, written, describe)
                         if is_first else None)
                together(self._group, stack.close)  # the rename
        except BaseException as error:  # `wait` raises it in the thread that trains
            self._error = error

    def _write_own(self, folder: Path, staged: Mapping[str, Tensor]) -> Written | None:
        if not folder.is_dir():
            raise ValueError("all ranks write into one folder; rank 0 has made "
                             f"{folder}, which is not on {socket.gethostname()}. Choose a folder "
                             "on a disk that all machines share")
        file = folder / manifest.file_of(self._group.rank)
        return shard_file.write(file, staged) if staged else None

    def _complete(
        self, folder: Path, written: list[Written | None], describe: Callable[[Path], None]
    ) -> None:
        files = {manifest.file_of(rank): each for rank, each in enumerate(written)
                 if each is not None}
        manifest.write(folder, manifest.Manifest(
            files={file: each.n_bytes for file, each in files.items()},
            tensors=self._tensors()))
        describe(folder)
        checksums.write(folder, known={file: each.crc for file, each in files.items()})

    def _tensors(self) -> dict[str, manifest.SavedTensor]:
        found: dict[str, manifest.SavedTensor] = {}
        for rank, mine in enumerate(self._plan):
            for name, holding in mine.items():
                before = found[name].pieces if name in found else ()
                piece = manifest.file_of(rank), holding.region
                found[name] = manifest.SavedTensor(
                    dtype=holding.dtype, shape=holding.region.shape, pieces=(*before, piece))
        return found
