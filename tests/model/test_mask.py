import pytest
import torch

from llama_from_scratch.model.mask import (
    PADDING,
    GivenMask,
    Tokens,
    Visible,
    padding_documents,
    plain_tokens,
)


def tokens(positions, documents=None, *, is_plain=False):
    documents = None if documents is None else torch.tensor([documents])
    return Tokens(positions=torch.tensor([positions]), documents=documents, is_plain=is_plain)


def rule(positions, documents, chunk_size, n_queries):
    """The rules, one pair of tokens at a time."""
    S = len(positions)
    return [[s <= t and documents[s] == documents[t]
             and positions[s] // chunk_size == positions[t] // chunk_size for s in range(S)]
            for t in range(S - n_queries, S)]


def test_all_rules_together_equal_the_pairwise_loop():
    positions, documents = [0, 1, 2, 3, 0, 1, 2, 3, 4], [7, 7, 7, 7, 8, 8, 8, 8, 8]
    for n_queries in (1, 3, 9):
        for chunk_size in (2, 3, 100):
            seen = Visible(tokens=tokens(positions, documents), n_queries=n_queries,
                           chunk_size=chunk_size)
            assert seen.mask[0, 0].tolist() == rule(positions, documents, chunk_size, n_queries)


@pytest.mark.parametrize(
    ("n_queries", "n_keys", "chunk_size", "is_causal", "is_everything"),
    [
        (4, 4, None, True, False),
        (1, 4, None, False, True),
        (1, 1, None, False, True),
        (2, 4, None, False, False),
        (4, 4, 4, True, False),
        (4, 4, 3, False, False),
        (1, 4, 4, False, True),
        (1, 4, 3, False, False),
    ],
)
def test_plain_cases_need_no_mask(n_queries, n_keys, chunk_size, is_causal, is_everything):
    seen = Visible(tokens=plain_tokens(n_keys), n_queries=n_queries, chunk_size=chunk_size)
    assert seen.shape == (n_queries, n_keys)
    assert (seen.is_causal, seen.is_everything) == (is_causal, is_everything)
    assert (seen.mask is None) == (is_causal or is_everything)
    ones = torch.ones(1, 1, n_queries, n_keys).bool()
    meant = ones.tril() if is_causal else ones if is_everything else seen.mask
    assert torch.equal(seen._dense(), meant), "what the flags claim is what the rule says"


def test_numbers_that_are_not_plain_are_neither_causal_nor_everything():
    for n_queries in (1, 4):
        seen = Visible(tokens=tokens([0, 1, 0, 1], [5, 5, 6, 6]), n_queries=n_queries)
        assert not seen.is_causal and not seen.is_everything
        assert seen.mask[0, 0, -1].tolist() == [False, False, True, True]


def test_plain_tokens_count_from_zero():
    plain = plain_tokens(3)
    assert plain.positions.tolist() == [[0, 1, 2]]
    assert plain.documents is None and plain.is_plain


def test_a_given_mask_is_obeyed_as_it_is():
    mask = torch.tensor([[[[True, True, False], [True, True, True]]]])
    given = GivenMask(mask=mask)
    assert given.mask is mask and given.shape == (2, 3) and not given.is_causal
    assert not GivenMask(mask=torch.ones(1, 1, 3, 3).bool().tril()).is_causal, "a kernel reads it"


def test_a_prompt_that_continues_a_cache_gets_an_explicit_mask():
    seen = Visible(tokens=tokens([0, 1, 2, 3], is_plain=True), n_queries=2, chunk_size=None)
    assert seen.mask[0, 0].tolist() == [[True, True, True, False], [True, True, True, True]]


def test_one_decoded_token_obeys_the_chunk_rule_like_a_prompt_does():
    plain = tokens(list(range(6)), is_plain=True)
    prefill, decode = (Visible(tokens=plain, n_queries=n, chunk_size=4) for n in (6, 1))
    assert decode.mask[0, 0].tolist() == [[False] * 4 + [True] * 2]
    assert torch.equal(prefill.mask[:, :, -1:], decode.mask)
    one_chunk = Visible(tokens=plain, n_queries=6, chunk_size=6)
    assert one_chunk.mask is None, "one chunk is plain causal attention"


def test_padding_is_invisible_to_real_tokens_and_no_row_is_empty():
    documents = padding_documents(torch.tensor([2, 4]), width=4)
    assert documents.tolist() == [[PADDING, PADDING, 0, 0], [0, 0, 0, 0]]
    positions = torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]])
    padded = Tokens(positions=positions, documents=documents, is_plain=False)
    seen = Visible(tokens=padded, n_queries=4, chunk_size=None)
    assert seen.mask[0, 0, 2:].tolist() == [[False, False, True, False],
                                            [False, False, True, True]]
    assert seen.mask.any(-1).all()


def test_tokens_of_documents_in_any_order_find_their_groups():
    documents = torch.tensor([[7, PADDING, 7, 3, PADDING, 3, 7], [0, 0, 0, 0, 0, 0, 0]])
    tokens = Tokens(positions=torch.arange(7)[None], documents=documents, is_plain=False)
    alone = Visible(tokens=tokens, n_queries=7).groups
    assert alone.first.tolist() == [[0, 1, 0, 3, 1, 3, 0], [0] * 7]
    assert alone.last.tolist() == [[6, 4, 6, 5, 4, 5, 6], [6] * 7]
    assert torch.equal(alone.number[:, :, None] == alone.number[:, None],
                       documents[:, :, None] == documents[:, None])
    both = Visible(tokens=tokens, n_queries=7, chunk_size=4).groups
    assert both.first.tolist() == [[0, 1, 0, 3, 4, 5, 6], [0, 0, 0, 0, 4, 4, 4]]
    assert both.last.dtype == torch.int32 and both.number.dtype == torch.int64
    assert Visible(tokens=plain_tokens(7), n_queries=7).groups is None
    assert Visible(tokens=plain_tokens(7), n_queries=7, chunk_size=7).groups is None
