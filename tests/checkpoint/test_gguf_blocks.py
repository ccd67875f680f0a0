import gguf as reference
import numpy as np
import pytest
from gguf import quants
from gguf_reference import TYPE

from llama_from_scratch.checkpoint import gguf_blocks


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_any_block_is_unpacked_bit_for_bit_as_the_reference_does(kind):
    ours = next(k for k in gguf_blocks.KINDS.values() if k.name == kind)
    blocks = np.random.default_rng(0).integers(0, 256, (3000, ours.n_bytes), dtype=np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        found, wanted = ours.unpack(blocks), quants.dequantize(blocks, TYPE[kind])
    assert reference.GGML_QUANT_SIZES[TYPE[kind]] == (ours.n_values,
                                                      ours.n_bytes) and TYPE[kind] == ours.number
    assert np.array_equal(found, wanted, equal_nan=True)


def test_q8_0_is_packed_bit_for_bit_as_the_reference_does():
    random = np.random.default_rng(0)
    values = (random.standard_normal((4000, 32))
              * 10.0 ** random.uniform(-6, 3, (4000, 1))).astype(np.float32)
    values[0] = 0
    values[1] = [127.0, *([0.5, -0.5, 1.5, -2.5] * 7), 3, 4, 5]
    assert np.array_equal(gguf_blocks.pack_q8_0(values), quants.quantize(values, TYPE.Q8_0))
