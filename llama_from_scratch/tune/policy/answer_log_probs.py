"""The log-probability of each token of an answer, as a model gives it after the answer's prompt.

One row for each answer would read a prompt as often as it has answers. Here a row has a prompt
once, followed by its answers. Each answer sees the prompt and itself, continues the positions of
the prompt, and does not see the other answers. So the numbers and gradients are the same, and only
a third of the tokens goes through the model if answers are short.

Notebook 54.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.inputs import BlockInputs
from llama_from_scratch.model.mask import GivenMask, causal_mask, chunk_mask
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tune.policy.samples import SampledAnswer

_PROMPT = 0
"""The branch of a row that all other branches see."""


def answer_log_probs(
    model: Llama, prompts: Sequence[Sequence[int]], answers: Sequence[SampledAnswer], *,
    temperature: float = 1.0, shares_prompts: bool = True, max_row: int = 1024,
) -> Float[Tensor, "B T"]:
    """Returns log p of the ids of each answer in nats; answer b follows prompt b.

    They are the log-softmax of the logits divided by the `temperature` at which the answers were
    drawn. Where an answer has ended, and where the model did not write the id, the number is 0 and
    has no gradient. `shares_prompts`: answers to equal prompts share a row, of at most about
    `max_row` tokens; the result is the same.
    """
    rows = _rows(prompts, answers, shares_prompts=shares_prompts, max_row=max_row)
    device, width = model.device, max(len(row.ids) for row in rows)
    ids_BT = _padded([row.ids for row in rows], width, 0).to(device)
    if all(row.branches[-1] <= 1 for row in rows):  # padding at the end is seen by no token
        hidden_BTD = model.hidden(ids_BT)
    else:
        hidden_BTD = _hidden_of_branches(
            model, ids_BT, branches=_padded([row.branches for row in rows], width, -1).to(device),
            positions=_padded([row.positions for row in rows], width, 0).to(device))
    places = [(row, *place) for row, each in enumerate(rows) for place in each.places]
    where_row, where_slot, answer, token = torch.tensor(places, device=device).T
    targets = torch.tensor([answers[b].ids[t] for _, _, b, t in places], device=device)
    logits_NV = model.output(hidden_BTD[where_row, where_slot])
    if logits_NV.dtype != torch.float64:
        logits_NV = logits_NV.float()
    log_probs_N = (logits_NV / temperature).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    found_BT = log_probs_N.new_zeros(len(answers), max(len(each.ids) for each in answers))
    return found_BT.index_put((answer, token), log_probs_N)


def written_tokens(answers: Sequence[SampledAnswer]) -> Bool[Tensor, "B T"]:
    """Returns which tokens the model wrote; those after the end of an answer it did not."""
    width = max(len(answer.ids) for answer in answers)
    return torch.tensor([[*answer.written, *[False] * (width - len(answer.ids))]
                         for answer in answers])


def drawn_log_probs(answers: Sequence[SampledAnswer]) -> Float[Tensor, "B T"]:
    """Returns the log-probabilities with which the answers were drawn, 0 where not written."""
    width = max(len(answer.ids) for answer in answers)
    return torch.tensor([
        [log_prob if written else 0.0
         for log_prob, written in zip(answer.log_probs, answer.written, strict=True)]
        + [0.0] * (width - len(answer.ids)) for answer in answers])


@record
class _Row:
    """A prompt and answers to it.

    `branches`: 0 for ids of the prompt, and 1, 2, ... for ids of its answers. `places`: for each
    written id of an answer the slot of the id before it, the answer's number, and the id's place in
    the answer.
    """

    ids: list[int]
    branches: list[int]
    positions: list[int]
    places: list[tuple[int, int, int]]


def _rows(
    prompts: Sequence[Sequence[int]], answers: Sequence[SampledAnswer], *, shares_prompts: bool,
    max_row: int,
) -> list[_Row]:
    """Returns the rows, which together have every answer once."""
    rows: list[_Row] = []
    open_rows: dict[tuple[int, ...], _Row] = {}
    for b, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        key, read = tuple(prompt), answer.ids[:-1]  # the last id is only a target
        row = open_rows.get(key) if shares_prompts else None
        if row is None or len(row.ids) + len(read) > max_row:
            row = _Row(ids=list(key), branches=[_PROMPT] * len(key),
                       positions=list(range(len(key))), places=[])
            open_rows[key] = row
            rows.append(row)
        begin, n = len(row.ids), len(key)
        row.places.extend((begin + t - 1 if t else n - 1, b, t)
                          for t, is_written in enumerate(answer.written) if is_written)
        row.branches.extend([row.branches[-1] + 1] * len(read))
        row.ids.extend(read)
        row.positions.extend(range(n, n + len(read)))
    return rows


def _hidden_of_branches(
    model: Llama, ids: Int[Tensor, "B T"], *, branches: Int[Tensor, "B T"],
    positions: Int[Tensor, "B T"],
) -> Float[Tensor, "B T D"]:
    """Returns what `model.hidden` does, for rows whose branches see the prompt and themselves."""
    sees_BTS = causal_mask(ids.shape[1], ids.shape[1], device=ids.device) & (
        (branches[:, :, None] == branches[:, None]) | (branches[:, None] == _PROMPT))
    visible = {}
    for size in {spec.chunk_size for spec in model.config.layers}:
        in_chunk = True if size is None else chunk_mask(positions, positions, chunk_size=size)
        visible[size] = GivenMask(mask=(sees_BTS & in_chunk)[:, None])
    inputs = BlockInputs(rotation=model.rope(positions), positions=positions, visible=visible)
    return model.norm(model.run(model.embed(ids), inputs))


def _padded(rows: Sequence[Sequence[int]], width: int, padding: int) -> Int[Tensor, "B T"]:
    return torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
