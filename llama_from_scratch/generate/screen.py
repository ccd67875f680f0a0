"""The likeliest next token without computing every logit, by a screening with fewer bytes.

An int8 copy of the head has a quarter of an fp32 head's bytes. It gives each logit up to an error
with a proven bound. Only the few rows whose upper bound reaches the best lower bound can have the
largest logit. These rows are computed again from the head itself. The head is 60 % of the bytes
read per token in a model of 15 million parameters, and 20 % in a model of a billion.

Notebook 16. The bounds: Cauchy-Schwarz for the rounding to int8, and Higham, Accuracy and Stability
of Numerical Algorithms, section 3.1, for sums in any order.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

UNIT = 2.0**-24
"""Half the distance from 1 to the next fp32 number: the largest relative error of one rounding."""
ROWS_AT_ONCE = 4096


class Screen:
    """Finds the largest logit of one head.

    It keeps an int8 copy of the head, which takes a quarter of an fp32 head's memory in addition.
    The answer is proven, not only likely. If two logits are so close that the order of a sum
    decides between them, or if a number is not finite, `largest` returns None, and the whole head
    must be computed. `n_asked`, `n_candidates` and `n_undecided` count the calls, the rows that
    were computed again, and the calls that returned None. The head's product must accumulate in
    fp32, which is PyTorch's default.
    """

    def __init__(self, head: nn.Linear) -> None:
        weight = head.weight.detach()
        if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            oneDNN = "has" if torch.backends.mkldnn.is_available() else "lacks"
            raise ValueError("a Screen multiplies int8 numbers on a CPU with oneDNN; got a head on "
                             f"{weight.device} and a PyTorch that {oneDNN} oneDNN. "
                             "Decode with generate()")
        V, D = weight.shape
        self._weight = weight
        self._peak = next(peak for peak in (127, 63) if _is_exact(peak))
        self._gamma = D * UNIT / (1 - D * UNIT) * (1 + 1e-6)
        int8_VD = torch.empty(V, D, dtype=torch.int8)
        self._scale_V, self._error_V, self._length_V = (torch.empty(V) for _ in range(3))
        for start in range(0, V, ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            (int8_VD[rows], self._scale_V[rows], self._error_V[rows],
             self._length_V[rows]) = self._round(weight[rows])
        self._int8, self._no_offset_V = _pack(int8_VD), torch.zeros(V, dtype=torch.int32)
        self.n_asked = self.n_candidates = self.n_undecided = 0

    def _round(self, rows_VD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns int8 rows, their scales, their largest errors and their lengths.

        The error is how far off a logit can be, per unit of the hidden state's length.
        """
        scale_V = (rows_VD.float().abs().amax(1) / self._peak).clamp(min=1e-30)
        int8_VD = (rows_VD.float() / scale_V[:, None]).round().clamp(-self._peak, self._peak)
        kept_VD = int8_VD.double() * scale_V.double()[:, None]
        lost_V, length_V = (rows_VD.double() - kept_VD).norm(dim=1), kept_VD.norm(dim=1)
        # In addition to the loss from int8: rounding in the few fp32 operations here and in the
        # head's own sum.
        error_V = (lost_V + (16 * UNIT + self._gamma) * (lost_V + length_V)) * (1 + 1e-5) + 1e-30
        return int8_VD.to(torch.int8), scale_V, error_V, length_V * (1 + 1e-5)

    def largest(self, hidden: Float[Tensor, "D"]) -> int | None:
        """Returns the row with the largest logit, or None if rounding could decide it."""
        wide_D = hidden.float()
        step = wide_D.abs().max().item() / 127
        is_usable = 1e-30 < step < 1e30  # neither all zero, nor infinite, nor NaN
        best = self._search(wide_D, step) if is_usable else None
        self.n_asked += 1
        self.n_undecided += best is None
        return best

    def _search(self, wide_D: Tensor, step: float) -> int | None:
        """Returns what `largest` does. `step`, one int8 step of the hidden state, is its unit."""
        steps_D = wide_D / step
        int8_D = steps_D.round()
        logits_V = self._multiply(int8_D.to(torch.int8))
        # <w, h> - <kept w, kept h> = <lost w, h> + <kept w, lost h>, which is at most
        # lost w * length of h + length of w * lost h.
        length, lost = (x_D.norm().item() * (1 + 1e-5) for x_D in (steps_D, steps_D - int8_D))
        most, first = (value.item() for value in logits_V.max(0))
        bar = most - length * self._error_V[first].item() - lost * self._length_V[first].item()
        upper_V = torch.add(logits_V, self._error_V, alpha=length)
        upper_V.add_(self._length_V, alpha=lost)
        (candidates_C,) = (upper_V >= bar).nonzero(as_tuple=True)
        self.n_candidates += len(candidates_C)
        if not 0 < len(candidates_C) <= max(64, len(logits_V) // 8):  # 0: a NaN in the head
            return None
        return self._settle(candidates_C, wide_D, bar=bar * step)

    def _settle(self, candidates_C: Tensor, wide_D: Tensor, *, bar: float) -> int | None:
        """Returns the winner, or None if another row may exceed it in some order of the head's sum.

        The logits of all rows that are not candidates are below `bar`.
        """
        if len(candidates_C) == 1 and self._weight.dtype == torch.float32:
            return candidates_C.item()
        products_CD = self._weight[candidates_C].double() * wide_D.double()
        exact_C, doubt_C = products_CD.sum(1), products_CD.abs().sum(1) * self._gamma + 1e-30
        # The plain logits are rounded to the head's dtype, and rounding keeps the order of two
        # numbers or makes them equal.
        least_C, most_C = ((exact_C + sign * doubt_C).float().to(self._weight.dtype)
                           for sign in (-1, 1))
        winner = exact_C.argmax()
        most_C[winner] = bar
        return candidates_C[winner].item() if least_C[winner] > most_C.max() else None

    def _multiply(self, int8_D: Tensor) -> Float[Tensor, "V"]:
        return _product(int8_D[None], self._int8, self._scale_V, self._no_offset_V)[0]


def _pack(int8_VD: Tensor) -> Tensor:
    return torch.ops.onednn.qlinear_prepack(int8_VD, [1, int8_VD.shape[1]])


def _product(
    x_BD: Tensor, packed: Tensor, scale_V: Tensor, no_offset_V: Tensor
) -> Float[Tensor, "B V"]:
    """Returns exact integer sums, each rounded to fp32 and multiplied by its row's scale."""
    # PyTorch's only int8 product that is fast for one row, exact and not deprecated. Its name is
    # not public.
    return torch.ops.onednn.qlinear_pointwise(
        x_BD, 1.0, 0, packed, scale_V, no_offset_V, None, 1.0, 0, torch.float32, "none", [], "")


def _is_exact(peak: int) -> bool:
    """Returns whether int8 products up to 127 * peak add up without loss.

    Older processors add two products in 16 bits, and saturate.
    """
    x_BD = torch.full((1, 64), 127, dtype=torch.int8)
    rows_VD = torch.full((32, 64), peak, dtype=torch.int8)
    rows_VD[::2] = -peak
    sums_BV = _product(x_BD, _pack(rows_VD), torch.ones(32), torch.zeros(32, dtype=torch.int32))
    return torch.equal(sums_BV.double(), x_BD.double() @ rows_VD.double().T)
