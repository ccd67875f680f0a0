import math

import pytest

from llama_from_scratch import family
from llama_from_scratch.model.costs import param_shapes
from llama_from_scratch.model.transformer import Llama


@pytest.mark.parametrize("name", family.GENERATIONS)
def test_shapes_are_the_models_own_in_its_order(name):
    shapes = param_shapes(family.tiny(name))
    assert list(shapes.items()) == [(n, tuple(p.shape))
                                    for n, p in Llama(family.tiny(name)).named_parameters()]


@pytest.mark.parametrize("name", family.FAMILY)
def test_they_add_up_to_the_published_count(name):
    config = family.config(name)
    assert sum(math.prod(shape) for shape in param_shapes(config).values()) == config.n_params


def test_they_are_asked_once_and_cannot_be_changed():
    shapes = param_shapes(family.tiny("llama-3"))
    assert param_shapes(family.tiny("llama-3")) is shapes
    with pytest.raises(TypeError):
        shapes["norm.weight"] = (1,)
