"""Any region of a tensor in pieces is what the whole tensor has there."""

import random

import pytest
import torch
from sharded_files import pieces_of, save

from llama_from_scratch.checkpoint import checksums, safetensors_file
from llama_from_scratch.checkpoint.sharded import shard_file
from llama_from_scratch.checkpoint.sharded.region import Region, TensorBox
from llama_from_scratch.checkpoint.sharded.saved import SavedPieces, StateInPieces

X = torch.randn(9, 10, dtype=torch.float64)
COLUMNS = [Region.whole((9, 10)).part(axis=1, part=part, n_parts=2) for part in (0, 1)]
SPANS = [*(COLUMNS[0].span(first, n) for first, n in ((0, 17), (17, 28))), COLUMNS[1]]


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, {"model.x": pieces_of(X, SPANS), "optimizer.mean.x": pieces_of(-X, SPANS[::-1]),
                    "optimizer.n_steps": pieces_of(torch.tensor(7), [Region.whole(())])})
    checksums.write(tmp_path)
    return tmp_path


def test_every_region_is_read_from_whatever_pieces_there_are(folder):
    saved, draw = SavedPieces(folder, known=checksums.read(folder)), random.Random(0)
    saved.refuse_damage()
    assert torch.equal(saved.whole("model.x"), X)
    for _ in range(100):
        starts = draw.randrange(9), draw.randrange(10)
        sizes = draw.randint(1, 9 - starts[0]), draw.randint(1, 10 - starts[1])
        first = draw.randrange(sizes[0] * sizes[1])
        region = Region(shape=(9, 10), starts=starts, sizes=sizes, first=first,
                        n=draw.randint(0, sizes[0] * sizes[1] - first))
        whole = TensorBox(starts=(0, 0), sizes=(9, 10))
        part = region.box.within(X, whole).flatten()[first : first + region.n]
        assert torch.equal(saved.read("model.x", region), part)


def test_only_files_that_overlap_are_opened(folder, monkeypatch):
    opened, true = [], safetensors_file.mapped
    monkeypatch.setattr(safetensors_file, "mapped",
                        lambda file: opened.append(file.name) or true(file))
    saved = SavedPieces(folder, known=None)
    saved.read("model.x", COLUMNS[1])
    assert opened == ["rank-2.safetensors"]
    saved.read("model.x", COLUMNS[0].span(0, 4))
    assert opened[1:] == ["rank-0.safetensors", "rank-1.safetensors"] or opened[1:] == [
        "rank-0.safetensors"]
    assert set(saved.files) == {f"rank-{i}.safetensors" for i in range(3)}


def test_the_state_of_an_optimizer_is_a_mapping_that_reads_late(folder):
    saved = SavedPieces(folder, known=None)
    state = StateInPieces(saved)
    assert sorted(state) == ["mean.x", "n_steps"] and len(state) == 2
    assert torch.equal(state["mean.x"], -X) and state["n_steps"].item() == 7
    assert state.get("n_step") is None


def test_a_flipped_bit_is_found(folder):
    file = folder / "rank-1.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    saved = SavedPieces(folder, known=checksums.read(folder))
    saved.refuse_damage(["rank-0.safetensors"])
    with pytest.raises(ValueError, match=r"rank-1.safetensors is damaged: its CRC-32"):
        saved.refuse_damage()


def test_a_file_of_another_save_with_the_same_size_is_refused(folder):
    n_bytes = (folder / "rank-0.safetensors").stat().st_size
    for name in ("model.y", "optimizer.mean.x"):
        other = {name: torch.zeros(17, dtype=torch.float64)}
        shard_file.write(folder / "rank-0.safetensors", other)
        with open(folder / "rank-0.safetensors", "ab") as file:
            file.truncate(n_bytes)
        with pytest.raises(ValueError):
            SavedPieces(folder, known=None).whole("model.x")


def test_tensors_that_are_missing_extra_or_different_are_named(folder):
    saved = SavedPieces(folder, known=None)
    saved.refuse_others({"model.x": (9, 10)}, what="model.")
    with pytest.raises(ValueError, match=r"exactly what this run holds; model.x is \(9, 10\) there "
                       r"and \(10, 9\) here; model.y is missing. Resume with"):
        saved.refuse_others({"model.x": (10, 9), "model.y": (1,)}, what="model.")
    with pytest.raises(ValueError, match=r"optimizer.mean.x is in the checkpoint only"):
        saved.refuse_others({"optimizer.n_steps": ()}, what="optimizer.")
