"""The attention kernels, their source executed by the emulator, against float64 and against the
plain model's code."""

import importlib

import pytest
import torch
from emulated_launch import Vast, checked_launch

from llama_from_scratch.kernels.attention import (
    BACKWARD_RUNGS,
    FORWARD_RUNGS,
    LADDERS,
    AttentionKernel,
    AttentionRule,
    AttentionRung,
    attention,
    attention_with_lse,
    choose,
    rule_for,
    run_backward,
    run_forward,
)
from llama_from_scratch.kernels.emulator.machine import KernelFault, load
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.trial.tolerance import judge
from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.kv_cache import LayerCache
from llama_from_scratch.model.mask import (
    Everything,
    GivenMask,
    Tokens,
    Visible,
    padding_documents,
    plain_tokens,
)

# the package has a function of that name
module = importlib.import_module("llama_from_scratch.kernels.attention")

DTYPES = (torch.float32, torch.bfloat16)
# (B, T, S, H, G, K): every group size from 1 to 8, one query, fewer queries than keys, ragged
# lengths; heads of 2 and 20 are no multiple of a vector, 80 and 200 fill their tile only partly
SIZES = ((1, 1, 1, 1, 1, 2), (2, 2, 2, 2, 1, 20), (1, 33, 33, 3, 1, 64), (2, 64, 64, 4, 1, 20),
         (1, 77, 77, 5, 1, 80), (1, 150, 150, 6, 1, 2), (1, 1, 150, 7, 1, 128),
         (2, 33, 77, 8, 1, 64), (1, 2, 64, 8, 4, 128), (1, 64, 150, 6, 2, 80),
         (1, 33, 33, 2, 1, 200), (1, 33, 33, 2, 2, 256))
ops = torch.ops.llama_from_scratch


def draw(*shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def integers(*shape, below, seed=0):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def inputs(size, *, dtype, seed=0):
    """q, k, v and a gradient of the output, no two alike."""
    B, T, S, H, G, K = size
    shapes = (B, T, H, K), (B, S, G, K), (B, S, G, K), (B, T, H, K)
    return [draw(*shape, dtype=dtype, seed=4 * seed + i) for i, shape in enumerate(shapes)]


def rules(size):
    """Every kind of mask by name. Equal documents are not neighbors, and every query sees itself
    at least."""
    B, T, S, *_ = size
    documents = integers(B, S, below=3 if S > 2 else 1)   # each alone: all gradients are 0
    scattered = Tokens(positions=torch.arange(S)[None], documents=documents, is_plain=False)
    shifted = Tokens(positions=torch.arange(S)[None] + 5, documents=None, is_plain=False)
    lengths = torch.tensor([S // 2, S][:B])
    padded = Tokens(positions=torch.arange(S)[None],
                    documents=padding_documents(lengths, width=S), is_plain=False)
    given = integers(B, 1, T, S, below=2, seed=1).bool()
    given[..., 0] = True
    return {"order": Visible(tokens=plain_tokens(S), n_queries=T),
            "documents": Visible(tokens=scattered, n_queries=T),
            "chunks": Visible(tokens=plain_tokens(S), n_queries=T, chunk_size=20),
            "chunks of a row with gaps": Visible(tokens=shifted, n_queries=T, chunk_size=20),
            "documents and chunks": Visible(tokens=scattered, n_queries=T, chunk_size=20),
            "padding": Visible(tokens=padded, n_queries=T),
            "everything": Everything(), "given": GivenMask(mask=given)}


def dense(q, k, v, seen):
    """The formula, with the scores in memory; 0 for a query that sees nothing. `seen`: (B or 1, 1,
    T, S), True where a query sees a key."""
    k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for x in (k, v))
    scores = torch.einsum("bthk,bshk->bhts", q, k) / q.shape[3]**0.5
    scores = scores.masked_fill(~seen, float("-inf"))
    largest = scores.amax(-1, keepdim=True).clamp(min=torch.finfo(q.dtype).min)
    weights = (scores - largest).exp()
    total = weights.sum(-1, keepdim=True)
    out = torch.einsum("bhts,bshk->bthk", weights / total.where(total > 0, 1), v)
    return out, (largest + total.log()).squeeze(-1)


def mask_of(visible, size):
    _, T, S, *_ = size
    if isinstance(visible, Everything):
        return torch.ones(1, 1, T, S, dtype=torch.bool)
    if visible.mask is None:
        return torch.ones(1, 1, T, S, dtype=torch.bool).tril(S - T)
    return visible.mask


def ours(q, k, v, visible):
    return attention_with_lse(q, k, v, visible=visible, emulate=True)


def plain(q, k, v, visible):
    return SoftmaxAttention()(q, k, v, visible)


def results(function, q, k, v, upstream):
    """The outputs, and the gradients of q, k and v for these gradients of the first outputs."""
    q, k, v = (x.detach().clone().requires_grad_() for x in (q, k, v))
    outputs = function(q, k, v)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = torch.autograd.grad(outputs[:len(upstream)], (q, k, v), upstream,
                                    materialize_grads=True)
    return [x.detach() for x in outputs], list(gradients)


@pytest.fixture
def checked(monkeypatch):
    """A launch ends at the first byte touched outside its tensors."""
    monkeypatch.setattr(module, "launch", checked_launch)


def complaints(size, visible, *, dtype):
    q, k, v, d_out = inputs(size, dtype=dtype)
    seen = mask_of(visible, size)
    (out, lse), gradients = results(lambda *x: ours(*x, visible), q, k, v, [d_out])
    (eager,), eager_gradients = results(lambda *x: plain(*x, visible), q, k, v, [d_out])
    (exact, exact_lse), exact_gradients = results(
        lambda *x: dense(*x, seen), q.double(), k.double(), v.double(), [d_out.double()])
    eager_lse = dense(q.float(), k.float(), v.float(), seen)[1]
    found = {"out": judge(out, exact=exact, eager=eager),
             "lse": judge(lse, exact=exact_lse, eager=eager_lse)}
    for name, *three in zip("qkv", gradients, exact_gradients, eager_gradients, strict=True):
        found[f"d_{name}"] = judge(three[0], exact=three[1], eager=three[2], is_gradient=True)
    return {name: str(verdict) for name, verdict in found.items() if not verdict.is_ok}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_and_its_gradients_are_as_exact_as_the_plain_codes_at_any_size(dtype, checked):
    for number, size in enumerate(SIZES):
        found = rules(size)
        # All masks with the small sizes; a large size takes two of them in turn, and so does bf16,
        # where the number type is the question.
        names = list(found)
        is_small = size[1] * size[3] <= 200 and dtype == torch.float32
        for name in names if is_small else (names[number % 8], names[(number + 3) % 8]):
            assert not complaints(size, found[name], dtype=dtype), (size, name)


def test_every_rung_of_the_attention_ladder_is_as_exact_as_the_plain_code(checked):
    for size in SIZES[1:5]:
        q, k, v, _ = inputs(size, dtype=torch.bfloat16)
        for name, visible in rules(size).items():
            rule = rule_for(visible, batch=size[0], n_queries=size[1], n_keys=size[2])
            exact, exact_lse = dense(q.double(), k.double(), v.double(), mask_of(visible, size))
            eager = plain(q, k, v, visible)
            for rung, each in FORWARD_RUNGS.items():
                if not each.is_general:
                    continue   # its own tests are with its file
                out, lse = run_forward(q, k, v, rule=rule, rung=rung)
                assert judge(out, exact=exact, eager=eager).is_ok, (size, name, rung)
                torch.testing.assert_close(lse.double(), exact_lse, rtol=2e-6, atol=2e-6)


def test_attention_passes_gradcheck_with_both_of_its_outputs(checked):
    """By finite differences in double, at each width of a tile; the gradients that arrive at out
    and lse differ from number to number."""
    for size, is_fast, names in (((2, 2, 3, 2, 1, 2), False, ("documents and chunks", "given")),
                                 ((1, 3, 5, 4, 2, 70), True, ("order",)),
                                 ((1, 3, 5, 2, 2, 130), True, ("order",))):
        q, k, v, _ = (x.requires_grad_() for x in inputs(size, dtype=torch.float64))
        for name in names:
            visible = rules(size)[name]
            assert torch.autograd.gradcheck(
                lambda *x, visible=visible: ours(*x, visible), (q, k, v), fast_mode=is_fast)


def test_a_gradient_that_arrives_only_at_the_lse_is_right(checked):
    size = (2, 5, 9, 4, 2, 20)
    q, k, v, _ = inputs(size, dtype=torch.float64)
    visible = rules(size)["documents"]
    d_lse = draw(2, 4, 5, dtype=torch.float64, seed=9)
    ways = (lambda *x: ours(*x, visible)[1], lambda *x: dense(*x, mask_of(visible, size))[1])
    for a, b in zip(*(results(way, q, k, v, [d_lse])[1] for way in ways), strict=True):
        torch.testing.assert_close(a, b)


# --- what is seen ---------------------------------------------------------------------------------


def test_rows_that_see_nothing_are_zero_and_pass_no_gradient(checked):
    """A softmax over nothing is 0 / 0 in plain code. Here the sum is empty."""
    size = (2, 5, 40, 2, 1, 20)
    q, k, v, d_out = inputs(size, dtype=torch.float32)
    mask = integers(2, 1, 5, 40, below=2).bool()
    mask[0, 0, 1] = mask[1, 0, 3] = False
    (out, lse), gradients = results(lambda *x: ours(*x, GivenMask(mask=mask)), q, k, v, [d_out])
    for row in ((0, 1), (1, 3)):
        assert not out[row].any() and not gradients[0][row].any()
        assert (lse[row[0], :, row[1]] == float("-inf")).all()
    _, exact = results(lambda *x: dense(*x, mask), q, k, v, [d_out])
    for a, b in zip(gradients, exact, strict=True):
        torch.testing.assert_close(a, b)
    nothing = GivenMask(mask=torch.zeros(1, 1, 1, 40, dtype=torch.bool))
    (out, _), gradients = results(lambda *x: ours(*x, nothing), q, k, v, [d_out])
    assert not any(x.any() for x in (out, *gradients))


def test_more_queries_than_keys_are_defined_as_the_first_ones_seeing_nothing(checked):
    size = (1, 70, 33, 2, 1, 20)
    q, k, v, d_out = inputs(size, dtype=torch.float32)
    rule = AttentionRule(is_causal=True)
    seen = torch.ones(1, 1, 70, 33, dtype=torch.bool).tril(33 - 70)
    exact, _ = dense(q, k, v, seen)
    _, wanted = results(lambda *x: dense(*x, seen), q, k, v, [d_out])
    for rung in ("naive", "scalar"):
        out, lse = run_forward(q, k, v, rule=rule, rung=rung)
        torch.testing.assert_close(out, exact)
        assert not out[:, :37].any() and (lse[..., :37] == float("-inf")).all()
    gradients = run_backward(d_out, q, k, v, out=out, lse=lse, rule=rule)
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert not gradients[0][:, :37].any()


def test_no_key_and_no_query_are_no_launch(checked):
    q, k, v, _ = inputs((1, 3, 0, 2, 1, 8), dtype=torch.float32)
    out, lse = ours(q, k, v, Everything())
    assert not out.any() and (lse == float("-inf")).all()
    gradients = run_backward(out, q, k, v, out=out, lse=lse, rule=AttentionRule())
    assert not gradients[0].any() and gradients[1].shape == k.shape
    q, k, v, _ = inputs((1, 0, 3, 2, 1, 8), dtype=torch.float32)
    assert ours(q, k, v, Everything())[0].shape == q.shape


def test_the_groups_are_computed_once_for_all_layers():
    size = (2, 3, 3, 2, 1, 8)
    visible = rules(size)["documents"]
    first = visible.groups
    for _ in range(2):
        rule = rule_for(visible, batch=2, n_queries=3, n_keys=3)
        assert rule.groups is first.number and rule.first is first.first


def test_tiles_before_a_querys_document_are_not_read(checked):
    """Numbers there would turn the sum into NaN, as 0 * NaN is NaN."""
    size = (1, 96, 96, 1, 1, 20)
    q, k, v, _ = inputs(size, dtype=torch.float32)
    documents = (torch.arange(96) >= 64)[None].long()
    tokens = Tokens(positions=torch.arange(96)[None], documents=documents, is_plain=False)
    visible = Visible(tokens=tokens, n_queries=96)
    k[:, :64] = v[:, :64] = float("nan")
    out, _ = ours(q, k, v, visible)
    assert out[:, 64:].isfinite().all() and out[:, :64].isnan().all()


# --- bugs that users of kernel libraries reported -------------------------------------------------


def views_of(x):
    """x (B, S, G, K) in the layouts of views, copies and expansions, with a name for each."""
    G = x.shape[2]
    cache = LayerCache(torch.cat([x, x], dim=1), torch.cat([x, -x], dim=1))
    yield "a part of a longer cache", cache.append(x, x)[0]
    yield "heads before tokens", x.transpose(1, 2).contiguous().transpose(1, 2)
    yield "a part of a wider projection", torch.cat([x, x], dim=2)[:, :, G:]
    yield "channels first", x.transpose(1, 3).contiguous().transpose(1, 3)
    yield "misaligned", torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    yield "rows apart by no multiple of 16 bytes", torch.cat([x, x[..., :1]], dim=-1)[..., :-1]
    yield "one token for all", x[:, :1].expand(x.shape)
    yield "one number for all", x[:1, :1, :1, :1].expand(x.shape)


@pytest.mark.parametrize("width", [16, 20])
def test_a_strided_or_misaligned_tensor_is_not_read_at_wrong_offsets(width, checked):
    size = (2, 5, 5, 2, 2, width)
    q, k, v, d_out = inputs(size, dtype=torch.bfloat16)
    visible = rules(size)["documents"]
    for place in range(4):
        for name, odd in views_of((q, k, v, d_out)[place]):
            pairs = []
            for layout in (odd, odd.clone(memory_format=torch.contiguous_format)):
                case = [q, k, v, d_out]
                case[place] = layout
                # not cloned: the layout is the question
                leaves = [x.detach().requires_grad_() for x in case[:3]]
                out, lse = ours(*leaves, visible)
                pairs.append([out, lse, *torch.autograd.grad(out, leaves, case[3])])
            assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True)), (name, place)


def test_keys_in_a_cache_are_read_where_they_are(checked, monkeypatch):
    """A copy of the cache for every token would cost more than the attention."""
    q, k, v, _ = inputs((2, 3, 9, 4, 2, 16), dtype=torch.bfloat16)
    cache = LayerCache(torch.zeros(2, 40, 2, 16, dtype=k.dtype),
                       torch.zeros(2, 40, 2, 16, dtype=k.dtype))
    keys, values = cache.append(k, v)
    seen = []
    monkeypatch.setattr(module, "launch", lambda program, entry, args, **shape: (
        seen.append(args[1].data_ptr()), checked_launch(program, entry, args, **shape)))
    visible = rules((2, 3, 9, 4, 2, 16))["order"]
    assert torch.equal(ours(q, keys, values, visible)[0], ours(q, k, v, visible)[0])
    assert seen[0] == keys.data_ptr()


def test_attention_reaches_elements_beyond_two_to_the_31st():
    """17 tokens of one head, 2^27 numbers apart, in q, k and v; 32 bits would wrap in the last."""
    n, step, real = 17, 2**27, torch.bfloat16
    rows = inputs((1, n, n, 1, 1, 64), dtype=real)
    vast = []
    for x in rows[:3]:
        vast.append(Vast(n * step, real).tensor)
        vast[-1].view(n, step)[:, :64] = x[0, :, 0]
    q, k, v = (x.as_strided((1, n, 1, 64), (n * step, step, 64, 1)) for x in vast)
    rule = AttentionRule(is_causal=True)
    found, right = (run_forward(*three, rule=rule) for three in ((q, k, v), rows[:3]))
    assert all(torch.equal(a, b) for a, b in zip(found, right, strict=True))
    assert torch.equal(run_forward(q, k, v, rule=rule, rung="naive")[1],
                       run_forward(*rows[:3], rule=rule, rung="naive")[1])
    found, right = (run_backward(rows[3], *three, out=right[0], lse=right[1], rule=rule)
                    for three in ((q, k, v), rows[:3]))
    assert all(torch.equal(a, b) for a, b in zip(found, right, strict=True))


def test_one_token_and_a_tiny_head_give_finite_gradients(checked):
    for size in ((1, 1, 1, 1, 1, 1), (1, 1, 1, 8, 1, 2), (1, 1, 7, 2, 1, 1)):
        q, k, v, d_out = inputs(size, dtype=torch.float32)
        visible = rules(size)["order"]
        (out, lse), gradients = results(lambda *x, visible=visible: ours(*x, visible), q, k, v,
                                        [d_out])
        assert all(x.isfinite().all() for x in (out, lse, *gradients)), size
    q, k, v, d_out = inputs((1, 1, 1, 2, 1, 4), dtype=torch.float32)
    (out, _), gradients = results(lambda *x: ours(*x, Everything()), q, k, v, [d_out])
    assert torch.equal(out, v.expand(out.shape)) and gradients[0].abs().max() < 1e-6
    torch.testing.assert_close(gradients[2], d_out.sum(2, keepdim=True))


def test_scores_far_from_zero_neither_overflow_nor_vanish(checked):
    q, k, v, d_out = inputs((1, 40, 40, 1, 1, 20), dtype=torch.float32)
    for factor in (1e3, 1e15):
        (out, lse), gradients = results(lambda *x: ours(*x, Everything()), factor * q, k, v,
                                        [d_out])
        assert all(x.isfinite().all() for x in (out, lse, *gradients))
        exact, _ = dense(factor * q.double(), k.double(), v.double(),
                         torch.ones(1, 1, 40, 40, dtype=torch.bool))
        torch.testing.assert_close(out.double(), exact, rtol=1e-3, atol=1e-3)


# --- the same bits --------------------------------------------------------------------------------


def test_attention_is_the_same_bits_in_every_order_of_threads(monkeypatch):
    size = (1, 70, 100, 4, 2, 20)
    q, k, v, d_out = inputs(size, dtype=torch.bfloat16)
    rule = rule_for(rules(size)["documents and chunks"], batch=1, n_queries=70, n_keys=100)
    found = []
    for order in ("forward", "reverse", "random"):
        monkeypatch.setattr(module, "launch", lambda *args, order=order, **shape: checked_launch(
            *args, **shape, order=order, seed=4))
        naive = run_forward(q, k, v, rule=rule, rung="naive")
        out, lse = run_forward(q, k, v, rule=rule, rung="scalar")
        gradients = run_backward(d_out, q, k, v, out=out, lse=lse, rule=rule, rung="scalar")
        found.append([*naive, out, lse, *gradients])
    assert all(torch.equal(a, b) for others in found[1:]
               for a, b in zip(found[0], others, strict=True))


def test_fifty_deterministic_runs_give_the_same_bits():
    size = (2, 40, 40, 4, 2, 20)
    q, k, v, d_out = inputs(size, dtype=torch.bfloat16)
    visible = rules(size)["documents"]
    def run():
        out, gradients = results(
            lambda *x: attention(*x, visible=visible, is_deterministic=True, emulate=True), q, k, v,
            [d_out])
        return [*out, *gradients]
    first = run()
    assert all(torch.equal(a, b) for _ in range(49) for a, b in zip(first, run(), strict=True))


# --- planted bugs ---------------------------------------------------------------------------------

# name: (file, what is right, what is wrong where BUG is true). One build of a file has all of its
# bugs, and a number chooses one of them.
PLANTED = {
    "forward: the values are still read when the next keys come": (
        "attention", "__syncthreads();   // the values of the tile",
        "if (!BUG) __syncthreads();   // the values of the tile"),
    "forward: a tile is multiplied before all of it is there": (
        "attention", "__syncthreads();\n        multiply<WIDTH>(queries, tile",
        "if (!BUG) __syncthreads();\n        multiply<WIDTH>(queries, tile"),
    "forward: the keys are still read when the values come": (
        "attention", "__syncthreads();   // the keys have been used",
        "if (!BUG) __syncthreads();   // the keys have been used"),
    "forward: heads are tiled instead of neighboring": (
        "attention", "blockIdx.z, kv = batch * kv_batch + head / (n_heads / n_kv_heads)",
        "blockIdx.z, kv = batch * kv_batch + (BUG ? head % n_kv_heads : "
        "head / (n_heads / n_kv_heads))"),
    "forward: the sum does not shrink when a larger score comes": (
        "attention", "total[i] *= shrink", "total[i] *= BUG ? 1 : shrink"),
    "forward: only the thread's own largest score counts": (
        "attention", "max(largest[i], row_max(most))",
        "max(largest[i], BUG ? most : row_max(most))"),
    "forward: queries past the end are written": (
        "attention", "if (query >= rule.n_queries) continue;",
        "if (query >= rule.n_queries + BUG) continue;"),
    "forward: lse lacks the sum": ("attention", "log2(all) * LN_2", "(BUG ? 0 : log2(all) * LN_2)"),
    "rule: a query does not see itself": (
        "attention", "(!is_causal || key <= token(query))\n            &&",
        "(!is_causal || key + BUG <= token(query))\n            &&"),
    "rule: the first query is the first token": (
        "attention", "return query + (n_keys - n_queries);",
        "return query + (BUG ? 0 : n_keys - n_queries);"),
    "rule: documents are not compared": (
        "attention", "|| groups[key] == groups[token(query)]",
        "|| BUG || groups[key] == groups[token(query)]"),
    "rule: tiles begin where the first query's document does": (
        "attention", "least(first, token(query), stop)",
        "(BUG ? first[token(query)] : least(first, token(query), stop))"),
    "tile: rows past the end are read": (
        "attention", "if (first + row < n_rows && column < head_dim)\n",
        "if (first + row < n_rows + 100 * BUG && column < head_dim)\n"),
    "backward: delta lacks the gradient of lse": (
        "attention_backward", "(d_lse_or_null ?", "(d_lse_or_null && !BUG ?"),
    "backward: pairs that do not see each other have a probability": (
        "attention_backward", "score = sees ?", "score = BUG || sees ?"),
    "backward: the queries before are still read when the next ones come": (
        "attention_backward", "            __syncthreads();   // the tiles before",
        "            if (!BUG) __syncthreads();   // the tiles before"),
    "backward: d_s overwrites p while others read it": (
        "attention_backward", "__syncwarp();\n            put_weights(weights, d_s);",
        "if (!BUG) __syncwarp();\n            put_weights(weights, d_s);"),
    "backward: only one query head of a group adds to d_k": (
        "attention_backward", "head < n_group;", "head < (BUG ? 1 : n_group);"),
    "backward: d_k lacks the scale": (
        "attention_backward", "k_sum, i, scale", "k_sum, i, BUG ? 1 : scale"),
    "backward: queries end where the first key's document does": (
        "attention_backward", "greatest(last, key, min(n_keys, end))",
        "(BUG ? last[key] : greatest(last, key, min(n_keys, end)))"),
    "backward: the tiles of d_q's keys leave gaps": (
        "attention_backward", "key < seen.end; key += KEYS",
        "key < seen.end; key += BUG ? KEYS + 1 : KEYS"),
}


def with_bugs(file):
    """The program of a kernel file with a switch at the place of each of its bugs."""
    source = Source.read(file)
    for number, (where, right, wrong) in enumerate(PLANTED.values(), start=1):
        if where == file:
            source = source.replace(right, wrong.replace("BUG", f"(bug == {number})"))
    source = source.replace("constexpr int LANES = 8;", "static int bug;\nconstexpr int LANES = 8;")
    text = source.text
    while "    else if (head_dim <= 128)" in text:   # only narrow heads, to compile faster
        begin = text.index("    else if (head_dim <= 128)")
        text = text[:begin] + text[text.index("}\n", begin):]
    text += "\nextern \"C\" __global__ void plant(const int* number) { bug = *number; }\n"
    return Program(source=Source(name=file, text=text, headers=source.headers), real=torch.float32)


@pytest.fixture(scope="module")
def planted():
    return {file: with_bugs(file) for file in ("attention", "attention_backward")}


def a_small_case():
    """q, k, v and the gradients of out and lse; some scores are large, so that sums shrink."""
    q, k, v, d_out = inputs((2, 70, 100, 4, 2, 16), dtype=torch.float32)
    return 3 * q, k, v, d_out, draw(2, 4, 70, dtype=torch.float32, seed=8)


@pytest.fixture(scope="module")
def right_answers():
    """By mask, the outputs and the gradients of the small case in float64."""
    q, k, v, d_out, d_lse = (x.double() for x in a_small_case())
    size = (2, 70, 100, 4, 2, 16)
    answers = {}
    for name in ("order", "documents", "documents and chunks"):
        seen = mask_of(rules(size)[name], size)
        answers[name] = results(lambda *x, seen=seen: dense(*x, seen), q, k, v, [d_out, d_lse])
    return answers


@pytest.mark.parametrize("name", ["no bug", *PLANTED])
def test_every_planted_bug_is_caught(name, planted, right_answers, monkeypatch):
    """In one of three orders of threads and blocks, by a wrong number or a fault."""
    number = torch.tensor([["no bug", *PLANTED].index(name)], dtype=torch.int32)
    for program in planted.values():
        load(program, kind="checked").launch("plant", [number], grid=1, block=1)
    monkeypatch.setattr(module, "program", lambda file, real: planted[file])
    q, k, v, d_out, d_lse = a_small_case()
    caught = []
    for order in ("forward", "reverse", "random"):
        monkeypatch.setattr(module, "launch", lambda *args, order=order, **shape: checked_launch(
            *args, **shape, order=order, seed=1))
        for mask, (outputs, gradients) in right_answers.items():
            rule = rule_for(rules((2, 70, 100, 4, 2, 16))[mask], batch=2, n_queries=70, n_keys=100)
            right_out, right_lse = (x.float() for x in outputs)
            try:
                found = [*run_forward(q, k, v, rule=rule, rung="scalar"),
                         *run_backward(d_out, q, k, v, out=right_out, lse=right_lse, d_lse=d_lse,
                                       rule=rule, rung="scalar")]
            except KernelFault:
                caught.append((order, mask))
                break
            if not all(torch.allclose(a.double(), b, rtol=1e-4, atol=1e-4)
                       for a, b in zip(found, (*outputs, *gradients), strict=True)):
                caught.append((order, mask))
                break
        if caught:
            break
    assert bool(caught) == (name != "no bug"), caught


# --- which rung runs ------------------------------------------------------------------------------

FAST = AttentionRung(
    name="fast", source="attention", dtypes=(torch.bfloat16, torch.float16), oldest=(8, 0),
    kernels={width: (AttentionKernel(entry="attention_forward", writes=("out", "lse"), queries=64,
                                     keys=32, threads=128, shared_bytes=0),)
             for width in (64, 128)}, is_deterministic=False)
FASTEST = AttentionRung(name="fastest", source="attention", dtypes=(torch.bfloat16,),
                        kernels=FAST.kernels, oldest=(9, 0), is_only_there=True)


@pytest.fixture
def taller(monkeypatch):
    """Ladders with two rungs more that are faster and take less."""
    rungs = {"scalar": BACKWARD_RUNGS["scalar"], "fast": FAST, "fastest": FASTEST}
    monkeypatch.setitem(LADDERS, "forward", rungs)


@pytest.mark.parametrize("asked, name, reason", [
    ({"dtype": torch.bfloat16, "capability": (9, 0)}, "fastest", ""),
    ({"dtype": torch.bfloat16, "capability": (8, 6)}, "fast",
     "the fastest rung needs compute capability 9.0; this GPU has 8.6: the fast rung runs"),
    ({"dtype": torch.bfloat16, "capability": (10, 0)}, "fast",
     "the fastest rung needs compute capability 9.0; this GPU has 10.0: the fast rung runs"),
    ({"dtype": torch.bfloat16}, "fast",
     "the fastest rung needs compute capability 9.0; this GPU has 8.0: the fast rung runs"),
    ({"dtype": torch.bfloat16, "rung": "fastest"}, "fastest", ""),
    ({"dtype": torch.bfloat16, "head_dim": 80, "capability": (9, 0)}, "scalar",
     "the fast rung needs head width 64 or 128; got 80; the fastest rung needs head width 64 or "
     "128; got 80: the scalar rung runs"),
    ({"dtype": torch.float32, "capability": (9, 0)}, "scalar",
     "the fast rung computes in bf16 or fp16; got float; the fastest rung computes in bf16; got "
     "float: the scalar rung runs"),
    ({"dtype": torch.float16, "has_mask": True, "capability": (9, 0)}, "scalar",
     "the fast rung knows order, documents and chunks; got a GivenMask; the fastest rung computes "
     "in bf16; got fp16: the scalar rung runs"),
    ({"dtype": torch.float16, "is_deterministic": True, "capability": (9, 0)}, "scalar",
     "the fast rung adds d_q in an order that differs from run to run; the fastest rung computes "
     "in bf16; got fp16: the scalar rung runs"),
    ({"dtype": torch.bfloat16, "capability": (7, 5)}, "scalar",
     "the fast rung needs compute capability 8.0 or newer; this GPU has 7.5; the fastest rung "
     "needs compute capability 9.0; this GPU has 7.5: the scalar rung runs"),
])
def test_the_fastest_rung_that_fits_is_chosen_and_the_reason_is_said(asked, name, reason, taller):
    choice = choose("forward", **{"head_dim": 64, **asked})
    assert (choice.rung.name, choice.reason) == (name, reason)


@pytest.mark.parametrize("asked, message", [
    ({"rung": "fast", "head_dim": 80}, "the fast rung needs head width 64 or 128; got 80. Leave "
                                       "`rung` out, or ask for 'scalar', which takes these"),
    ({"rung": "fast", "capability": (7, 5)}, "the fast rung needs compute capability 8.0 or newer; "
                                             "this GPU has 7.5. Leave `rung` out"),
    ({"rung": "slow"}, "a rung must be one of scalar, fast, fastest; got 'slow'"),
    ({"head_dim": 257}, "the scalar rung takes heads of width 1 to 256; got 257, and no other rung "
                        "takes this either. Use model.attention.SoftmaxAttention"),
])
def test_a_rung_that_does_not_fit_is_refused_with_the_one_that_does(asked, message, taller):
    with pytest.raises(ValueError, match=message):
        choose("forward", **{"dtype": torch.bfloat16, "head_dim": 64, **asked})


def test_float32_and_double_run_on_the_scalar_rung_of_the_emulator():
    for dtype in (torch.float32, torch.float64):
        for direction in LADDERS:
            assert choose(direction, dtype=dtype, head_dim=64).rung.name == "scalar"


def test_every_tile_of_the_scalar_rungs_fits_the_shared_memory_of_the_oldest_gpu():
    for rungs in LADDERS.values():
        for kernels in rungs["scalar"].kernels.values():
            assert all(kernel.shared_bytes <= 64 * 1024 for kernel in kernels)


# --- refusals and torch ---------------------------------------------------------------------------


def test_attention_refuses_a_cpu_tensor_unless_it_may_emulate():
    q, k, v, _ = inputs((1, 3, 3, 2, 1, 8), dtype=torch.float32)
    with pytest.raises(ValueError, match="attention runs on a CUDA device; the tensor is on "
                                         "cpu.*emulate=True"):
        attention(q, k, v, visible=Everything())


@pytest.mark.parametrize("change, message", [
    (lambda q, k, v: (q[0], k, v), r"q must be \(B, T, H, K\).*got q \(3, 6, 8\)"),
    (lambda q, k, v: (q, k, v[:, :2]), r"both be \(B, S, G, K\).*v \(2, 2, 3, 8\)"),
    (lambda q, k, v: (q[:, :, :4], k, v), r"G divides H; got q \(2, 3, 4, 8\)"),
    (lambda q, k, v: (q, k[..., :4], v[..., :4]), r"x.transpose\(1, 2\) exchanges"),
    (lambda q, k, v: (q, k[:1], v[:1]), r"G divides H; got q \(2, 3, 6, 8\), k \(1, 5, 3, 8\)"),
    (lambda q, k, v: (q[..., :0], k[..., :0], v[..., :0]), r"got q \(2, 3, 6, 0\)"),
    (lambda q, k, v: (q, k[:, :, :0], v[:, :, :0]), r"k \(2, 5, 0, 8\)"),
    (lambda q, k, v: (q, k.half(), v), "share a dtype.*got torch.float32 on cpu, torch.float16"),
    (lambda q, k, v: (q, k.to("meta"), v), "on cpu, torch.float32 on meta"),
    (lambda q, k, v: (q.long(), k.long(), v.long()), "the kernels compute in .*; got torch.int64"),
])
def test_attention_refuses_what_does_not_fit(change, message):
    q, k, v, _ = inputs((2, 3, 5, 6, 3, 8), dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        ops.attention(*change(q, k, v), None, None, None, None, True, False)


@pytest.mark.parametrize("visible, message", [
    (Visible(tokens=plain_tokens(4), n_queries=3),
     r"must be for 3 queries and 5 keys of 2 sequences.*got \(3, 4\) of 1"),
    (Visible(tokens=Tokens(positions=torch.zeros(3, 5, dtype=torch.long), documents=None,
                           is_plain=False), n_queries=3), r"got \(3, 5\) of 3"),
    (GivenMask(mask=torch.ones(2, 1, 3, 4, dtype=torch.bool)),
     r"must be bool and \(2 or 1, 1, 3, 5\), for 3 queries and 5 keys; got torch.bool "
     r"\(2, 1, 3, 4\)"),
    (GivenMask(mask=torch.ones(2, 1, 2, 5, dtype=torch.bool)), r"\(2, 1, 2, 5\)"),
])
def test_attention_refuses_a_mask_for_other_tokens(visible, message):
    q, k, v, _ = inputs((2, 3, 5, 2, 1, 8), dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        ours(q, k, v, visible)


def test_torch_accepts_the_registration_of_attention(checked):
    size = (2, 3, 5, 2, 1, 4)
    q, k, v, d_out = inputs(size, dtype=torch.float64)
    groups = rules(size)["documents"].groups
    masks = groups.number, groups.first, groups.last, None, True, True
    torch.library.opcheck(ops.attention.default,
                          (*(x.requires_grad_() for x in (q, k, v)), *masks))
    out, lse = ops.attention(q, k, v, *masks)
    torch.library.opcheck(ops.attention_backward.default,
                          (d_out, None, *(x.detach() for x in (q, k, v, out, lse)), *masks))


def test_a_second_derivative_of_attention_is_refused(checked):
    q, k, v, _ = (x.requires_grad_() for x in inputs((1, 2, 2, 1, 1, 4), dtype=torch.float64))
    out, _ = ours(q, k, v, Everything())
    (d_q,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative.*SoftmaxAttention"):
        d_q.sum().backward()


def test_torch_compile_takes_attention_into_one_graph(checked):
    """The operator, because the compiler cannot trace the tests' shape checks, which users do not
    have."""
    size = (2, 3, 5, 2, 1, 4)
    q, k, v, d_out = inputs(size, dtype=torch.float64)
    groups = rules(size)["documents"].groups
    def twice(q, k, v):
        return ops.attention(2 * q, k, v, groups.number, groups.first, groups.last, None, True,
                             False)
    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    found, right = (results(way, q, k, v, [d_out]) for way in (compiled, twice))
    for a, b in zip((*found[0], *found[1]), (*right[0], *right[1]), strict=True):
        torch.testing.assert_close(a, b)
