"""How many answers are exactly right: every token of the answer, and then end-of-text.

Each token is the most likely one after the right tokens before it, so an answer counts exactly if
greedy generation would write it. The same model without the picture shows what can be guessed from
the question alone.

Notebooks 22 and 24.
"""

import itertools
import random
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.picture_batches import all_questions, question_batches, tiles_of
from llama_from_scratch.train.questions import Example, PictureTask, examples
from llama_from_scratch.vision.seeing import SeeingLlama


@record
class ExactMatch:
    """How many answers are right, of how many, for each kind of question."""

    n_right: dict[str, int]
    n_asked: dict[str, int]

    @property
    def shares(self) -> dict[str, float]:
        """The share of right answers of each kind, from 0 to 1."""
        return {kind: self.n_right[kind] / n for kind, n in self.n_asked.items()}

    def share(self, *kinds: str) -> float:
        """Returns the share of right answers among these kinds, or among all."""
        kinds = kinds or tuple(self.n_asked)
        return (sum(self.n_right[kind] for kind in kinds)
                / sum(self.n_asked[kind] for kind in kinds))


def exact_match(
    model: Llama, task: PictureTask, tokenizer: Tokenizer, *, split: str = "test",
    n_images: int = 250, n_questions: int = 4, seed: int = 7, is_blind: bool = False,
    kinds: Sequence[str] | None = None,
) -> ExactMatch:
    """Returns how many questions about new pictures the model answers exactly right.

    `is_blind`: without the pictures, which also a text model can be asked. `kinds`: as in
    `questions.examples`. Errors as there.
    """
    pick = random.Random(seed)
    made = examples(task, n_questions=n_questions, split=split, pick=pick, kinds=kinds)
    asked = list(itertools.islice(made, n_images))
    is_right = right_answers(model, asked, tokenizer, is_blind=is_blind)
    kinds_asked = [question.kind for question in all_questions(asked)[0]]
    n_asked = {kind: kinds_asked.count(kind) for kind in sorted(set(kinds_asked))}
    n_right = {kind: sum(right for right, each in zip(is_right.tolist(), kinds_asked, strict=True)
                         if each == kind) for kind in n_asked}
    return ExactMatch(n_right=n_right, n_asked=n_asked)


@torch.no_grad()
def right_answers(
    model: Llama, asked: Sequence[Example], tokenizer: Tokenizer, *, is_blind: bool = False
) -> Bool[Tensor, "questions"]:
    """Returns which questions are answered exactly right, in the order of `asked`.

    Raises ValueError if a model without an encoder is shown pictures.
    """
    if not is_blind and not isinstance(model, SeeingLlama):
        raise ValueError("this model has no encoder, so it can only be asked blind; got "
                         "is_blind=False. Attach one first: vision.attach(model, config)")
    questions, of_image = all_questions(asked)
    is_right = torch.zeros(len(questions), dtype=torch.bool)
    images, shown = None, None
    if not is_blind:
        images = model.encode(tiles_of([example.picture for example in asked], model.config.vision))
        shown, = model.written_out([[model.config.image_id]], images.rows([0]))
    for batch in question_batches(questions, tokenizer, image_id=shown):
        seen = {} if is_blind else {
            "images": images.rows([of_image[i] for i in batch.rows.tolist()])}
        said = model(batch.ids, **seen).argmax(-1)
        is_right[batch.rows] = ((said == batch.targets) | (batch.targets == IGNORE)).all(1)
    return is_right
