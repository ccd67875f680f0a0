"""What the ranks do in the tests of `expert_parallel`; functions of a test cannot travel."""

import contextlib
import dataclasses
from unittest import mock

import parity
import torch
from llama4_twin import toy
from torch import nn

from llama_from_scratch.config import Experts
from llama_from_scratch.model.moe import MoE
from llama_from_scratch.parallel import expert_parallel, shard
from llama_from_scratch.parallel.data_parallel import DataParallel
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.world import alone

CONFIGS = {"top-1": toy(step=2, n_layers=2, n_experts=4),
           "top-2, idle": toy(step=2, n_layers=2, n_experts=16, n_active=2)}


class Chosen(nn.Module):
    """Chooses the same experts for every token; `turns`: which, pass by pass."""

    def __init__(self, *turns):
        super().__init__()
        self.turns, self.n_calls = turns, 0

    def forward(self, logits, n_active):
        experts = self.turns[self.n_calls % len(self.turns)]
        self.n_calls += 1
        return torch.tensor(experts).expand(len(logits), n_active)


def model_of(its_config, *, turns=()):
    """The model of `parity`; with `turns`, its routers choose these."""
    model = parity.model_of(its_config)
    for part in model.modules():
        if turns and isinstance(part, MoE):
            part.router.choose = Chosen(*turns)
    return model


def alone_with(its_config, *, capacity=None, turns=(), n_steps=parity.N_STEPS):
    """As `parity.alone`, with a capacity or with experts that are chosen pass by pass."""
    model = model_of(its_config, turns=turns)
    expert_parallel.split(model, alone(), capacity=capacity)
    return parity._steps_alone(model, _batches(its_config, n_steps))


def together_with(world, its_config, sizes, *, turns=(), micro_batch_size=None, mutant=None,
                  n_steps=parity.N_STEPS, **how):
    """As `parity.together`, the same way, with one of `MUTANTS`."""
    axes = Mesh(**sizes).on(world)
    change = MUTANTS[mutant](axes) if mutant else contextlib.nullcontext(axes)
    with change as axes:
        sharded = shard(model_of(its_config, turns=turns), axes, **how)
        return parity._steps_together(sharded, _batches(its_config, n_steps), micro_batch_size)


def _batches(its_config, n_steps):
    return list(parity.batches(its_config.vocab_size))[:n_steps]


# --- one layer ------------------------------------------------------------------------------------


class Layer(nn.Module):
    """A model of one layer with experts, whose config is all that `split` reads."""

    def __init__(self, *, n_experts=4, n_active=1):
        super().__init__()
        self.config = toy(step=1, n_layers=1, n_experts=n_experts, n_active=n_active)
        torch.manual_seed(0)
        self.moe = MoE(8, Experts(n_experts=n_experts, n_active=n_active, width=6, shared_width=6))
        self.moe.init_weights(n_additions=1)
        self.double()


def tokens(n=12):
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(1)).double()


def layer_in(world, *, shares, capacity=None, **how):
    """The results of one layer for each rank's tokens, gradients of its experts, and the traffic.

    `shares`: how many tokens each rank has.
    """
    layer, whole = Layer(**how), tokens(sum(shares))
    experts = expert_parallel.split(layer, world, capacity=capacity)
    first = sum(shares[: world.rank])
    x = whole[first : first + shares[world.rank]].clone().requires_grad_()
    world.log.clear()
    with experts.watched() as seen:
        y = layer.moe(x)
        (y.sin() * weights_like(whole)[first : first + len(x)]).sum().backward()
    sent = [int(call.sent_bytes) for call in world.log.calls if call.op == "all_to_all"]
    grads = {name: experts.whole(f"moe.experts.{name}", p.grad)
             for name, p in layer.moe.experts.named_parameters()}
    return y.detach(), x.grad, grads, layer.moe.router.directions.weight.grad, seen.get("moe"), sent


def weights_like(x):
    return torch.linspace(0.5, 2.0, x.numel(), dtype=x.dtype).view(x.shape)


def layer_alone(*, n, **how):
    """The same of one process."""
    y, dx, grads, router, seen, _ = layer_in(alone(), shares=[n], **how)
    return y, dx, grads, router, seen


# --- models that are used -------------------------------------------------------------------------


def used(world, its_config):
    """Whether weights survive the way onto a mesh and back, and which pieces a rank is given."""
    sharded = shard(parity.model_of(its_config), Mesh(dp=world.size, ep=2).on(world), stage=3)
    plain = dict(parity.model_of(its_config).named_parameters())
    found = dict(sharded.whole(sharded.weights))
    same = [name for name in plain if torch.equal(found[name], plain[name])]
    pieces = [name for name in plain
              if torch.equal(sharded.piece(name, plain[name]),
                             sharded.weights.get(name, torch.empty(0).double()))]
    return sorted(found) == sorted(plain), len(plain) - len(same), len(plain) - len(pieces)


def own_norms(world, its_config):
    """The lengths that ranks find if each group along `ep` counts its own experts alone."""
    sharded = shard(parity.model_of(its_config), Mesh(dp=world.size, ep=2).on(world), stage=1)
    parity.step_of(sharded, next(iter(parity.batches(its_config.vocab_size))))
    right = float(sharded.gradient_norm())
    only_shards = {name: (sharded.axes.expert_shards,) for name in sharded.experts.slices}
    with mock.patch.object(sharded.experts, "groups", lambda *_: only_shards):
        return right, float(sharded.gradient_norm())


def routings(world, its_config):
    """The balance over all ranks, and the balance that the traffic of one layer shows."""
    from llama_from_scratch.model.moe import routings_of

    axes = Mesh(dp=world.size, ep=world.size).on(world)
    sharded = shard(parity.model_of(its_config), axes)
    batch = parity.rows_of(next(iter(parity.batches(its_config.vocab_size))), axes.data)
    with torch.no_grad(), routings_of(sharded.model) as found, sharded.experts.watched() as seen:
        batch.logits(sharded.model)
    (name,) = found
    return (expert_parallel.balance_over(found[name], axes.gradients).counts,
            seen[name][0].balance.counts)


# --- mutants: each has one of the mistakes that the tests must see --------------------------------


@contextlib.contextmanager
def _patched(axes, where, name, new):
    with mock.patch.object(where, name, new):
        yield axes


def _added_over_all(axes):
    finish = DataParallel.finish

    def over_all(self):
        finish(self)
        for name, p in self.params.items():
            if ".experts." in name:
                axes.ep.all_reduce(p.grad)
    return _patched(axes, DataParallel, "finish", over_all)


def _averaged(axes):
    finish = DataParallel.finish

    def averaged(self):
        finish(self)
        for name, p in self.params.items():
            if ".experts." in name:
                p.grad /= axes.ep.size
    return _patched(axes, DataParallel, "finish", averaged)


def _router_alone(axes):
    begin = DataParallel.__init__

    def without(self, model, group, *, groups, **how):
        names = [name for name, _ in model.named_parameters() if ".router." in name]
        begin(self, model, group, groups=groups | dict.fromkeys(names, axes.tp), **how)
    return _patched(axes, DataParallel, "__init__", without)


def _on_the_output(axes):
    forward = MoE.forward

    def scaled_after(self, x):
        route = self.router.forward

        def unscaled(x_ND):
            kept.append(route(x_ND))
            return dataclasses.replace(kept[-1], scores=torch.ones_like(kept[-1].scores))

        kept = []
        with mock.patch.object(self.router, "forward", unscaled):
            y = forward(self, x)
        shared = self.shared(x)
        return shared + (y - shared) * kept[0].scores.sum(1).view(*x.shape[:-1], 1)
    return _patched(axes, MoE, "forward", scaled_after)


def _not_sorted_back(axes):
    def come_back(self, _, args, y):
        self._trip = dataclasses.replace(self._trip, order=torch.arange(len(y)))
        return right(self, _, args, y)
    right = expert_parallel._Door._come_back
    return _patched(axes, expert_parallel._Door, "_come_back", come_back)


def _transposed(axes):
    def by_expert(counts):
        n_ranks, n_experts = counts.shape
        ranks = counts.T.reshape(n_ranks, n_experts)  # read by columns
        return right(ranks)
    right = expert_parallel._by_expert
    return _patched(axes, expert_parallel, "_by_expert", by_expert)


def _rooms_of_ranks(axes):
    right = expert_parallel.within

    def each_alone(wanted, capacity):
        return torch.cat([right(row[None], capacity) for row in wanted])
    return _patched(axes, expert_parallel, "within", each_alone)


def _last_ranks_first(axes):
    right = expert_parallel.within
    return _patched(axes, expert_parallel, "within",
                    lambda wanted, capacity: right(wanted.flip(0), capacity).flip(0))


MUTANTS = {"experts' gradients added over all": _added_over_all,
           "experts' gradients averaged over ep": _averaged,
           "router's gradients not added": _router_alone,
           "score on the output": _on_the_output,
           "combined in another order": _not_sorted_back,
           "counts transposed": _transposed,
           "room counted rank by rank": _rooms_of_ranks,
           "room given to the last ranks first": _last_ranks_first}
