"""The first mistakes of a newcomer, each refused in words or accepted where the meaning is clear.

They run in a process of their own, because pytest executes the shapes in signatures and users do
not.
"""

import json
import subprocess
import sys

import pytest

SETUP = """
import contextlib, dataclasses, json, sys
import torch
import llama_from_scratch
from llama_from_scratch import bundled, family
from llama_from_scratch.generate import generate, stream
from llama_from_scratch.model import KVCache, Llama
from llama_from_scratch.model.attention import attention
from llama_from_scratch.model.mask import Visible, plain_tokens
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train import Packed, TrainConfig, train
from llama_from_scratch.tune import lora
torch.manual_seed(0)
model = Llama(family.tiny("llama-3"))
ids = torch.tensor([[5, 6, 7]])
q, k = torch.randn(2, 5, 4, 8), torch.randn(2, 5, 2, 8)
causal = Visible(tokens=plain_tokens(5), n_queries=5)
other = dataclasses.replace(model.config, layers=model.config.layers[:2])
config = TrainConfig(n_steps=2, batch_size=1, seq_len=8, n_warmup=1)
"""

REFUSED = {
    "ids as a list": ("model([5, 6])", r"be integers of shape \(B, T\).*got a list: \[5, 6\]"),
    "ids of rank 1": ("model(ids[0])", r"got \(3,\) of int64. For one sequence: torch.tensor"),
    "ids as floats": ("model(ids.float())", r"got \(1, 3\) of float32"),
    "an id beyond": ("model(ids + 510)", r"ids run from 0 to 511; got \[515, 516, 517\]"),
    "an id below": ("model.hidden(ids - 9)", r"ids run from 0 to 511; got \[-4, -3, -2\]"),
    "one position": ("model(ids, positions=torch.tensor([[0]]))",
                     r"positions must be one integer per token: shape \(1, 3\).*got \(1, 1\)"),
    "positions of rank 1": ("model(ids, positions=torch.arange(3))", r"got \(3,\) of int64"),
    "documents of a list": ("model(ids, documents=[0, 0, 0])", "documents must be one int.*a list"),
    "too few documents": ("model(ids, documents=torch.zeros(1, 2).long())", r"got \(1, 2\)"),
    "too many tokens": ("Llama(dataclasses.replace(model.config, max_seq_len=2))(ids)",
                        "this model is made for at most 2 tokens; got 3"),
    "a shallower cache": (
        "model(ids, cache=KVCache(other, batch_size=1, max_seq_len=8))",
        "a KV cache must be made for this model; got one for a model with layers="),
    "a cache of another model": (
        "model(ids, cache=Llama(other).new_cache(batch_size=1, max_seq_len=8))",
        "got one for a model with layers="),
    "a cache of another batch": ("model(ids, cache=model.new_cache(batch_size=2, max_seq_len=8))",
                                 "made for a batch of 2; got a batch of 1"),
    "a cache without room": ("model.new_cache(batch_size=1, max_seq_len=0)", "at least one token"),
    "heads first": (
        "attention(q.transpose(1, 2), k.transpose(1, 2), v=k.transpose(1, 2), visible=causal)",
        r"Put the axis of heads after the axis of tokens"),
    "v of another shape": ("attention(q, k, v=k[:, :4], visible=causal)",
                          r"must both be \(B, S, G, K\); got q"),
    "groups that do not divide": ("attention(q, k[:, :, :1].repeat(1, 1, 3, 1), "
                                  "v=k[:, :, :1].repeat(1, 1, 3, 1), visible=causal)",
                                  "G divides H"),
    "a mask of another length": (
        "attention(q, k, v=k, visible=Visible(tokens=plain_tokens(4), n_queries=4))",
        r"visible has T, S = \(4, 4\)"),
    "a prompt of text": ("generate(model, 'Once')", "prompts are lists of ids; got 'Once'"),
    "prompts of text": ("generate(model, ['Once'])", "prompt 0 is 'Once'. Encode a text first"),
    "no prompts": ("generate(model, [])", "at least one prompt"),
    "a tensor of floats": ("generate(model, ids.float())", r"got a tensor \(1, 3\)"),
    "a tensor of rank 3": ("generate(model, ids[None])", r"got a tensor \(1, 1, 3\)"),
    "floats among ids": ("generate(model, [[1, 2.5]])", r"prompt 0 is \[1, 2.5\]"),
    "an id of another vocabulary": ("generate(model, [[1, 600]])", "prompt 0 holds 600"),
    "a number": ("generate(model, 5)", "prompts are lists of ids; got 5"),
    "texts to train on": ("train(model, ['a text'], config=config)",
                          "train needs data that makes batches; got a list"),
    "no model to train": ("train(model.norm, None, config=config)", "train needs a Llama; got a"),
    "a size without its number": ("family.config('llama-4-scout')",
                                  "there are llama-4-scout-17b-16e, llama-4-scout-17b-16e-"),
    "a size without its kind": ("family.config('llama-3.2-11b')",
                                "there are llama-3.2-11b-vision, llama-3.2-11b-vision-instruct"),
    "a twin of a size": ("family.tiny('llama-4-scout')", "did you mean 'llama-4"),
    "a misspelled family": ("family.config('lama-3-8b')", "did you mean 'llama-3-8b'"),
    "cuda without a GPU": ("llama_from_scratch.load(bundled.path('mini'), device='cuda')", "cuda"),
    "an unknown device": ("llama_from_scratch.load(bundled.path('mini'), device='gpu')", "gpu"),
    "adapters for a layer": ("lora.add(model.layers[0], rank=2)", "added to a Llama; got"),
    "a rank of a half": ("lora.add(model, rank=0.5)", "rank must be an int above 0; got 0.5"),
    "targets as a word": ("lora.add(model, rank=2, targets='wq')", "targets are a list of names"),
    "targets of numbers": ("lora.add(model, rank=2, targets=[3])", "targets are a list of names"),
    "a dtype as a word": ("llama_from_scratch.load(bundled.path('mini'), dtype='bfloat16')",
                          "torch.bfloat16"),
}

ACCEPTED = {
    "one list of ids": ("generate(model, [5, 6, 7], max_tokens=4)",
                        "generate(model, [[5, 6, 7]], max_tokens=4)"),
    "a tensor (B, T)": ("generate(model, torch.tensor([[5, 6], [7, 8]]), max_tokens=4)",
                        "generate(model, [[5, 6], [7, 8]], max_tokens=4)"),
    "a tensor (T,)": ("generate(model, ids[0], max_tokens=4)",
                      "generate(model, [[5, 6, 7]], max_tokens=4)"),
    "a list of tensors": ("generate(model, [ids[0], ids[0, :2]], max_tokens=4)",
                          "generate(model, [[5, 6, 7], [5, 6]], max_tokens=4)"),
    "a tuple": ("generate(model, (5, 6, 7), max_tokens=4)",
                "generate(model, [[5, 6, 7]], max_tokens=4)"),
    "int32 ids": ("model(ids.int()).tolist()", "model(ids).tolist()"),
    "shared positions": (
        "model(ids.repeat(2, 1), positions=torch.tensor([[3, 4, 9]])).tolist()",
        "model(ids.repeat(2, 1), positions=torch.tensor([[3, 4, 9]] * 2)).tolist()"),
}


@pytest.fixture(scope="module")
def answers():
    """What each call returned, or the error it ended in: its type and its words."""
    calls = [call for call, _ in REFUSED.values()]
    calls += [call for pair in ACCEPTED.values() for call in pair]
    code = SETUP + f"""
found = {{}}
for call in {calls!r}:
    try:
        found[call] = ["", repr(eval(call))]
    except BaseException as error:
        found[call] = [type(error).__name__, str(error)]
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_refused_in_words(answers, mistake):
    call, words = REFUSED[mistake]
    kind, said = answers[call]
    assert kind == "ValueError", f"{call}: {kind}: {said}"
    with pytest.raises(ValueError, match=f"(?s){words}"):
        raise ValueError(said)


@pytest.mark.parametrize("way", ACCEPTED)
def test_a_clear_meaning_is_accepted(answers, way):
    call, same = ACCEPTED[way]
    assert answers[call][0] == "", answers[call]
    assert answers[call] == answers[same]
