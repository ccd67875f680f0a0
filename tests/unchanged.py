"""What the library computed before its parts were moved, so that a change by a move is found.

`python tests/unchanged.py` writes `unchanged.json` again from the present code. Do that only if a
result is meant to change, and say why. Weights come from whole numbers, so they are the same on
every machine. Files are then equal to the byte, and numbers up to the rounding of a processor.
"""

import dataclasses
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.checkpoint.convert import write
from llama_from_scratch.config import LayerSpec
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.train import Packed, TrainConfig, train

RECORD = Path(__file__).with_name("unchanged.json")
TEXT = "the cat sat on the mat, the rat sat on the cat. " * 4
CHUNKED = (LayerSpec(chunk_size=5), LayerSpec(has_rope=False)) * 2
TWINS = {name: dataclasses.replace(family.tiny(name), vocab_size=520)
         for name in family.GENERATIONS}
TWINS["chunked"] = dataclasses.replace(TWINS["llama-3.1"], layers=CHUNKED)
FORMATS = {"native": {}, "hugging-face": {"n_shards": 2}, "meta": {"n_shards": 2},
           "gguf": {"is_packed": True}, "llama2c": {}}


def model_of(name):
    """A twin whose weights are whole numbers over 1021, which are exact in fp32 everywhere."""
    model = Llama(TWINS[name])
    with torch.no_grad():
        for k, weight in enumerate(model.parameters()):
            steps = (torch.arange(weight.numel()) * 7919 + 31 * k).remainder(1021) - 510
            values = (steps.double() / 1024).view(weight.shape)
            weight.copy_(1 + values / 2 if weight.ndim == 1 else values / 4)
    return model


def numbers_of(name):
    """Logits and gradients, each as few numbers that depend on all of them; and tokens."""
    model = model_of(name)
    ids = (torch.arange(66) * 37 % 520).view(2, 33)
    logits = model(ids)
    F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    positions, documents = torch.arange(33)[None] % 7, torch.arange(33)[None] // 7
    packed = model(ids, positions=positions, documents=documents)
    prompts, sampling = [[5, 6, 7], [9] * 11, [300, 2]], Sampling(temperature=0.9, top_p=0.9)
    return {
        "logits": logits[:, ::8, ::65].flatten().tolist(),
        "packed": packed.norm(dim=-1)[0].tolist(),
        "gradients": [p.grad.norm().item() for p in model.parameters()],
        "greedy": generate(model, prompts, max_tokens=12),
        "sampled": generate(model, prompts, max_tokens=12, sampling=sampling, seed=3),
    }


def files_of(name):
    """Digests of the files of every format; of a .pth, which is a zip archive, of its tensors."""
    if name in ("llama-1", "llama-2"):
        tokenizer = SentencePiece.train("".join(map(chr, range(33, 255))) + TEXT, 520)
    else:
        tokenizer = Tokenizer.train(TEXT, 520, special_tokens=released.SPECIAL_TOKENS[name])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for format, settings in FORMATS.items():
            if format == "llama2c" and name != "llama-2":
                continue
            target = Path(folder, format)
            write(target, model_of(name), tokenizer=tokenizer, format=format, **settings)
            files = sorted(target.iterdir()) if target.is_dir() else [target]
            found |= {f"{format} {file.name}": digest_of(file) for file in files}
    return found


def digest_of(file):
    data = [file.read_bytes()] if file.suffix != ".pth" else [
        part for name, tensor in torch.load(file, weights_only=True).items()
        for part in (name.encode(), tensor.numpy().tobytes())]
    return hashlib.sha256(b"".join(data)).hexdigest()[:16]


def losses():
    """A short run with validation, in one piece and in micro-batches."""
    data = Packed([TEXT[:150]] * 9, TOKENIZER)
    config = TrainConfig(n_steps=6, batch_size=4, seq_len=24, n_warmup=2, validate_every=3)
    found = {}
    for micro in (None, 3):
        history = train(model_of("llama-3"), data, validation=data,
                        config=dataclasses.replace(config, micro_batch_size=micro))
        found[f"micro-batches of {micro}"] = {
            "losses": history.losses, "norms": [step.grad_norm for step in history.steps],
            "validation": [evaluation.loss for _, evaluation in history.validations]}
    return found


TOKENIZER = Tokenizer.train(TEXT, 520, special_tokens=released.SPECIAL_TOKENS["llama-3"])


def record():
    torch.set_num_threads(1)
    return {"numbers": {name: numbers_of(name) for name in TWINS},
            "files": {name: files_of(name) for name in family.GENERATIONS}, "losses": losses()}


if __name__ == "__main__":
    target = RECORD if len(sys.argv) == 1 else Path(sys.argv[1])
    target.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
