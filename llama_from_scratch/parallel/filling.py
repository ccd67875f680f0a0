"""Fills what this rank holds from a checkpoint in parts, whichever ranks wrote it.

Every rank reads only the elements that it holds, one tensor after the other. It is strict: what all
ranks hold together must be exactly what the checkpoint has. Each rank also computes the checksums
of its share of the files, so that together all files are read once for that.

Notebook 47.
"""

import torch
from torch import Tensor

from llama_from_scratch.checkpoint.sharded import manifest
from llama_from_scratch.checkpoint.sharded.saved import SavedPieces
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.saving import Pieces
from llama_from_scratch.parallel.together import together


@torch.no_grad()
def fill_pieces(pieces: Pieces, saved: SavedPieces, group: RankGroup) -> None:
    """Overwrites the tensors of `pieces` with what `saved` has of their regions. A collective.

    Raises ValueError on all ranks if the checkpoint has tensors that no rank holds, lacks some, or
    has others under their names, or if a file is damaged.
    """
    needed: dict[str, tuple[int, ...]] = {}
    own = {name: region.shape for name, (_, region) in pieces.items()}
    for theirs in group.gather_objects(own):
        needed |= theirs

    def refuse() -> None:
        for what in (manifest.MODEL, manifest.OPTIMIZER):
            saved.refuse_others({name: shape for name, shape in needed.items()
                                 if name.startswith(what)}, what=what)
        for name, (tensor, _) in pieces.items():
            _refuse_rounding(name, saved.tensors[name].dtype, tensor)
        saved.refuse_damage(saved.files[group.rank :: group.size])

    together(group, refuse)
    for name, (tensor, region) in pieces.items():
        tensor.copy_(saved.read(name, region).view(tensor.shape))


def _refuse_rounding(name: str, dtype: torch.dtype, tensor: Tensor) -> None:
    is_number = dtype.is_floating_point == tensor.is_floating_point()
    if not is_number or torch.promote_types(dtype, tensor.dtype) != tensor.dtype:
        raise ValueError(f"what is saved goes on without rounding; {name} is {dtype} in the "
                         f"checkpoint and {tensor.dtype} here. Resume in the dtype of the run")
