import gguf as reference
import numpy as np
import pytest
from gguf import quants
from gguf_reference import TYPE

from llama_from_scratch.checkpoint import gguf_blocks

PACKED = [kind.name for kind in gguf_blocks.KINDS.values() if kind.unpack is not None]
THEIRS_PACK = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"]


def kind_called(name):
    return next(kind for kind in gguf_blocks.KINDS.values() if kind.name == name)


def test_the_kinds_are_those_of_the_reference():
    assert set(PACKED) >= {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
                           "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"}
    for kind in gguf_blocks.KINDS.values():
        assert TYPE[kind.name] == kind.number
        assert reference.GGML_QUANT_SIZES[TYPE(kind.number)] == (kind.n_values, kind.n_bytes)
    named = {number: kind.name for number, kind in gguf_blocks.KINDS.items()} | gguf_blocks.UNREAD
    assert not gguf_blocks.KINDS.keys() & gguf_blocks.UNREAD.keys()
    assert {kind.value: kind.name for kind in TYPE}.items() <= named.items()


@pytest.mark.parametrize("name", PACKED)
def test_any_block_is_unpacked_bit_for_bit_as_the_reference_does(name):
    kind = kind_called(name)
    blocks = np.random.default_rng(0).integers(0, 256, (3000, kind.n_bytes), dtype=np.uint8)
    blocks[:256, 0] = np.arange(256)
    with np.errstate(invalid="ignore", over="ignore"):
        found, wanted = kind.unpack(blocks), quants.dequantize(blocks, TYPE[name])
    is_nan = np.isnan(wanted)
    assert found.dtype == np.float32 and np.array_equal(np.isnan(found), is_nan)
    assert np.array_equal(found.view(np.uint32)[~is_nan], wanted.view(np.uint32)[~is_nan])


@pytest.mark.parametrize("name", THEIRS_PACK)
def test_a_packed_matrix_is_unpacked_bit_for_bit_as_the_reference_does(name):
    kind, values = kind_called(name), np.random.default_rng(1).standard_normal((40, 512))
    packed = quants.quantize((values / 30).astype(np.float32), TYPE[name])
    found = kind.unpack(packed.reshape(-1, kind.n_bytes)).reshape(values.shape)
    assert np.array_equal(found, quants.dequantize(packed, TYPE[name]))
    assert np.abs(found - values / 30).mean() < 0.1 / 30, "and near what was packed"


def test_q8_0_is_packed_bit_for_bit_as_the_reference_does():
    random = np.random.default_rng(0)
    values = (random.standard_normal((4000, 32))
              * 10.0 ** random.uniform(-6, 3, (4000, 1))).astype(np.float32)
    values[0] = 0
    values[1] = [127.0, *([0.5, -0.5, 1.5, -2.5] * 7), 3, 4, 5]
    assert np.array_equal(gguf_blocks.pack_q8_0(values), quants.quantize(values, TYPE.Q8_0))
