import pytest
import torch
from hugging_face_twin import hugging_face_layout, hugging_face_name

from llama_from_scratch import family
from llama_from_scratch.checkpoint import names
from llama_from_scratch.model.transformer import Llama

TABLES = {"hugging_face": names.HUGGING_FACE, "meta": names.META}


@pytest.mark.parametrize("name", family.FAMILY)
def test_the_shapes_are_those_of_the_model_itself(name):
    with torch.device("meta"):
        model = Llama(family.config(name))
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert names.shapes(model.config) == shapes
    assert next(iter(names.shapes(model.config))) == "tok_embeddings.weight", "the largest comes first"


@pytest.mark.parametrize("table", TABLES)
def test_a_table_names_every_parameter_once_and_nothing_else(table):
    config = family.tiny("llama-3")
    rows = names.expand(TABLES[table], config.n_layers)
    assert rows.keys() == names.shapes(config).keys()
    assert len({row.theirs for row in rows.values()}) == len(rows) == 3 + 9 * config.n_layers


def test_the_hugging_face_names_and_rows_are_those_of_the_tests_own_twin():
    config = family.tiny("llama-3")
    for ours, row in names.expand(names.HUGGING_FACE, config.n_layers).items():
        assert row.theirs == hugging_face_name(ours)
        weight = torch.randn(names.shapes(config)[ours])
        theirs = weight if row.heads is None else names.to_halves(weight, getattr(config, row.heads))
        assert torch.equal(theirs, hugging_face_layout(ours, weight, config.head_dim))


def test_pairs_and_halves_undo_each_other_and_keep_heads_apart():
    rows = torch.arange(8.0)[:, None].expand(8, 3)
    assert names.to_halves(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(names.to_pairs(names.to_halves(rows, 2), 2), rows)
    wide = torch.empty(8, 3, dtype=torch.float64)
    assert names.to_pairs(names.to_halves(rows, 2), 2, out=wide) is wide and torch.equal(wide, rows.double())
    assert not torch.equal(names.to_halves(rows, 1), names.to_halves(rows, 2)), "the number of heads matters"


def test_what_is_missing_extra_and_misshapen_is_listed_together():
    with pytest.raises(ValueError, match=r"tensors in there .* a is missing; b is \(3,\), not \(2,\); c is not of this model"):
        names.refuse_differences({"b": (3,), "c": (1,)}, {"a": (1,), "b": (2,)}, where="there")
    with pytest.raises(ValueError, match=r"and 22 more"):
        names.refuse_differences({}, {f"t{i}": (1,) for i in range(30)}, where="there")
    names.refuse_differences({"a": (1,)}, {"a": (1,)}, where="there")
