"""The words of what can be seen: a small text model reads stories, captions and questions.

It never sees a picture. A caption says all that a picture shows, so a question after a caption has
one answer, and the model learns to look things up and to compare them in words. Questions without a
caption teach it what such questions sound like. Its captions name every color with every shape,
also the pairs that no picture will show while the model learns to see.

Notebook 22.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.config import LayerSpec, LlamaConfig, record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train.data import IGNORE, Packed
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.picture_batches import padded
from llama_from_scratch.train.questions import PictureTask, examples
from llama_from_scratch.train.rates import OnStep, Rates, SeeingStep

SPECIAL_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>")
_QUESTION_WEIGHT = 0.3


@record
class WordsStage:
    """Stage 1. Each step reads `n_questions` and `n_stories` windows of stories.

    `seq_len`: tokens of a window. `caption_share`: of the questions that come after a caption.
    """

    n_steps: int
    n_questions: int = 48
    n_stories: int = 8
    seq_len: int = 160
    caption_share: float = 0.8
    peak_lr: float = 4e-3


def small_text_config(vocab_size: int) -> LlamaConfig:
    """Returns a text model of 0.6M parameters."""
    return LlamaConfig(dim=96, n_heads=4, n_kv_heads=2, ffn_dim=256, vocab_size=vocab_size,
                       max_seq_len=512, norm_eps=1e-5, rope_theta=1e4,
                       layers=(LayerSpec(),) * 4)


def words_tokenizer(
    stories: Sequence[str], tasks: Sequence[PictureTask], *, vocab_size: int = 1024,
    special_tokens: Sequence[str] = SPECIAL_TOKENS, n_pictures: int = 3000,
) -> Tokenizer:
    """Returns a tokenizer learned from stories and captions, in which their words are one token."""
    lines = [f"{caption}\n{question} {answer}" for task in tasks
             for caption, question, answer in itertools.islice(_readings(task, seed=0), n_pictures)]
    return Tokenizer.train([*stories, *lines], vocab_size, special_tokens=special_tokens)


def train_words(
    text: Llama, tokenizer: Tokenizer, stories: Sequence[str], tasks: Sequence[PictureTask], *,
    stage: WordsStage, seed: int = 0, on_step: OnStep = None,
) -> None:
    """Trains a text model in place. All tasks are asked equally often."""
    rates = Rates([(stage.peak_lr, dict(text.named_parameters()))], n_steps=stage.n_steps)
    packed, pick = Packed(stories, tokenizer), random.Random(seed)
    feeds = itertools.cycle([_readings(task, seed=seed) for task in tasks])
    for step in range(stage.n_steps):
        rows = [_row(*next(next(feeds)), tokenizer, is_told=pick.random() < stage.caption_share)
                for _ in range(stage.n_questions)]
        loss = answers_loss(text, rows, tokenizer)
        if stage.n_stories:
            batch = packed.batch(step, batch_size=stage.n_stories, seq_len=stage.seq_len, seed=seed)
            loss = loss + sum_of_nats(text, batch) / batch.n_targets
        rates.step(loss)
        if on_step is not None:
            on_step(SeeingStep(step=step, loss=loss.item(), gates={}))


def _readings(task: PictureTask, *, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yields captions, questions and answers without end."""
    split = "words" if "words" in task.splits else "train"
    for example in examples(task, n_questions=2, split=split, pick=random.Random(seed)):
        for question in example.questions:
            yield example.picture.caption, question.text, question.answer


Row = tuple[list[int], int]
"""The ids of a row, and how many of them come before the answer."""


def _row(caption: str, question: str, answer: str, tokenizer: Tokenizer, *, is_told: bool) -> Row:
    asked = [tokenizer.bos_id, *(tokenizer.encode(f"{caption}\n") if is_told else ()),
             *tokenizer.encode(question)]
    return [*asked, *tokenizer.encode(f" {answer}"), tokenizer.eos_id], len(asked)


def answers_loss(text: Llama, rows: Sequence[Row], tokenizer: Tokenizer) -> Float[Tensor, ""]:
    """Returns nats per token of the answers, plus a part of the nats of captions and questions."""
    ids_BT = padded([ids for ids, _ in rows], fill=tokenizer.eos_id)
    is_answer_BT = padded([[0] * n + [1] * (len(ids) - n) for ids, n in rows], fill=IGNORE)
    losses_BT = F.cross_entropy(text(ids_BT[:, :-1]).mT, ids_BT[:, 1:], reduction="none")
    of_answers, of_rest = (losses_BT[is_answer_BT[:, 1:] == which].mean() for which in (1, 0))
    return of_answers + _QUESTION_WEIGHT * of_rest


@torch.no_grad()
def right_in_words(
    text: Llama, tokenizer: Tokenizer, task: PictureTask, *, n: int = 400, seed: int = 7
) -> float:
    """Returns the share of questions after a caption that the text model answers exactly right."""
    rows = [_row(*reading, tokenizer, is_told=True)
            for reading in itertools.islice(_readings(task, seed=seed), n)]
    ids_BT = padded([ids for ids, _ in rows], fill=tokenizer.eos_id)
    targets_BT: Int[Tensor, "B T"] = padded(
        [[IGNORE] * n_asked + ids[n_asked:] for ids, n_asked in rows], fill=IGNORE)[:, 1:]
    said_BT = text(ids_BT[:, :-1]).argmax(-1)
    return ((said_BT == targets_BT) | (targets_BT == IGNORE)).all(1).float().mean().item()
