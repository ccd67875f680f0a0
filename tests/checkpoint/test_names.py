import dataclasses

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.checkpoint.names import (
    GGUF,
    HUGGING_FACE,
    META,
    TABLE,
    Format,
    Row,
    Table,
    Theirs,
    groups,
    shapes,
)
from llama_from_scratch.model.transformer import Llama

OF_EXPERTS = {name.removeprefix("layers.0.") for name in shapes(family.tiny("llama-4"))
              if ".feed_forward." in name}
FORMATS = {format.name: format for format in (HUGGING_FACE, META, GGUF)}


@pytest.mark.parametrize("name", family.FAMILY)
def test_the_shapes_are_those_of_the_model_itself(name):
    with torch.device("meta"):
        model = Llama(family.config(name))
    wanted = {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert shapes(model.config) == wanted
    first = ["tok_embeddings.weight", "output.weight"][: 1 if model.config.is_tied else 2]
    assert list(shapes(model.config))[: len(first)] == first, "the largest come first"


@pytest.mark.parametrize("format", FORMATS)
def test_a_table_names_every_parameter_once_and_nothing_else(format):
    config = family.tiny("llama-3")
    names = [FORMATS[format].of_layer.format(i=i) + row.theirs[FORMATS[format]].name
             for i in range(config.n_layers) for row in TABLE.per_layer
             if FORMATS[format] in row.theirs and row.ours not in OF_EXPERTS]
    names += [row.theirs[FORMATS[format]].name for row in TABLE.once]
    if format != "Meta":
        config = dataclasses.replace(config, has_qkv_bias=True, has_wo_bias=True, has_ffn_bias=True)
    n_per_layer = 9 if format == "Meta" else 16
    assert len(set(names)) == len(names) == len(shapes(config))
    assert len(names) == 3 + n_per_layer * config.n_layers


def test_a_row_applies_where_its_parameter_is_and_a_parameter_without_a_row_is_refused():
    format = Format(name="planted", of_layer="l{i}.")
    rows = tuple(Row(ours=name, theirs={format: Theirs(name=name)}) for name in ("dense", "router"))
    table = Table(once=(Row(ours="head", theirs={format: Theirs(name="head")}),), per_layer=rows)
    params = {"layers.0.dense": (2,), "layers.1.router": (2,), "layers.3.dense": (2,)}
    found = groups(params, 4, table=table)
    assert [(i, list(rows)) for i, rows in found] == [
        (0, ["layers.0.dense"]), (1, ["layers.1.router"]), (3, ["layers.3.dense"])]
    for stranger in ("layers.0.gate", "norm", "layers.4.dense"):
        with pytest.raises(ValueError, match=rf"there is none for {stranger}. Add it"):
            groups(params | {stranger: (2,)}, 4, table=table)


def test_what_readers_look_for_before_they_know_the_config_has_a_role():
    roles = ("embedding", "head", "queries", "keys")
    assert [TABLE.name_of(role, META) for role in roles] == [
        "tok_embeddings.weight", "output.weight", "layers.0.attention.wq.weight",
        "layers.0.attention.wk.weight"]
    assert TABLE.name_of("embedding", GGUF) == "token_embd.weight"
