import subprocess
import sys

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten


@pytest.mark.parametrize("name", family.GENERATIONS)
def test_every_parameter_is_there_and_none_has_memory(name):
    model, real = unwritten(family.tiny(name)), Llama(family.tiny(name))
    shapes = [(name, weight.shape) for name, weight in model.named_parameters()]
    assert shapes == [(name, weight.shape) for name, weight in real.named_parameters()]
    assert all(weight.is_meta for weight in model.parameters())
    assert (model.output.weight is model.tok_embeddings.weight) == model.config.is_tied


def test_nothing_is_drawn_and_what_is_made_afterwards_has_memory():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    unwritten(family.config("llama-3.1-405b"))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.empty(2).is_meta and not torch.nn.Linear(2, 2).weight.is_meta


def test_nothing_heavy_is_imported_for_it():
    code = ("import sys; from llama_from_scratch import family; from "
            "llama_from_scratch.model.unwritten import unwritten; "
            "unwritten(family.tiny('llama-3')); print('sympy' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
