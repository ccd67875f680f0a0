"""Two models that differ: the first module that differs is named."""

import dataclasses

import pytest
import torch
from failing_checks import double, message
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.lessons import check
from llama_from_scratch.model.attention import Attention
from llama_from_scratch.model.feed_forward import FeedForward
from llama_from_scratch.model.transformer import Block, Llama

config = dataclasses.replace(family.tiny("llama-3"), max_seq_len=32)
ids_BT = torch.randint(0, config.vocab_size, (2, 7), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def twins():
    """Two equal models that may be damaged."""
    torch.manual_seed(0)
    reference = Llama(config)
    mine = Llama(config)
    mine.load_state_dict(reference.state_dict())
    return mine, reference


def test_equal_models_print_one_line(twins, capsys):
    check.compare(*twins, ids=ids_BT)
    assert (capsys.readouterr().out == "✓ the models agree, output of shape "
                                       f"(2, 7, {config.vocab_size})\n")
    modules = [module for model in twins for module in model.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


class Ungated(FeedForward):
    def forward(self, x):
        return self.w_down(torch.nn.functional.silu(self.w_gate(x)) + self.w_up(x))


class NoResidual(Block):
    def forward(self, x, inputs, *, cache):
        x = self.attention(self.attention_norm(x), inputs, cache=cache)
        return x + self.feed_forward(self.ffn_norm(x))


class ForgottenNorm(Llama):
    def head(self, x):
        return self.output(x).float()


class Unscaled(Attention):
    def forward(self, x, inputs, **settings):
        return super().forward(x * 2, inputs, **settings)


def test_first_differing_module_is_named_with_its_weights(twins):
    mine, reference = twins
    with torch.no_grad():
        mine.layers[1].attention.wk.weight.copy_(mine.layers[1].attention.wk.weight.flip(0))
    text = message(check.compare, mine, reference, ids=ids_BT)
    assert text.startswith("layers.1.attention.wk is the first module "
                           "that differs: its weights are not the same.\n")
    assert "likely cause: the order along axis 0 is reversed" in text
    assert "up to the " in text and "the output of layers.1.attention.wk" in text


@pytest.mark.parametrize(("damage", "words"), [
    (lambda m: setattr(m.layers[0].feed_forward, "__class__", Ungated),
     "The first difference is in the input of layers.0.feed_forward.w_down. So the mistake is in "
     "the forward method of layers.0.feed_forward, before it calls"),
    (lambda m: setattr(m.layers[1], "__class__", NoResidual),
     "The first difference is in the input of layers.1.ffn_norm. So the mistake is in the "
     "forward method of layers.1"),
    (lambda m: setattr(m, "__class__", ForgottenNorm), "Your model does not call norm"),
    (lambda m: setattr(m.layers[0].attention, "__class__", Unscaled),
     "The first difference is in the input of layers.0.attention.wq."),
    (lambda m: setattr(m.norm, "eps", 0.1),
     "norm is the first module that differs: its input and weights are right, but its output is"),
])
def test_place_of_a_mistake_in_a_forward_is_found(twins, damage, words):
    mine, reference = twins
    damage(mine)
    text = message(check.compare, mine, reference, ids=ids_BT)
    assert text.startswith(words) and "agree" in text


class Renamed(nn.Module):
    """The reader's own model, with names of its own."""

    def __init__(self, reference, *, scale=1.0):
        super().__init__()
        self.table, self.blocks = reference.tok_embeddings, reference.layers
        self.last, self.head = reference.norm, reference.output
        self.turn, self.inner, self.scale = reference.rope, [reference], scale

    def forward(self, ids):
        reference, = self.inner
        return self.head(reference.hidden(ids) * self.scale)


def test_models_with_other_names_are_matched_by_their_outputs(twins, capsys):
    mine, reference = twins
    check.compare(Renamed(mine), reference, ids=ids_BT)
    assert "the models agree" in capsys.readouterr().out
    text = message(check.compare, Renamed(mine, scale=2.0), reference, ids=ids_BT)
    assert "no module of yours returns the output of output" in text
    assert "After the output of norm (last in yours)" in text
    with torch.no_grad():
        mine.layers[1].ffn_norm.weight.mul_(2)
    assert "output of layers.1.ffn_norm," in message(check.compare, Renamed(mine), reference,
                                                    ids=ids_BT)


def test_error_inside_a_model_says_in_which_module(twins):
    mine, reference = twins
    mine.layers[1].feed_forward.w_down = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shapes") as failed:
        check.compare(mine, reference, ids=ids_BT)
    assert "inside layers.1.feed_forward.w_down" in failed.value.__notes__


def test_what_is_no_model_is_refused(twins):
    assert "yours is the function double" in message(check.compare, double, twins[1], ids=ids_BT)
