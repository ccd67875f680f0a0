"""Files written piece by piece, read by the safetensors package."""

import weakref

import pytest
import torch
from safetensors.torch import load_file

from llama_from_scratch.checkpoint.safetensors_file import DTYPES
from llama_from_scratch.checkpoint.sharded import shard_file
from llama_from_scratch.checkpoint.sharded.shard_file import About, write
from llama_from_scratch.files import checksum


def test_a_file_is_what_the_safetensors_package_reads(tmp_path):
    tensors = {f"{dtype}": (10 * torch.randn(3, 5)).to(dtype) for dtype in DTYPES.values()}
    tensors |= {"scalar": torch.tensor(3), "nothing": torch.zeros(0, 4),
                "columns": torch.randn(4, 6)[:, 1:3]}
    written = write(tmp_path / "a.safetensors", tensors)
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for name, x in tensors.items():
        assert found[name].dtype == x.dtype and found[name].shape == x.shape
        assert found[name].contiguous().view(-1).view(torch.uint8).equal(
            x.contiguous().view(-1).view(torch.uint8)), name
    assert written.n_bytes == (tmp_path / "a.safetensors").stat().st_size
    assert written.crc == checksum(tmp_path / "a.safetensors")


class Made(dict):
    """Makes a tensor when it is asked for; the one before must be gone."""

    def __init__(self):
        self.alive = []

    def __getitem__(self, name):
        assert not self.alive
        x = torch.full((1000,), float(name))
        self.alive.append(name)
        weakref.finalize(x, self.alive.clear)
        return x


def test_tensors_that_are_made_when_they_are_asked_for_are_there_one_at_a_time(tmp_path):
    about = {str(i): About(shape=(1000,), dtype=torch.float32) for i in range(4)}
    write(tmp_path / "a.safetensors", Made(), about=about)
    assert load_file(tmp_path / "a.safetensors")["3"][0] == 3


def test_a_large_tensor_is_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_file, "_PIECE_BYTES", 1000)
    x = torch.randn(5001)
    written = write(tmp_path / "a.safetensors", {"x": x})
    assert load_file(tmp_path / "a.safetensors")["x"].equal(x)
    assert written.crc == checksum(tmp_path / "a.safetensors")


def test_a_tensor_that_is_not_what_was_announced_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x must have the shape \(3,\) in torch.float32; got \(2"):
        write(tmp_path / "a", {"x": torch.zeros(2)},
              about={"x": About(shape=(3,), dtype=torch.float32)})
