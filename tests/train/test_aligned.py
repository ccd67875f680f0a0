import torch

from llama_from_scratch.train.aligned import Aligned
from llama_from_scratch.train.data import IGNORE


def test_every_window_begins_with_a_document_and_predicts_within_documents_alone():
    data = Aligned([[1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11]])
    batch = data.batch(3, batch_size=8, seq_len=5, seed=0)
    rows = zip(batch.ids.tolist(), batch.targets.tolist(), batch.documents.tolist(),
               batch.positions.tolist(), strict=True)
    for ids, targets, documents, positions in rows:
        if ids[0] == 1:
            assert ids == [1, 2, 3, 4, 5] and targets == [2, 3, 4, IGNORE, 6]
            assert positions == [0, 1, 2, 3, 0] and documents == [0, 0, 0, 0, 4]
        else:
            assert ids == [5, 6, 7, 8, 9] and targets == [6, IGNORE, 8, 9, 10]
    firsts = {int(row[0]) for row in batch.ids}
    assert firsts == {1, 5}, "the last document has no room for a window"
    other = data.batch(4, batch_size=8, seq_len=5, seed=0)
    assert not torch.equal(batch.ids, other.ids)


def test_a_batch_depends_on_its_step_and_the_seed_alone():
    documents = [[n] * (n % 7 + 1) for n in range(60)]
    data, again = Aligned(documents), Aligned(documents)
    again.batch(0, batch_size=4, seq_len=9, seed=5)
    one, two = (d.batch(3, batch_size=4, seq_len=9, seed=5) for d in (data, again))
    assert torch.equal(one.ids, two.ids)
    assert not torch.equal(one.ids, data.batch(3, batch_size=4, seq_len=9, seed=6).ids)
