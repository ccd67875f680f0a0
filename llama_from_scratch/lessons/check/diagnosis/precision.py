"""Values that are right, but rounded to a smaller number format."""

import torch

from llama_from_scratch.lessons.check.diagnosis.sameness import Values, wide

PRECISION = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24}
"""Significant bits."""


def lower_precision(mine: Values, expected: Values) -> str | None:
    """Returns a message if the values are right except for such rounding, else None."""
    if mine.shape != expected.shape or not (mine.is_floating_point()
                                            and expected.is_floating_point()):
        return None
    if not mine.isfinite().all() or not expected.isfinite().all():
        return None
    bits = PRECISION.get(expected.dtype, 53)
    error, largest = (wide(mine) - wide(expected)).abs().max(), wide(expected).abs().max()
    for dtype, n_bits in PRECISION.items():
        if n_bits >= bits or error > 4 * largest * 2.0**-n_bits:
            continue
        name = str(dtype).removeprefix("torch.")
        if mine.dtype == dtype:
            return (f"yours is {name}, which has {n_bits} significant bits, and is right except "
                    f"for its rounding; {bits} bits are expected")
        is_round = torch.equal(mine.to(dtype).to(mine.dtype), mine) and mine.numel() >= 4
        if is_round and not torch.equal(expected.to(dtype).to(expected.dtype), expected):
            return (f"each of your values fits in {name}, which has {n_bits} significant bits: "
                    f"they were computed or stored in {name}")
    return None
