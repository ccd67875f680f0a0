"""Merging by pairs equals merging by the tokenizers library; see also test_vocabulary."""

import random

import tokenizers

from llama_from_scratch.tokenizer.hugging_face.pair_merging import merge_pairs


def test_any_list_of_pairs_merges_as_in_the_library():
    rng = random.Random(0)
    for _ in range(200):
        vocab, merges = {char: i for i, char in enumerate("abcd")}, []
        for _ in range(rng.randint(0, 12)):
            left, right = rng.choices(list(vocab), k=2)
            if (left, right) not in merges:
                merges.append((left, right))
                vocab.setdefault(left + right, len(vocab))
        theirs = tokenizers.models.BPE(vocab, merges)
        ranked = {(vocab[left], vocab[right]): (rank, vocab[left + right])
                  for rank, (left, right) in enumerate(merges)}
        for _ in range(10):
            word = "".join(rng.choices("abcd", k=rng.randint(0, 40)))
            ids = [token.id for token in theirs.tokenize(word)]
            assert merge_pairs([vocab[char] for char in word], ranked) == ids


def test_a_long_word_takes_steps_in_proportion():
    calls = []

    class Counted(dict):
        def get(self, key):
            calls.append(key)
            return super().get(key)

    for n in (1000, 4000):
        calls.clear()
        merge_pairs([1] * n, Counted({(1, 1): (0, 2), (2, 2): (1, 3)}))
        assert len(calls) < 8 * n
