import pytest
import torch

from llama_from_scratch.commands.device import usable_device


def test_the_cpu_is_always_usable():
    assert usable_device("cpu") == "cpu"


def test_a_device_keeps_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert usable_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "tpu", ""])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"cannot use the device '{name}' here; it can use cpu\."):
        usable_device(name)
