"""One case: a damaged checkpoint is read as a user would, and what came of it is judged."""

import random
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from llama_from_scratch.checkpoint import facts, open_checkpoint
from llama_from_scratch.checkpoint.inspect import chat_format
from llama_from_scratch.checkpoint.opened import build
from llama_from_scratch.foreign import naming, read_bytes
from llama_from_scratch.tokenizer.chat_format import Message, calls
from llama_from_scratch.train import resume

from .mutations import Content, mutate
from .seeds import Seed, bytes_tokenizer, run_of

READ, REFUSED, FINDING = "read", "refused", "FINDING"
_MAX_MESSAGE = 2000
_SAID = "The cat, on 12 mats: naïve ▁<s>\n\n<|eot_id|> \U0001f642"
_TOKENIZER = bytes_tokenizer()


class Outcome(NamedTuple):
    """`kind`: READ, REFUSED or FINDING. `detail`: the message, or where a raw error came from."""

    kind: str
    seed: str
    damage: str
    detail: str


def run_case(number: int, *, seed: int, seeds: Sequence[Seed], folder: Path) -> Outcome:
    """Case `number` of the sequence `seed`: the same on every machine. Works in `folder`."""
    rng = random.Random(f"{seed}/{number}")
    chosen = rng.choice(seeds)
    damage, changed = mutate(rng, chosen, seeds)
    where = _laid_out(chosen, folder)
    try:
        for name, content in changed.items():
            _put(where / name, content)
        kind, detail = _judged(where / chosen.path, chosen)
    finally:
        for name in changed:
            _remove(where / name)
            (where / name).write_bytes(chosen.files[name])
        for extra in {file.name for file in where.iterdir()} - chosen.files.keys():
            _remove(where / extra)
    return Outcome(kind, chosen.name, damage, detail)


def read(path: Path, *, kind: str) -> None:
    """Opens a checkpoint, encodes a text and a chat, and computes the logits of one token.

    Of a run, its training is resumed first. A call of a tool is read in both of its places.
    """
    if kind == "call":
        text = read_bytes(path, need="this needs a call").decode(errors="replace")
        calls.read_claimed(text)
        calls.read_tagged_tail(text, builtin_tools=("brave_search",))
        return
    if kind == "run":
        resume.begin(run_of(_TOKENIZER), path, is_resumed=True)
    opened = open_checkpoint(path)
    facts(opened)
    assert all(0 <= i < opened.config.vocab_size for i in opened.stop_ids)
    tokenizer = opened.tokenizer()
    with naming(path):  # a pattern that cannot cut this text does not know its file
        ids = tokenizer.encode(_SAID)
        tokenizer.decode(ids)
        if (chat := chat_format(opened.config, tokenizer)) is not None:
            chat.stop_ids(tokenizer)
            chat.encode([Message(role="user", content=_SAID)], tokenizer)
    model = build(opened)
    with torch.no_grad():
        model(torch.tensor([ids[: min(4, opened.config.max_seq_len)]]))


def _judged(path: Path, seed: Seed) -> tuple[str, str]:
    try:
        read(path, kind=seed.kind)
    except ValueError as error:
        message = str(error)
        is_named = str(path) in message or str(path.parent) in message
        faults = [fault for fault, is_so in {
            f"{type(error).__name__} in place of ValueError": type(error) is not ValueError,
            "no path": not is_named, "no cure": ". " not in message and "; " not in message,
            "not printable": not message.isprintable(),
            f"{len(message)} characters": len(message) > _MAX_MESSAGE}.items() if is_so]
        where = _place(error)
        return (FINDING, f"{', '.join(faults)} at {where}: {message:.300}") if faults else (
            REFUSED, message)
    except Exception as error:
        return FINDING, f"{type(error).__name__} at {_place(error)}: {error!s:.300}"
    return READ, ""


def _place(error: BaseException) -> str:
    """The last line of the library on the way to an error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if "llama_from_scratch/" in frame.filename]
    if not frames:
        return "the fuzzer"
    return f"{frames[-1].filename.rpartition('llama_from_scratch/')[2]}:{frames[-1].lineno}"


def _laid_out(seed: Seed, folder: Path) -> Path:
    """The folder of a seed, whole; made at its first case."""
    where = folder / seed.name.replace(" ", "-")
    if not where.exists():
        where.mkdir()
        for name, content in seed.files.items():
            (where / name).write_bytes(content)
    return where


def _put(path: Path, content: Content) -> None:
    _remove(path)
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
