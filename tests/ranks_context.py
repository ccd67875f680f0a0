"""What the ranks do in the tests of `parallel.context`: whole rows, and rows cut among ranks.

Everything is in float64 unless a test says otherwise. Gradients are compared, not only losses.
"""

import contextlib
import dataclasses
from unittest import mock

import torch

from llama_from_scratch.config import LayerSpec, LlamaConfig, TemperatureTuning
from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.mask import PADDING, Tokens, Visible
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel import tensor_parallel
from llama_from_scratch.parallel.context import blocks, gather, pieces, ring, sight
from llama_from_scratch.parallel.context.context_parallel import ContextParallel
from llama_from_scratch.parallel.context.gather import GatheredAttention
from llama_from_scratch.parallel.context.ring import PassedOn, RingAttention, around
from llama_from_scratch.parallel.context.sight import VisibleAcrossRanks
from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.loss import sum_of_nats

S = 24
"""Tokens of a row: 2, 3 and 4 ranks can cut it."""
_PLAIN = LlamaConfig(dim=16, n_heads=4, n_kv_heads=2, ffn_dim=24, vocab_size=32, max_seq_len=S,
                     norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 2)
CONFIGS = {
    "grouped": _PLAIN,
    "chunked, one kv head": dataclasses.replace(_PLAIN, n_kv_heads=1, layers=(
        LayerSpec(chunk_size=5, has_qk_norm=True),
        LayerSpec(has_rope=False, temperature=TemperatureTuning(floor=4, strength=0.5)))),
}


def config(name, **changes):
    return dataclasses.replace(CONFIGS[name], **changes)


def make_groups(world):
    """Keeps groups of 2, 3 and 4 ranks, all with the name cp. Of 3, the last rank is alone."""
    world.kept.axes = Mesh(tp=2, cp=2).on(world)
    pairs, three = [(0, 1), (2, 3)], [(0, 1, 2), (3,)]
    world.kept.groups = {2: world.group(pairs, name="cp"), 3: world.group(three, name="cp"),
                         4: world.group([range(4)], name="cp")}


def model_of(its_config, *, seed=0):
    torch.manual_seed(seed)
    model = Llama(its_config).double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2) if p.ndim > 1 else p.uniform_(0.4, 0.9)
    return model


def documents_of(kind, *, n_tokens=S):
    """Documents and positions of two rows: "one" document, or "packed" in awkward ways.

    Packed: one row has padding on the left and then neighbors, the other interleaved documents.
    """
    t = torch.arange(n_tokens)
    if kind == "one":
        documents = torch.zeros(2, n_tokens, dtype=torch.int64)
    else:
        first = torch.where(t < 3, PADDING, torch.where(t < 14, 0, 1))
        documents = torch.stack((first, (t % 5 == 0).long() + 2 * (t > 15)))
    positions = torch.stack([torch.stack([(row[:i] == row[i]).sum() for i in range(n_tokens)])
                             for row in documents])
    return documents, positions


def batch_of(kind, *, seed=1, vocab_size=32, n_tokens=S):
    """Two rows. The targets of early tokens are left out, as of prompts."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab_size, (2, n_tokens), generator=generator)
    documents, positions = documents_of(kind, n_tokens=n_tokens)
    targets = ids.roll(-1, dims=1)
    targets[0, : n_tokens // 2 + seed] = IGNORE
    targets[:, -1] = IGNORE
    return Batch(ids=ids, targets=targets, documents=documents, positions=positions)


def difference(a, b):
    """The largest difference, as a share of the largest number."""
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-3)).item()


# --- the whole model ------------------------------------------------------------------------------


def compare(world, name, *, kind, style, n_ranks, mutant=None):
    """The largest differences to one process, of outputs, loss and gradients.

    There are two micro-batches, with unequal numbers of targets. A rank that is alone returns 0s.
    """
    its_config, group = config(name), world.kept.groups[n_ranks]
    whole, cut = model_of(its_config), model_of(its_config)
    micro_batches = [batch_of(kind, seed=seed) for seed in (1, 4)]
    n = sum(batch.n_targets for batch in micro_batches)
    loss = sum(sum_of_nats(whole, batch) for batch in micro_batches) / n
    loss.backward()
    change, patches = MUTANTS[mutant] if mutant else (None, contextlib.nullcontext)
    with patches():
        strategy = ContextParallel(cut, group, style=style)
        data = DataParallel(cut, group)
        found, outputs = 0.0, []
        for number, batch in enumerate(micro_batches, 1):
            own = strategy.tokens_of(batch)
            own = change(own) if change else own
            with data.micro_batch(is_last=number == len(micro_batches)):
                part = sum_of_nats(cut, own) / n
                if mutant == MEAN_OF_MEANS:
                    part = part * n / own.n_targets / group.size / len(micro_batches)
                part.backward()
            found = found + part.detach()
            outputs.append(strategy.whole_of(own.logits(cut)))
        data.finish()
    found = group.all_reduce(found.clone())
    grads = dict(whole.named_parameters())
    return dict(
        loss=difference(found, loss.detach()),
        outputs=max(difference(mine.detach(), batch.logits(whole).detach())
                    for mine, batch in zip(outputs, micro_batches, strict=True)),
        gradients=max(difference(p.grad, grads[name].grad) for name, p in cut.named_parameters()))


def packed_or_apart(world, *, style, n_ranks):
    """The difference between a document that shares its row with another one, and alone."""
    its_config, group = config("grouped"), world.kept.groups[n_ranks]
    cut = model_of(its_config)
    ContextParallel(cut, group, style=style)
    batch, half = batch_of("one"), S // 2
    t = torch.arange(S).expand(2, S)
    packed = dataclasses.replace(batch, documents=(t >= half).long(), positions=t % half)
    together = pieces.whole_of(pieces.tokens_of(packed, group).logits(cut), group)
    whole = model_of(its_config)
    apart = torch.cat([whole(batch.ids[:, :half]), whole(batch.ids[:, half:])], dim=1)
    return difference(together, apart)


def with_tensor_parallel(world, *, style, is_sequence_parallel):
    """The differences on 2 x 2 ranks that cut heads and tokens, one step."""
    axes, its_config = world.kept.axes, config("chunked, one kv head")
    whole, cut, batch = model_of(its_config), model_of(its_config), batch_of("packed")
    loss = sum_of_nats(whole, batch) / batch.n_targets
    loss.backward()
    tensor = tensor_parallel.split(cut, axes.tp, is_sequence_parallel=is_sequence_parallel)
    strategy = ContextParallel(cut, axes.cp, style=style)
    data = DataParallel(cut, axes.gradients)
    with data.micro_batch(is_last=True):
        part = tensor.loss(cut, strategy.tokens_of(batch), is_bf16=False) / batch.n_targets
        part.backward()
    data.finish()
    grads = {name: p.grad for name, p in cut.named_parameters()}
    tensor.finish_gradients(grads)
    expected = dict(whole.named_parameters())
    return dict(loss=difference(axes.cp.all_reduce(part.detach()), loss.detach()),
                gradients=max(difference(tensor.whole(name, grad), expected[name].grad)
                              for name, grad in grads.items()))


def by_stages(world, *, style, n_ranks):
    """The difference when the layers run in two halves, as two stages of a pipeline would."""
    its_config, group = config("grouped"), world.kept.groups[n_ranks]
    whole, cut, batch = model_of(its_config), model_of(its_config), batch_of("packed")
    strategy = ContextParallel(cut, group, style=style)
    own = strategy.tokens_of(batch)
    x = cut.embed(own.ids)
    for layers in (slice(0, 1), slice(1, 2)):
        inputs = cut.prepare(x, positions=own.positions, documents=own.documents)
        x = cut.run(x, inputs, layers=layers)
    return difference(strategy.whole_of(cut.head(x)), batch.logits(whole))


def in_bf16(world, *, style, n_ranks):
    """The relative difference of the loss under autocast, and the dtypes of the gradients."""
    its_config, group = config("chunked, one kv head"), world.kept.groups[n_ranks]
    whole, cut = model_of(its_config).float(), model_of(its_config).float()
    batch = batch_of("packed")
    strategy = ContextParallel(cut, group, style=style)
    own = sum_of_nats(cut, strategy.tokens_of(batch), is_bf16=True)
    own.backward()
    expected = sum_of_nats(whole, batch, is_bf16=True)
    return (difference(group.all_reduce(own.detach()), expected.detach()),
            {p.grad.dtype for p in cut.parameters()})


def logged(world, name, *, style, n_ranks, is_bf16, is_training, tp=1, kind="packed"):
    """What this rank sent along cp in one pass, by (operation, note)."""
    group = world.kept.axes.cp if tp > 1 else world.kept.groups[n_ranks]
    model = model_of(config(name))
    model = model.float() if is_bf16 else model
    tensor = tensor_parallel.split(model, world.kept.axes.tp) if tp > 1 else None
    strategy, found = ContextParallel(model, group, style=style), {}
    own = strategy.tokens_of(batch_of(kind))
    world.log.clear()
    with torch.set_grad_enabled(is_training):
        loss = (tensor.loss if tensor else sum_of_nats)(model, own, is_bf16=is_bf16)
    if is_training:
        loss.backward()
    for call in world.log.calls:
        if call.group == "cp":
            key = call.op, call.note
            found[key] = found.get(key, 0) + call.sent_bytes
    return found


# --- the leaf alone -------------------------------------------------------------------------------

LEAVES = [(2, 1, None), (3, 2, 5), (4, 4, None), (4, 1, 5)]
"""Numbers of ranks and of key/value heads, and chunk sizes, with which both styles are compared."""


def leaf(world, *, style, n_ranks, n_kv_heads, chunk_size, scale=1.0, mutant=None):
    """The differences of the result and of d_q, d_k, d_v, put in order before they are compared.

    `scale`: of the queries; scores of 1,000 are larger than exp can take.
    """
    group, generator = world.kept.groups[n_ranks], torch.Generator().manual_seed(2)
    draw = lambda n: torch.randn(2, S, n, 6, dtype=torch.float64, generator=generator)
    q, k, v, d_out = draw(4) * scale, draw(n_kv_heads), draw(n_kv_heads), draw(4)
    documents, positions = documents_of("packed")
    tokens = Tokens(positions=positions, documents=documents, is_plain=False)
    whole = [x.clone().requires_grad_() for x in (q, k, v)]
    expected = SoftmaxAttention()(*whole, Visible(tokens=tokens, n_queries=S,
                                                  chunk_size=chunk_size))
    expected.backward(d_out)
    own_T = pieces.places(S, rank=group.rank, n_ranks=group.size)
    own = [x[:, own_T].requires_grad_() for x in (q, k, v)]
    visible = VisibleAcrossRanks(tokens=tokens, rank=group.rank, n_ranks=group.size,
                                 chunk_size=chunk_size)
    part = RingAttention(group) if style == "ring" else GatheredAttention(SoftmaxAttention(), group)
    with (MUTANTS[mutant][1] if mutant else contextlib.nullcontext)():
        found = part(*own, visible)
        found.backward(d_out[:, own_T])
    in_whole = lambda x: pieces.whole_of(x.detach(), group) if group.size > 1 else x.detach()
    return [difference(in_whole(x), y.detach()) for x, y in
            [(found, expected), *((a.grad, b.grad) for a, b in zip(own, whole, strict=True))]]


def passed_around(world, *, n_ranks, n_numbers):
    """The ranks that tensors came from, whether each had its numbers, and whether each was sent
    before, and waited for after, the caller computed."""
    group, came, is_right, times = world.kept.groups[n_ranks], [], [], []
    x = torch.full((n_numbers,), float(group.rank))
    world.log.clear()
    for source, tensor in around(x, group, note="x"):
        came.append(source)
        is_right.append(bool((tensor == source).all()))
        with world.log.span("computing"):
            times.append(tensor.sum())
    sends = [call for call in world.log.calls if call.op == "send"]
    is_overlapped = all(call.began_s <= span.began_s and span.ended_s <= call.waited_s
                        for call, span in zip(sends, world.log.spans[:-1], strict=True))
    return came, all(is_right), is_overlapped


def refused(world, *, n_ranks):
    """The messages of what a model on several ranks refuses."""
    group, found = world.kept.groups[n_ranks], []
    model, batch = model_of(config("grouped")), batch_of("one")
    strategy = ContextParallel(model, group)
    own = strategy.tokens_of(batch)
    longer = torch.zeros(1, S, dtype=torch.int64)
    cache = model.new_cache(batch_size=2, max_seq_len=S)
    for attempt in (
            lambda: model(own.ids, positions=own.positions, cache=cache),
            lambda: model(own.ids),
            lambda: model(own.ids[:, :3], positions=own.positions[:, :3]),
            lambda: model(longer, positions=longer),
            lambda: ContextParallel(model, group)):
        try:
            attempt()
        except ValueError as error:
            found.append(str(error))
    return found, cache.length


# --- mistakes -------------------------------------------------------------------------------------


def _local_positions(own):
    n_tokens = own.ids.shape[1]
    return dataclasses.replace(own, positions=torch.arange(n_tokens).expand(2, n_tokens))


def _shifted_after_the_cut(own):
    targets = own.ids.roll(-1, dims=1)
    return dataclasses.replace(own, targets=torch.where(own.targets == IGNORE, IGNORE, targets))


def _as_it_comes(parts, *, n_ranks, axis):
    return parts


@contextlib.contextmanager
def _causal_by_local_order():
    with mock.patch.object(gather, "in_order", _as_it_comes), mock.patch.object(
            sight, "in_order", _as_it_comes):
        yield


def _without_documents():
    real = sight.VisibilityAcrossRanks._of_all

    def of_all(self, new):
        tokens = real(self, new)
        return dataclasses.replace(tokens, documents=torch.zeros_like(tokens.documents))

    return mock.patch.object(sight.VisibilityAcrossRanks, "_of_all", of_all)


def _own_gradients_only():
    real = PassedOn.wait

    def wait(self):
        received = real(self)
        return torch.zeros_like(received) if "gradient" in self._received_note else received

    real_init = PassedOn.__init__

    def init(self, x, group, *, note=""):
        self._received_note = note
        real_init(self, x, group, note=note)

    return mock.patch.multiple(PassedOn, wait=wait, __init__=init)


def _own_keys_backward():
    def stale(x, group, *, note=""):
        for source, tensor in around(x, group, note=note):
            yield source, x if "backward" in note else tensor

    return mock.patch.object(ring, "around", stale)


def _merged_without_the_largest():
    def merged(out, lse, *, other, other_lse):
        a, b = lse.exp(), other_lse.exp()
        return (out * a[..., None] + other * b[..., None]) / (a + b)[..., None], (a + b).log()

    return mock.patch.object(blocks, "merged", merged)


def _blocks_counted_equal():
    return mock.patch.object(blocks, "merged", lambda out, lse, *, other, other_lse: (
        (out + other) / 2, torch.logaddexp(lse, other_lse)))


MEAN_OF_MEANS = "mean of means"
_NOTHING = contextlib.nullcontext
MUTANTS = {
    "positions counted on the rank": (_local_positions, _NOTHING),
    "torchtitan#4544: targets made after the cut": (_shifted_after_the_cut, _NOTHING),
    MEAN_OF_MEANS: (None, _NOTHING),
    "causal by the order on the ranks": (None, _causal_by_local_order),
    "documents ignored": (None, _without_documents),
    "gradients of keys do not travel": (None, _own_gradients_only),
    "Automodel#3157: backward with the first keys": (None, _own_keys_backward),
    "merged without the largest": (None, _merged_without_the_largest),
    "blocks counted equal": (None, _blocks_counted_equal),
}
