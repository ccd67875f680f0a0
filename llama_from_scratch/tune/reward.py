"""A reward model: a number for each answer, learned from which of two answers people prefer.

It is a language model whose output layer is replaced by one vector. The reward of an answer is the
product of that vector with the hidden state at the token that ends the answer, where the model has
read all of it. If the two rewards of a pair differ by d, the chosen answer wins with probability
sigmoid(d) (Bradley and Terry). So only differences between answers to the same prompt mean
anything.

Notebook 52. Sources: Bradley and Terry, 1952; Llama 2, arXiv:2307.09288, section 3.2.2; Llama 3,
arXiv:2407.21783, section 4.1.2, has no margin.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_from_scratch.checkpoint import checksums, native
from llama_from_scratch.checkpoint.folders import find
from llama_from_scratch.checkpoint.safetensors_file import read_tensors, write_tensors
from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.train import resume
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.optimizer import Group
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.protocols import Optimizer
from llama_from_scratch.train.records import History, Step, TrainConfig
from llama_from_scratch.tune.dialogs import Dialog
from llama_from_scratch.tune.evals import Share, share
from llama_from_scratch.tune.pairs.pair_rows import (
    PairBatch,
    PairExample,
    PairRows,
    pair_examples_of,
)
from llama_from_scratch.tune.pairs.preferences import Preference
from llama_from_scratch.tune.rows import TokenExample, by_length, example_of, padded
from llama_from_scratch.tune.sft import format_of, refuse_16_bits

REWARD = TrainConfig(n_steps=250, batch_size=16, seq_len=256, peak_lr=1e-3, n_warmup=20,
                     weight_decay=0.0)
"""Settings that suit a model of 1M parameters on a laptop's CPU; a batch has 16 pairs. Llama 2's
rate was 5e-6 for its largest model, with one epoch only."""


class RewardModel(nn.Module):
    """A model without its output layer, and the vector that turns a hidden state into a reward.

    The vector begins as zeros, so every answer begins with the reward 0. Training changes `model`
    too: give it a copy of a model that is used elsewhere.
    """

    def __init__(self, model: Llama) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.config.dim, 1, bias=False, device=model.device,
                              dtype=model.dtype)
        nn.init.zeros_(self.head.weight)

    def forward(self, rows: Batch, *, is_bf16: bool = False) -> Float[Tensor, "B"]:
        """Returns the reward of each row, read at its only target. See `ended`."""
        with torch.autocast(rows.ids.device.type, torch.bfloat16, enabled=is_bf16):
            hidden_BD = rows.hidden(self.model)[rows.targets != IGNORE]
            rewards_B = self.head(hidden_BD)[:, 0]
        return rewards_B if rewards_B.dtype == torch.float64 else rewards_B.float()


def ended(example: TokenExample) -> TokenExample:
    """Returns the row in which an answer's reward is read at the token that ends the answer.

    A row of ids is read up to its last id but one, and a target marks the position before it. So
    what follows the last answer is left out, its end is repeated, and the repetition is the only
    target. The repetition itself is not read.
    """
    last = max(i for i, is_learned in enumerate(example.is_learned) if is_learned)
    ids = (*example.ids[: last + 1], example.ids[last])
    return TokenExample(ids=ids, is_learned=(*[False] * (last + 1), True))


def bradley_terry(
    chosen: Float[Tensor, "B"], rejected: Float[Tensor, "B"], margins: Float[Tensor, "B"]
) -> Float[Tensor, "B"]:
    """Returns -log sigmoid(r+ - r- - m) for the rewards r and the margin m of each pair.

    Anything that is added to both rewards of a pair changes nothing.
    """
    return -nn.functional.logsigmoid(chosen - rejected - margins)


@record
class BradleyTerryLoss:
    """A loss for `TrainParts.loss`, on rows whose only target is where the reward is read."""

    judge: RewardModel

    def __call__(
        self, model: Llama, batch: PairBatch, *, is_bf16: bool = False
    ) -> Float[Tensor, ""]:
        """Returns a sum over the pairs of the batch."""
        rewards_B2 = self.judge(batch.rows, is_bf16=is_bf16).unflatten(0, (-1, 2))
        return bradley_terry(rewards_B2[:, 0], rewards_B2[:, 1],
                             batch.margins.to(rewards_B2)).sum()


def fit(
    judge: RewardModel, pairs: Sequence[Preference], tokenizer: AnyTokenizer, *,
    has_margins: bool = True, config: TrainConfig = REWARD,
    format: ChatFormat | ChatTemplate | None = None, parts: TrainParts | None = None,
    folder: str | Path | None = None, is_resumed: bool = False,
    on_step: Callable[[Step], object] | None = None,
) -> History:
    """Teaches `judge`, in place, to give the chosen answer of each pair a larger reward.

    `has_margins`: False leaves the margins of the pairs out. `config.batch_size` and
    `micro_batch_size` count pairs. A checkpoint in `folder` is one of `judge.model`, with the
    vector in one more file; `load` reads both. The other arguments: as in `sft.fit`.
    Raises ValueError before the first step as `train` and `pair_examples_of` do, and for `parts`
    that divide or save the model in a way that does not know the vector.
    """
    parts = TrainParts() if parts is None else parts
    usual = TrainParts()
    if own := [name for name in ("share", "reduce", "accumulate", "begin", "save")
               if getattr(parts, name) is not getattr(usual, name)]:
        raise ValueError("a reward model is trained whole and in one process, with the usual parts "
                         "share, reduce, accumulate, begin and save; got another "
                         f"{' and '.join(own)}. Leave these parts as they are")
    model = judge.model
    refuse_16_bits(judge)
    format = format_of(model, tokenizer, format)
    longest = min(config.seq_len, model.config.max_seq_len)
    examples = [PairExample(chosen=ended(pair.chosen), rejected=ended(pair.rejected),
                            margin=pair.margin * has_margins)
                for pair in pair_examples_of(pairs, tokenizer, format, max_tokens=longest)]
    return train(model, PairRows(examples, tokenizer), config=config, folder=folder,
                 parts=_with_head(parts, judge), is_resumed=is_resumed, on_step=on_step,
                 source={"reward": True})


def _with_head(parts: TrainParts, judge: RewardModel) -> TrainParts:
    """Returns the parts, to which the head is one more parameter of the model."""
    head = judge.head.weight

    def make_optimizer(groups: Sequence[Group], config: TrainConfig) -> Optimizer:
        # The output layer gets no gradient, unless the embedding is the same matrix.
        model = judge.model
        unused = {*model.output.parameters()} - {*model.tok_embeddings.parameters()}
        kept = [dataclasses.replace(group, params={
            name: p for name, p in group.params.items() if p not in unused}) for group in groups]
        own = Group(params={"reward": head}, weight_decay=config.weight_decay)
        return parts.make_optimizer([own, *(group for group in kept if group.params)], config)

    def weights(model: Llama) -> Iterable[tuple[str, Tensor]]:
        yield from parts.weights(model)
        yield "reward", head

    def clip(parameters: Iterable[nn.Parameter], *, max_norm: float) -> Tensor:
        return parts.clip([*parameters, head], max_norm=max_norm)

    def begin(run: resume.OngoingRun, folder: str | Path | None, *, is_resumed: bool) -> list[Step]:
        def put_back(
            run: resume.OngoingRun, folder: str | Path, state: Mapping[str, Tensor]
        ) -> None:
            _fill_head(judge, folder)
            resume.put_back(run, folder, state)

        return resume.begin(run, folder, is_resumed=is_resumed, put_back=put_back)

    def save(folder: str | Path, run: resume.OngoingRun, *, steps: Sequence[Step]) -> None:
        with native.replacing(folder) as unfinished:
            _write_head(unfinished, judge)
            resume.write_run(unfinished, run, steps=steps)
            native.write(unfinished, run.model, tokenizer=run.data.tokenizer)

    return dataclasses.replace(
        parts, loss=BradleyTerryLoss(judge=judge), holds_logits=False, weights=weights, clip=clip,
        make_optimizer=make_optimizer, begin=begin, save=save)


@torch.no_grad()
def scores(
    judge: RewardModel, dialogs: Sequence[Dialog], tokenizer: AnyTokenizer, *,
    format: ChatFormat | ChatTemplate | None = None, batch_size: int = 64, is_bf16: bool = False,
) -> list[float]:
    """Returns the reward of the last answer in each dialog.

    Dialogs of similar length go through the model together. Raises ValueError, with its number, for
    a dialog that is too long or does not end with an answer, and as `example_of` does.
    """
    format = format_of(judge.model, tokenizer, format)
    examples = []
    for number, dialog in enumerate(dialogs):
        if dialog.messages[-1].role != "assistant":
            raise ValueError("only an answer has a reward, so a dialog ends with the assistant; "
                             f"dialog {number} ends with the {dialog.messages[-1].role}")
        example = ended(example_of(dialog, tokenizer, format))
        if len(example.ids) - 1 > judge.model.config.max_seq_len:
            raise ValueError(f"this model reads at most {judge.model.config.max_seq_len} tokens; "
                             f"dialog {number} has {len(example.ids) - 1}. Shorten it")
        examples.append(example)
    found = [0.0] * len(examples)
    for numbers in by_length([len(each.ids) for each in examples], batch_size=batch_size):
        batch = padded([[examples[i]] for i in numbers]).to(judge.model.device)
        for i, reward in zip(numbers, judge(batch, is_bf16=is_bf16).tolist(), strict=True):
            found[i] = reward
    return found


def accuracy(
    judge: RewardModel, pairs: Sequence[Preference], tokenizer: AnyTokenizer, *,
    format: ChatFormat | ChatTemplate | None = None, batch_size: int = 64,
) -> Share:
    """Returns of how many pairs the chosen answer has the larger reward."""
    chosen, rejected = zip(*(pair.dialogs for pair in pairs), strict=True)
    found = scores(judge, [*chosen, *rejected], tokenizer, format=format, batch_size=batch_size)
    return share(a > b for a, b in zip(found[: len(pairs)], found[len(pairs) :], strict=True))


def save(folder: str | Path, judge: RewardModel, tokenizer: AnyTokenizer) -> None:
    """Writes the reward model to `folder`, all or nothing; replaces a checkpoint there.

    Raises ValueError as `checkpoint.native.save` does.
    """
    native.refuse_what_cannot_be_saved(judge.model, tokenizer)
    with native.replacing(folder) as unfinished:
        _write_head(unfinished, judge)
        native.write(unfinished, judge.model, tokenizer=tokenizer)


def load(folder: str | Path) -> tuple[RewardModel, AnyTokenizer]:
    """Returns the reward model in `folder`, on the CPU, and its tokenizer.

    Raises ValueError if it is not a checkpoint of a reward model, or is damaged.
    """
    model, tokenizer = native.load(folder)
    judge = RewardModel(model)
    _fill_head(judge, folder)
    return judge, tokenizer


def _write_head(folder: Path, judge: RewardModel) -> None:
    write_tensors(folder / native.REWARD_FILE, {"reward": judge.head.weight.detach()})


@torch.no_grad()
def _fill_head(judge: RewardModel, folder: str | Path) -> None:
    where = find(folder)
    file = None if where is None else where / native.REWARD_FILE
    if where is None or file is None or not file.is_file():
        raise ValueError(f"a reward model has a file {native.REWARD_FILE}; {folder} has none. Give "
                         "the folder of reward.save or reward.fit")
    checksums.refuse_damage(file, checksums.read(where))
    found = read_tensors(file)
    head = judge.head.weight
    if found.keys() != {"reward"} or found["reward"].shape != head.shape:
        shown = {name: tuple(tensor.shape) for name, tensor in found.items()}
        raise ValueError(f"{file} must have one tensor, reward, of shape {tuple(head.shape)}; it "
                         f"has {shown}. Save the reward model again")
    head.copy_(found["reward"])
