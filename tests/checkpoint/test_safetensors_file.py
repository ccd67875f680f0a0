import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_from_scratch.checkpoint import safetensors_file

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8,
          torch.uint8, torch.bool]
TENSORS = {f"t{i}": torch.arange(6).reshape(2, 3).to(dtype) for i, dtype in enumerate(DTYPES)} | {
    "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}


def write_raw(file, header, data):
    head = json.dumps(header).encode() if not isinstance(header, bytes) else header
    file.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return file


def test_every_dtype_reads_as_the_library_reads_it(tmp_path):
    save_file(TENSORS, tmp_path / "f", metadata={"format": "pt"})
    found = safetensors_file.entries(tmp_path / "f")
    assert found.keys() == TENSORS.keys()
    storage = safetensors_file.mapped(tmp_path / "f")
    for name, tensor in load_file(tmp_path / "f").items():
        for mine in (safetensors_file.read_tensor(found[name]),
                     safetensors_file.view(found[name], storage)):
            assert mine.dtype == tensor.dtype and torch.equal(mine, tensor)


def test_a_tensor_longer_than_a_piece_is_converted_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_file, "_PIECE_BYTES", 64)
    weight = torch.randn(37, 11).bfloat16()
    save_file({"a": weight, "b": weight.clone(), "c": weight.flip(0)}, tmp_path / "f")
    found = safetensors_file.entries(tmp_path / "f")
    read_into, n_bytes = safetensors_file._read_into, []
    def noted(file, raw, name):
        n_bytes.append(raw.nbytes)
        read_into(file, raw, name)

    monkeypatch.setattr(safetensors_file, "_read_into", noted)
    assert torch.equal(safetensors_file.read_tensor(found["b"], dtype=torch.float32),
                       weight.float())
    assert max(n_bytes) == 64 and sum(n_bytes) == weight.nbytes
    assert safetensors_file.are_same(found["a"], found["b"])
    assert not safetensors_file.are_same(found["a"], found["c"])


def test_writing_to_a_view_does_not_change_the_file(tmp_path):
    save_file({"a": torch.ones(4)}, tmp_path / "f")
    entry = safetensors_file.entries(tmp_path / "f")["a"]
    safetensors_file.view(entry, safetensors_file.mapped(tmp_path / "f")).zero_()
    assert torch.equal(load_file(tmp_path / "f")["a"], torch.ones(4))


def test_a_header_of_odd_length_leaves_tensors_readable(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    for n_blanks in range(4):
        file = write_raw(tmp_path / "f", header + b" " * n_blanks,
                         torch.tensor([1.5]).numpy().tobytes())
        entry = safetensors_file.entries(file)["a"]
        assert safetensors_file.view(entry, safetensors_file.mapped(file)).item() == 1.5
        assert safetensors_file.read_tensor(entry).item() == 1.5


def one(**changes):
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (one(dtype="F4_E2M1"), r"'a' has the dtype 'F4_E2M1', which is not one of F64, F32"),
        (one(dtype=["F32"]), "has the dtype"),
        (one(shape=[3]), r"of shape \[3\] in F32 has 12 bytes, but its place has 8"),
        (one(shape=[-2]), "must be lists of sizes"),
        (one(shape=[2.0]), "must be lists of sizes"),
        (one(shape=[True, 2]), "must be lists of sizes"),
        (one(shape=[10**9, 10**9]), "has 4000000000000000000 bytes, but its place has 8"),
        (one(shape=[2] * 10**4), "must be lists of sizes"),
        (one(data_offsets=[8, 0]), "has 8 bytes, but its place has -8"),
        (one(data_offsets=[0, 8, 9]), "must be lists of sizes"),
        (one(data_offsets=[8, 16]), "begins at byte"),
        (one(x=1), "must have only dtype, shape and data_offsets"),
        (one() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
         "but the data before it ends at"),
        (one() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}},
         "its tensors end at byte"),
        ({}, "its tensors end at byte"),
        ({"a": 3}, "must have only"),
        (b"[]", "its header is not a JSON object"),
        (b"{", "cannot be read"),
        (b"\xff\xfe{}", "cannot be read"),
        (b"[" * 10**5, "cannot be read"),
        (b'{"a": ' + b"1" * 5000 + b"}", "cannot be read"),
        (b'{"a": {}, "a": {}}', "the name 'a' occurs twice"),
    ],
)
def test_a_header_that_lies_is_refused(header, message, tmp_path):
    file = write_raw(tmp_path / "f", header, bytes(8))
    with pytest.raises(ValueError, match=message) as caught:
        safetensors_file.entries(file)
    assert str(file) in str(caught.value), "the file is named"


FORGED_LENGTH = (10**12).to_bytes(8, "little") + b"{}"


@pytest.mark.parametrize("content",
                         [b"", b"\x01", bytes(8), b"\xff" * 8, FORGED_LENGTH,
                          b"not a model at all"])
def test_a_file_that_is_something_else_is_refused(content, tmp_path):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match="a whole safetensors file at"):
        safetensors_file.entries(tmp_path / "f")
    with pytest.raises(ValueError, match="a whole safetensors file at"):
        safetensors_file.entries(tmp_path / "g")


def test_damage_is_refused_wherever_the_library_refuses_it(tmp_path):
    """3,000 files with bytes of the header overwritten or the end cut."""
    file = tmp_path / "f"
    save_file({"a": torch.randn(3, 4), "b": torch.randn(5).half()}, file)
    good = file.read_bytes()
    n_head = 8 + int.from_bytes(good[:8], "little")
    draw = torch.Generator().manual_seed(0)
    def pick(n):
        return int(torch.randint(n, (), generator=draw))
    n_refused = 0
    for trial in range(3000):
        bad = bytearray(good)
        for _ in range(1 + trial % 3):
            bad[pick(n_head)] = pick(256) if trial % 2 else 32 + pick(96)
        if trial % 10 == 9:
            del bad[pick(len(bad)) :]
        file.write_bytes(bad)
        try:
            mine = {name: safetensors_file.read_tensor(entry)
                    for name, entry in safetensors_file.entries(file).items()}
        except ValueError as error:
            n_refused += 1
            assert str(file) in str(error)
            continue
        theirs = load_file(file)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[n].view(torch.uint8), theirs[n].view(torch.uint8))
                   for n in mine)
    assert 1000 < n_refused < 3000
