"""Typical mistakes, each with what the learner has, what is expected, and the words that should
name it.
"""

import math
import re

import torch

from llama_from_scratch.lessons.check.diagnosis.catalog import DIAGNOSES, diagnose

K = 8


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


x_BTHK = random(2, 5, 4, K)
kv_BTGK = random(2, 5, 2, K, seed=1)
scores_TS = random(6, 6, seed=2)
causal = torch.ones(6, 6, dtype=torch.bool).tril()
masked_TS = scores_TS.masked_fill(~causal, -math.inf)
weights_TS = masked_TS.softmax(-1)
rotation_TR = torch.polar(torch.ones(5, 4), random(5, 4, seed=3))
probs = random(5, 7, seed=4).softmax(-1)


def masked(offset, scores=scores_TS):
    return scores.masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(offset), -math.inf)


def with_row(x, row, value):
    x = x.clone()
    x[row] = value
    return x


# name of the diagnosis, what the learner has, what is expected, words of the message
CASES = {
    "axes swapped": ("transposed", x_BTHK.transpose(1, 2), x_BTHK,
                     r"axis 1 and axis 2 are swapped; `.transpose\(1, 2\)`"),
    "square and swapped": ("transposed", scores_TS.mT, scores_TS, "axis 0 and axis 1 are swapped"),
    "axes rotated": ("transposed", x_BTHK.permute(2, 0, 1, 3), x_BTHK, r"`.permute\(1, 2, 0, 3\)`"),
    "heads not cut": ("reshaped", x_BTHK.flatten(2), x_BTHK, r"`.reshape\(2, 5, 4, 8\)`"),
    "keepdim forgotten": ("reshaped", x_BTHK.mean(-1), x_BTHK.mean(-1, keepdim=True),
                          "axis of length 1 is missing"),
    "keepdim too much": ("reshaped", x_BTHK[:1], x_BTHK[0], "axis of length 1 too many"),
    "not repeated": ("reshaped", scores_TS[:1], scores_TS[:1].expand(6, 6),
                     "all entries should have them"),
    "sees the next": ("masked_wrong", masked(1), masked_TS, "off by one: each token "
                                                            "also sees the next one"),
    "sees not itself": ("masked_wrong", torch.ones(6, 6).tril(-1).bool(), causal,
                        "off by one: no token sees itself"),
    "weights see the next": ("masked_wrong", masked(1).softmax(-1), weights_TS,
                             "off by one: each token also sees the next"),
    "sees two more": ("masked_wrong", masked(2).softmax(-1), weights_TS,
                      "off by 2: each token sees 2 tokens too many"),
    "no mask": ("masked_wrong", scores_TS.softmax(-1), weights_TS, "nothing is masked: tokens "
                                                                   "see the tokens after them"),
    "mask too much": ("masked_wrong", weights_TS, scores_TS.softmax(-1),
                      "masked where nothing should be"),
    "mask inverted": ("masked_wrong", ~causal, causal, "True and False are exchanged"),
    "mask upside down": ("masked_wrong", causal.mT, causal, "upside down"),
    "a hole in the mask": ("masked_wrong", with_row(causal, (4, 1), False), causal,
                           r"blocks 1 pair that .* first at \[4, 1\]"),
    "empty row": ("not_finite", with_row(weights_TS, 2, math.nan), weights_TS,
                  r"1 whole row is NaN, the first at \[2\].*masked"),
    "NaN": ("not_finite", with_row(x_BTHK, (0, 3), math.nan), x_BTHK + 1,
            r"first NaN is at \[0, 3, 0, 0\]"),
    "infinity": ("not_finite", with_row(probs, (1, 2), math.inf), probs, r"is inf at \[1, 2\]"),
    "minus": ("sign_flipped", -x_BTHK, x_BTHK, "sign is wrong"),
    "minus of one number": ("sign_flipped", torch.tensor(-1.5), torch.tensor(1.5),
                            "sign is wrong"),
    "turned back": ("conjugated", rotation_TR.conj().resolve_conj(), rotation_TR,
                    "turned in the other direction"),
    "scale missing": ("constant_factor", scores_TS * math.sqrt(K), scores_TS,
                      "√8 times the expected value: a scale 1/√8 is missing"),
    "masked, scale missing": ("constant_factor", masked_TS * 4, masked_TS,
                              "4 times the expected.* leave out 1/√K with K = 16"),
    "scaled twice": ("constant_factor", scores_TS / math.sqrt(K), scores_TS,
                     "1/√8 of the expected"),
    "twice": ("constant_factor", 2 * x_BTHK, x_BTHK, "2 times the expected"),
    "sum for mean": ("constant_factor", x_BTHK.sum(1), x_BTHK.mean(1),
                     "5 times the expected value: .*a sum over 5 values"),
    "mean for sum": ("constant_factor", x_BTHK.mean(1), x_BTHK.sum(1),
                     "1/5 of the expected value: .*a mean over 5 values"),
    "bits": ("constant_factor", torch.tensor(3.1) / math.log(2), torch.tensor(3.1),
             "multiply by ln 2"),
    "nats": ("constant_factor", probs.log(), probs.log2(), "divide by ln 2"),
    "a third": ("constant_factor", 1.37 * x_BTHK, x_BTHK, "1.37 times the expected"),
    "offset": ("constant_offset", x_BTHK + 0.25, x_BTHK, "every value is 0.25 too large"),
    "counted from 1": ("constant_offset", torch.arange(1, 9) ** 2 + 1, torch.arange(1, 9) ** 2,
                       "every value is 1 too large"),
    "heads tiled": ("merged_wrong", kv_BTGK.repeat(1, 1, 2, 1), kv_BTGK.repeat_interleave(2, 2),
                    r"axis 2 the entries are tiled \(0, 1, 0, 1\)"
                    ".*`repeat_interleave`, not `repeat`"),
    "heads repeated": ("merged_wrong", kv_BTGK.repeat_interleave(2, 2), kv_BTGK.repeat(1, 1, 2, 1),
                       "should be tiled"),
    "halves": ("merged_wrong", torch.cat([x_BTHK[..., ::2], x_BTHK[..., 1::2]], -1), x_BTHK,
               r"your pairs are halves \(r, r \+ K/2\), but should be neighbors"),
    "neighbors": ("merged_wrong", x_BTHK, torch.cat([x_BTHK[..., ::2], x_BTHK[..., 1::2]], -1),
                   r"your pairs are neighbors .* but should be halves"),
    "four channels": ("merged_wrong", scores_TS[:, [0, 2, 1, 3]], scores_TS[:, :4], "are confused"),
    "heads joined wrongly": ("merged_wrong", x_BTHK.transpose(2, 3).flatten(2), x_BTHK.flatten(2),
                             r"joins \(8, 4\), but it should join \(4, 8\)"),
    "one late": ("shifted", scores_TS.roll(1, 0), scores_TS, "axis 0: every entry is "
                                                             "one place too late"),
    "targets not shifted": ("shifted", x_BTHK[:, 1:], x_BTHK[:, :-1], "axis 1: every entry is "
                                                                      "one place too early"),
    "rolled": ("shifted", scores_TS.roll(2, 1), scores_TS, r"rolled by 2 places; `.roll\(-2, 1\)`"),
    "reversed": ("reordered", scores_TS.flip(1), scores_TS, "axis 1 is reversed"),
    "shuffled": ("reordered", x_BTHK[:, [3, 0, 4, 1, 2]], x_BTHK,
                 r"axis 1 are in the wrong order; indexing yours with \[1, 3, 4, 0, 2\]"),
    "log for prob": ("logarithm", probs.log(), probs, "apply exp"),
    "prob for log": ("logarithm", probs, probs.log(), "the logarithm is missing"),
    "bits for prob": ("logarithm", probs.log2(), probs, "base-2 logarithms"),
    "softmax missing": ("logarithm", masked_TS, weights_TS, "softmax over axis 1 is missing"),
    "log_softmax missing": ("logarithm", scores_TS, scores_TS.log_softmax(-1),
                            "log_softmax over axis 1 is missing"),
    "softmax over rows": ("softmax_over_wrong_axis", scores_TS.softmax(0), scores_TS.softmax(1),
                          "axis 0.* should be over axis 1"),
    "masked, softmax over rows": ("softmax_over_wrong_axis", masked_TS.softmax(0), weights_TS,
                                  "should be over axis 1"),
    "scale missing in softmax": ("scaled_before_softmax", (masked_TS * math.sqrt(K)).softmax(-1),
                                 weights_TS,
                                 "before the softmax, every score is √8 times"),
    "channel weight missing": ("factor_per_slice", x_BTHK, x_BTHK * random(K, seed=5),
                               "a weight for each channel"),
    "row divided by another": ("factor_per_slice", x_BTHK / x_BTHK.norm(dim=-1, keepdim=True),
                               x_BTHK, "each row along axis 3"),
    "bfloat16": ("lower_precision", x_BTHK.bfloat16(), x_BTHK, "yours is bfloat16, which has "
                                                               "8 significant bits"),
    "bfloat16 inside": ("lower_precision", x_BTHK.bfloat16().float(), x_BTHK,
                        "fits in bfloat16"),
    "float16 inside": ("lower_precision", x_BTHK.half().float(), x_BTHK, "fits in float16"),
    "float32": ("lower_precision", x_BTHK.double().exp().float(), x_BTHK.double().exp(),
                "yours is float32, which has 24"),
}
# What is true in a more general way as well, and therefore comes later in the list.
ALSO_TRUE = {
    "merged_wrong": {"reordered"},
    "shifted": {"reordered"},
    "logarithm": {"not_finite"},  # -inf in scores that should have gone through a softmax
    "masked_wrong": {"transposed", "shifted"},  # masks of booleans
    "constant_factor": {"logarithm"},
}


def cases_of(module):
    """The cases whose diagnosis is in this module."""
    homes = {diagnosis.__name__: diagnosis.__module__ for diagnosis in DIAGNOSES}
    return [case for case, (own, *_) in CASES.items() if homes[own] == module.__name__]


def assert_named(case):
    _, mine, expected, words = CASES[case]
    message = diagnose(mine, expected)
    assert message is not None, "no diagnosis"
    assert re.search(words, message), message
