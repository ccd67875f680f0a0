import torch

from llama_from_scratch.model.mask import PADDING, Tokens, Visible, padding_documents


def tokens(positions, documents=None, *, is_plain=False):
    return Tokens(positions=torch.tensor([positions]), documents=None if documents is None else torch.tensor([documents]),
                  is_plain=is_plain)


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
            seen = Visible(tokens=tokens(positions, documents), n_queries=n_queries, chunk_size=chunk_size)
            assert seen.mask[0, 0].tolist() == rule(positions, documents, chunk_size, n_queries)


def test_plain_cases_need_no_mask_and_say_what_they_mean():
    plain = tokens([0, 1, 2, 3], is_plain=True)
    whole, last = (Visible(tokens=plain, n_queries=n, chunk_size=None) for n in (4, 1))
    assert whole.mask is None and whole.is_causal
    assert last.mask is None and not last.is_causal


def test_a_prompt_that_continues_a_cache_gets_an_explicit_mask():
    seen = Visible(tokens=tokens([0, 1, 2, 3], is_plain=True), n_queries=2, chunk_size=None)
    assert seen.mask[0, 0].tolist() == [[True, True, True, False], [True, True, True, True]]


def test_one_decoded_token_obeys_the_chunk_rule_like_a_prompt_does():
    plain = tokens(list(range(6)), is_plain=True)
    prefill, decode = (Visible(tokens=plain, n_queries=n, chunk_size=4) for n in (6, 1))
    assert decode.mask[0, 0].tolist() == [[False] * 4 + [True] * 2]
    assert torch.equal(prefill.mask[:, :, -1:], decode.mask)
    assert Visible(tokens=plain, n_queries=6, chunk_size=6).mask is None, "one chunk is plain causal attention"


def test_padding_is_invisible_to_real_tokens_and_no_row_is_empty():
    documents = padding_documents(torch.tensor([2, 4]), width=4)
    assert documents.tolist() == [[PADDING, PADDING, 0, 0], [0, 0, 0, 0]]
    positions = torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]])
    seen = Visible(tokens=Tokens(positions=positions, documents=documents, is_plain=False), n_queries=4, chunk_size=None)
    assert seen.mask[0, 0, 2:].tolist() == [[False, False, True, False], [False, False, True, True]]
    assert seen.mask.any(-1).all()
