"""Which images a token sees: against transformers' rule, in pieces, in documents, in tiles."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seeing_twin import IMAGE, batch, tile_mask_of
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from llama_from_scratch.vision.image_mask import (
    Before,
    ImageSlots,
    Sight,
    image_token_mask,
    nothing_before,
    sight,
)

TEXTS = st.lists(st.booleans(), min_size=1, max_size=14)


def seen(sees, n_images):
    """(T, I): which images each token of the only row sees."""
    numbers = torch.arange(n_images)
    return (numbers >= sees.first[0, :, None]) & (numbers < sees.end[0, :, None])


def whole(is_image):
    return sight(torch.tensor([is_image]), before=nothing_before(1))


@given(TEXTS)
def test_tokens_see_what_the_released_processor_says(is_image):
    ids = [IMAGE if each else 1 for each in is_image]
    n_images = sum(is_image)
    spans = [get_cross_attention_token_mask(ids, IMAGE)]
    dense = convert_sparse_cross_attention_mask_to_dense(
        spans, num_tiles=[[1] * n_images], max_num_tiles=1, length=len(ids))
    expected = torch.from_numpy(dense)[0, :, :, 0].bool()
    assert torch.equal(seen(whole(is_image), n_images), expected[:, :n_images])


@pytest.mark.parametrize("places, expected", [
    ([2], [[], [], [0], [0], [0], [0], [0]]),
    ([1, 4], [[], [0], [0], [0], [1], [1], [1]]),
    ([1, 2], [[], [0], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1]]),
    ([0, 3, 4], [[0], [0], [0], [1], [1, 2], [1, 2], [1, 2]]),
    ([5, 6], [[], [], [], [], [], [0], [0, 1]]),
    ([], [[]] * 7),
])
def test_the_rule_by_example(places, expected):
    sees = whole([t in places for t in range(7)])
    assert [row.nonzero().flatten().tolist() for row in seen(sees, len(places))] == expected


@given(TEXTS, st.data())
def test_a_text_read_in_pieces_sees_the_same(is_image, data):
    expected = whole(is_image)
    at, before, found = 0, nothing_before(1), []
    while at < len(is_image):
        n = data.draw(st.integers(1, len(is_image) - at))
        piece = sight(torch.tensor([is_image[at : at + n]]), before=before)
        found.append(piece)
        before = Before(first=piece.first[:, -1:], end=piece.end[:, -1:],
                        is_image=torch.tensor([[is_image[at + n - 1]]]),
                        documents=torch.zeros(1, 1, dtype=torch.int64))
        at += n
    assert torch.equal(torch.cat([piece.first for piece in found], 1), expected.first)
    assert torch.equal(torch.cat([piece.end for piece in found], 1), expected.end)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_each_document_sees_only_its_own_images(documents):
    joined = [each for document in documents for each in document]
    numbers = torch.tensor([[i for i, document in enumerate(documents) for _ in document]])
    together = sight(torch.tensor([joined]), before=nothing_before(1), documents=numbers)
    n_before, at = 0, 0
    for document in documents:
        alone = seen(whole(document), sum(document))
        part = seen(together, sum(joined))[at : at + len(document)]
        expected = torch.zeros_like(part)
        expected[:, n_before : n_before + sum(document)] = alone
        assert torch.equal(part, expected)
        n_before, at = n_before + sum(document), at + len(document)


def test_a_document_that_begins_in_a_later_piece_sees_no_earlier_image():
    before = Before(first=torch.tensor([[0]]), end=torch.tensor([[1]]),
                    is_image=torch.tensor([[True]]), documents=torch.tensor([[0]]))
    text = torch.tensor([[False, True]])
    same = sight(text, before=before)
    other = sight(text, before=before, documents=torch.tensor([[1, 1]]))
    assert (same.first.tolist(), other.first.tolist()) == ([[0, 1]], [[1, 1]])
    assert same.end.tolist() == other.end.tolist() == [[1, 2]]


def test_the_tiles_that_an_image_does_not_use_are_hidden():
    ids, images = batch()
    sees = sight(ids == IMAGE, before=nothing_before(4))
    slots = ImageSlots.none(4).with_images(images.n_tiles)
    mask, sees_image = image_token_mask(sees, slots, max_tiles=4, n_tokens=3)
    expected = tile_mask_of(ids, images).bool()
    assert torch.equal(sees_image, expected.flatten(2).any(-1))
    dense = mask.mask[:, 0].unflatten(-1, (3, 4, 3))
    for token in range(3):
        assert torch.equal(dense[..., token] & sees_image[..., None, None], expected)


def test_a_token_without_an_image_may_look_everywhere_because_a_softmax_needs_a_key():
    sees = Sight(first=torch.zeros(1, 2, dtype=torch.int64), end=torch.tensor([[0, 1]]))
    slots = ImageSlots.none(1).with_images(torch.tensor([[1]]))
    mask, sees_image = image_token_mask(sees, slots, max_tiles=2, n_tokens=1)
    assert mask.mask[0, 0].tolist() == [[True, True], [True, False]]
    assert sees_image.tolist() == [[False, True]]


def test_slots_count_the_images_of_each_row_and_leave_out_padding():
    slots = ImageSlots.none(2).with_images(torch.tensor([[4, 0], [1, 2]]))
    slots = slots.with_images(torch.tensor([[3], [0]]))
    assert slots.numbers.tolist() == [[0, -1, 1], [0, 1, -1]]
    assert slots.n_tiles.tolist() == [[4, 0, 3], [1, 2, 0]]
    assert slots.n_images.tolist() == [2, 2]
    assert slots.rows([1]).select([0, 1]).numbers.tolist() == [[0, 1]]
