"""Milestones: the reader's own part works in the models that were published.

A milestone is the end of a chapter. The reader's code replaces the library's part in a tiny model
of every Llama generation that has this part, and each model must give the same output as before. A
milestone that is reached is recorded, and the tour's map shows it.
"""

import contextlib
import copy
import dataclasses
import io
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_from_scratch import family
from llama_from_scratch.lessons.check import CheckFailed, compare
from llama_from_scratch.lessons.learner.remembering import note
from llama_from_scratch.model.transformer import Llama

_N_TOKENS = 24


def models(
    chapter: str, part: str, *, put_in: Callable[[Llama], None],
    generations: Sequence[str] = family.GENERATIONS,
) -> None:
    """Prints one line if the twins give the same output with the reader's part as before.

    A twin is a tiny model with every part of its generation and random weights. It reads tokens at
    the end of its context, where the scaling of RoPE acts. `put_in` puts the reader's part into a
    twin, and `part` names it for the messages, such as "your attention". Raises CheckFailed, with
    the first module that differs, if a twin gives another output, and ValueError if `put_in`
    changes no module.
    """
    __tracebackhide__ = True
    for generation in generations:
        torch.manual_seed(0)
        reference = Llama(family.tiny(generation)).eval()
        mine = copy.deepcopy(reference)
        before = _kinds(mine)
        put_in(mine)
        if _kinds(mine) == before:
            raise ValueError("`put_in` must replace a module of the model with your part; it "
                             "replaced none. Assign your part, such as layer.attention.attend = "
                             "MyAttention()")
        ids_BT = torch.randint(reference.config.vocab_size, (2, _N_TOKENS),
                               generator=torch.Generator().manual_seed(1))
        _same(mine, reference, ids_BT, words=f"{part} in {_title(generation)}")
    names = ", ".join(map(_title, generations))
    reached(chapter, f"{part} works in {names}: their twins compute as before")


def reached(chapter: str, words: str, *, proof: Callable[[], object] | None = None) -> None:
    """Prints that the milestone of a chapter is reached, after `proof` ran without an error.

    In a reader's copy the milestone is recorded, and the map of the tour shows it.
    """
    __tracebackhide__ = True
    if proof is not None:
        proof()
    note(lambda now: dataclasses.replace(now, milestones=now.milestones | {chapter}))
    print(f"⚑ milestone {chapter}: {words}")


class _AtTheEnd(nn.Module):
    """A model that reads its tokens at the last positions of its context."""

    def __init__(self, model: Llama) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        last = self.model.config.max_seq_len
        return self.model(ids, positions=torch.arange(last - ids.shape[1], last)[None])


def _same(mine: Llama, reference: Llama, ids_BT: Tensor, *, words: str) -> None:
    __tracebackhide__ = True
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # one line for all twins is enough
            compare(_AtTheEnd(mine), _AtTheEnd(reference), ids=ids_BT)
    except CheckFailed as problem:
        failure = CheckFailed(f"with {words}, the model gives another output than before\n"
                              f"{problem}")
    else:
        return
    raise failure


def _kinds(model: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


def _title(generation: str) -> str:
    return generation.replace("llama-", "Llama ")
