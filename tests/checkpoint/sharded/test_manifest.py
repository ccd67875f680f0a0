"""The list of pieces: what is written is read, and what is damaged is named."""

import json

import pytest
import torch

from llama_from_scratch.checkpoint.sharded import manifest, shard_file
from llama_from_scratch.checkpoint.sharded.manifest import Manifest, SavedTensor, refuse_gaps
from llama_from_scratch.checkpoint.sharded.region import Region

WHOLE = Region.whole((4, 6))
LEFT, RIGHT = (WHOLE.part(axis=1, part=part, n_parts=2) for part in (0, 1))
HALVES = (("rank-0.safetensors", LEFT), ("rank-12.safetensors", RIGHT))


@pytest.fixture
def folder(tmp_path):
    files = {file: shard_file.write(tmp_path / file, {"model.x": torch.zeros(12)}).n_bytes
             for file, _ in HALVES}
    manifest.write(tmp_path, Manifest(files=files, tensors={
        "model.x": SavedTensor(dtype=torch.float32, shape=(4, 6), pieces=HALVES)}))
    return tmp_path


def test_what_is_written_is_read(folder):
    found = manifest.read(folder)
    assert found.tensors["model.x"].pieces == HALVES
    assert found.tensors["model.x"].dtype == torch.float32
    assert list(found.files) == ["rank-0.safetensors", "rank-12.safetensors"]
    assert manifest.is_in(folder)
    (folder / manifest.NAME).unlink()
    assert not manifest.is_in(folder)


def test_a_file_that_is_missing_or_cut_is_named_with_both_sizes(folder):
    file = folder / "rank-12.safetensors"
    n_bytes = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"rank-12.safetensors should have {n_bytes} bytes and has "
                       f"{n_bytes - 20}, so it was cut or replaced. Copy the folder again"):
        manifest.read(folder)
    file.unlink()
    with pytest.raises(ValueError, match=f"rank-12.safetensors of {n_bytes} bytes is missing. Copy "
                       "the folder again, or resume from an earlier checkpoint"):
        manifest.read(folder)


@pytest.mark.parametrize(("path", "value", "words"), [
    (["files"], [], "are objects"), (["files", "../x"], 3, "a file has a name such as rank-0"),
    (["files", "rank-0.safetensors"], True, "a number of bytes"),
    (["tensors", "model.x"], 3, "has the keys dtype, pieces, shape; got 3"),
    (["tensors", "model.x", "dtype"], "X9", "has 'X9'"),
    (["tensors", "model.x", "dtype"], [], "has \\[\\]"),
    (["tensors", "model.x", "shape"], [4, 5], "a span of a box inside"),
    (["tensors", "model.x", "shape"], [4, -6], "lists of sizes"),
    (["tensors", "model.x", "shape"], [8, 6], "as many elements as its shape"),
    (["tensors", "model.x", "pieces"], {}, "a list of pieces"),
    (["tensors", "model.x", "pieces", 0], {}, "a piece of 'model.x' has the keys file, sizes"),
    (["tensors", "model.x", "pieces", 0, "file"], "rank-1.safetensors", "does not name"),
    (["tensors", "model.x", "pieces", 0, "file"], "rank-12.safetensors", "at most one piece"),
    (["tensors", "model.x", "pieces", 0, "span"], [0], "the first element and how many"),
    (["tensors", "model.x", "pieces", 0, "span"], [0, 13], "a span of a box inside"),
    (["tensors", "model.x", "pieces", 0, "starts"], [0, 4], "a span of a box inside"),
    (["tensors", "model.x", "pieces", 0, "sizes"], [4.0, 3], "lists of sizes"),
])
def test_a_damaged_list_is_refused_with_the_place(folder, path, value, words):
    about = json.loads((folder / manifest.NAME).read_text())
    place = about
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / manifest.NAME).write_text(json.dumps(about))
    with pytest.raises(ValueError, match=f"(?s)manifest.json is no list of pieces: .*{words}"):
        manifest.read(folder)


def test_the_names_of_files_are_no_paths():
    assert manifest.FILE.fullmatch(manifest.file_of(12))
    for other in ("rank-.safetensors", "a/rank-0.safetensors", "rank-0.safetensors.x",
                  "rank-٣.safetensors"):
        assert not manifest.FILE.fullmatch(other)


def test_gaps_and_shared_elements_are_refused():
    refuse_gaps("x", (4, 6), [LEFT, RIGHT.span(0, 5), RIGHT.span(5, 7)])
    for regions, words in (([LEFT], "the pieces have 12 of its 24 elements"),
                           ([LEFT, RIGHT, LEFT.span(0, 1)], "two pieces share elements"),
                           ([LEFT, RIGHT.span(1, 11)], "23 of its 24"),
                           ([LEFT, LEFT.span(0, 12)], "share")):
        with pytest.raises(ValueError, match=f"is in one piece; of x, .*{words}"):
            refuse_gaps("x", (4, 6), regions)
