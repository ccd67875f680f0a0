"""The whole text Llama 4 against transformers: logits, gradients, caches, and planted mistakes.

Chunks have 4 tokens and the temperature's floor is 3, so that 19 tokens pass four borders of chunks
and six steps of the temperature.
"""

import dataclasses

import pytest
import torch
from llama4_twin import (
    CHUNK,
    FLOOR,
    assert_near,
    assert_parity,
    in_pieces,
    loud_llama4,
    padded,
    random_ids,
    text_twin_of,
    toy,
)
from torch import nn

from llama_from_scratch.config import RopeScaling, TemperatureTuning
from llama_from_scratch.model import mask as mask_module
from llama_from_scratch.model import temperature as temperature_module
from llama_from_scratch.model.chunk_cache import forgetful_cache
from llama_from_scratch.model.mask import Visible
from llama_from_scratch.model.moe import layer as layer_module
from llama_from_scratch.model.moe.layer import MoE, RoutedExperts
from llama_from_scratch.model.moe.routing import Router, Routing
from llama_from_scratch.model.norm import HeadNorm
from llama_from_scratch.model.rope import Rotate
from llama_from_scratch.model.temperature import Tempered, Unscaled

S = 19
SCALING = RopeScaling(factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0,
                      original_max_seq_len=8)
SHAPES = [dict(step=step, n_active=n_active, has_qk_norm=has_qk_norm)
          for step in (1, 2) for n_active in (1, 2) for has_qk_norm in (True, False)]
CACHES = {"plain": lambda model, **room: model.new_cache(**room), "forgetful": forgetful_cache}
SIZES = {"at once": [S], "in pieces": [5, 1, 7, 2, 4], "token by token": [1],
         "a prompt, then steps": [6, 1], "a prompt of one chunk, then steps": [CHUNK, 1]}


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def both(request):
    model = loud_llama4(toy(**request.param))
    return model, text_twin_of(model)


def test_logits_and_all_gradients_equal_transformers(both):
    assert_parity(*both, random_ids(3, S))


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_text_read_in_any_pieces_equals_transformers(both, sizes, kind):
    model, twin = both
    ids = random_ids(2, S)
    cache = CACHES[kind](model, batch_size=2, max_seq_len=S)
    assert_near(in_pieces(model, ids, cache=cache, sizes=sizes), twin(ids).logits, "the logits")


@pytest.mark.parametrize("kind", [*CACHES, "none"])
@pytest.mark.parametrize("sizes", [[S], [6, 1], [1]], ids=str)
def test_each_row_of_a_padded_batch_equals_transformers_with_that_row_alone(both, sizes, kind):
    model, twin = both
    rows = [random_ids(n, seed=n) for n in (S, 11, 4, 1)]
    ids, positions, documents = padded(rows)
    cache = None if kind == "none" else CACHES[kind](model, batch_size=4, max_seq_len=S)
    found = in_pieces(model, ids, cache=cache, sizes=[S] if cache is None else sizes,
                      positions=positions, documents=documents)
    for row, logits in zip(rows, found, strict=True):
        assert_near(logits[-len(row):], twin(row[None]).logits[0], f"a row of {len(row)} tokens")


@torch.inference_mode()
def test_a_padded_batch_equals_transformers_with_a_padded_batch():
    """With a floor above all positions: transformers counts the padding where ours does not."""
    layers = tuple(dataclasses.replace(spec, temperature=None if spec.temperature is None else
                                       TemperatureTuning(floor=100, strength=0.1))
                   for spec in toy().layers)
    model = loud_llama4(toy(layers=layers))
    rows = [random_ids(n, seed=n) for n in (S, 11, 6)]
    ids, positions, documents = padded(rows)
    found = model(ids, positions=positions, documents=documents)
    expected = text_twin_of(model)(ids, attention_mask=(documents == 0).long(),
                                   position_ids=positions).logits
    for b, row in enumerate(rows):
        assert_near(found[b, -len(row):], expected[b, -len(row):], f"row {b}")


def test_a_stretched_rope_equals_transformers():
    """Scout's: the low and the high frequency factor are equal, so nothing is blended."""
    model = loud_llama4(toy(rope_scaling=SCALING))
    assert_parity(model, text_twin_of(model), random_ids(2, S))
    unscaled = loud_llama4(toy())
    with pytest.raises(AssertionError, match="the logits differs"):
        assert_parity(unscaled, text_twin_of(model), random_ids(2, S))


def test_positions_far_past_the_floor_equal_transformers():
    model = loud_llama4(toy(max_seq_len=512))
    assert_parity(model, text_twin_of(model), random_ids(1, 300))


@torch.inference_mode()
def test_equal_prompts_in_a_batch_give_equal_rows():
    """In float64: the place of a row in a product may change the order of its additions."""
    model = loud_llama4(toy(n_active=2)).double()
    logits = model(random_ids(1, S).expand(5, S))
    for row in logits:
        torch.testing.assert_close(row, logits[0], rtol=0, atol=1e-12)


@torch.inference_mode()
def test_a_layer_without_rope_does_not_notice_a_shift_below_the_floor():
    """Of all positions. One with RoPE and chunks notices it, by its chunks alone."""
    tuning = TemperatureTuning(floor=100, strength=0.1)
    layers = toy(n_layers=4).layers
    nope = dataclasses.replace(layers[3], temperature=tuning)
    model = loud_llama4(toy(layers=(nope,) * 2)).double()
    ids, positions = random_ids(2, S), torch.arange(S)[None]
    expected = model(ids, positions=positions)
    for shift in (1, 40, 99 - S):
        assert torch.equal(model(ids, positions=positions + shift), expected)
    assert not torch.allclose(model(ids, positions=positions + 100 - S), expected, rtol=1e-6)
    chunked = loud_llama4(toy(layers=layers[:2])).double()
    expected = chunked(ids, positions=positions)
    torch.testing.assert_close(chunked(ids, positions=positions + 2 * CHUNK), expected,
                               rtol=1e-4, atol=1e-5)  # angles are computed in fp32
    assert not torch.allclose(chunked(ids, positions=positions + 1), expected, rtol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("n_tokens", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1])
def test_reading_a_prompt_equals_reading_its_tokens_at_every_length_near_a_border(n_tokens, kind):
    """Followed by three more tokens; the second row is padded by one and the third by two."""
    model = loud_llama4(toy(n_active=2))
    rows = [random_ids(n_tokens + 3 - n, seed=n) for n in (0, 1, 2)]
    ids, positions, documents = padded(rows)
    given = dict(positions=positions, documents=documents)
    whole = model(ids, **given)
    for sizes in ([n_tokens, 1], [1], [n_tokens + 3]):
        cache = CACHES[kind](model, batch_size=3, max_seq_len=n_tokens + 3)
        found = in_pieces(model, ids, cache=cache, sizes=sizes, **given)
        for b, row in enumerate(rows):
            assert_near(found[b, -len(row):], whole[b, -len(row):], f"row {b} by {sizes}")


# --- planted mistakes -----------------------------------------------------------------------------
# `both walks` below compares a whole text with gradients, and the same text token by token.


def moe_with(patch, *, scaled_in, scaled_out, order=lambda scores: scores, takes_back=True):
    """Another `MoE.forward`: where copies are scaled, by which scores, and whether they return."""
    def forward(self, x):
        x_ND = x.reshape(-1, x.shape[-1])
        routing = self.router(x_ND)
        scores, experts = order(routing.scores), routing.experts
        counts = torch.bincount(experts.flatten(), minlength=self.n_experts).tolist()
        copies = x_ND[:, None].expand(*experts.shape, -1)
        copies = (copies * scores[..., None] if scaled_in else copies).flatten(0, 1)
        by_expert = experts.flatten().argsort(stable=True)
        found = self.experts(copies[by_expert], counts)
        back = torch.empty_like(found).index_copy(0, by_expert, found) if takes_back else found
        routed = back.unflatten(0, experts.shape)
        routed = (routed * scores[..., None] if scaled_out else routed).sum(1)
        return self.shared(x) + routed.view_as(x)

    patch.setattr(MoE, "forward", forward)


def no_mistake(model, patch):
    moe_with(patch, scaled_in=True, scaled_out=False)


def score_on_the_output(model, patch):
    moe_with(patch, scaled_in=False, scaled_out=True)


def score_on_both(model, patch):
    moe_with(patch, scaled_in=True, scaled_out=True)


def no_score(model, patch):
    moe_with(patch, scaled_in=False, scaled_out=False)


def scores_of_the_token_before(model, patch):
    moe_with(patch, scaled_in=True, scaled_out=False, order=lambda scores: scores.roll(1, 0))


def scores_of_the_wrong_expert(model, patch):
    moe_with(patch, scaled_in=True, scaled_out=False, order=lambda scores: scores.flip(1))


def scores_read_along_the_wrong_axis(model, patch):
    """(N, A) numbers read as (A, N): the same numbers in another order."""
    moe_with(patch, scaled_in=True, scaled_out=False,
             order=lambda scores: scores.T.reshape(scores.shape))


def scores_divided_by_their_sum(model, patch):
    moe_with(patch, scaled_in=True, scaled_out=False,
             order=lambda scores: scores / scores.sum(1, keepdim=True))


def results_left_in_the_order_of_experts(model, patch):
    moe_with(patch, scaled_in=True, scaled_out=False, takes_back=False)


def softmax_instead_of_sigmoid(model, patch):
    right = Router.forward

    def forward(self, x):
        routing = right(self, x)
        scores = routing.logits.softmax(-1).gather(1, routing.experts)
        return Routing(logits=routing.logits, experts=routing.experts, scores=scores)

    patch.setattr(Router, "forward", forward)


def worst_experts_chosen(model, patch):
    for part in model.modules():
        if isinstance(part, Router):
            part.choose.forward = lambda logits, n: (-logits).topk(n, dim=1).indices


def only_the_best_of_two_used(model, patch):
    """The second copy of each token gets nothing, as in an engine that only knows top-1."""
    moe_with(patch, scaled_in=True, scaled_out=False,
             order=lambda scores: scores * torch.tensor([1.0, 0.0]))


def gate_and_up_exchanged(model, patch):
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, RoutedExperts):
                part.w_gate.data, part.w_up.data = part.w_up.data, part.w_gate.data


def shared_expert_left_out(model, patch):
    for part in model.modules():
        if isinstance(part, MoE):
            part.shared.forward = torch.zeros_like


def layer_changes_its_input(model, patch):
    """The norm's output is scaled in place, and the shared expert then reads that."""
    right = layer_module.MoE.forward

    def forward(self, x):
        scores = self.router(x.reshape(-1, x.shape[-1])).scores[:, :1]
        return right(self, x) - self.shared(x) + self.shared(x * scores.view(*x.shape[:-1], 1))

    patch.setattr(MoE, "forward", forward)


def no_chunks_in_steps(model, patch):
    right = Visible.mask.fget
    patch.setattr(Visible, "mask", property(
        lambda self: None if self.n_queries == 1 else right(self)))


def no_chunks_anywhere(model, patch):
    patch.setattr(mask_module, "chunk_mask", lambda query, key, *, chunk_size: torch.ones(
        1, query.shape[1], key.shape[1], dtype=torch.bool))


def chunks_shifted_by_one(model, patch):
    right = mask_module.chunk_mask
    patch.setattr(mask_module, "chunk_mask", lambda query, key, *, chunk_size: right(
        query + 1, key + 1, chunk_size=chunk_size))


def chunks_shifted_by_one_in_steps(model, patch):
    right = mask_module.chunk_mask
    patch.setattr(mask_module, "chunk_mask", lambda query, key, *, chunk_size: right(
        query + (query.shape[1] == 1), key + (query.shape[1] == 1), chunk_size=chunk_size))


def a_window_instead_of_chunks(model, patch):
    patch.setattr(mask_module, "chunk_mask", lambda query, key, *, chunk_size: (
        query[:, :, None] - key[:, None, :] < chunk_size))


def chunks_in_layers_without_rope(model, patch):
    for block in model.layers:
        block.attention.chunk_size = CHUNK


def layers_without_rope_turned(model, patch):
    for block in model.layers:
        block.attention.rotate = Rotate()


def temperature_left_out(model, patch):
    for block in model.layers:
        block.attention.scale_queries = Unscaled()


def temperature_in_every_layer(model, patch):
    tuning = TemperatureTuning(floor=FLOOR, strength=0.1)
    for block in model.layers:
        block.attention.scale_queries = Tempered(tuning)


def of_query_scales(patch, scales):
    patch.setattr(temperature_module, "query_scales", scales)


def temperature_by_the_position_in_this_pass(model, patch):
    right = temperature_module.query_scales
    of_query_scales(patch, lambda positions, tuning: right(
        positions - positions[:, :1], tuning))


def temperature_not_rounded_down(model, patch):
    of_query_scales(patch, lambda positions, tuning: 1 + tuning.strength * torch.log1p(
        (positions + 1) / tuning.floor))


def temperature_one_position_late(model, patch):
    right = temperature_module.query_scales
    of_query_scales(patch, lambda positions, tuning: right(positions - 1, tuning))


def temperature_rounded_after_the_logarithm(model, patch):
    of_query_scales(patch, lambda positions, tuning: 1 + tuning.strength * torch.log1p(
        (positions + 1) / tuning.floor).floor())


class NormOfAllHeads(nn.Module):
    """Divides all heads of a token by one size."""

    def forward(self, x):
        flat = x.flatten(-2)
        return nn.functional.rms_norm(flat, flat.shape[-1:], eps=1e-5).view_as(x)


def heads_normed_together(model, patch):
    for block in model.layers:
        if isinstance(block.attention.q_norm, HeadNorm):
            block.attention.q_norm = block.attention.k_norm = NormOfAllHeads()


def heads_normed_in_layers_without_rope(model, patch):
    for block in model.layers:
        block.attention.q_norm = block.attention.k_norm = HeadNorm(eps=1e-5)


def heads_not_normed(model, patch):
    for block in model.layers:
        block.attention.q_norm = block.attention.k_norm = nn.Identity()


MISTAKES = [
    score_on_the_output, score_on_both, no_score, scores_of_the_token_before,
    scores_of_the_wrong_expert, scores_read_along_the_wrong_axis, scores_divided_by_their_sum,
    results_left_in_the_order_of_experts, softmax_instead_of_sigmoid, worst_experts_chosen,
    only_the_best_of_two_used, gate_and_up_exchanged, shared_expert_left_out,
    layer_changes_its_input, no_chunks_in_steps, no_chunks_anywhere, chunks_shifted_by_one,
    chunks_shifted_by_one_in_steps, a_window_instead_of_chunks, chunks_in_layers_without_rope,
    layers_without_rope_turned, temperature_left_out, temperature_in_every_layer,
    temperature_by_the_position_in_this_pass, temperature_not_rounded_down,
    temperature_one_position_late, temperature_rounded_after_the_logarithm,
    heads_normed_together, heads_normed_in_layers_without_rope, heads_not_normed]


def both_walks(model, twin):
    ids = random_ids(2, S)
    assert_parity(model, twin, ids)
    cache = model.new_cache(batch_size=2, max_seq_len=S)
    assert_near(in_pieces(model, ids, cache=cache, sizes=[1]), twin(ids).logits, "the logits")


def test_without_a_planted_mistake_nothing_is_seen(monkeypatch):
    model = loud_llama4(toy(n_active=2))
    twin = text_twin_of(model)
    no_mistake(model, monkeypatch)
    both_walks(model, twin)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_comparison_sees_a_planted_mistake(mistake, monkeypatch):
    model = loud_llama4(toy(n_active=2))
    twin = text_twin_of(model)
    mistake(model, monkeypatch)
    with pytest.raises(AssertionError, match=r"differs by [\d.]+e[-+]\d+ of its largest number"):
        both_walks(model, twin)


def test_the_norm_of_heads_may_come_before_rope():
    """No comparison can see this order: RoPE keeps the length of a head, and no weight follows."""
    torch.manual_seed(0)
    model, norm = loud_llama4(toy()), HeadNorm(eps=1e-5)
    q, k = torch.randn(1, 9, 4, 8), torch.randn(1, 9, 2, 8)
    rotation = model.rope(torch.arange(9)[None])
    before, after = Rotate()(norm(q), norm(k), rotation), map(norm, Rotate()(q, k, rotation))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
