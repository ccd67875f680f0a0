"""`units`: which parameters come and go together."""

import pytest
import ranks_sharded
import torch
from torch import nn

from llama_from_scratch.parallel.units import cut, gathered, tensors_of
from llama_from_scratch.parallel.world import alone


def units_of(model, **options):
    return cut(model, alone(), **{"replicate": None, "param_dtype": None, "is_kept": False,
                                  **options})


def names_of(units):
    return [[name for flat in unit.flats for name in flat.shapes] for unit in units]


def test_each_block_is_a_unit_and_the_rest_is_the_root():
    model = ranks_sharded.llama()
    root, *blocks = units_of(model)
    assert names_of([root]) == [["tok_embeddings.weight", "norm.weight", "output.weight"]]
    assert names_of(blocks) == [[f"layers.{i}.{name}" for name, _ in block.named_parameters()]
                                for i, block in enumerate(model.layers)]
    assert [unit.modules for unit in blocks] == [(block,) for block in model.layers]
    assert root.modules == (model.tok_embeddings, model.norm, model.output)


def test_a_tied_head_is_in_the_root_once_and_read_by_two_modules():
    model = ranks_sharded.llama(is_tied=True)
    root = units_of(model)[0]
    assert names_of([root]) == [["tok_embeddings.weight", "norm.weight"]]
    assert root.modules == (model.tok_embeddings, model.norm, model.output)


def test_the_encoder_of_a_model_that_sees_has_units_too():
    units = units_of(ranks_sharded.seeing_model())
    flats = [flat.name for unit in units[1:] for flat in unit.flats]
    assert flats[:3] == ["layers.0", "layers.1 float64 frozen", "layers.1 float64"]
    assert flats[3:] == [f"vision.encoder.{name}" for name in
                         ("local_layers.0", "local_layers.1", "global_layers.0")]


def test_a_weight_that_two_blocks_share_is_in_the_root():
    model = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2)])
    model[1].weight = model[0].weight
    root, *blocks = units_of(nn.Sequential(model))
    assert names_of([root, *blocks]) == [["0.0.weight"], [], ["0.1.bias"]]


def test_blocks_inside_of_a_block_belong_to_it():
    inner = nn.ModuleList([nn.Linear(2, 2)])
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"experts": inner})])})
    assert names_of(units_of(model)) == [[], ["layers.0.experts.0.weight",
                                              "layers.0.experts.0.bias"]]


def test_each_dtype_has_a_buffer_and_frozen_parameters_have_their_own():
    block = nn.Module()
    block.a = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    block.b = nn.Parameter(torch.ones(2))
    block.c = nn.Parameter(torch.ones(2), requires_grad=False)
    model = nn.ModuleDict({"layers": nn.ModuleList([block])})
    flats = units_of(model)[1].flats
    assert [flat.name for flat in flats] == [
        "layers.0 bfloat16", "layers.0 float32", "layers.0 float32 frozen"]
    assert [flat.is_trained for flat in flats] == [True, True, False]


def test_a_parameter_with_a_group_of_its_own_has_a_buffer_of_its_own():
    block = nn.Module()
    block.a, block.expert = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(5))
    model = nn.ModuleDict({"layers": nn.ModuleList([block])})
    own = alone()
    own.name = "expert_shards"
    root, unit = units_of(model, groups={"layers.0.expert": own})
    assert [flat.name for flat in unit.flats] == [
        "layers.0 float32", "layers.0 float32 expert_shards"]
    assert names_of([root, unit]) == [[], ["layers.0.a", "layers.0.expert"]]
    assert unit.flats[0].group is not own and unit.flats[1].group is own


def test_gathered_yields_the_weights_by_name():
    model = ranks_sharded.llama()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    flats = [flat for unit in units_of(model) for flat in unit.flats]
    pieces = {name: p for flat in flats for name, p in flat.pieces.items()}
    found = dict(gathered(flats, pieces))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert dict(gathered(flats, {"norm.weight": pieces["norm.weight"]})).keys() == {"norm.weight"}


def test_a_parameter_of_integers_is_refused():
    model = nn.ParameterDict({"ids": nn.Parameter(torch.zeros(2, dtype=torch.int64),
                                                  requires_grad=False)})
    with pytest.raises(ValueError, match="hold floating-point numbers; got ids of torch.int64"):
        units_of(model)


def test_the_tensors_in_an_output_are_found():
    a, b, c = torch.zeros(3)
    assert [id(x) for x in tensors_of((a, {"b": b, "none": None}, [c, 1]))] == [
        id(x) for x in (a, b, c)]
