"""The measurements of each step of a run, as one compressed file of NumPy arrays.

Notebook 09.
"""

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from llama_from_scratch.config import LlamaConfig, nearest, record
from llama_from_scratch.files import replacing_file
from llama_from_scratch.train import Step

AXES = {"steps": "steps", "tokens": "tokens read", "seconds": "seconds", "flops": "FLOPs"}
"""What a curve can be drawn against: the name of the array, and its label."""
METRICS = {"loss": "training loss (nats per token)",
           "validation_loss": "validation loss (nats per token)",
           "bits_per_byte": "validation, bits per byte",
           "grad_norm": "length of the gradient", "lr": "learning rate"}
"""What can be drawn, with its label."""
VALIDATED = ("validation_loss", "bits_per_byte")
"""The metrics that have a value at each validation only."""
_LARGEST_BYTES = 1 << 28


@record
class Curves:
    """Arrays with one entry per step, N in all, and of the validation one per validation.

    `steps`: how many were done. `tokens`, `seconds`, `flops`: totals so far. `seconds` counts
    updates, without validation and checkpoints. `flops`: see `LlamaConfig.flops_per_token`.
    `validation_steps`: after how many steps each validation came.
    """

    steps: Int[np.ndarray, "N"]
    tokens: Int[np.ndarray, "N"]
    seconds: Float[np.ndarray, "N"]
    flops: Float[np.ndarray, "N"]
    loss: Float[np.ndarray, "N"]
    grad_norm: Float[np.ndarray, "N"]
    lr: Float[np.ndarray, "N"]
    validation_steps: Int[np.ndarray, "validated"]
    validation_loss: Float[np.ndarray, "validated"]
    bits_per_byte: Float[np.ndarray, "validated"]

    @classmethod
    def of(cls, steps: Sequence[Step], *, config: LlamaConfig, seq_len: int) -> "Curves":
        """Returns the curves of these steps of a model with this config.

        A training step costs three forward passes. On average, a token of a window sees half of it.
        """
        tokens = np.cumsum([step.n_tokens for step in steps], dtype=np.int64)
        validated = [step for step in steps if step.validation is not None]
        return cls(
            steps=np.array([step.step + 1 for step in steps], np.int64), tokens=tokens,
            seconds=np.cumsum([step.time_s for step in steps], dtype=np.float64),
            flops=tokens * (3.0 * config.flops_per_token(seq_len // 2)),
            loss=_floats(step.loss for step in steps),
            grad_norm=_floats(step.grad_norm for step in steps),
            lr=_floats(step.lr for step in steps),
            validation_steps=np.array([step.step + 1 for step in validated], np.int64),
            validation_loss=_floats(step.validation.loss for step in validated),
            bits_per_byte=_floats(step.validation.bits_per_byte for step in validated))

    def along(self, metric: str, *, axis: str = "steps") -> tuple[np.ndarray, np.ndarray]:
        """Returns the places on an axis of `AXES` and the values of a metric of `METRICS`."""
        for name, known in ((axis, AXES), (metric, METRICS)):
            if name not in known:
                raise ValueError(f"a curve has no {name!r:.60}; {nearest(str(name), known)}")
        places, values = getattr(self, axis), getattr(self, metric)
        if metric in VALIDATED:
            places = places[np.searchsorted(self.steps, self.validation_steps)]
        return places, values

    def write(self, file: Path) -> None:
        """Writes a .npz, which NumPy reads: `np.load(file)["loss"]`."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        small = {name: array.astype(np.float32) if array.dtype == np.float64 else array
                 for name, array in arrays.items()}
        with replacing_file(file) as unfinished, open(unfinished, "wb") as opened:
            np.savez_compressed(opened, **small)

    @classmethod
    def read(cls, file: Path) -> "Curves":
        """Returns the curves in a file. Raises ValueError if it is missing or damaged."""
        cure = "Delete the folder, or run the experiment again"
        try:
            found = _arrays(file, names=tuple(cls.__dataclass_fields__))
        except FileNotFoundError as error:
            raise ValueError(f"the curves of a run are in {file}, which does not exist. "
                             f"{cure}") from error
        except (OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError,
                struct.error, zlib.error, zipfile.BadZipFile) as error:
            raise ValueError(f"{file} must hold the arrays of a run; it cannot be read ({error}). "
                             f"{cure}") from error
        n, m = found["steps"].size, found["validation_steps"].size
        lengths = {name: m if name.startswith(("validation", "bits")) else n for name in found}
        if odd := [name for name, array in found.items() if array.shape != (lengths[name],)]:
            raise ValueError(f"{file} must hold {n} numbers per step; {odd[0]} has the shape "
                             f"{found[odd[0]].shape}. {cure}")
        for name, array in found.items():
            kind = "i" if name in ("steps", "tokens", "validation_steps") else "f"
            if array.dtype.kind != kind:
                raise ValueError(f"{file} must hold numbers; {name} has the type {array.dtype}. "
                                 f"{cure}")
        if not np.isin(found["validation_steps"], found["steps"]).all():
            raise ValueError(f"{file} must hold validations of its own steps; validation_steps has "
                             f"others. {cure}")
        return cls(**found)


def _arrays(file: Path, *, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the arrays of a .npz, each of which must be small: a run has few steps."""
    with zipfile.ZipFile(file) as archive:
        for name in names:
            if archive.getinfo(f"{name}.npy").file_size > _LARGEST_BYTES:
                raise ValueError(f"{name} has more than {_LARGEST_BYTES:,} bytes")
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {bad} is wrong")
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names}


def _floats(values) -> np.ndarray:
    return np.array(list(values), np.float64)
