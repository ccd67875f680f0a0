"""What a checkpoint in parts is refused for, in one process; `test_saving` fills on ranks."""

import pytest
import torch
from sharded_files import pieces_of, save

from llama_from_scratch.checkpoint import checksums
from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.checkpoint.sharded.saved import SavedPieces
from llama_from_scratch.parallel.filling import fill_pieces
from llama_from_scratch.parallel.world import alone

X = torch.arange(12.0).view(3, 4)
WHOLE = Region.whole((3, 4))


@pytest.fixture
def saved(tmp_path):
    save(tmp_path, {"model.x": pieces_of(X, [WHOLE.span(0, 5), WHOLE.span(5, 7)]),
                    "optimizer.mean.x": pieces_of(X / 2, [WHOLE.span(0, 12)]),
                    "optimizer.n_steps": pieces_of(torch.tensor(7), [Region.whole(())])})
    checksums.write(tmp_path)
    return SavedPieces(tmp_path, known=checksums.read(tmp_path))


def pieces(**changes):
    return {"model.x": (torch.zeros(3, 4), WHOLE), "optimizer.mean.x": (torch.zeros(12), WHOLE),
            "optimizer.n_steps": (torch.tensor(0), Region.whole(()))} | changes


def test_weights_averages_and_steps_are_filled_in_place(saved):
    own = pieces()
    fill_pieces(own, saved, alone())
    assert torch.equal(own["model.x"][0], X)
    assert torch.equal(own["optimizer.mean.x"][0], X.flatten() / 2)
    assert own["optimizer.n_steps"][0].item() == 7


def test_averages_are_never_left_out(saved):
    own = pieces()
    del own["optimizer.mean.x"]
    with pytest.raises(ValueError, match="optimizer.mean.x is in the checkpoint only. Resume with"):
        fill_pieces(own, saved, alone())
    other = {"optimizer.square.x": (torch.zeros(12), WHOLE)}
    with pytest.raises(ValueError, match="optimizer.square.x is missing"):
        fill_pieces(pieces() | other, saved, alone())


def test_nothing_is_rounded(saved):
    doubled = {"model.x": (torch.zeros(3, 4).double(), WHOLE)}
    fill_pieces(pieces(**doubled), saved, alone())
    assert torch.equal(doubled["model.x"][0], X.double())
    with pytest.raises(ValueError, match="model.x is torch.float32 in the checkpoint and "
                       "torch.bfloat16 here"):
        fill_pieces(pieces(**{"model.x": (torch.zeros(3, 4).bfloat16(), WHOLE)}), saved, alone())
    with pytest.raises(ValueError, match="optimizer.n_steps is torch.int64 in the"):
        fill_pieces(pieces(**{"optimizer.n_steps": (torch.tensor(0.0), Region.whole(()))}), saved,
                    alone())


def test_damage_is_found_before_anything_is_filled(saved):
    file = saved.where / "rank-1.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 4
    file.write_bytes(data)
    own = pieces()
    with pytest.raises(ValueError, match="rank-1.safetensors is damaged"):
        fill_pieces(own, saved, alone())
    assert not own["model.x"][0].any()
