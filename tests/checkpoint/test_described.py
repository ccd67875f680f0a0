"""A model that is not what its config says is refused by every writer, before a file is made."""

import copy
import re

import pytest
import torch
from llama4_twin import loud_llama4, toy
from relatives import RELATIVES
from seeing_checkpoints import seeing
from tiny_checkpoints import TOKENIZER, same_weights, tiny, tokenizer_for
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.checkpoint import gguf, hugging_face, llama2c, meta, native
from llama_from_scratch.checkpoint.described import refuse_undescribed
from llama_from_scratch.config import TemperatureTuning
from llama_from_scratch.model.moe import biased_choices
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.rope import Unrotated
from llama_from_scratch.model.temperature import Tempered
from llama_from_scratch.model.transformer import Block, Llama
from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.optimizer import AdamW, decay_groups
from llama_from_scratch.train.records import TrainConfig
from llama_from_scratch.train.resume import OngoingRun, save

PIECES = tokenizer_for("llama-2")


class LoRA(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Int8(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.register_buffer("scale", plain.weight.detach().abs().amax(1, keepdim=True) / 127)
        self.register_buffer("weight", (plain.weight.detach() / self.scale).round().to(torch.int8))

    def forward(self, x):
        return x @ (self.weight * self.scale).T


class Loud(nn.Linear):
    """The names and shapes of a Linear, and another product."""

    def forward(self, x):
        return 2 * super().forward(x)


class Centered(RMSNorm):
    def forward(self, x):
        return super().forward(x - x.mean(-1, keepdim=True))


class FusedRMSNorm(nn.Module):
    """As the kernels': the plain part's parameters, and the type that it computes as."""

    stands_for = RMSNorm

    def __init__(self, plain):
        super().__init__()
        self.weight = plain.weight

    def forward(self, x):
        return x


def layer_norm(model):
    model.layers[1].ffn_norm = nn.LayerNorm(model.config.dim, bias=False)


def adapter(model):
    model.layers[0].attention.wq = LoRA(model.layers[0].attention.wq)


def int8_head(model):
    model.output = Int8(model.output)


def gated_branch(model):
    model.layers[2].branch = nn.Linear(model.config.dim, model.config.dim, bias=False)
    model.layers[2].gate = nn.Parameter(torch.zeros(1))


def tied_head(model):
    model.output.weight = model.tok_embeddings.weight


def subclass(model):
    loud = Loud(model.config.dim, model.config.dim, bias=False)
    loud.weight = model.layers[3].attention.wo.weight
    model.layers[3].attention.wo = loud


FOREIGN = {
    layer_norm: r"layers.1.ffn_norm is a LayerNorm, where the config describes a RMSNorm",
    adapter: r"here layers.0.attention.wq is a .*LoRA, where the config describes a Linear",
    int8_head: r"output is a .*Int8, where the config describes a Linear",
    gated_branch: r"layers.2.branch is a Linear, where the config describes nothing; "
                  r"layers.2.gate is a parameter \(1,\), where the config describes no parameter",
    tied_head: r"output.weight and tok_embeddings.weight are one parameter, where the config "
               r"describes two",
    subclass: r"layers.3.attention.wo is a .*Loud, where the config describes a Linear",
}


def save_run(folder, model):
    data = Packed(["the cat sat on the mat"] * 8, TOKENIZER)
    config = TrainConfig(n_steps=1, batch_size=1, seq_len=4, n_warmup=0)
    optimizer = AdamW(decay_groups(model, weight_decay=0.0))
    run = OngoingRun(model=model, optimizer=optimizer, config=config, data=data, validation=None)
    save(folder, run, steps=())


WRITERS = {
    "native.save": lambda path, model: native.save(path, model, PIECES),
    "native.write": lambda path, model: native.write(path, model, tokenizer=PIECES),
    "hugging_face": lambda path, model: hugging_face.write(path, model, tokenizer=PIECES),
    "meta": lambda path, model: meta.write(path, model, tokenizer=PIECES),
    "gguf": lambda path, model: gguf.write(path, model, tokenizer=PIECES),
    "llama2c": lambda path, model: llama2c.write(path, model, tokenizer=PIECES),
    "resume": save_run,
}


@pytest.mark.parametrize("change", FOREIGN, ids=lambda change: change.__name__)
@pytest.mark.parametrize("writer", WRITERS)
def test_no_writer_saves_what_the_config_does_not_describe(writer, change, tmp_path):
    model = tiny("llama-2")
    change(model)
    with pytest.raises(ValueError, match=FOREIGN[change]) as caught:
        WRITERS[writer](tmp_path / "m", model)
    assert "Merge or remove adapters" in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing is made"


@pytest.mark.parametrize("writer", WRITERS)
def test_no_writer_saves_an_untied_head_as_a_tied_one(writer, tmp_path):
    model = tiny("llama-2", is_tied=True)
    model.output.weight = nn.Parameter(model.output.weight.detach() * 2)
    with pytest.raises(ValueError, match=r"output.weight and tok_embeddings.weight are two "
                                         r"parameters, where .* describes one"):
        WRITERS[writer](tmp_path / "m", model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", family.GENERATIONS)
def test_a_model_as_it_was_made_is_described_in_every_dtype_and_mode(name):
    model = Llama(family.tiny(name))
    refuse_undescribed(model)
    refuse_undescribed(copy.deepcopy(model).bfloat16().eval().requires_grad_(False))


@pytest.mark.parametrize("name", RELATIVES)
def test_a_relative_as_it_was_made_is_described_and_one_bias_more_or_less_is_not(name):
    model = Llama(RELATIVES[name])
    refuse_undescribed(model)
    wo, config = model.layers[1].attention.wo, model.config
    wo.bias = None if config.has_wo_bias else nn.Parameter(torch.zeros(config.dim))
    with pytest.raises(ValueError, match=r"layers\.1\.attention\.wo\.bias is (no parameter, where "
                                         r"the config describes a parameter \(64,\)|a parameter "
                                         r"\(64,\), where the config describes no parameter)"):
        refuse_undescribed(model)


def test_a_part_that_says_what_it_stands_for_is_described_and_another_type_is_not(tmp_path):
    model = tiny("llama-2")
    plain = copy.deepcopy(model)
    model.norm = FusedRMSNorm(model.norm)
    for block in model.layers:
        block.ffn_norm = FusedRMSNorm(block.ffn_norm)
    native.save(tmp_path / "m", model, PIECES)
    assert same_weights(native.load(tmp_path / "m")[0], plain)
    model.output = FusedRMSNorm(model.output)
    with pytest.raises(ValueError, match=r"output is a .*FusedRMSNorm, where the config describes "
                                         r"a Linear"):
        refuse_undescribed(model)


def change_forward(model):
    model.layers[0].feed_forward.forward = lambda x: x


def parametrize(model):
    nn.utils.parametrizations.weight_norm(model.layers[0].attention.wv)


def another_block(model):
    model.layers[1] = type("Parallel", (Block,), {})(model.config, model.config.layers[1])


def a_layer_more(model):
    model.layers.append(Block(model.config, model.config.layers[0]))


def a_layer_less(model):
    del model.layers[3]


def a_bias(model):
    model.output = nn.Linear(model.config.dim, model.config.vocab_size)


def rows_more(model):
    model.tok_embeddings = nn.Embedding(model.config.vocab_size + 8, model.config.dim)


def a_stored_buffer(model):
    model.norm.register_buffer("mean", torch.zeros(3))


def no_rope(model):
    model.layers[2].attention.rotate = Unrotated()


def another_epsilon(model):
    model.layers[2].ffn_norm.eps = 1e-3


def a_longest_row(model):
    model.tok_embeddings.max_norm = 1.0


SEEN = {
    change_forward: "layers.0.feed_forward computes with another forward than its FeedForward",
    parametrize: "layers.0.attention.wv is a .*ParametrizedLinear, where the config describes a "
                 "Linear",
    another_block: "layers.1 is a .*Parallel, where the config describes a Block",
    a_layer_more: "layers.4 is a Block, where the config describes nothing",
    a_layer_less: "layers.3 is missing, where the config describes a Block",
    a_bias: r"output.bias is a parameter \(520,\), where the config describes no parameter",
    rows_more: r"tok_embeddings.weight is a parameter \(528, 64\), where the config describes a "
               r"parameter \(520, 64\)",
    a_stored_buffer: r"norm.mean is a buffer \(3,\), where the config describes no buffer",
    no_rope: "layers.2.attention.rotate is a Unrotated, where the config describes a Rotate",
    another_epsilon: "layers.2.ffn_norm.eps is 0.001, where the config describes 1e-05",
    a_longest_row: "tok_embeddings.max_norm is 1.0, where the config describes None",
}


@pytest.mark.parametrize("change", SEEN, ids=lambda change: change.__name__)
def test_every_way_to_compute_something_else_is_seen(change):
    model = tiny("llama-2")
    change(model)
    with pytest.raises(ValueError, match=SEEN[change]):
        refuse_undescribed(model)


def test_a_norm_that_also_subtracts_the_mean_is_named_with_its_module():
    model = tiny("llama-2")
    model.norm = Centered(model.config.dim, eps=model.config.norm_eps)
    with pytest.raises(ValueError, match=rf"norm is a {re.escape(__name__)}.Centered, where the "
                                         r"config describes a RMSNorm"):
        refuse_undescribed(model)


def test_a_parameter_that_is_not_a_plain_tensor_is_named():
    class Part(torch.Tensor):
        """A tensor that holds a slice of another one, such as a DTensor."""

    model = Llama(family.tiny("llama-3"))
    model.norm.weight = nn.Parameter(model.norm.weight.detach().as_subclass(Part))
    with pytest.raises(ValueError, match=r"norm.weight is a .*Part, where the config describes a "
                                         r"Tensor.*all ranks call sharded.whole"):
        refuse_undescribed(model)


def test_a_compiled_model_is_what_it_compiles_and_names_it():
    compiled = torch.compile(tiny("llama-2"), backend="eager")
    with pytest.raises(ValueError, match=r"the model is a "
                                         r"torch._dynamo.eval_frame.OptimizedModule, where the "
                                         r"config"):
        refuse_undescribed(compiled)


def test_a_message_names_eight_differences_and_counts_the_rest():
    model = tiny("llama-2")
    for block in model.layers:
        block.attention_norm, block.ffn_norm = (nn.LayerNorm(model.config.dim) for _ in range(2))
        block.attention.wv = LoRA(block.attention.wv)
    with pytest.raises(ValueError, match="and 4 more. Merge") as caught:
        refuse_undescribed(model)
    assert str(caught.value).count("where the config describes") == 8


def test_hooks_that_watch_are_no_part_of_a_model():
    model = tiny("llama-2")
    model.layers[0].register_forward_hook(lambda *_: None)
    refuse_undescribed(model)


@pytest.mark.parametrize(("path", "part", "message"), [
    ("vision.encoder.local_layers.0.feed_forward", {"activation": nn.ReLU()},
     "vision.encoder.local_layers.0.feed_forward.activation is a ReLU, where the config describes"),
    ("layers.1.cross", {"ffn_gate": nn.Identity()}, "layers.1.cross.ffn_gate is a Identity"),
    ("vision", {"projector": nn.Linear(96, 64, bias=False)}, "vision.projector.bias is no param"),
    ("", {"sees_before_images": True}, "sees_before_images is True, where the config describes F"),
])
def test_a_part_of_a_model_that_sees_is_compared_too(path, part, message):
    model = seeing()
    refuse_undescribed(model)
    for name, changed in part.items():
        setattr(model.get_submodule(path), name, changed)
    with pytest.raises(ValueError, match=message):
        refuse_undescribed(model)


def test_parts_of_a_llama_4_that_the_config_does_not_describe_are_refused():
    model = loud_llama4(toy())
    refuse_undescribed(model)
    attention = model.layers[3].attention
    right = attention.scale_queries
    attention.scale_queries = Tempered(TemperatureTuning(floor=3, strength=0.2))
    with pytest.raises(ValueError, match=r"scale_queries\.tuning is TemperatureTuning\(floor=3, "
                                         r"strength=0\.2\), where the config describes"):
        refuse_undescribed(model)
    attention.scale_queries = right
    with biased_choices(model), pytest.raises(ValueError, match="router.choose is a BiasedChoice"):
        refuse_undescribed(model)
    model.layers[0].attention.q_norm = nn.Identity()
    with pytest.raises(ValueError, match="q_norm is a Identity, where the config .* a HeadNorm"):
        refuse_undescribed(model)
