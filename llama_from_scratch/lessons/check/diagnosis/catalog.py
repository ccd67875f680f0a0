"""All diagnoses in the order in which they are tried; the first that explains a difference counts.
"""

from collections.abc import Callable

from torch import Tensor

from llama_from_scratch.lessons.check.diagnosis.factors import (
    conjugated,
    constant_factor,
    constant_offset,
    factor_per_slice,
    sign_flipped,
)
from llama_from_scratch.lessons.check.diagnosis.masks import masked_wrong, not_finite
from llama_from_scratch.lessons.check.diagnosis.places import merged_wrong, reordered, shifted
from llama_from_scratch.lessons.check.diagnosis.precision import lower_precision
from llama_from_scratch.lessons.check.diagnosis.sameness import Values, is_same
from llama_from_scratch.lessons.check.diagnosis.shapes import reshaped, transposed
from llama_from_scratch.lessons.check.diagnosis.softmax import (
    logarithm,
    scaled_before_softmax,
    softmax_over_wrong_axis,
)

Diagnosis = Callable[[Tensor, Tensor], str | None]

DIAGNOSES: tuple[Diagnosis, ...] = (
    lower_precision, reshaped, masked_wrong, logarithm, not_finite, sign_flipped, conjugated,
    transposed, constant_factor, constant_offset, merged_wrong, shifted, reordered,
    softmax_over_wrong_axis, scaled_before_softmax, factor_per_slice,
)
"""From the most to the least specific: if several fit, the first is the most helpful."""


def diagnose(mine: Values, expected: Values) -> str | None:
    """Returns the message of the first diagnosis that explains the whole difference, or None.

    Axes are called "axis 0", "axis 1", ...
    """
    mine, expected = mine.detach().cpu(), expected.detach().cpu()
    if not mine.numel() or not expected.numel():
        return None
    # a difference too small for every other diagnosis can only be one of precision
    known = (lower_precision,) if is_same(mine, expected) else DIAGNOSES
    return next((words for words in (diagnosis(mine, expected) for diagnosis in known) if words),
                None)
