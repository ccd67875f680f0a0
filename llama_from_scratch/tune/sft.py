"""Supervised fine-tuning: a model that continues texts learns to answer.

Nothing is new except the data: dialogs in the model's chat format, of which only the answers are
learned, and texts of the earlier training among them, so that it is not forgotten. `train` has the
loop, the optimizer and the checkpoints.

Notebook 50. Source: Llama 2, arXiv:2307.09288, section 3.1; Llama 3, arXiv:2407.21783, section 4.1.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from llama_from_scratch.checkpoint.inspect import chat_format
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.records import History, Step, TrainConfig
from llama_from_scratch.tune.dialogs import Dialog
from llama_from_scratch.tune.rows import Rows, examples_of, learned_nats, with_replay

SFT = TrainConfig(n_steps=200, batch_size=32, seq_len=256, peak_lr=1e-3, n_warmup=20)
"""Settings that suit a model of 1M parameters on a laptop's CPU. A published Llama needs a far
smaller rate: Llama 3 405B was tuned with 1e-5."""


def fit(
    model: Llama, dialogs: Sequence[Dialog], tokenizer: AnyTokenizer, *,
    config: TrainConfig = SFT, format: ChatFormat | ChatTemplate | None = None,
    replay: Sequence[str] = (), replay_share: float = 0.15, replay_tokens: int = 128,
    is_packed: bool = False, is_cut: bool = False, validation: Sequence[Dialog] = (),
    parts: TrainParts | None = None, folder: str | Path | None = None, is_resumed: bool = False,
    on_step: Callable[[Step], object] | None = None,
) -> History:
    """Teaches `model` the answers of `dialogs`, in place.

    `format`: how a dialog is written, by default as the model's files say. `replay`: texts of the
    earlier training; `replay_share` of all rows are windows of `replay_tokens` from them.
    `is_packed`: rows of `config.seq_len` tokens have several dialogs each, see `Rows`. `is_cut`:
    dialogs that are too long lose their last messages instead of being refused, and a warning
    says how many did. `validation`: dialogs on which the loss is measured. The other arguments: as
    in `train`; `parts` get the loss on learned tokens.
    Raises ValueError before the first step for weights in 16 bits, and as `train`, `examples_of`
    and `with_replay` do.
    """
    refuse_16_bits(model)
    format = format_of(model, tokenizer, format)
    longest = min(config.seq_len, model.config.max_seq_len) + 1

    def rows_of(told: Sequence[Dialog], texts: Sequence[str], *, is_packed: bool) -> Rows:
        examples, n_cut = examples_of(told, tokenizer, format, max_tokens=longest, is_cut=is_cut)
        if n_cut:
            warnings.warn(f"{n_cut} of {len(told)} dialogs had more than {longest} tokens and lost "
                          "their last messages", stacklevel=3)
        if texts:
            examples = with_replay(examples, texts, tokenizer, share=replay_share,
                                   max_tokens=min(replay_tokens, longest), seed=config.seed)
        return Rows(examples, tokenizer, is_packed=is_packed)

    parts = dataclasses.replace(TrainParts() if parts is None else parts, loss=learned_nats,
                                holds_logits=False)
    return train(model, rows_of(dialogs, replay, is_packed=is_packed), config=config, parts=parts,
                 validation=rows_of(validation, (), is_packed=False) if validation else None,
                 folder=folder, is_resumed=is_resumed, on_step=on_step)


def refuse_16_bits(model: nn.Module) -> None:
    """Raises ValueError if a weight that would be trained has 16 bits.

    A step changes a weight by less than the distance to the next number of 16 bits, so it would
    often be lost. Frozen weights, such as the base of adapters, may have 16 bits.
    """
    for name, p in model.named_parameters():
        if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16):
            raise ValueError("tuning needs weights in fp32, because small steps are lost in 16 "
                             f"bits; {name} is {p.dtype}. Convert them with model.float(), or load "
                             "them with dtype=torch.float32")


def format_of(
    model: Llama, tokenizer: AnyTokenizer, format: ChatFormat | ChatTemplate | None
) -> ChatFormat | ChatTemplate:
    """Returns `format`, or the one that the model's files name. Raises ValueError if none does."""
    found = chat_format(model.config, tokenizer) if format is None else format
    if found is None:
        raise ValueError("tuning on dialogs needs a chat format, and nothing in this model's files "
                         "names one. Give one of tokenizer.chat_format.FORMATS, for whose special "
                         f"tokens the vocabulary has ids; it has {list(tokenizer.special_ids)[:8]}")
    return found
