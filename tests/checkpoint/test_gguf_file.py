import re
import struct

import gguf as reference
import numpy as np
import pytest
import torch
from gguf_reference import by_their_writer, write
from tiny_checkpoints import same_weights, tiny

from llama_from_scratch.checkpoint import gguf
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.checkpoint.opened import build

KIND = reference.GGUFValueType


def test_numbers_that_a_kind_cannot_hold_are_refused(tmp_path):
    model = tiny()
    with torch.no_grad():
        model.output.weight[3, 3] = 7e4
    for kind in ("F16", "Q8_0"):
        with pytest.raises(ValueError, match=rf"{kind} can hold only finite numbers up to 65504; "
                                             r"output.weight has others"):
            write(tmp_path, model, kind=kind)
    with pytest.raises(ValueError, match=r"multiple of that; blk.0.ffn_down.weight is \(64, 100\)"):
        write(tmp_path, tiny(ffn_dim=100), kind="Q8_0")
    with pytest.raises(ValueError, match=r"can be written are F32, F16, Q8_0; got 'Q4_K'"):
        write(tmp_path, tiny(), kind="Q4_K")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write(tmp_path_factory.mktemp("good"), tiny(n_layers=1),
                 kind="Q8_0").read_bytes()


def refused(tmp_path, data, message):
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        gguf.open_checkpoint(tmp_path / "m.gguf")


def with_claim(data, *, dims=None, kind=None, offset=None, n_dims=2):
    """The file with another claim about token_embd.weight."""
    at = data.index(b"token_embd.weight") + len("token_embd.weight")
    old = struct.unpack_from("<IQQIQ", data, at)
    new = (n_dims, *(dims or old[1:3]), old[3] if kind is None else kind,
           old[4] if offset is None else offset)
    return data[:at] + struct.pack("<IQQIQ", *(x % 2**64 for x in new)) + data[at + 32 :]


@pytest.mark.parametrize(("claim", "message"), [
    (dict(dims=(-64, 520)), r"is \(520, 18446744073709551552\)"),
    (dict(dims=(2**40, 2**40)), r"but the file has \d+ bytes"),
    (dict(dims=(0, 520)), r"is \(520, 0\)"),
    (dict(dims=(520, 64)), r"Q8_0 packs 32 neighbors of a row, but .* is \(64, 520\)"),
    (dict(kind=77), r"reads tensors in F32, F16, .*; 'token_embd.weight' is packed as 77. "),
    (dict(kind=16), r"MXFP4; .* is packed as IQ2_XXS. Download the same model in another kind, "
                    r"such as Q4_K_M or Q8_0, or unpack this file with llama.cpp: llama-quantize "
                    r"--allow-requantize THIS.gguf NEW.gguf F16"),
    (dict(kind=21), r"is packed as IQ3_S"), (dict(kind=34), r"is packed as TQ1_0"),
    (dict(offset=2**63), r"at byte 9223372036854775808 of the data"),
    (dict(offset=32), r"but the data before it ends at"),
    (dict(n_dims=9), r"has 9"),
])
def test_a_forged_claim_about_a_tensor_is_refused(claim, message, good, tmp_path):
    refused(tmp_path, with_claim(good, **claim), message)


def test_forged_counts_and_lengths_are_refused_before_anything_is_allocated(good, tmp_path):
    refused(tmp_path, good[:8] + struct.pack("<Q", 2**33) + good[16:], r"header claims \d+ tensors")
    refused(tmp_path, good[:16] + struct.pack("<Q", 2**33) + good[24:], r"header claims \d+ facts")
    refused(tmp_path, good[:24] + struct.pack("<Q", 2**50) + good[32:],
            r"a name at byte 32 is 1125899906842624 bytes long")
    tokens = good.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
    refused(tmp_path, good[:tokens] + struct.pack("<Q", 2**33) + good[tokens + 8 :],
            r"header claims \d+ texts")
    kinds = good.index(b"tokenizer.ggml.token_type") + len("tokenizer.ggml.token_type")
    refused(tmp_path, good[: kinds + 4] + struct.pack("<I", 99) + good[kinds + 8 :],
            r"texts or numbers; got type 99")
    refused(tmp_path, good[: kinds + 8] + struct.pack("<Q", 2**33) + good[kinds + 16 :],
            r"header claims \d+ numbers")
    layers = good.index(b"llama.block_count") + len("llama.block_count") + 4
    refused(tmp_path, good[:layers] + struct.pack("<I", 2**32 - 1) + good[layers + 4 :],
            r"block_count is 4294967295")


@pytest.mark.parametrize(("data", "message"), [
    (b"", r"it is empty"), (b"GGU", r"the first four bytes"),
    (b"GGML" * 20, r"it begins with b'GGML'"),
    (b"GGUF" + struct.pack("<I", 1) + bytes(40),
     r"2 and 3 of GGUF; this file has version 1. Download another conversion"),
    (b"GGUF" + struct.pack(">I", 3) + bytes(40),
     r"for big-endian machines. Download the little-endian file"),
    (b"tjgg" + bytes(40), r"begins with b'tjgg', like files from before August 2023. Download a "
     r"GGUF file of the same model"),
])
def test_a_file_that_is_no_gguf_is_refused(data, message, tmp_path):
    refused(tmp_path, data, message)


@pytest.mark.parametrize("magic", [b"lmgg", b"fmgg", b"tjgg"])
def test_what_came_before_gguf_is_known_by_its_first_bytes(magic, tmp_path):
    (tmp_path / "llama-2-7b.ggmlv3.q4_0.bin").write_bytes(magic + bytes(100))
    with pytest.raises(ValueError, match=rf"q4_0.bin cannot be read with this version: .*{magic}.*"
                                         r"Download a GGUF file of the same model"):
        load(tmp_path / "llama-2-7b.ggmlv3.q4_0.bin")


def test_a_file_cut_anywhere_or_grown_is_refused(good, tmp_path):
    cuts = [*range(0, 400), *range(400, len(good), 997), len(good) - 33]
    for cut in cuts:
        refused(tmp_path, good[:cut], r"needs a whole GGUF file")
    refused(tmp_path, good + bytes(64), r"its tensors end at byte \d+, and the file has")


def test_bytes_changed_anywhere_in_the_header_are_refused_or_harmless(good, tmp_path):
    random = np.random.default_rng(0)
    n_header = good.index(b"rope_freqs.weight") + 40
    path, n_refused = tmp_path / "m.gguf", 0
    for _ in range(600):
        data = bytearray(good)
        for at in random.integers(0, n_header, random.integers(1, 4)):
            data[at] = random.integers(256)
        path.write_bytes(data)
        try:
            opened = gguf.open_checkpoint(path)
            opened.tokenizer()
            list(opened.tensors(torch.float32))
        except ValueError as error:
            n_refused += 1
            assert re.search(re.escape(str(path)), str(error))
    assert n_refused > 100


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_tensors_in_any_order_and_of_any_alignment_are_read(alignment, tmp_path):
    model = tiny()
    path = by_their_writer(tmp_path / "m.gguf", model, alignment=alignment,
                           order=lambda pair: pair[0][::-1])
    assert same_weights(build(gguf.open_checkpoint(path)), model)


@pytest.mark.parametrize(("alignment", "message"), [
    ((48, KIND.UINT32), r"must be a power of two up to \d+; got 48"),
    ((0, KIND.UINT32), r"got 0"), ((2**40, KIND.UINT64), r"got 1099511627776"),
    (("32", KIND.STRING), r"got '32'"), ((True, KIND.BOOL), r"got True"),
])
def test_an_alignment_that_is_none_is_refused(alignment, message, tmp_path):
    path = by_their_writer(tmp_path / "m.gguf", tiny(), facts={"general.alignment": alignment})
    with pytest.raises(ValueError, match=message):
        gguf.open_checkpoint(path)


def test_the_version_before_the_last_is_read(good, tmp_path):
    (tmp_path / "m.gguf").write_bytes(good[:4] + struct.pack("<I", 2) + good[8:])
    assert same_weights(build(gguf.open_checkpoint(tmp_path / "m.gguf")),
                        build(gguf.open_checkpoint(write(tmp_path, tiny(n_layers=1), name="w.gguf",
                                                         kind="Q8_0"))))


def test_a_forged_claim_of_an_unread_kind_allocates_nothing(good, tmp_path):
    refused(tmp_path, with_claim(good, kind=16, dims=(2**40, 2**20)), r"is packed as IQ2_XXS")
