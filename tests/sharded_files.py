"""Checkpoints in parts without ranks, for the tests of what reads them."""

from llama_from_scratch.checkpoint.sharded import manifest, shard_file
from llama_from_scratch.checkpoint.sharded.manifest import Manifest, SavedTensor
from llama_from_scratch.checkpoint.sharded.region import Region, copy


def pieces_of(x, regions):
    """Pairs of a region and its elements of a tensor; the nth belongs to the nth file."""
    found = []
    for region in regions:
        piece = x.new_empty(region.n)
        copy(piece, region, x.flatten(), Region.whole(x.shape))
        found.append((region, piece))
    return found


def save(folder, tensors):
    """Writes the files rank-0, rank-1, ... and the manifest; the tensors as from `pieces_of`."""
    files = {}
    for name, pieces in tensors.items():
        for rank, (_, piece) in enumerate(pieces):
            files.setdefault(manifest.file_of(rank), {})[name] = piece
    manifest.write(folder, Manifest(
        files={file: shard_file.write(folder / file, inside).n_bytes
               for file, inside in files.items()},
        tensors={name: SavedTensor(
            dtype=pieces[0][1].dtype, shape=pieces[0][0].shape,
            pieces=tuple((manifest.file_of(rank), region)
                         for rank, (region, _) in enumerate(pieces)))
            for name, pieces in tensors.items()}))
