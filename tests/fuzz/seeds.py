"""A tiny checkpoint of every format that is read, as files by name, and how each is opened."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import chat_templates
import gguf as reference
import json_layouts
import numpy as np
import torch

from llama_from_scratch import family
from llama_from_scratch.checkpoint.convert import write
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.hugging_face import read_tokenizer
from llama_from_scratch.tokenizer.prompting import Prompting
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.train import resume
from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.optimizer import AdamW, decay_groups
from llama_from_scratch.train.records import Step, TrainConfig
from llama_from_scratch.vision import share_places

TEXT = "the cat sat on the mat, the rat sat on the cat. " * 2
RUN = TrainConfig(n_steps=2, batch_size=1, seq_len=8, n_warmup=1)


class Seed(NamedTuple):
    """`files`: content by name. `path`: what is opened, a file among them or "" for the folder.

    `kind`: "checkpoint"; "run", whose training goes on; or "call", a model's call of a tool.
    """

    name: str
    files: dict[str, bytes]
    path: str
    kind: str = "checkpoint"


def all_seeds(scratch: Path) -> list[Seed]:
    """One of each format, made in `scratch`."""
    return list(_seeds(scratch))


def run_of(tokenizer: Tokenizer) -> resume.OngoingRun:
    """A run that has not begun, to which a checkpoint of the seed "run" belongs."""
    model = _model("llama-3", 264)
    optimizer = AdamW(decay_groups(model, weight_decay=0.1))
    data = Packed([TEXT], tokenizer)
    return resume.OngoingRun(model=model, optimizer=optimizer, config=RUN, data=data,
                             validation=None)


def bytes_tokenizer() -> Tokenizer:
    """The tokenizer of the seed "run": 264 ids."""
    return Tokenizer.train(TEXT, 264, special_tokens=("<|begin_of_text|>", "<|end_of_text|>"))


def _model(generation: str, vocab_size: int, *, dim: int = 32) -> Llama:
    config = family.tiny(generation)
    torch.manual_seed(0)
    return Llama(dataclasses.replace(config, dim=dim, n_heads=2, ffn_dim=dim,
                                     n_kv_heads=min(config.n_kv_heads, 2), max_seq_len=64,
                                     vocab_size=vocab_size, layers=config.layers[:1]))


def _seeds(scratch: Path) -> Iterator[Seed]:
    ranks = Tokenizer.train(TEXT, 520, special_tokens=released.LLAMA_3_1)
    ranks_3 = Tokenizer.train(TEXT, 520, special_tokens=released.LLAMA_3)
    pieces = SentencePiece.train(TEXT, 290)
    scaled, plain = _model("llama-3.1", 520), _model("llama-3", 520)
    tied, old = _model("llama-3.2", 520), _model("llama-2", 290)
    for name, model, tokenizer, how in [
        ("hugging-face", scaled, ranks, dict(format="hugging-face")),
        ("hugging-face shards", old, pieces, dict(format="hugging-face", n_shards=2)),
        ("meta ranks", plain, ranks_3, dict(format="meta")),
        ("meta shards", old, pieces, dict(format="meta", n_shards=2)),
        ("meta tied", tied, ranks, dict(format="meta")),
        ("gguf F16", scaled.half(), ranks, dict(format="gguf")),
        ("gguf Q8_0", old, pieces, dict(format="gguf", is_packed=True)),
        ("llama2c", old, pieces, dict(format="llama2c")),
        ("native ranks", plain, ranks, dict(format="native")),
        ("native pieces", old, pieces, dict(format="native")),
    ]:
        is_file = how["format"] == "gguf"
        target = scratch / name / ("m.gguf" if is_file else "")
        write(target, model, tokenizer=tokenizer, **how)
        files = _files(scratch / name)
        if name == "native ranks":
            _forget_checksums(files)
        yield Seed(name, files, "m.gguf" if is_file else "")
    yield Seed("gguf Q4_K", {"m.gguf": _packed(scratch, _model("llama-2", 290, dim=256), pieces)},
               "m.gguf")
    yield from _of_others(scratch)
    yield from _that_see(scratch)
    only_pieces = _files(scratch / "hugging-face shards")
    del only_pieces["tokenizer.json"]
    yield Seed("hugging-face pieces", only_pieces, "")
    tokenizer = bytes_tokenizer()
    steps = [Step(step=i, loss=5.0, lr=1e-3, grad_norm=1.0, n_tokens=8, time_s=0.1)
             for i in range(1)]
    run = run_of(tokenizer)
    run.optimizer.n_steps = len(steps)
    resume.save(scratch / "run", run, steps=steps)
    files = _files(scratch / "run")
    _forget_checksums(files)
    yield Seed("run", files, "", kind="run")
    for name, call in (("call.json", b'{"name": "wind", "parameters": {"city": "Rome", "n": 3}}'),
                       ("call.txt", b'[weather(city="Rome", n=3), time(zone="CET")]')):
        yield Seed(f"a {name}", {name: call}, name, kind="call")


def _of_others(scratch: Path) -> Iterator[Seed]:
    """Files in the manner of other makers: a tokenizer of other steps, templates of their own."""
    theirs = Path(scratch / "smollm.json")
    theirs.write_text(json_layouts.layout("SmolLM").to_str())
    tokenizer = read_tokenizer(theirs)
    tokenizer.prompting = Prompting(templates={"default": chat_templates.CHATML_WITH_A_SYSTEM},
                                    token_names=dict.fromkeys(("bos_token", "eos_token"),
                                                              "<|endoftext|>"))
    model = _model("llama-3.2", tokenizer.vocab_size)
    write(scratch / "others", model, tokenizer=tokenizer, format="hugging-face")
    files = _files(scratch / "others")
    files["chat_template.jinja"] = chat_templates.THOUGHTS.encode()
    files["special_tokens_map.json"] = b'{"pad_token": {"content": "<pad>", "special": true}}'
    files["added_tokens.json"] = b"{}"
    yield Seed("of others", files, "")
    write(scratch / "others native", model, tokenizer=tokenizer, format="native")
    files = _files(scratch / "others native")
    _forget_checksums(files)
    yield Seed("of others, native", files, "")


def _that_see(scratch: Path) -> Iterator[Seed]:
    """Models that see images, in each layout that can hold one."""
    config = family.tiny("llama-3.2-vision")
    vision = dataclasses.replace(
        config.vision, dim=16, ffn_dim=16, n_local_layers=2, n_global_layers=1,
        intermediate_layers=(1,), tile_px=14, patch_px=7, output_dim=32)
    config = dataclasses.replace(
        config, dim=32, n_heads=2, n_kv_heads=2, ffn_dim=32, max_seq_len=64, vocab_size=520,
        layers=config.layers[:2], cross_layers=(1,), image_id=520, vision=vision)
    torch.manual_seed(0)
    model = config.new_model()
    share_places(model)
    tokenizer = Tokenizer.train(TEXT, 521, special_tokens=released.LLAMA_3_2_VISION)
    for name, how in [("hugging-face", {}), ("meta", dict(n_shards=2)), ("native", {})]:
        name, how = f"seeing {name}", dict(format=name) | how
        write(scratch / name, model, tokenizer=tokenizer, **how)
        files = _files(scratch / name)
        _forget_checksums(files)
        yield Seed(name, files, "")


def _forget_checksums(files: dict[str, bytes]) -> None:
    """Lets damage get past the checksums, which notice nearly all of it before it is read."""
    files.pop("checksums.json", None)


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def _packed(scratch: Path, model: Llama, tokenizer: SentencePiece) -> bytes:
    """A GGUF file whose matrices are in Q4_K, which is read and not written by us."""
    write(scratch / "plain.gguf", model, tokenizer=tokenizer, format="gguf")
    plain, kind = reference.GGUFReader(scratch / "plain.gguf"), reference.GGMLQuantizationType.Q4_K
    writer = reference.GGUFWriter(scratch / "packed.gguf", "llama")
    for field in plain.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            part = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], part)
    rng = np.random.default_rng(0)
    for tensor in plain.tensors:
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, np.array(tensor.data))
            continue
        blocks = rng.integers(0, 256, (int(tensor.n_elements) // 256, 144), dtype=np.uint8)
        blocks[:, :4] = np.array([1e-3, 1e-3], np.float16).view(np.uint8)
        rows = int(tensor.shape[1])
        writer.add_tensor(tensor.name, blocks.reshape(rows, -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return (scratch / "packed.gguf").read_bytes()


