import pytest

from llama_from_scratch.commands.device import usable_device


def test_the_cpu_is_always_usable():
    assert usable_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda:99", "mps:7", "meta", "tpu", ""])
def test_a_device_that_is_not_there_is_refused_by_the_rule_for_models(name):
    with pytest.raises(ValueError, match="a model needs a device that PyTorch can use on this"):
        usable_device(name)
