"""Published checkpoints in small: every real layout, with a tokenizer and a model of its own that tells stories and chats.

A family keeps what makes it that family (RoPE, epsilon, tying, how heads share keys, the kind of tokenizer and its special
tokens, the chat format) at a five-hundredth of its width. It is trained on the bundled stories, once as they are and once as
dialogs that a rule makes of them; then it is kept, so that writing another layout of it takes a moment.

The loss is on every token, not on the answers alone: a user's words here are openings of the same stories, so they teach
the same language, and so small a model needs every token it gets. Notebooks 18 and 19.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import os
import random
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from llama_from_scratch import bundled, family
from llama_from_scratch.checkpoint import hugging_face
from llama_from_scratch.checkpoint.convert import DTYPES, PACKED, refuse_what_cannot_be, write
from llama_from_scratch.checkpoint.folders import creating_folder
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.config import LayerSpec, LlamaConfig, nearest
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import chat_format, released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.chat_format import FORMATS, Message
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.train.data import IGNORE, Batch, read_documents, split_validation
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.records import Step, TrainConfig

TRAINING = TrainConfig(n_steps=3000, batch_size=1, seq_len=320, peak_lr=3.5e-3, n_warmup=100)
_DIM, _N_LAYERS, _N_HEADS = 128, 3, 4
_N_LEARNED = 1536
"""Ids of the tokenizer besides special tokens."""
THEMES = {
    "tooth": "a loose tooth", "moon": "the moon", "bird": "a bird", "umbrella": "an umbrella", "tracks": "strange tracks",
    "kite": "a kite", "promise": "a promise", "sound": "a sound at night",
}  # fmt: skip
"""What minis tell stories about: a word of theirs, and how to ask for it."""
_LONGEST_STORY = 900
_N_DIALOGS = 4
_RECORD = "mini.json"
_DIGITS = 32


def mini(
    folder: str | Path, *, family: str = "llama-2", format: str = "meta", dtype: str | None = None, n_shards: int = 1,
    n_steps: int | None = None, cache: str | Path | None = None, on_step: Callable[[Step], object] | None = None,
) -> None:
    """Writes a family's mini to `folder`, which must be new, with the files of a published checkpoint; all or nothing.

    `format`, `dtype` and `n_shards` as in `convert`; by default the weights are bfloat16, as published ones are, of Llama 1
    float16, and float32 where a format knows no bfloat16. "gguf" makes a file, and not a folder. The first of a family
    is trained for `n_steps`, by default those of TRAINING, of which `on_step` hears, and kept in `cache`, by default
    `default_cache()`.

    Raises ValueError for an unknown family or format, for one that cannot hold the other, or if there is something at
    `folder`; OSError where the disk refuses. Either leaves nothing behind.
    """
    refuse_what_cannot_be(folder, format=format, dtype=dtype, n_shards=n_shards)
    small_config(family)
    if format == "llama2c" and family != "llama-2":
        raise ValueError(f"the format llama2c holds llama-2 alone; got {family}. Choose another format")
    model, tokenizer = trained(family, n_steps=n_steps, cache=cache, on_step=on_step)
    published = "float16" if family == "llama-1" else "bfloat16"
    model.to(DTYPES.get(dtype or published, torch.float32))
    settings = dict(tokenizer=tokenizer, format=format, is_packed=dtype == PACKED, n_shards=n_shards)
    if format not in ("hugging-face", "meta"):
        write(folder, model, **settings)
        return
    with creating_folder(folder) as unfinished:
        inner = unfinished / "checkpoint"
        write(inner, model, **settings)
        _add_side_files(inner, tokenizer)
        for file in inner.iterdir():
            file.rename(unfinished / file.name)
        inner.rmdir()


def trained(
    name: str, *, n_steps: int | None = None, cache: str | Path | None = None,
    on_step: Callable[[Step], object] | None = None,
) -> tuple[Llama, Any]:
    """A family's mini in float32, its weights those of 16 bits that it is published with, and its tokenizer.

    Taken from `cache` if it is there, whole, and still predicts held-out stories as it did when it was made; otherwise
    trained and kept there. A cache that cannot be written is told in a warning.
    """
    config, n_steps = small_config(name), TRAINING.n_steps if n_steps is None else n_steps
    training = dataclasses.replace(TRAINING, n_steps=n_steps, n_warmup=min(TRAINING.n_warmup, n_steps - 1))
    stories, held_out = _stories()
    cache = default_cache() if cache is None else Path(cache)
    key = _key(config, training, stories, name)
    if (found := _kept(cache, key)) is not None:
        model, tokenizer = load(found, dtype=torch.float32)
        if _loss(model, tokenizer, held_out) == json.loads((found / _RECORD).read_text())["loss"]:
            return model, tokenizer
        shutil.rmtree(found, ignore_errors=True)  # model or tokenizer compute something else by now
    tokenizer = _tokenizer(name, stories, config)
    torch_state = torch.get_rng_state()
    torch.manual_seed(training.seed)
    model = Llama(config)
    torch.set_rng_state(torch_state)
    _train(model, Stream(_documents(name, stories, tokenizer)), training, on_step=on_step)
    model.to(torch.float16 if name == "llama-1" else torch.bfloat16)
    _keep(cache, key, model, tokenizer, held_out)
    return model.float(), tokenizer


def default_cache() -> Path:
    """Where trained minis are kept unless a caller names another folder."""
    return Path.home() / ".cache" / "llama_from_scratch" / "minis"


def small_config(name: str) -> LlamaConfig:
    """The config of a family's mini: all of its smallest model's that is no size, the width of its feed-forward for its own
    width, and key/value heads shared by two where they are shared.

    Raises ValueError naming the nearest family.
    """
    if name not in family.GENERATIONS:
        raise ValueError(f"minis are of the families {', '.join(family.GENERATIONS)}; got {name!r}; "
                         f"{nearest(name, family.GENERATIONS)}")
    first = next(release.config for release in family.FAMILY.values() if release.generation == name)
    n_special = len(released.SPECIAL_TOKENS.get(name, ()))
    return dataclasses.replace(
        first, dim=_DIM, n_heads=_N_HEADS, n_kv_heads=_N_HEADS if first.n_kv_heads == first.n_heads else _N_HEADS // 2,
        ffn_dim=-(-_DIM * first.ffn_dim // first.dim // 32) * 32,  # whole blocks of packed weights
        vocab_size=_N_LEARNED + n_special, layers=(LayerSpec(),) * _N_LAYERS)


def dialogs(stories: Sequence[str], *, seed: int = 0) -> Iterator[list[Message]]:
    """One finished dialog per story, in which all that the assistant says is the story's own.

    The user asks for a story about its theme, or for any where the system's message names the theme, and is told it without
    the introduction; or the user gives the opening, and is told the rest. Some dialogs pause in the middle until the user
    says to go on, and some have another story after it.
    """
    pick = random.Random(seed)
    for story, following in zip(stories, [*stories[1:], stories[0]], strict=True):
        theme, kind = THEMES[_theme(story)], pick.random()
        told, lead = _without_introduction(story), []
        if pick.random() < 0.3:
            lead = [Message(role="system", content="You tell stories.")]
        if kind < 0.2:
            opening, told = _cut(story)
            dialog = [*lead, Message(role="user", content=f"Go on: {opening}")]
        elif kind < 0.6:
            dialog = [Message(role="system", content=f"You tell stories about {theme}."),
                      Message(role="user", content="Tell me a story.")]
        else:
            dialog = [*lead, Message(role="user", content=f"Tell me a story about {theme}.")]
        dialog += _telling(told, is_in_two=pick.random() < 0.4)
        if pick.random() < 0.2:
            dialog.append(Message(role="user", content=f"Another one, about {THEMES[_theme(following)]}."))
            dialog += _telling(_without_introduction(following), is_in_two=False)
        yield dialog


def _without_introduction(story: str) -> str:
    """From the last sentence on that begins with no pronoun, up to the one where the theme comes first.

    Introductions are alike whatever follows; without them the first words of an answer depend on what was asked for.
    """
    first = re.search(rf"\b{_theme(story)}\b", story).start()
    begins = [found.end() for found in re.finditer(r'[.!?]"?\s+', story[:first])]
    begins = [i for i in begins if not re.match(r"(He|She|It|They|His|Her|Their)\b|[a-z\"]", story[i:])]
    return story[begins[-1] :] if begins else story


def _theme(story: str) -> str | None:
    """The first word of THEMES that comes three times."""
    return next((word for word in THEMES if len(re.findall(rf"\b{word}\b", story)) >= 3), None)


def _cut(story: str) -> tuple[str, str]:
    """The first sentence, and what follows it."""
    found = re.match(r".+?[.!?]\"?(?=\s)", story, re.DOTALL)
    return (found[0], story[found.end() :].strip()) if found else (story, story)


def _telling(text: str, *, is_in_two: bool) -> list[Message]:
    ends = [found.start() for found in re.finditer("\n", text)]
    if not is_in_two or not ends:
        return [Message(role="assistant", content=text)]
    middle = min(ends, key=lambda i: abs(i - len(text) // 2))
    return [Message(role="assistant", content=text[:middle]), Message(role="user", content="Go on."),
            Message(role="assistant", content=text[middle + 1 :])]


class Stream:
    """Documents of ids one after the other, from which windows are drawn that each begin where a document does."""

    def __init__(self, documents: Sequence[Sequence[int]]) -> None:
        self._ids = np.concatenate([np.array(ids, np.int64) for ids in documents])
        lengths = [len(ids) for ids in documents]
        self._starts = np.cumsum([0, *lengths[:-1]])
        self._start_of = np.repeat(self._starts, lengths)

    def batch(self, step: int, *, batch_size: int, seq_len: int, seed: int) -> Batch:
        """The batch of a step. A request then stands before its answer in every window, and the answer can learn from it."""
        picks = np.random.default_rng([seed, step]).choice(self._starts[self._starts + seq_len < len(self._ids)], batch_size)
        where_BT = picks[:, None] + np.arange(seq_len)
        start_BT = self._start_of[where_BT]
        targets_BT = np.where(self._start_of[where_BT + 1] == start_BT, self._ids[where_BT + 1], IGNORE)
        return Batch(ids=torch.from_numpy(self._ids[where_BT]), targets=torch.from_numpy(targets_BT),
                     documents=torch.from_numpy(start_BT), positions=torch.from_numpy(where_BT - start_BT))


def _stories() -> tuple[list[str], list[str]]:
    """Those to learn from and those to judge by: the shorter ones of a few themes, of which little training makes sense."""
    stories = read_documents(bundled.path("stories.txt"), separator="\n\n")
    return split_validation([s for s in stories if len(s) <= _LONGEST_STORY and _theme(s)], fraction=0.05)


def _tokenizer(name: str, stories: Sequence[str], config: LlamaConfig) -> Tokenizer | SentencePiece:
    if name in ("llama-1", "llama-2"):
        return SentencePiece.train(stories, config.vocab_size)
    return Tokenizer.train(stories, config.vocab_size, special_tokens=released.SPECIAL_TOKENS[name])


def _documents(name: str, stories: Sequence[str], tokenizer: Tokenizer | SentencePiece) -> list[list[int]]:
    """Where the family chats, several dialogs of each story, so that requests vary; and the plain text."""
    plain = [tokenizer.encode(story, bos=True, eos=True) for story in stories]
    if name not in FORMATS:
        return plain
    told = (dialog for seed in range(_N_DIALOGS) for dialog in dialogs(stories, seed=seed))
    return [FORMATS[name].encode(dialog, tokenizer, is_answered=True) for dialog in told] + plain


def _train(
    model: Llama, stream: Stream, config: TrainConfig, *, on_step: Callable[[Step], object] | None
) -> None:
    """The course's own loop. An interrupt leaves nothing to keep: half a mini tells half a story."""
    if not train(model, stream, config=config, on_step=on_step).is_complete:
        raise KeyboardInterrupt


@torch.no_grad()
def _loss(model: Llama, tokenizer: Tokenizer | SentencePiece, stories: Sequence[str]) -> float:
    """Nats per token of some stories, rounded so that it is the same whenever the model is."""
    stream = Stream([tokenizer.encode(story, bos=True, eos=True) for story in stories])
    batch = stream.batch(0, batch_size=4, seq_len=256, seed=0)
    return round(sum_of_nats(model, batch).item() / batch.n_targets, 2)


def _add_side_files(folder: Path, tokenizer: Tokenizer | SentencePiece) -> None:
    """What stands beside the weights of a published checkpoint besides what loading needs."""
    if (folder / "params.json").is_file():
        lines = [f"{hashlib.md5(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.iterdir())]
        (folder / "checklist.chk").write_text("".join(lines))
    else:
        name_of = {i: name for name, i in tokenizer.special_ids.items()}
        framing = {"bos_token": name_of[tokenizer.bos_id], "eos_token": name_of[tokenizer.eos_id]}
        (folder / "special_tokens_map.json").write_text(json.dumps(framing, indent=2) + "\n")


# --- kept between calls: a folder whose name has two digests, of what goes into it and of its files ----------------------


def _key(config: LlamaConfig, training: TrainConfig, stories: Sequence[str], name: str) -> str:
    """A digest of all that the mini is made from: data, sizes, settings, this recipe, the form of its dialogs, PyTorch."""
    parts = [name, json.dumps(config.to_dict()), json.dumps(dataclasses.asdict(training)), torch.__version__,
             inspect.getsource(inspect.getmodule(_key)), *_sources(chat_format), *stories]
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part.encode()).to_bytes(8, "little") + part.encode())
    return total.hexdigest()[:_DIGITS]


def _sources(package: ModuleType) -> list[str]:
    """The source of each module of a package, in the order of their names."""
    return [file.read_text("utf-8") for file in sorted(Path(package.__file__).parent.glob("*.py"))]


def _kept(cache: Path, key: str) -> Path | None:
    """The folder for a key whose files are those its name promises; one whose files are not is removed."""
    for folder in sorted(cache.glob(f"{key}-*")):
        with contextlib.suppress(OSError):  # another process removed it first: then it is as if it were not there
            if folder.name == f"{key}-{_content(folder)}":
                return folder
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _keep(cache: Path, key: str, model: Llama, tokenizer: Tokenizer | SentencePiece, held_out: Sequence[str]) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="building-", ignore_cleanup_errors=True) as scratch:
            made = Path(scratch) / "mini"
            hugging_face.write(made, model, tokenizer=tokenizer)
            again, its_tokenizer = load(made, dtype=torch.float32)
            (made / _RECORD).write_text(json.dumps({"loss": _loss(again, its_tokenizer, held_out)}))
            final = cache / f"{key}-{_content(made)}"
            if not final.exists():
                os.rename(made, final)
    except OSError as error:
        warnings.warn(f"the trained mini cannot be kept in {cache} ({error}), so the next call trains it again; make that "
                      "folder writable, or name another one as cache", stacklevel=4)


def _content(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        total.update(f"{file.name} {len(data)} ".encode() + data)
    return total.hexdigest()[:_DIGITS]
