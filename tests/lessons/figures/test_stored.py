import json

import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, noted
from safetensors.torch import save_file

from llama_from_scratch import bundled, family
from llama_from_scratch.checkpoint import names
from llama_from_scratch.lessons.figures import stored
from llama_from_scratch.lessons.figures.look import TINTS


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


@pytest.mark.parametrize("name", ["llama-1-7b", "llama-3.2-1b"])
def test_every_name_is_that_of_the_table(name, made):
    config = family.config(name)
    stored.parameters(config)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    cells = [node for node in drawing.nodes if node.name]
    rows = [cells[i : i + 5] for i in range(0, len(cells), 5)]
    expected = [row for row in (*names.TABLE.once, *names.TABLE.per_layer)
                if row.ours in names.shapes(config) or f"layers.0.{row.ours}" in
                names.shapes(config)]
    assert len(rows) == len(expected) == (11 if config.is_tied else 12)
    cuts = {None: "whole", 0: "rows cut", 1: "columns cut"}
    for cells_of, row in zip(rows, expected, strict=True):
        theirs = [row.theirs[f] for f in (names.HUGGING_FACE, names.META, names.GGUF)]
        assert [f"{cell.name}.weight" for cell in cells_of[:4]] == [
            row.ours, *(each.name for each in theirs)]
        assert [cell.color == TINTS[1] for cell in cells_of[1:4]] == [
            each.has_halves for each in theirs]
        assert cells_of[4].name == cuts[row.cut]


def test_the_bytes_are_those_of_the_file(made, tmp_path):
    tensors = {f"t{i}": torch.zeros(i + 1, 8, dtype=torch.bfloat16) for i in range(8)}
    path = tmp_path / "small.safetensors"
    save_file(tensors, path)
    stored.file_bytes(path)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    data = path.read_bytes()
    n_header = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n_header])
    assert drawing.nodes[0].name == f"{data[:8].hex(' ').upper()}  =  the number {n_header:,}"
    notes = [note.text for note in drawing.notes]
    drawn = [node.name for node in drawing.nodes[2:]]
    order = sorted(header, key=lambda name: header[name]["data_offsets"])
    assert drawn == [*order[:5], order[-1]] and "… 2 more tensors" in notes
    for name in drawn:
        assert f"{8 + n_header + header[name]['data_offsets'][0]:,}" in notes
        rows, columns = header[name]["shape"]
        assert f"{rows} × {columns}, bfloat16" in notes
    assert json.loads(drawing.nodes[1].lines[1]) == header[order[0]]
    assert f"{len(data):,} bytes" in drawing.title and f"{len(data):,}" in notes


def test_the_bundled_file_has_room(made):
    (path,) = bundled.path("mini").rglob("*.safetensors")
    stored.file_bytes(path)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "other"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="whole safetensors file"):
        stored.file_bytes(path)
