"""Pairs of a better and a worse answer: what `reward` and `dpo` learn from.

- `preferences`: one pair, and readers of the files that people have
- `pair_rows`: pairs as rows of ids, and batches that never part a pair
- `log_probs`: log-probabilities of the tokens of answers

Notebooks 52 and 53.
"""
