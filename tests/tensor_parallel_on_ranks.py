"""What the ranks do in the tests of `parallel.tensor_parallel`: they train whole and split models.

Models are in float64, and steps are plain SGD, so that a wrong gradient cannot hide.
"""

import contextlib
import dataclasses
import hashlib
from unittest import mock

import torch
from torch.nn import functional as F

from llama_from_scratch.config import LayerSpec, LlamaConfig, VisionConfig, VisionLlamaConfig
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.parallel import differentiable, tensor_parallel, vocab_parallel
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.placement import Slice
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.vision.tiles import TiledImages

LR, N_STEPS = 0.5, 2
NORMS = (1.0, 2.0, float("inf"))
_TEXT = LlamaConfig(dim=16, n_heads=4, n_kv_heads=4, ffn_dim=24, vocab_size=32, max_seq_len=32,
                    norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 2)
_BIASES = dict(has_qkv_bias=True, has_wo_bias=True, has_ffn_bias=True)
_VISION = VisionConfig(dim=8, n_heads=4, ffn_dim=12, n_local_layers=1, n_global_layers=1,
                       intermediate_layers=(0,), tile_px=4, patch_px=2, max_tiles=2,
                       aspect_ratios=((1, 1), (1, 2)), norm_eps=1e-5, output_dim=16)
_GROUPED = dataclasses.replace(_TEXT, n_kv_heads=2)
CONFIGS = {
    "heads": _TEXT,
    "two kv heads, tied": dataclasses.replace(_GROUPED, is_tied=True),
    "one kv head, wide, biases": dataclasses.replace(_TEXT, n_kv_heads=1, explicit_head_dim=6,
                                                     **_BIASES),
    "seeing": VisionLlamaConfig.seeing(
        dataclasses.replace(_GROUPED, has_wo_bias=True), vision=_VISION, cross_layers=(0, 1),
        image_id=32),
}


class Seen(Batch):
    """A batch of which each row shows an image."""

    images: TiledImages

    def logits(self, model):
        return model(self.ids, images=self.images, positions=self.positions,
                     documents=self.documents)


def model_of(config, *, seed=0):
    """A model in which every parameter matters: no bias is 0, no gate closed, no norm 1."""
    torch.manual_seed(seed)
    model = config.new_model().double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.uniform_(0.4, 0.9)
            elif "gate.weight" not in name:
                p.mul_(1.5)
    return model


def batch_of(config, *, seed, n_tokens=7, n_rows=3, is_seeing=True):
    """Rows with documents that restart, and targets of which many are left out."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda low, high, *shape: torch.randint(low, high, shape, generator=generator)
    ids = draw(0, config.vocab_size, n_rows, n_tokens)
    targets = draw(0, config.vocab_size, n_rows, n_tokens)
    targets[draw(0, 4, n_rows, n_tokens) < seed % 3] = IGNORE
    documents = (torch.arange(n_tokens) >= 4).long().repeat(n_rows, 1)
    positions = torch.arange(n_tokens).repeat(n_rows, 1) - 4 * documents
    fields = dict(ids=ids, targets=targets, documents=documents, positions=positions)
    if not isinstance(config, VisionLlamaConfig) or not is_seeing:
        return Batch(**fields)
    ids[:, 2] = config.image_id
    batch = Seen(**fields)
    pixels = torch.randn(n_rows, 1, 2, 3, 4, 4, generator=generator).double()
    aspect_ids = torch.tensor([[1], [2], [1]])[:n_rows]
    pixels[aspect_ids[:, 0] == 1, :, 1] = 0
    object.__setattr__(batch, "images", TiledImages(pixels=pixels, aspect_ids=aspect_ids))
    return batch


def steps_of(config, **options):
    """The micro-batches of each step. The second step has two, with unequal numbers of targets.

    Of a model that sees, one micro-batch has no images.
    """
    return [[batch_of(config, seed=10 * step + i, is_seeing=(step, i) != (1, 1), **options)
             for i in range(2 if step == 1 else 1)] for step in range(N_STEPS)]


def whole_loss(model, batch):
    return F.cross_entropy(batch.logits(model).flatten(0, 1), batch.targets.flatten(),
                           ignore_index=IGNORE, reduction="sum")


def norm_of(tensors, kind):
    """The norm of all tensors as one vector."""
    flat = torch.cat([x.flatten() for x in tensors])
    return torch.linalg.vector_norm(flat, kind)


def norm_of_slices(grads, tp, kind, *, shards=None):
    """The same of slices: a slice counts on one of the ranks that hold it; of pieces, all count."""
    mine = [grad for name, grad in grads.items()
            if tp.group.rank % tp.slices[name].n_copies == 0]
    size = norm_of([torch.zeros(1, dtype=torch.float64), *mine], kind)
    size, op = (size, "max") if kind == float("inf") else (size**kind, "sum")
    for group in [tp.group] if shards is None else [shards, tp.group]:
        size = group.all_reduce(size, op=op)
    return size if kind == float("inf") else size ** (1 / kind)


def trained_together(config, axes, *, stage, **how):
    """The same of a split model whose rows, and from stage 1 also its weights, are shared out."""
    model, found = model_of(config), []
    made = shard(model, axes, stage=stage, **how)
    for batches in steps_of(config, n_rows=4):
        n = sum(batch.n_targets for batch in batches)
        loss = torch.zeros((), dtype=torch.float64)
        for i, batch in enumerate(batches):
            with made.micro_batch(is_last=i == len(batches) - 1):
                part = made.loss(model, batch.split(2)[axes.dp.rank], is_bf16=False) / n
                part.backward()
            loss += part.detach()
        made.finish_gradients()
        grads = {name: p.grad for name, p in made.params.items()}
        norms = [norm_of_slices(grads, made.tensor, kind, shards=axes.dp if stage else None)
                 for kind in NORMS]
        whole = {name: grad.clone() for name, grad in made.whole(grads)}
        with torch.no_grad():
            for p in made.params.values():
                p -= LR * p.grad
                p.grad = None
        made.after_step()
        found.append((axes.data.all_reduce(loss), whole, norms))
    return found


def trained_whole(config, **options):
    """For each step: the loss, the gradients, their norms."""
    model, found = model_of(config), []
    for batches in steps_of(config, **options):
        n = sum(batch.n_targets for batch in batches)
        loss = sum(whole_loss(model, batch) / n for batch in batches)
        loss.backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append((loss.detach(), grads, [norm_of(grads.values(), kind) for kind in NORMS]))
        _step(model)
    return found


def _step(model):
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= LR * p.grad
            p.grad = None


def trained_split(config, group, *, is_sequence_parallel, **options):
    """The same of a split model, and how many replicated tensors were not equal to the bit."""
    model = model_of(config)
    tp = tensor_parallel.split(model, group, is_sequence_parallel=is_sequence_parallel)
    found, n_apart = [], 0
    for batches in steps_of(config, **options):
        n = sum(batch.n_targets for batch in batches)
        loss = torch.zeros((), dtype=torch.float64)
        for batch in batches:
            part = tp.loss(model, batch, is_bf16=False) / n
            part.backward()
            loss += part.detach()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        tp.finish_gradients(grads)
        norms = [norm_of_slices(grads, tp, kind) for kind in NORMS]
        whole = {name: tp.whole(name, grad) for name, grad in grads.items()}
        _step(model)
        n_apart += n_different(model, tp, loss, *norms)
        found.append((loss, whole, norms))
    return found, n_apart


def n_different(model, tp, *numbers):
    """How many slices differ in a bit from a copy of them, and numbers from the other ranks'."""
    mine = {name: (tp.slices[name].part, _digest(p)) for name, p in model.named_parameters()}
    mine |= {f"number {i}": (0, _digest(x)) for i, x in enumerate(numbers)}
    return sum(len({digest for part, digest in found}) != len({part for part, digest in found})
               for found in ([every[name] for every in tp.group.gather_objects(mine)]
                             for name in mine))


def _digest(x):
    return hashlib.sha256(x.detach().numpy().tobytes()).hexdigest()


def apart(whole, split):
    """The largest relative difference of losses, of gradients, and of norms."""
    losses = max(_relative(a[0], b[0]) for a, b in zip(whole, split, strict=True))
    grads = 0.0
    for (_, a, _), (_, b, _) in zip(whole, split, strict=True):
        assert a.keys() == b.keys(), a.keys() ^ b.keys()
        grads = max(grads, *(_relative(a[name], b[name]) for name in a))
    norms = max(_relative(x, y) for a, b in zip(whole, split, strict=True)
                for x, y in zip(a[2], b[2], strict=True))
    return losses, grads, norms


def _relative(expected, found):
    """The largest difference, as a share of the largest number."""
    assert expected.shape == found.shape, (expected.shape, found.shape)
    return ((expected - found).abs().max() / expected.abs().max().clamp(min=1e-3)).item()


# --- what tests run -----------------------------------------------------------------------------


def make_groups(world):
    """Keeps the groups of 2 and of 4 ranks."""
    world.kept.axes = Mesh(tp=2, dp=2).on(world)
    world.kept.groups = {2: world.kept.axes.tp, 4: Mesh(tp=4).on(world).tp}


def compose(world, name, *, stage, is_sequence_parallel):
    """The differences to one process when 2 x 2 ranks share the rows and the matrices."""
    together = trained_together(CONFIGS[name], world.kept.axes, stage=stage,
                                is_sequence_parallel=is_sequence_parallel)
    digests = [[_digest(norm) for norm in norms] for _, _, norms in together]
    return apart(trained_whole(CONFIGS[name], n_rows=4), together), digests


def compare(world, name, *, n_ranks, is_sequence_parallel, mutant=None):
    """The differences to one process, and how many replicated tensors differ between ranks."""
    whole = trained_whole(CONFIGS[name])
    with MUTANTS[mutant]() if mutant else contextlib.nullcontext():
        split, n_apart = trained_split(CONFIGS[name], world.kept.groups[n_ranks],
                                       is_sequence_parallel=is_sequence_parallel)
    return apart(whole, split), n_apart


def logits(world, name, *, n_ranks, is_sequence_parallel):
    """The largest difference of a split model's logits and hidden states, used as a plain model's.

    Also of the gradient of its last hidden state, when the loss is computed token by token.
    """
    config, group = CONFIGS[name], world.kept.groups[n_ranks]
    whole, batch = model_of(config), batch_of(config, seed=1)
    split = model_of(config)
    tp = tensor_parallel.split(split, group, is_sequence_parallel=is_sequence_parallel)
    expected, found = batch.logits(whole), batch.logits(split)
    where = dict(positions=batch.positions, documents=batch.documents)
    if hasattr(batch, "images"):
        where |= dict(images=batch.images)
    states = [model.hidden(batch.ids, **where).detach().requires_grad_()
              for model in (whole, split)]
    F.cross_entropy(whole.output(states[0]).flatten(0, 1), batch.targets.flatten(),
                    ignore_index=IGNORE, reduction="sum").backward()
    for t in range(batch.ids.shape[1]):
        with tp.local_logits():
            some = split.output(states[1][:, t])
        vocab_parallel.cross_entropy(some, batch.targets[:, t], group=group).sum().backward()
    return dict(logits=_relative(expected, found), hidden=_relative(*states),
                gradient=_relative(states[0].grad, states[1].grad),
                n_local=some.shape[-1] * n_ranks - config.vocab_size)


def written(world, name, *, n_ranks, is_sequence_parallel, sampling):
    """The ids that the whole model writes, and those that the split one does; its cache's heads."""
    config = CONFIGS[name]
    prompts, images = [[5, 6, 7, 8, 9], [1]], None
    whole, split = model_of(config), model_of(config)
    if isinstance(config, VisionLlamaConfig):
        prompts[0][1], images = config.image_id, [[], []]
        tiles = batch_of(config, seed=1).images
        images = TiledImages(pixels=tiles.pixels[:2], aspect_ids=torch.tensor([[1], [0]]))
    tensor_parallel.split(split, world.kept.groups[n_ranks],
                          is_sequence_parallel=is_sequence_parallel)
    cache = split.new_cache(batch_size=1, max_seq_len=4)
    ids = [generate(model, prompts, images=images, max_tokens=8, sampling=sampling, seed=3)
           for model in (whole, split)]
    return *ids, cache.n_bytes


def logged(world, *, n_ranks, is_sequence_parallel, n_tokens):
    """The collectives of one forward and backward: op, note, n_bytes, sent bytes."""
    group, config = world.kept.groups[n_ranks], CONFIGS["heads"]
    model = model_of(config)
    tp = tensor_parallel.split(model, group, is_sequence_parallel=is_sequence_parallel)
    group.log.clear()
    tp.loss(model, batch_of(config, seed=1, n_tokens=n_tokens), is_bf16=False).backward()
    return [(call.op, call.note, call.n_bytes, call.sent_bytes) for call in group.log.calls]


def counted(world, *, is_native):
    """How many all-reduces PyTorch counts forward, and backward, in the layers of 2 ranks."""
    from torch.distributed.device_mesh import DeviceMesh  # takes a second, so not at the top
    from torch.distributed.tensor.debug import CommDebugMode

    group, config = world.kept.groups[2], CONFIGS["heads"]
    model = model_of(config)
    if is_native:
        _split_natively(model, DeviceMesh.from_group(group.process_group, "cpu"))
    else:
        tensor_parallel.split(model, group)
    x = torch.randn(2, 5, config.dim, dtype=torch.float64, requires_grad=True)
    inputs, counts = model.prepare(x), []
    with CommDebugMode() as counter:
        y = model.run(x, inputs)
    counts.append(counter.get_total_counts())
    with CommDebugMode() as counter:
        y.sum().backward()
    return *counts, counter.get_total_counts()


def _split_natively(model, mesh):
    """The plan of PyTorch's documentation for a block, applied to ours."""
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        parallelize_module,
    )

    whole = PrepareModuleInput(input_layouts=(Replicate(), None),
                               desired_input_layouts=(Replicate(), None))
    plan = {"attention": whole, "feed_forward": PrepareModuleInput(
        input_layouts=(Replicate(),), desired_input_layouts=(Replicate(),))}
    plan |= {f"attention.{name}": ColwiseParallel() for name in ("wq", "wk", "wv")}
    plan |= {f"feed_forward.{name}": ColwiseParallel() for name in ("w_gate", "w_up")}
    plan |= {name: RowwiseParallel() for name in ("attention.wo", "feed_forward.w_down")}
    for block in model.layers:
        parallelize_module(block, mesh, plan)


def in_pieces(world, name, *, n_ranks):
    """The largest difference between gradients finished in one-dimensional pieces and as a whole.
    """
    model, group = model_of(CONFIGS[name]), world.kept.groups[n_ranks]
    tp = tensor_parallel.split(model, group, is_sequence_parallel=True)
    tp.loss(model, batch_of(CONFIGS[name], seed=1), is_bf16=False).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    pieces = [{}, {}, {}]
    for i, (name, grad) in enumerate(grads.items()):
        cut = grad.numel() * (i % 3) // 2  # also nothing, and all
        parts = [grad.flatten()[:cut].clone(), grad.flatten()[cut:].clone()]
        for part, found in zip(parts, pieces[:2], strict=True):
            found[name] = part
    for found in (grads, *pieces):
        tp.finish_gradients(found)
    return max(_relative(grad.flatten(), torch.cat([pieces[0][name], pieces[1][name]]))
               for name, grad in grads.items())


def in_bf16(world, *, n_ranks):
    """The loss of a whole and of a split fp32 model with biases, whose products are in bf16."""
    config = CONFIGS["one kv head, wide, biases"]
    whole, split = model_of(config).float(), model_of(config).float()
    tp = tensor_parallel.split(split, world.kept.groups[n_ranks], is_sequence_parallel=True)
    batch = batch_of(config, seed=1)
    losses = [sum_of_nats(whole, batch, is_bf16=True), tp.loss(split, batch, is_bf16=True)]
    losses[1].backward()
    return [loss.item() for loss in losses], {p.grad.dtype for p in split.parameters()}


def finite_differences(world, *, n_ranks):
    """The largest difference between the loss's gradient and a difference quotient."""
    group = world.kept.groups[n_ranks]
    targets = torch.tensor([0, 5, IGNORE, 7])
    weights = torch.tensor([1.0, -0.5, 3.0, 2.0], dtype=torch.float64)
    torch.manual_seed(group.rank)
    logits = torch.randn(4, 8 // n_ranks, dtype=torch.float64, requires_grad=True)

    def loss(x):
        return (vocab_parallel.cross_entropy(x, targets, group=group) * weights).sum()

    loss(logits).backward()
    worst = 0.0
    for rank in range(n_ranks):
        for i in range(logits.numel()):
            step = torch.zeros(logits.numel(), dtype=torch.float64)
            step[i] = 1e-5 * (rank == group.rank)
            step = step.view_as(logits)
            with torch.no_grad():
                slope = (loss(logits + step) - loss(logits - step)) / 2e-5
            if rank == group.rank:
                worst = max(worst, abs(slope - logits.grad.flatten()[i]).item())
    return worst


def like_pytorch(world, *, n_ranks):
    """The differences to PyTorch's loss, in its value, logits' gradients and embedding's rows."""
    group = world.kept.groups[n_ranks]
    torch.manual_seed(0)
    table = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    ids, targets = torch.tensor([[0, 7, 3], [3, 4, 5]]), torch.tensor([[7, IGNORE, 2], [2, 3, 0]])
    mine = Slice(part=group.rank, n_parts=n_ranks)
    part = torch.nn.Embedding.from_pretrained(mine.of(table).detach().clone(), freeze=False)
    x, found = F.embedding(ids, table), vocab_parallel.VocabEmbedding(part, group)(ids)
    expected = F.cross_entropy((x @ table.T).flatten(0, 1), targets.flatten(), reduction="sum",
                               ignore_index=IGNORE)
    logits = differentiable.copy(found, group) @ part.weight.T
    loss = vocab_parallel.cross_entropy(logits, targets, group=group).sum()
    gradients = [torch.autograd.grad(expected, (x, table)),
                 torch.autograd.grad(loss, (found, part.weight))]
    (of_x, of_table), (of_found, of_part) = gradients
    return (_relative(expected.detach(), loss.detach()), _relative(of_x, of_found),
            _relative(mine.of(of_table), of_part))


def refused(world, *, n_ranks, **sizes):
    """The message for a model whose sizes do not divide, and whether it was left unchanged."""
    model = dataclasses.replace(CONFIGS["heads"], **sizes).new_model()
    before = {name: p.shape for name, p in model.named_parameters()}
    try:
        tensor_parallel.split(model, world.kept.groups[n_ranks])
    except ValueError as error:
        return str(error), before == {name: p.shape for name, p in model.named_parameters()}
    return "", False


# --- planted mistakes ---------------------------------------------------------------------------


def _slices_changed(change):
    original = tensor_parallel.TensorParallel._all_slices

    def changed(self, model):
        return {name: change(name, mine) for name, mine in original(self, model).items()}

    return mock.patch.object(tensor_parallel.TensorParallel, "_all_slices", changed)


def _without_sums(kind):
    def change(name, mine):
        return dataclasses.replace(mine, is_partial=False) if kind in name else mine

    return lambda: _slices_changed(change)


def _counted_by_all():
    return _slices_changed(lambda name, mine: mine if mine.n_parts > 1 or "norm" not in name
                           else Slice())


def _bias_of_all():
    return mock.patch.multiple(
        tensor_parallel.RowLinear, forward=lambda self, x: F.linear(x, self.weight, self.bias),
        with_bias=lambda self, total: total)


def _without_offset():
    original = vocab_parallel._own

    def own(ids, n_rows, group):
        at, is_here = original(ids, n_rows, group)
        return torch.where(is_here, (at + group.rank) % n_rows, at), is_here

    return mock.patch.object(vocab_parallel, "_own", own)


def _labeled_whole():
    """The gradient of the head's input is passed on as if each rank had all of it."""
    original = differentiable.copy
    return mock.patch.object(
        differentiable, "copy",
        lambda x, group, note="": x if note == "head input" else original(x, group, note=note))


MUTANTS = {
    "NeMo-RL#3716: norm gradients not added up": _without_sums("norm"),
    "norm gradients of heads not added up": _without_sums("q_norm"),
    "gate gradients not added up": _without_sums("gate.weight"),
    "bias gradients not added up": _without_sums("wo.bias"),
    "transformers#48307: gradients of copied heads not added up": _without_sums("wk"),
    "TransformerEngine(ROCm)#715: norms counted by every rank": _counted_by_all,
    "bias added by every rank": _bias_of_all,
    "target off by the rows of the ranks before": _without_offset,
    "copy without its backward": lambda: mock.patch.object(
        differentiable, "copy", lambda x, group, note="": x),
    "torchtitan#3412: head's input gradient of this rank's logits only": _labeled_whole,
}
