import contextlib
import dataclasses
import functools

import pytest
import torch
from llama4_twin import loud_llama4, toy
from tiny_experiments import tiny
from torch import nn
from torch.nn import functional as F

from llama_from_scratch.experiments import parts as exchange
from llama_from_scratch.experiments.parts import KINDS, part, put_in, try_out
from llama_from_scratch.experiments.running import prepare
from llama_from_scratch.experiments.torch_optimizer import TorchOptimizer
from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.feed_forward import FeedForward, SwiGLU
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.rope import Rotate
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train import train
from llama_from_scratch.train.balance import BiasedSteps
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.optimizer import AdamW
from llama_from_scratch.train.parts import adamw
from llama_from_scratch.train.schedule import learning_rate


def with_parts(experiment, **uses):
    return dataclasses.replace(experiment, parts={name: part(use) for name, use in uses.items()})


def losses(experiment):
    prepared = prepare(experiment)
    with exchange.around(experiment.parts, prepared.model) as parts:
        history = train(prepared.model, prepared.data, config=experiment.train,
                        validation=prepared.validation, parts=parts)
    return [step.loss for step in history.steps]


def plain_attention(q, k, v, visible):
    H, G = q.shape[2], k.shape[2]
    k, v = (x.repeat_interleave(H // G, dim=2) for x in (k, v))
    scores = torch.einsum("bthk,bshk->bhts", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~visible.mask, -torch.inf)
    return torch.einsum("bhts,bshk->bthk", scores.softmax(-1), v)


@contextlib.contextmanager
def doubled(model, parts):
    yield dataclasses.replace(parts, reduce=lambda model, loss: 2 * loss)


@pytest.fixture
def base(tmp_path):
    return tiny(tmp_path)


# What the library itself has, exchanged for itself: (kind of part, part, equal to the last bit).
SAME = [
    ("norm", RMSNorm, True), ("norm", "llama_from_scratch.model.norm:RMSNorm", True),
    ("norm", nn.RMSNorm, False),
    ("activation", SwiGLU, True), ("activation", SwiGLU(), True),
    ("activation", lambda gate, up: F.silu(gate) * up, True),
    ("activation", lambda gate, up: gate * gate.sigmoid() * up, False),
    ("rotation", Rotate, True), ("attention", SoftmaxAttention, True),
    ("attention", plain_attention, False), ("mask", lambda q, k: k <= q, True),
    ("model", lambda model: None, True), ("optimizer", adamw, True),
    ("optimizer", lambda groups, config: AdamW(groups, beta1=0.9, beta2=0.95, eps=1e-8), True),
    ("optimizer", lambda groups, config: TorchOptimizer(functools.partial(
        torch.optim.AdamW, betas=(0.9, 0.95)), groups), False),
    ("schedule", learning_rate, True), ("loss", sum_of_nats, True),
    ("balance", lambda model, parts: contextlib.nullcontext(parts), True),
]


@pytest.mark.parametrize(("name", "use", "is_exact"), SAME)
def test_a_part_that_is_the_librarys_own_changes_no_loss(base, name, use, is_exact):
    plain, exchanged = losses(base), losses(with_parts(base, **{name: use}))
    if is_exact:
        assert exchanged == plain
    else:
        assert exchanged == pytest.approx(plain, rel=1e-5)
        assert len(set(plain)) == len(plain)


def test_every_kind_has_such_a_part():
    assert {name for name, _, _ in SAME} | {"feed_forward"} == set(KINDS)


def test_a_part_that_is_another_changes_the_losses(base):
    others = {"norm": nn.LayerNorm, "activation": lambda gate, up: gate.relu() * up,
              "feed_forward": lambda dim, width: nn.Linear(dim, dim),
              "rotation": lambda q, k, turns: (q, k), "mask": lambda q, k: (k <= q) & (q - k < 2),
              "attention": lambda q, k, v, visible: q, "optimizer": torch.optim.SGD,
              "model": lambda model: model.layers[0].attention.wq.weight.data.zero_(),
              "schedule": lambda step, **settings: 1e-3,
              "loss": lambda model, batch, is_bf16: 2 * sum_of_nats(model, batch),
              "balance": doubled}
    assert set(others) == set(KINDS)
    plain = losses(base)
    for name, use in others.items():
        assert losses(with_parts(base, **{name: use})) != plain, name


def test_all_other_weights_are_those_of_the_unchanged_run(base):
    plain = prepare(base).model.state_dict()
    for name, use in {"norm": nn.LayerNorm, "feed_forward": FeedForward, "activation": SwiGLU,
                      "attention": SoftmaxAttention}.items():
        other = prepare(with_parts(base, **{name: use})).model.state_dict()
        ours = {key for key in plain if key in other and not (
            name == "feed_forward" and ".feed_forward." in key)}
        assert all(torch.equal(plain[key], other[key]) for key in ours), name
        assert len(ours) >= len(plain) - 3


def test_a_rule_of_another_mask_keeps_documents_apart(base):
    model = Llama(base.model)
    ids = torch.arange(6)[None]
    two = torch.tensor([[0, 0, 0, 1, 1, 1]])
    put_in(model, {"mask": part(lambda q, k: k <= q)})
    together = model(ids, positions=torch.arange(6)[None], documents=two)
    alone = model(ids[:, 3:], positions=torch.arange(3, 6)[None])
    torch.testing.assert_close(together[:, 3:], alone)


def test_a_whole_mask_lets_each_token_see_the_last(base):
    model = Llama(base.model)
    put_in(model, {"mask": part(lambda q, k: torch.ones_like(k <= q))})
    one, other = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 4]])
    assert not torch.equal(model(one)[:, 0], model(other)[:, 0])


def test_attention_finds_a_mask_also_without_documents_and_with_a_cache(base):
    plain, exchanged = Llama(base.model), Llama(base.model)
    exchanged.load_state_dict(plain.state_dict())
    put_in(exchanged, {"attention": part(plain_attention)})
    ids = torch.arange(5)[None]
    torch.testing.assert_close(exchanged(ids), plain(ids))
    with torch.inference_mode():
        cache = exchanged.new_cache(batch_size=1, max_seq_len=8)
        pieces = [exchanged(ids[:, :3], cache=cache), exchanged(ids[:, 3:4], cache=cache),
                  exchanged(ids[:, 4:], cache=cache)]
    torch.testing.assert_close(torch.cat(pieces, 1), plain(ids))


def test_a_rotation_leaves_layers_without_rope_alone(base):
    mixed = dataclasses.replace(base.model, layers=(
        base.model.layers[0], dataclasses.replace(base.model.layers[0], has_rope=False)))
    mixed = dataclasses.replace(base, model=mixed)
    assert losses(with_parts(mixed, rotation=Rotate)) == losses(mixed)
    still = dataclasses.replace(base.model.layers[0], has_rope=False)
    still = dataclasses.replace(base, model=dataclasses.replace(base.model, layers=(still,)))
    with pytest.raises(ValueError, match="no layer of this model has one"):
        prepare(with_parts(still, rotation=Rotate))


def test_parameters_without_effect_are_frozen_and_noted(base):
    prepared = prepare(with_parts(base, activation=lambda gate, up: gate.relu().square()))
    frozen = [name for name, p in prepared.model.named_parameters() if not p.requires_grad]
    assert frozen == ["layers.0.feed_forward.w_up.weight"]
    assert prepared.notes == ("1 tensors have no effect with these parts and are not trained: "
                              "layers.0.feed_forward.w_up.weight",)
    assert all(p.grad is None for p in prepared.model.parameters())


# --- refusals -------------------------------------------------------------------------------------


class NoEps(nn.Module):
    def __init__(self, dim):
        super().__init__()


class Fixed:
    """An optimizer whose steps do nothing."""

    def __init__(self, groups, config):
        self.params = [p for group in groups for p in group.params.values()]

    def step(self, *, lr):
        pass

    def zero_grad(self):
        for p in self.params:
            p.grad = None

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class OnlyMatrices(Fixed):
    def step(self, *, lr):
        with torch.no_grad():
            for p in self.params:
                if p.ndim > 1:
                    p -= lr * p.grad


class Numbers(Fixed):
    def step(self, *, lr):
        with torch.no_grad():
            for p in self.params:
                p -= lr * p.grad

    def state_dict(self):
        return {"n_steps": 1}


class Half(Fixed):
    load_state_dict = property()


WRONG = [
    ("balance", lambda model, parts: contextlib.nullcontext(), "must yield the parts of a step"),
    ("balance", lambda model: contextlib.nullcontext(), "positional argument"),
    ("balance", BiasedSteps(rate=0.1), "only a model with experts has routings"),
    ("norm", NoEps, "unexpected keyword argument 'eps'"),
    ("norm", lambda dim, eps: nn.Linear(dim, dim + 1), "its result must be a tensor of shape"),
    ("norm", lambda dim, eps: (lambda x: x / 0 * 0), "must be finite"),
    ("norm", lambda dim, eps: (lambda x: x.double()), "must be torch.float32"),
    ("norm", lambda dim, eps: (lambda x: x.tolist()), "got list"),
    ("norm", lambda dim, eps: None, "not callable"),
    ("norm", 3, "Give the class or function itself"),
    ("activation", lambda x: x, "positional argument"),
    ("activation", lambda gate, up: (gate * up).sum(-1), "must be a tensor of shape (2, 3, 8)"),
    ("activation", lambda gate, up: gate.log() * up, "must be finite"),
    ("feed_forward", lambda dim: nn.Linear(dim, dim), "positional argument"),
    ("feed_forward", lambda dim, width: nn.Linear(dim, width), "must be a tensor of shape"),
    ("rotation", lambda q, k: (q, k), "positional argument"),
    ("rotation", lambda q, k, turns: q[:1, 0], "its q must be a tensor of shape"),
    ("rotation", lambda q, k, turns: (k, q), "its q must be a tensor of shape"),
    ("attention", lambda q, k, v: q, "positional argument"),
    ("attention", lambda q, k, v, visible: v, "its result must be a tensor of shape"),
    ("mask", lambda q: q, "positional argument"),
    ("mask", lambda q, k: k - q, "a tensor of True and False; got torch.int64"),
    ("mask", lambda q, k: True, "a tensor of True and False; got bool"),
    ("mask", lambda q, k: k < q, "each token must see at least one token"),
    ("mask", lambda q, k: (k <= q)[:, :, :2], "expand"),
    ("model", lambda: None, "it takes one argument, the model"),
    ("model", lambda model, other: None, "it takes one argument, the model"),
    ("optimizer", torch.optim.LBFGS, "LBFGS"),
    ("optimizer", lambda params: None, "positional argument"),
    ("optimizer", lambda groups, config: None, "it must have the method step"),
    ("optimizer", Fixed, "must move matrices and vectors"),
    ("optimizer", OnlyMatrices, "moved b of ones"),
    ("optimizer", Numbers, "must return tensors by name"),
    ("optimizer", Half, "it must have the method load_state_dict"),
    ("schedule", lambda step: 1.0, "unexpected keyword argument"),
    ("schedule", lambda step, **settings: -1.0, "a number of at least 0"),
    ("schedule", lambda step, **settings: float("nan"), "a number of at least 0"),
    ("schedule", lambda step, **settings: torch.tensor(1.0), "a number of at least 0"),
    ("loss", lambda model, batch: 0.0, "unexpected keyword argument 'is_bf16'"),
    ("loss", lambda model, batch, is_bf16: 1.0, "must be a tensor of shape ()"),
    ("loss", lambda model, batch, is_bf16: torch.tensor(1.0), "does not require grad"),
    ("loss", lambda model, batch, is_bf16: model(batch.ids).sum() / 0, "must be finite"),
]


@pytest.mark.parametrize(("name", "use", "message"), WRONG)
def test_a_part_that_cannot_be_is_refused_with_what_is_expected(base, name, use, message):
    state = torch.get_rng_state()
    with pytest.raises(ValueError) as caught:
        try_out({name: part(use)}, base.model)
    assert str(caught.value).startswith(f"the part {name!r} must be {KINDS[name].call}; ")
    assert message in str(caught.value), str(caught.value)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_kind_refuses_something():
    assert {name for name, _, _ in WRONG} == set(KINDS)


def test_a_right_part_leaves_the_random_state_too(base):
    state = torch.get_rng_state()
    try_out({name: part(use) for name, use, _ in SAME}, base.model)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_kind_is_refused_with_the_nearest(base):
    for name, hint in (("norms", "norm"), ("Optimiser", "optimizer")):
        with pytest.raises(ValueError, match=f"no part is called '{name}'; did you mean '{hint}'"):
            try_out({name: part(RMSNorm)}, base.model)


def test_parts_of_which_one_has_no_effect_are_refused(base):
    with pytest.raises(ValueError, match="'activation' would have no effect"):
        try_out({"activation": part(SwiGLU), "feed_forward": part(FeedForward)}, base.model)


@pytest.mark.parametrize("change", [
    lambda model: setattr(model, "output", nn.Linear(16, 5)),
    lambda model: model.norm.weight.data.fill_(float("nan")),
    lambda model: model.requires_grad_(False),
    lambda model: setattr(model, "norm", None),
])
def test_a_changed_model_that_cannot_be_trained_is_refused(base, change):
    with pytest.raises(ValueError, match="with its parts exchanged, a model must still turn ids"):
        prepare(with_parts(base, model=change))


# --- finding parts --------------------------------------------------------------------------------


def test_a_part_is_found_by_module_and_by_file(tmp_path):
    file = tmp_path / "my parts, é.py"
    file.write_text("import torch\n\nclass Outer:\n    class Norm(torch.nn.LayerNorm):\n"
                    "        '''Mine.'''\n\nrule = lambda q, k: k <= q\n", encoding="utf-8")
    library = part("torch.nn:LayerNorm")
    assert library.use is nn.LayerNorm and library.origin == "torch.nn:LayerNorm"
    found = part(f"{file}:Outer.Norm")
    assert found.name == "Outer.Norm" and found.origin == f"{file}:Outer.Norm"
    assert found.source == 'class Norm(torch.nn.LayerNorm):\n    \'\'\'Mine.\'\'\''
    assert part(f"{file}:rule").source == "rule = lambda q, k: k <= q"
    assert part(found) is found


def test_an_edited_file_is_another_part(tmp_path):
    file, digests = tmp_path / "norms.py", []
    for number in (1, 22, 333):
        file.write_text(f"def rule(q, k):\n    return k <= q + 0 * {number}\n")
        digests.append(part(f"{file}:rule").described()["digest"])
    assert len(set(digests)) == 3


def test_two_files_of_one_name_do_not_mix(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "norms.py").write_text(
            f"import torch\nclass Norm(torch.nn.LayerNorm):\n    which = {folder!r}\n")
    first, second = (part(f"{tmp_path / folder}/norms.py:Norm") for folder in "ab")
    assert "'a'" in first.source and "'b'" in second.source


@pytest.mark.parametrize(("name", "message"), [
    ("LayerNorm", 'a part is named "module:name"'), (":x", 'a part is named "module:name"'),
    ("torch.nn:", 'a part is named "module:name"'), ("torch.nm:LayerNorm", "must be importable"),
    (".relative:x", "must be importable"), ("torch.nn:LayerNom", "did you mean 'LayerNorm'"),
    ("missing.py:Norm", "the file of a part must exist"), ("torch.nn:LayerNorm.x", "has no"),
    ("sy\n\x1bs:x", "must be importable")])
def test_a_name_that_leads_nowhere_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        part(name)


def test_a_file_that_fails_is_refused_with_its_error(tmp_path):
    for text, words in (("1 / 0", "ZeroDivisionError"), ("def f(:", "SyntaxError")):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(ValueError, match=f"must run without an error.*{words}"):
            part(f"{tmp_path}/bad.py:f")


def test_what_is_described_has_the_text_and_a_digest_of_all_that_it_uses():
    def window(n):
        return lambda q, k: (k <= q) & (q - k < n)

    four, eight = (part(window(n)).described() for n in (4, 8))
    assert four["source"] == eight["source"] and four["digest"] != eight["digest"]
    assert four["uses"] == {"n": "4"} and four["origin"] == "" and four["name"] == "<lambda>"
    found = part(nn.LayerNorm).described()
    assert found["origin"] == "torch.nn.modules.normalization:LayerNorm"
    assert found["source"].startswith("class LayerNorm(Module):")


def test_a_balance_wraps_the_other_parts_and_ends_after_the_training(base):
    seen = []

    @contextlib.contextmanager
    def noted(model, parts):
        seen.append(parts.schedule)
        yield dataclasses.replace(parts, clip=len)
        seen.append("ended")

    given = with_parts(base, balance=noted, schedule=learning_rate_of_one)
    with exchange.around(given.parts, prepare(base).model) as parts:
        assert parts.schedule is learning_rate_of_one and seen == [learning_rate_of_one]
        assert parts.clip is len
    assert seen[1:] == ["ended"]
    assert exchange.has_unsaved_state(given.parts) and not exchange.has_unsaved_state(base.parts)


def learning_rate_of_one(step, **settings):
    return 1.0


def test_an_activation_goes_into_the_routed_experts_and_the_shared_one():
    model = loud_llama4(toy(step=2, n_layers=2))
    put_in(model, {"activation": part(relu)})
    dense, experts = (block.feed_forward for block in model.layers)
    for owner in (dense, experts.experts, experts.shared):
        assert "relu" in repr(owner.activation)


def test_a_feed_forward_in_the_place_of_experts_is_refused():
    model = loud_llama4(toy(step=2, n_layers=2))
    with pytest.raises(ValueError, match="do not describe Experts; layer 1 has some"):
        put_in(model, {"feed_forward": part(FeedForward)})
    assert type(model.layers[0].feed_forward) is FeedForward


def relu(gate, up):
    return F.relu(gate) * up
