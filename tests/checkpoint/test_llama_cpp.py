"""What llama.cpp itself computes from the GGUF files that we write: the independent reference that
runs them in the wild.
"""

import numpy as np
import pytest
import torch
from tiny_checkpoints import TEXT, VOCAB, reconfigured, tiny, tokenizer_for

from llama_from_scratch.checkpoint import gguf
from llama_from_scratch.checkpoint.gguf_blocks import pack_q8_0, unpack_q8_0
from llama_from_scratch.checkpoint.opened import build

llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError, reason=(
    "llama-cpp-python is not installed; it is built from source in some minutes: "
    "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install --no-binary llama-cpp-python llama-cpp-python, then "
    "pytest tests/checkpoint/test_llama_cpp.py"))
pytestmark = pytest.mark.llama_cpp

N_PROMPT, N_MORE = 600, 24
# Largest difference of logits, relative to the largest of them. llama.cpp rounds what it multiplies
# by fp16 weights to fp16, and by 8-bit weights to 8 bits, and so does our side here; what is left
# are roundings inside its products. Twice what version 0.3.36 was seen to differ by.
TOLERANCE = {"F32": 1e-5, "F16": 2.2e-3, "Q8_0": 4.5e-2}
PROMPT = torch.randint(VOCAB, (N_PROMPT,), generator=torch.Generator().manual_seed(2)).tolist()


@pytest.fixture(autouse=True)
def plain_buffers(monkeypatch):
    """Weights as they lie in the file: version 0.3.36 faults in its AMX product of Q8_0, for which
    it would repack them.
    """
    default = llama_cpp.llama_cpp.llama_model_default_params

    def changed():
        params = default()
        params.use_extra_bufts = False
        return params

    monkeypatch.setattr(llama_cpp.llama_cpp, "llama_model_default_params", changed)


def theirs(path):
    n = N_PROMPT + N_MORE
    return llama_cpp.Llama(str(path), n_ctx=n, n_batch=n, n_ubatch=n, n_threads=1,
                           n_threads_batch=1, logits_all=True,
                           # keys and values in fp32
                           flash_attn=False, type_k=0, type_v=0, verbose=False)


def logits_of_theirs(model, ids):
    model.reset()
    model.eval(ids)
    return torch.from_numpy(np.array(model.scores[: len(ids)], dtype=np.float32))


def rounded(kind):
    """A forward hook that rounds what a matrix is multiplied by, as llama.cpp does for weights of
    one kind.
    """
    if kind == "F16":
        return lambda module, args: (args[0].half().float(),)
    return lambda module, args: (
        torch.from_numpy(unpack_q8_0(pack_q8_0(args[0].reshape(-1, 32).numpy()))).view(
            args[0].shape),)


@torch.no_grad()
def logits_of_ours(model, ids):
    return model(torch.tensor([ids]))[0]


def greedy(logits_of, model):
    ids = list(PROMPT)
    for _ in range(N_MORE):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    return ids[N_PROMPT:]


def difference(path, model):
    ours = logits_of_ours(model, PROMPT)
    return ((logits_of_theirs(theirs(path), PROMPT) - ours).abs().max() / ours.abs().max()).item()


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("generation", ["llama-2", "llama-3", "llama-3.1", "llama-3.2"])
def test_llama_cpp_computes_the_same_from_what_we_write(generation, kind, tmp_path):
    gguf.write(tmp_path / "m.gguf", tiny(generation), tokenizer=tokenizer_for(generation),
               kind=kind)
    ours = build(gguf.open_checkpoint(tmp_path / "m.gguf"), dtype=torch.float32)
    if kind != "F32":
        for module in ours.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(rounded(kind))
    assert difference(tmp_path / "m.gguf", ours) < TOLERANCE[kind]
    if kind == "F32":
        assert greedy(logits_of_theirs, theirs(tmp_path / "m.gguf")) == greedy(logits_of_ours, ours)


@pytest.mark.parametrize("changes",
                         [{"rope_theta": 1e4}, {"rope_scaling": None}, {"norm_eps": 1e-3}])
def test_the_comparison_sees_what_the_file_says_of_the_arithmetic(changes, tmp_path):
    """600 tokens reach the pairs that scaling slows."""
    model = tiny("llama-3.2")
    gguf.write(tmp_path / "m.gguf", reconfigured(model, **changes),
               tokenizer=tokenizer_for("llama-3.2"))
    assert difference(tmp_path / "m.gguf", model) > 10 * TOLERANCE["F32"]


@pytest.mark.parametrize("generation", ["llama-2", "llama-3.1"])
def test_llama_cpp_has_the_same_ids(generation, tmp_path):
    tokenizer = tokenizer_for(generation)
    gguf.write(tmp_path / "m.gguf", tiny(generation), tokenizer=tokenizer)
    model = theirs(tmp_path / "m.gguf")
    for text in (TEXT, "the cat's 12345 naïve\n\n  🙂"):
        assert model.tokenize(text.encode(), add_bos=True,
                              special=False) == tokenizer.encode(text, bos=True)
    assert model.token_eos() == tokenizer.eos_id
