"""Published checkpoints in miniature: a model that tells stories and chats, in every real layout.

A family's mini has the family's RoPE, epsilon, tying, sharing of key/value heads, kind of
tokenizer, special tokens and chat format. Only its sizes are small. It is trained on the bundled
stories, once as they are and several times as dialogs that a rule makes of them. The trained mini
is kept, so that writing another layout of it takes a moment.

The loss is on every token and not only on the answers. What users say here are requests and
openings of the same stories, so it teaches the same language, and a model this small needs every
token. Notebooks 18 and 19.
"""

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import hugging_face
from llama_from_scratch.checkpoint.convert import DTYPES, PACKED, refuse_what_cannot_be, write
from llama_from_scratch.checkpoint.folders import creating_folder, held
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.family import VISION_GENERATION
from llama_from_scratch.files import user_cache
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import chat_format, released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.chat_format import ChatFormat, prompting_for
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.train import aligned, kept, mini_families, mini_vision, story_dialogs
from llama_from_scratch.train.aligned import Aligned
from llama_from_scratch.train.data import read_documents, split_validation
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.mini_families import PUBLISHED, published, small_config
from llama_from_scratch.train.records import Step, TrainConfig
from llama_from_scratch.train.side_files import SIDE_FILES
from llama_from_scratch.train.story_dialogs import dialogs, theme_of

TRAINING = TrainConfig(n_steps=3000, batch_size=1, seq_len=320, peak_lr=3.5e-3, n_warmup=100)
_LONGEST_STORY = 900
_N_DIALOGS = 4
_RECORD = "mini.json"


def mini(
    folder: str | Path, *, family: str = "llama-2", format: str = "meta", dtype: str | None = None,
    n_shards: int = 1, n_steps: int | None = None, cache: str | Path | None = None,
    on_step: Callable[[Step], object] | None = None,
) -> None:
    """Writes a family's mini to a new `folder`, with the files of a published checkpoint.

    The folder appears whole or not at all. `format`, `dtype` and `n_shards`: as in `convert`. The
    default dtype is the published one: float16 for Llama 1 and bfloat16 for the others, or float32
    in a format without bfloat16. "gguf" makes a file instead of a folder. The mini of
    "llama-3.2-vision" is bundled (`mini_vision`). The first mini of any other family is trained
    for `n_steps`, by default `TRAINING.n_steps`, and kept in `cache`, by default
    `default_cache()`. `on_step` is called after each step.

    Raises ValueError for an unknown family or format, for a format that cannot hold the family, or
    if `folder` exists. Raises OSError if the disk cannot be written. Both leave nothing behind.
    """
    refuse_what_cannot_be(folder, format=format, dtype=dtype, n_shards=n_shards)
    row = published(family)
    is_seeing = family == VISION_GENERATION
    if is_seeing and n_steps is not None:
        raise ValueError("the mini that sees is bundled and not trained by this function, so it "
                         f"has no number of steps; got n_steps={n_steps}. Leave it out")
    if format not in row.formats:
        able = [name for name, row in PUBLISHED.items() if format in row.formats]
        raise ValueError(f"the format {format} can hold only {', '.join(able)}; got {family}. "
                         "Choose another format")
    with held(folder):  # from before the training, so that no other process writes there
        model, tokenizer = mini_vision.trained() if is_seeing else trained(
            family, n_steps=n_steps, cache=cache, on_step=on_step)
        model.to(row.dtype if dtype is None else DTYPES.get(dtype, torch.float32))
        write_as_published(folder, model, format=format, tokenizer=tokenizer,
                           is_packed=dtype == PACKED, n_shards=n_shards)


def write_as_published(
    folder: str | Path, model: Llama, *, format: str, tokenizer: Any, is_packed: bool = False,
    n_shards: int = 1,
) -> None:
    """Writes any model as `convert.write` does, with the additional files of a published one."""
    settings = dict(tokenizer=tokenizer, format=format, is_packed=is_packed, n_shards=n_shards)
    if format not in SIDE_FILES:
        write(folder, model, **settings)
        return
    with creating_folder(folder) as unfinished:
        inner = unfinished / "checkpoint"
        write(inner, model, **settings)
        SIDE_FILES[format](inner, tokenizer)
        for file in inner.iterdir():
            file.rename(unfinished / file.name)
        inner.rmdir()


def trained(
    name: str, *, n_steps: int | None = None, cache: str | Path | None = None,
    on_step: Callable[[Step], object] | None = None,
) -> tuple[Llama, Any]:
    """Returns a family's mini in float32 and its tokenizer.

    Its weights are exact in the published dtype. It is taken from `cache` if it is there, whole,
    and still predicts held-out stories as it did when it was made. Otherwise it is trained and kept
    there. Warns if the cache cannot be written.
    """
    config, n_steps = small_config(name), TRAINING.n_steps if n_steps is None else n_steps
    training = dataclasses.replace(TRAINING, n_steps=n_steps,
                                   n_warmup=min(TRAINING.n_warmup, n_steps - 1))
    stories, held_out = _stories()
    cache = default_cache() if cache is None else Path(cache)
    key = _key(config, training, stories, name)
    if (found := kept.find(cache, key)) is not None:
        model, tokenizer = load(found, dtype=torch.float32)
        recorded = json.loads((found / _RECORD).read_text(encoding="utf-8"))
        if _loss(model, tokenizer, held_out) == recorded["loss"]:
            return model, tokenizer
        # The library has changed: the model or the tokenizer now computes something else.
        shutil.rmtree(found, ignore_errors=True)
    tokenizer = _tokenizer(stories, config, special_tokens=PUBLISHED[name].special_tokens,
                           pattern=released.pattern_of(name))
    if (format := PUBLISHED[name].chat_format) is not None:
        tokenizer.prompting = prompting_for(format, tokenizer)
    torch_state = torch.get_rng_state()
    torch.manual_seed(training.seed)
    model = Llama(config)
    torch.set_rng_state(torch_state)
    documents = _documents(stories, tokenizer, chat_format=format)
    _train(model, Aligned(documents), training, on_step=on_step)
    model.to(PUBLISHED[name].dtype)
    _keep(cache, key, model, tokenizer, held_out)
    return model.float(), tokenizer


def default_cache() -> Path:
    """Returns the folder where trained minis are kept unless a caller names another one."""
    return user_cache() / "minis"


# --- what it learns from --------------------------------------------------------------------------


def _stories() -> tuple[list[str], list[str]]:
    """Returns stories for training and stories for validation.

    They are the shorter ones of a few themes, which a model learns to tell with little training.
    """
    stories = read_documents(bundled.path("stories.txt"), separator="\n\n")
    chosen = [story for story in stories if len(story) <= _LONGEST_STORY and theme_of(story)]
    return split_validation(chosen, fraction=0.05)


def _tokenizer(
    stories: Sequence[str], config: LlamaConfig, *, special_tokens: Sequence[str] | None,
    pattern: str,
) -> Tokenizer | SentencePiece:
    if special_tokens is None:
        return SentencePiece.train(stories, config.vocab_size)
    return Tokenizer.train(stories, config.vocab_size, special_tokens=special_tokens,
                           pattern=pattern)


def _documents(
    stories: Sequence[str], tokenizer: Tokenizer | SentencePiece, *, chat_format: ChatFormat | None
) -> list[list[int]]:
    """Returns the plain stories, after several dialogs of each story if the family chats.

    There are several, so that requests vary.
    """
    plain = [tokenizer.encode(story, bos=True, eos=True) for story in stories]
    if chat_format is None:
        return plain
    told = (dialog for seed in range(_N_DIALOGS) for dialog in dialogs(stories, seed=seed))
    return [chat_format.encode(dialog, tokenizer, is_answered=True) for dialog in told] + plain


def _train(
    model: Llama, data: Aligned, config: TrainConfig, *, on_step: Callable[[Step], object] | None
) -> None:
    """Runs the training loop. An interrupted run raises, so that half a mini is not kept."""
    if not train(model, data, config=config, on_step=on_step).is_complete:
        raise KeyboardInterrupt


@torch.no_grad()
def _loss(model: Llama, tokenizer: Tokenizer | SentencePiece, stories: Sequence[str]) -> float:
    """Returns nats per token of some stories, rounded so that an unchanged model has the same."""
    data = Aligned([tokenizer.encode(story, bos=True, eos=True) for story in stories])
    batch = data.batch(0, batch_size=4, seq_len=256, seed=0)
    return round(sum_of_nats(model, batch).item() / batch.n_targets, 2)


# --- kept between calls ---------------------------------------------------------------------------


def _key(config: LlamaConfig, training: TrainConfig, stories: Sequence[str], name: str) -> str:
    """Returns a key that changes with everything that a mini is made from.

    That is its data, sizes and settings, this recipe, the form of its dialogs, and PyTorch.
    """
    own = (__file__, mini_families.__file__, story_dialogs.__file__, aligned.__file__)
    recipe = [*map(Path, own), *sorted(Path(chat_format.__file__).parent.glob("*.py"))]
    return kept.key_of(name, json.dumps(config.to_dict()), json.dumps(dataclasses.asdict(training)),
                       torch.__version__, *(file.read_text(encoding="utf-8") for file in recipe),
                       *stories)


def _keep(
    cache: Path, key: str, model: Llama, tokenizer: Tokenizer | SentencePiece,
    held_out: Sequence[str],
) -> None:
    def make(folder: Path) -> None:
        hugging_face.write(folder, model, tokenizer=tokenizer)
        again, its_tokenizer = load(folder, dtype=torch.float32)
        recorded = {"loss": _loss(again, its_tokenizer, held_out)}
        (folder / _RECORD).write_text(json.dumps(recorded), encoding="utf-8")

    try:
        kept.keep(cache, key, make=make)
    except OSError as error:
        warnings.warn(f"the trained mini cannot be kept in {cache} ({error}), so the next call "
                      "trains it again; make that folder writable, or give another one as cache",
                      stacklevel=4)
