import dataclasses
import subprocess
import sys

import torch

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten


def test_parameters_have_shapes_and_no_memory_and_draw_nothing():
    state = torch.get_rng_state()
    model = unwritten(family.config("llama-3.1-405b"))
    assert all(p.is_meta for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == 405_853_388_800
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_the_model_of_the_config_part_by_part():
    config = family.tiny("llama-3.2")
    ours = [(name, type(module)) for name, module in unwritten(config).named_modules()]
    assert ours == [(name, type(module)) for name, module in Llama(config).named_modules()]
    assert unwritten(config).output.weight is not unwritten(config).output.weight
    model = unwritten(config)
    assert model.output.weight is model.tok_embeddings.weight, "tied"


def test_biases_have_no_memory_either():
    state = torch.get_rng_state()
    model = unwritten(dataclasses.replace(family.config("llama-2-7b"), has_qkv_bias=True,
                                          has_wo_bias=True, has_ffn_bias=True))
    assert all(p.is_meta for p in model.parameters())
    assert model.layers[31].attention.wq.bias.shape == (4096,)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_heavy_is_imported_for_it():
    code = ("import sys, dataclasses; from llama_from_scratch import family; from "
            "llama_from_scratch.model.unwritten import unwritten; "
            "unwritten(dataclasses.replace(family.tiny('llama-3'), has_qkv_bias=True)); "
            "print('sympy' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
