"""Why two results differ: each diagnosis knows one mistake, undoes it, and speaks only if what is left is equal.

So a wrong diagnosis cannot be given: `transposed` claims swapped axes only if swapping them back gives the expected values.
The names of mistakes are those that learners make while building a Llama. Used by `check`, in every notebook.
"""

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

Values = Shaped[Tensor, "..."]
Diagnosis = Callable[[Tensor, Tensor], str | None]

REL_TOL = 1e-4  # float32 after some hundred operations; far below any mistake named here
FACTOR_TOL = 2e-6  # a factor is a mean over many values; so tight that few numbers pass for a square root by chance
MAX_N = 512  # the largest n of which 1/n or sqrt(n) is recognised
MAX_AXES = 5
PRECISION = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24}
"""Significant bits."""


def diagnose(mine: Values, expected: Values) -> str | None:
    """The first diagnosis that explains the whole difference, in words, or None. Axes are called "axis 0", "axis 1", ..."""
    mine, expected = mine.detach().cpu(), expected.detach().cpu()
    if not mine.numel() or not expected.numel():
        return None
    # what differs less than any diagnosis can tell apart may only be a matter of precision
    known = (lower_precision,) if is_same(mine, expected) else DIAGNOSES
    return next((words for words in (diagnosis(mine, expected) for diagnosis in known) if words), None)


def is_same(a: Values, b: Values) -> bool:
    """True if shapes are equal, and values within REL_TOL of their size; NaN equals NaN."""
    if a.shape != b.shape:
        return False
    a, b = _wide(a), _wide(b)
    finite = b[b.isfinite()].abs()
    return torch.allclose(a, b, rtol=REL_TOL, atol=0.1 * REL_TOL * finite.max().item() if len(finite) else 0.0, equal_nan=True)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def _is_plain(*tensors: Tensor) -> bool:
    """True for real numbers with enough different values that an equality is no accident."""
    return all(not x.is_complex() and x.dtype != torch.bool and len(x[x.isfinite()].unique()) >= 3 for x in tensors)


def _finite(mine: Tensor, expected: Tensor) -> tuple[Tensor, Tensor] | None:
    """The finite values of both, in float64; None if they are not finite in different places."""
    if mine.shape != expected.shape or mine.is_complex() or expected.is_complex():
        return None
    mine, expected = _wide(mine), _wide(expected)
    where = expected.isfinite()
    if not torch.equal(where, mine.isfinite()) or not torch.equal(mine[~where].nan_to_num(), expected[~where].nan_to_num()):
        return None
    return mine[where], expected[where]


# --- another shape ---------------------------------------------------------------------------------------------------


def transposed(mine: Values, expected: Values) -> str | None:
    """The same values with axes in another order."""
    if mine.ndim != expected.ndim or not 2 <= mine.ndim <= MAX_AXES:
        return None
    orders = sorted(itertools.permutations(range(mine.ndim)), key=lambda order: sum(i != j for i, j in enumerate(order)))
    for order in orders[1:]:
        if is_same(mine.permute(order), expected):
            moved = [axis for axis, source in enumerate(order) if axis != source]
            if len(moved) == 2:
                return (f"transposed: axis {moved[0]} and axis {moved[1]} are swapped; `.transpose({moved[0]}, {moved[1]})` "
                        "puts them right")
            return f"the axes are in another order; `.permute({', '.join(map(str, order))})` puts them right"
    return None


def reshaped(mine: Values, expected: Values) -> str | None:
    """The same values in the same order, cut into other axes; or an axis left out that should be repeated."""
    if mine.shape == expected.shape:
        return None
    if mine.numel() == expected.numel() and is_same(mine.reshape(expected.shape), expected):
        plain = [n for n in mine.shape if n != 1], [n for n in expected.shape if n != 1]
        if plain[0] != plain[1]:
            return f"the values are right, the shape is not; `.reshape{tuple(expected.shape)}` puts it right"
        if mine.ndim < expected.ndim:
            return "the values are right, an axis of length 1 is missing: `keepdim=True`, or `.unsqueeze(...)`"
        return "the values are right, an axis of length 1 is too many or in the wrong place: `.squeeze(...)`"
    try:
        repeated = mine.broadcast_to(expected.shape)
    except RuntimeError:
        return None
    if is_same(repeated, expected):
        return "yours is right for one entry and must be repeated for all: `.expand(...)`, or add what makes it grow"
    return None


# --- masks and what is not finite ------------------------------------------------------------------------------------


def masked_wrong(mine: Values, expected: Values) -> str | None:
    """A mask (booleans, scores with -inf, or weights with zeros) that lets other pairs through; all else is equal."""
    if mine.shape != expected.shape or mine.ndim < 2 or mine.dtype != expected.dtype or mine.is_complex():
        return None
    m, e = _visible(mine, expected), _visible(expected, mine)
    if torch.equal(m, e) or not _agree_under(mine, expected, m & e):
        return None
    if e.all():
        return "something is masked where nothing should be"
    if torch.equal(m, ~e):
        return "the mask is inverted: True and False are exchanged"
    bands = _band(m), _band(e)
    if m.all():
        return "nothing is masked: tokens see those after them" if bands[1] is not None else "nothing is masked"
    if None not in bands:
        step = bands[0] - bands[1]
        if step == 1:
            return "the mask is off by one: each token also sees the next one"
        if step == -1:
            return "the mask is off by one: no token sees itself" if bands[1] == e.shape[-1] - e.shape[-2] else (
                "the mask is off by one: each token sees one too few")
        return f"the mask is off by {abs(step)}: each token sees {abs(step)} too {'many' if step > 0 else 'few'}"
    if torch.equal(m, e.mT if m.shape[-1] == m.shape[-2] else ~m):
        return "the mask is upside down: rows and columns are exchanged, so tokens see what comes after them"
    extra, missing = (m & ~e).sum().item(), (e & ~m).sum().item()
    n, what, verb = (extra, m & ~e, "lets through") if extra else (missing, e & ~m, "blocks")
    place = what.nonzero()[0].tolist()
    return f"the mask {verb} {n} pairs that it should {'block' if extra else 'let through'}, the first at {place}"


def _visible(x: Tensor, other: Tensor) -> Tensor:
    if x.dtype == torch.bool:
        return x
    if (x == -math.inf).any() or (other == -math.inf).any():
        return x != -math.inf
    return x != 0


def _agree_under(mine: Tensor, expected: Tensor, both: Tensor) -> bool:
    if mine.dtype == torch.bool:
        return True
    if is_same(mine.mT, expected):
        return False
    if not mine.is_floating_point() or not both.any():
        return False
    if (expected == -math.inf).any() or (mine == -math.inf).any():
        return is_same(mine[both], expected[both])
    rows = [torch.where(both, _wide(x), 0.0) for x in (mine, expected)]  # weights: the rest of each row was made to sum to 1
    is_weights = all(is_same(x.sum(-1), torch.ones(x.shape[:-1])) for x in (mine, expected))
    return is_weights and is_same(*(x / x.sum(-1, keepdim=True).clamp_min(1e-300) for x in rows))


def _band(visible: Bool[Tensor, "... T S"]) -> int | None:
    """d if query t sees the keys up to t + d, everywhere."""
    offset = int(visible[(0,) * (visible.ndim - 2)][0].sum()) - 1
    offset = offset if offset >= 0 else -int((~visible.any(-1)).reshape(-1, visible.shape[-2])[0].sum())
    return offset if torch.equal(visible, torch.ones_like(visible).tril(offset)) else None


def not_finite(mine: Values, expected: Values) -> str | None:
    """NaN or infinity where the expected value is finite."""
    if mine.shape != expected.shape:
        return None
    bad = ~mine.isfinite() & expected.isfinite()
    if not bad.any():
        return None
    place, value = bad.nonzero()[0].tolist(), mine[bad][0].item()
    if mine.ndim and mine[bad].isnan().all():
        rows = bad.all(-1)
        if torch.equal(bad, rows[..., None].expand_as(bad)) and not rows.all() and is_same(mine[~bad], expected[~bad]):
            return (f"NaN in {rows.sum().item()} whole rows, first {place[:-1]}, and all else is right: softmax of a row "
                    "in which everything is masked is 0 / 0. Each token must see at least itself")
        return f"NaN, first at {place}: 0 / 0, inf - inf, or the logarithm or root of a negative number"
    return f"{value} first at {place}: a division by 0, log(0), or exp of a large number"


# --- the right numbers in the wrong places ---------------------------------------------------------------------------


def merged_wrong(mine: Values, expected: Values) -> str | None:
    """Two nested axes joined in the wrong order: heads tiled instead of repeated in place, RoPE halves for neighbours."""
    if mine.shape != expected.shape:
        return None
    for axis, length in enumerate(mine.shape):
        for outer in (n for n in range(2, length) if length % n == 0):
            inner = length // outer
            parts = mine.unflatten(axis, (outer, inner))
            if not is_same(parts.transpose(axis, axis + 1).flatten(axis, axis + 1), expected):
                continue
            if is_same(parts, parts.narrow(axis, 0, 1).expand_as(parts)):
                return (f"along axis {axis} the entries are tiled (0, 1, 0, 1) where each should be repeated in place "
                        "(0, 0, 1, 1): query head h uses key/value head h // (H/G), so `repeat_interleave`, not `repeat`")
            if is_same(parts, parts.narrow(axis + 1, 0, 1).expand_as(parts)):
                return (f"along axis {axis} each entry is repeated in place (0, 0, 1, 1) where they should be tiled "
                        "(0, 1, 0, 1): `repeat`, not `repeat_interleave`")
            if axis == mine.ndim - 1 and 2 in (outer, inner):
                if outer == inner:
                    return "channels are in another order: halves (r, r + K/2) and neighbours (2r, 2r + 1) are mixed up"
                yours, wanted = ("halves (r, r + K/2)", "neighbours (2r, 2r + 1)")[:: 1 if outer == 2 else -1]
                return f"channels are in another order: the pairs of yours are {yours}, those of the expected {wanted}"
            return (f"axis {axis} joins two axes in the wrong order: yours as ({outer}, {inner}), expected as "
                    f"({inner}, {outer}); transpose before you flatten")
    return None


def shifted(mine: Values, expected: Values) -> str | None:
    """The same values, some places further along an axis, round the end or not."""
    if mine.shape != expected.shape:
        return None
    for axis, length in enumerate(mine.shape):
        if length < 4:
            continue  # two entries that agree are no evidence
        for step in (1, -1):
            a, b = (mine, expected) if step == 1 else (expected, mine)
            later, earlier = a.narrow(axis, 1, length - 1), b.narrow(axis, 0, length - 1)
            if is_same(later, earlier) and not is_same(mine.narrow(axis, 1, length - 2), expected.narrow(axis, 1, length - 2)):
                return f"off by one along axis {axis}: everything stands one place too {'late' if step == 1 else 'early'}"
        for step in range(2, min(length - 1, 64)):
            if is_same(mine.select(axis, step), expected.select(axis, 0)) and is_same(mine.roll(-step, axis), expected):
                return f"along axis {axis} everything is rolled by {step} places; `.roll({-step}, {axis})` puts it right"
    return None


def reordered(mine: Values, expected: Values) -> str | None:
    """The entries along one axis in any other order."""
    if mine.shape != expected.shape:
        return None
    for axis, length in enumerate(mine.shape):
        if length < 2:
            continue
        if is_same(mine.flip(axis), expected):
            return f"the order along axis {axis} is reversed; `.flip({axis})` puts it right"
        keys = _keys(mine, axis), _keys(expected, axis)
        if length < 3 or len(keys[1].unique()) < length:
            continue  # few or equal entries are a permutation of many things
        order_mine, order = (key.argsort() for key in keys)
        source = torch.empty_like(order)
        source[order] = order_mine
        if is_same(mine.index_select(axis, source), expected):
            shown = ", ".join(map(str, source[:8].tolist())) + (", ..." if length > 8 else "")
            return f"the entries along axis {axis} are in another order: the expected are yours at [{shown}]"
    return None


def _keys(x: Tensor, axis: int) -> Tensor:
    """A number for each slice along `axis`, equal for equal slices: its product with a random vector."""
    rows = (torch.view_as_real(x) if x.is_complex() else x).double().nan_to_num(nan=1e3, posinf=2e3, neginf=-2e3)
    rows = rows.movedim(axis, 0).reshape(x.shape[axis], -1)
    return rows @ torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# --- the wrong numbers by a rule -------------------------------------------------------------------------------------


def sign_flipped(mine: Values, expected: Values) -> str | None:
    """Everything times -1."""
    if expected.dtype == torch.bool or not expected.any() or not is_same(-_wide(mine), _wide(expected)):
        return None
    return "the sign is flipped: a minus is missing or too many"


def conjugated(mine: Values, expected: Values) -> str | None:
    """Complex numbers turned the other way."""
    if mine.is_complex() and expected.is_complex() and is_same(mine.conj(), expected):
        return "the complex conjugate: everything is turned the other way (a sign in the exponent)"
    return None


def constant_factor(mine: Values, expected: Values) -> str | None:
    """Every value is the same factor too large: a scale, a mean for a sum, a logarithm of another base."""
    pair = _finite(mine, expected)
    if pair is None or mine.dtype == torch.bool or not (pair[1] != 0).any():
        return None
    m, e = pair
    factor = ((m @ e) / (e @ e)).item()
    if not factor or is_same(-m, e) or not is_same(m, factor * e):
        return None
    is_logarithm = any(math.isclose(factor, f, rel_tol=10 * FACTOR_TOL) for f in (math.log(2), 1 / math.log(2)))
    if not is_logarithm and not _is_plain(mine, expected):
        return None  # two numbers always have a ratio
    return f"every value is {describe_factor(factor)}"


def describe_factor(factor: float) -> str:
    """What a factor looks like: "4 = √16 times the expected: ..." """
    def is_near(value) -> bool:
        return math.isclose(abs(factor), value, rel_tol=FACTOR_TOL)

    sign = "-" if factor < 0 else ""
    ln2 = math.log(2)
    if math.isclose(factor, ln2, rel_tol=10 * FACTOR_TOL):
        return "ln 2 times the expected: natural logarithms (nats) where base 2 (bits) is expected; divide by ln 2"
    if math.isclose(factor, 1 / ln2, rel_tol=10 * FACTOR_TOL):
        return "1/ln 2 times the expected: base 2 (bits) where natural logarithms (nats) are expected; multiply by ln 2"
    for n in range(2, MAX_N + 1):
        if is_near(n):
            return (f"{sign}{n} times the expected: a factor 1/{n} is missing, such as a mean over {n} that became a sum, "
                    f"or 1/√K with K = {n * n}")
        if is_near(1 / n):
            return (f"{sign}1/{n} of the expected: it was divided by {n} too often, such as a sum over {n} that became a mean, "
                    f"or 1/√K with K = {n * n}")
        if is_near(math.sqrt(n)):
            return f"{sign}√{n} times the expected: a scale 1/√{n} is missing (1/√K for heads of K = {n} channels)"
        if is_near(1 / math.sqrt(n)):
            return f"{sign}1/√{n} of the expected: the scale 1/√{n} is applied once too often"
    return f"{factor:.6g} times the expected"


def constant_offset(mine: Values, expected: Values) -> str | None:
    """Every value is the same amount too large."""
    pair = _finite(mine, expected)
    if pair is None or not _is_plain(mine, expected):
        return None
    offset = (pair[0] - pair[1]).mean().item()
    if abs(offset) > 10 * REL_TOL * pair[1].abs().max() and is_same(pair[0] - offset, pair[1]):
        return f"every value is {abs(offset):.6g} too {'large' if offset > 0 else 'small'}: one constant was added or left out"
    return None


def logarithm(mine: Values, expected: Values) -> str | None:
    """Probabilities for logarithms, or the reverse; or a softmax left out."""
    pair = mine.shape == expected.shape and mine.ndim and _is_plain(mine) and not expected.is_complex()
    if not pair or not mine.is_floating_point():
        return None
    x = _wide(mine)
    for axis in reversed(range(x.ndim)):
        if x.shape[axis] > 1 and not is_same(x.exp().sum(axis), torch.ones_like(x.sum(axis))):
            for name, values in (("softmax", x.softmax(axis)), ("log_softmax", x.log_softmax(axis))):
                if is_same(values, expected):
                    return f"the {name} over axis {axis} is missing: these are the values before it"
    for values, words in (
        (x.exp(), "these are natural logarithms of the expected values: apply exp, or softmax instead of log_softmax"),
        (x.exp2(), "these are base-2 logarithms of the expected values"),
        (x.log(), "the logarithm is missing: the expected values are the natural logarithms of yours"),
        (x.log2(), "the logarithm is missing: the expected values are the base-2 logarithms of yours"),
    ):
        if is_same(values, expected):
            return words
    return None


def _sums_to_one(x: Tensor) -> set[int]:
    return {axis for axis in range(x.ndim) if x.shape[axis] > 1 and is_same(x.sum(axis), torch.ones_like(x.sum(axis)))}


def _are_weights(mine: Tensor, expected: Tensor) -> bool:
    """Both are positive weights, zero in the same places, so that their logarithms can be compared."""
    return (mine.shape == expected.shape and mine.is_floating_point() and expected.is_floating_point()
            and bool((mine >= 0).all() and (expected >= 0).all()) and torch.equal(mine == 0, expected == 0))


def softmax_over_wrong_axis(mine: Values, expected: Values) -> str | None:
    """Weights that sum to 1 along another axis, made from the same scores."""
    if not _are_weights(mine, expected):
        return None
    m, e = _wide(mine), _wide(expected)
    yours, wanted = sorted(_sums_to_one(m) - _sums_to_one(e)), sorted(_sums_to_one(e) - _sums_to_one(m))
    if len(yours) != 1 or len(wanted) != 1:
        return None
    # Two softmaxes of one score differ by a constant per row and one per column, which every 2 x 2 square cancels.
    gap = (m.log() - e.log()).movedim((yours[0], wanted[0]), (-2, -1))
    square = gap.diff(dim=-1).diff(dim=-2)
    square = square[square.isfinite()]
    if not len(square) or square.abs().max() > 100 * REL_TOL:
        return None
    return f"softmax runs over axis {yours[0]}: there the sums are 1. It belongs on axis {wanted[0]}"


def scaled_before_softmax(mine: Values, expected: Values) -> str | None:
    """Weights that are too sharp or too flat, because the scores were too large or too small by one factor."""
    if not _are_weights(mine, expected) or mine.ndim == 0:
        return None
    m, e = _wide(mine), _wide(expected)
    for axis in _sums_to_one(m) & _sums_to_one(e):
        visible = e > 0
        n = visible.sum(axis, keepdim=True).clamp_min(1)
        logs = [torch.where(visible, x.log(), 0.0) for x in (m, e)]
        lm, le = (torch.where(visible, x - x.sum(axis, keepdim=True) / n, 0.0) for x in logs)
        if len(le.unique()) < 4 or not (le * le).sum():
            continue
        factor = ((lm * le).sum() / (le * le).sum()).item()
        if abs(factor - 1) > 10 * REL_TOL and is_same(lm, factor * le):
            return f"before the softmax every score is {describe_factor(_rounded(factor))}"
    return None


def _rounded(factor: float) -> float:
    """The factor, or the square root or its inverse that it is within the error that a softmax in float32 leaves."""
    names = (value for n in range(2, 257) for value in (math.sqrt(n), 1 / math.sqrt(n)))
    return next((value for value in names if math.isclose(factor, value, rel_tol=5 * FACTOR_TOL)), factor)


def factor_per_slice(mine: Values, expected: Values) -> str | None:
    """A factor of its own for each channel, or for each row."""
    pair = mine.shape == expected.shape and 2 <= mine.ndim and min(mine.shape[-1], mine[..., 0].numel()) >= 3
    if not pair or not _is_plain(mine, expected):
        return None
    m, e = _wide(mine), _wide(expected)
    others = tuple(range(mine.ndim - 1))
    last = mine.ndim - 1
    for axes, words in (
        (others, f"each entry of axis {last} is off by a factor of its own: a weight per channel is left out or doubled"),
        ((last,), f"each row along axis {last} is off by a factor of its own: it is divided by another sum, mean or root"),
    ):
        factors = (m * e).sum(axes, keepdim=True) / (e * e).sum(axes, keepdim=True)
        if factors.isfinite().all() and not is_same(factors, factors.mean().expand_as(factors)) and is_same(m, factors * e):
            return words
    return None


# --- precision -------------------------------------------------------------------------------------------------------


def lower_precision(mine: Values, expected: Values) -> str | None:
    """Right within the rounding of a smaller number format."""
    if mine.shape != expected.shape or not (mine.is_floating_point() and expected.is_floating_point()):
        return None
    if not mine.isfinite().all() or not expected.isfinite().all():
        return None
    bits = PRECISION.get(expected.dtype, 53)
    error, largest = (_wide(mine) - _wide(expected)).abs().max(), _wide(expected).abs().max()
    for dtype, n_bits in PRECISION.items():
        if n_bits >= bits or error > 4 * largest * 2.0**-n_bits:
            continue
        name = str(dtype).removeprefix("torch.")
        if mine.dtype == dtype:
            return (f"yours is {name}, with {n_bits} significant bits, and right within its rounding; the expected has "
                    f"{bits} bits")
        is_round = torch.equal(mine.to(dtype).to(mine.dtype), mine) and mine.numel() >= 4
        if is_round and not torch.equal(expected.to(dtype).to(expected.dtype), expected):
            return f"every value of yours is a {name} number, {n_bits} significant bits: it was computed, or kept, in {name}"
    return None


DIAGNOSES: tuple[Diagnosis, ...] = (
    lower_precision, reshaped, masked_wrong, logarithm, not_finite, sign_flipped, conjugated, transposed, constant_factor,
    constant_offset, merged_wrong, shifted, reordered, softmax_over_wrong_axis, scaled_before_softmax, factor_per_slice,
)
"""From the most to the least particular: where several would fit, the first is the one to hear."""
