import math

import pytest
import torch
from tiny_runs import BYTES, OTHER, make

from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.loss import evaluate, sum_of_nats


def test_evaluation_is_the_mean_over_all_tokens_and_bits_per_byte_the_sum_over_all_bytes():
    model = make()
    got = evaluate(model, OTHER, batch_size=2, seq_len=7)
    nats, n_targets = 0.0, 0
    ids = BYTES.encode("The cat saw a bee.", bos=True, eos=True)
    stream = torch.tensor(ids * 3)
    for first in range(0, len(stream) - 1, 7):
        window = stream[first : first + 8]
        begin = 0
        for i in range(len(window) - 1):
            if window[i] == BYTES.bos_id:
                begin = i
            if window[i + 1] != BYTES.bos_id:
                log_p = model(window[None, begin : i + 1])[0, -1].log_softmax(-1)
                nats, n_targets = nats - log_p[window[i + 1]].item(), n_targets + 1
    assert got.n_targets == n_targets == 3 * 19
    assert got.n_bytes == 3 * 18
    assert got.loss == pytest.approx(nats / n_targets, rel=1e-5)
    assert got.bits_per_byte == pytest.approx(nats / (3 * 18) / math.log(2), rel=1e-5)
    assert evaluate(model, OTHER, batch_size=5, seq_len=7).loss == pytest.approx(got.loss, rel=1e-6)


def test_documents_packed_together_are_learned_as_if_they_were_apart():
    def nats(*texts):
        n_predicted = sum(len(text) + 2 for text in texts) - 1
        batches = Packed(texts, BYTES).in_order(batch_size=1, seq_len=n_predicted)
        return sum_of_nats(make(), next(batches)).item()

    apart = nats("cats") + nats("dogs are nice")
    assert nats("cats", "dogs are nice") == pytest.approx(apart, rel=1e-6)
