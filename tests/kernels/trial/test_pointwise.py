"""What the operations that memory limits say about themselves."""

from llama_from_scratch.kernels.trial.pointwise import POINTWISE


def test_traffic_counts_each_tensor_once():
    traffic = {operation.name: operation.traffic(operation.large)
               for operation in POINTWISE}
    tokens, D, F = 16384, 4096, 14336
    assert traffic["rms_norm"] == (2 * tokens * D * 2, 3 * tokens * D * 2)
    assert traffic["add_rms_norm"][0] == 4 * tokens * D * 2
    assert traffic["swiglu"] == (3 * tokens * F * 2, 5 * tokens * F * 2)
    assert traffic["rope"][0] == tokens * (2 * 40 * 128 * 2 + 64 * 8)
