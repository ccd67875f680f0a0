"""Direct preference optimization: learning from preferences without a reward model.

The best policy near a reference p0 has p(y|x) proportional to p0(y|x) exp(r(x, y) / beta). So the
policy itself contains a reward, beta log (p/p0), up to a term of the prompt alone, and training
this reward on pairs trains the policy. Only the difference of the two answers counts. Both
log-probabilities may fall while it grows; a share of the usual loss on the chosen answer prevents
that. Here x is a prompt, y an answer, and beta is how strongly the reference holds the policy.

Notebook 53. Sources: arXiv:2305.18290, eq. 7; the term on chosen answers: arXiv:2404.19733;
masks and constants: Llama 3, arXiv:2407.21783, section 4.1.4.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.checkpoint.json_file import differences
from llama_from_scratch.config import record
from llama_from_scratch.model.adapted import adapters
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.train import resume
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.records import History, Step, TrainConfig
from llama_from_scratch.tune.adapters import peft_files
from llama_from_scratch.tune.evals import Share, share
from llama_from_scratch.tune.pairs.log_probs import token_log_probs
from llama_from_scratch.tune.pairs.pair_rows import PairBatch, PairRows, pair_examples_of
from llama_from_scratch.tune.pairs.preferences import Preference
from llama_from_scratch.tune.rows import by_length
from llama_from_scratch.tune.sft import format_of, refuse_16_bits

DPO = TrainConfig(n_steps=100, batch_size=16, seq_len=256, peak_lr=3e-4, n_warmup=10,
                  weight_decay=0.0)
"""Settings that suit a model of 1M parameters on a laptop's CPU; a batch has 16 pairs. Llama 3 used
a rate of 1e-5."""


def preference_losses(margins: Float[Tensor, "B"], *, beta: float) -> Float[Tensor, "B"]:
    """Returns -log sigmoid(beta m) for each pair.

    The margin m is the change of the chosen answer's log-probability since the reference, minus
    the change of the rejected one's.
    """
    return -F.logsigmoid(beta * margins)


@record
class PreferenceLoss:
    """A loss for `TrainParts.loss`: DPO's, and `nll` times the usual loss on chosen answers.

    `reference`: the log-probabilities of all pairs' answers before the training, chosen and
    rejected. `unweighed`: ids that do not count in the preference, such as the end of a turn. The
    usual loss is a mean over the tokens of all chosen answers of a batch, with their ends.
    """

    beta: float
    nll: float
    reference: Float[Tensor, "B 2"]
    unweighed: tuple[int, ...] = ()

    def __call__(
        self, model: Llama, batch: PairBatch, *, is_bf16: bool = False
    ) -> Float[Tensor, ""]:
        """Returns a sum over the pairs of the batch."""
        rows_BT = token_log_probs(model, batch.rows, is_bf16=is_bf16)
        return self.of(rows_BT.unflatten(0, (-1, 2)), batch)

    def of(self, log_probs: Float[Tensor, "B 2 T"], batch: PairBatch) -> Float[Tensor, ""]:
        """Returns the loss of the log-probabilities of all tokens."""
        answers_B2 = answer_log_probs(log_probs, batch, unweighed=self.unweighed)
        change_B2 = answers_B2 - self.reference.to(answers_B2)[batch.numbers]
        losses_B = preference_losses(change_B2[:, 0] - change_B2[:, 1], beta=self.beta)
        # The sum is divided by the number of pairs later, and this makes it a mean over tokens.
        return losses_B.sum() - self.nll * log_probs[:, 0].sum() / batch.n_chosen


def answer_log_probs(
    log_probs: Float[Tensor, "B 2 T"], batch: PairBatch, *, unweighed: Sequence[int] = ()
) -> Float[Tensor, "B 2"]:
    """Returns the log-probability of each answer: a sum that leaves out `unweighed` ids."""
    targets_B2T = batch.rows.targets.unflatten(0, (-1, 2))
    is_left_out_B2T = torch.isin(targets_B2T, targets_B2T.new_tensor(list(unweighed)))
    return log_probs.masked_fill(is_left_out_B2T, 0.0).sum(-1)


@torch.no_grad()
def log_probs(
    model: Llama, pairs: Sequence[Preference], tokenizer: AnyTokenizer, *,
    format: ChatFormat | ChatTemplate | None = None, batch_size: int = 32,
    masks_end: bool = True, is_bf16: bool = False,
) -> Float[Tensor, "B 2"]:
    """Returns log p of each pair's chosen and rejected answer, on the CPU.

    `masks_end`: the token that ends an answer is not counted, as in `fit`. Raises ValueError as
    `pair_examples_of` does.
    """
    format = format_of(model, tokenizer, format)
    examples = pair_examples_of(pairs, tokenizer, format,
                                max_tokens=model.config.max_seq_len + 1)
    return _log_probs(model, PairRows(examples, tokenizer), batch_size=batch_size,
                      unweighed=_ends(format, tokenizer) if masks_end else (), is_bf16=is_bf16)


@torch.no_grad()
def _log_probs(
    model: Llama, rows: PairRows, *, batch_size: int, unweighed: tuple[int, ...], is_bf16: bool
) -> Float[Tensor, "B 2"]:
    """Returns the log-probabilities of all answers; pairs of similar length share a batch."""
    found: dict[int, Tensor] = {}
    for numbers in by_length([pair.n_ids for pair in rows.examples], batch_size=batch_size):
        batch = rows.of(numbers).to(model.device)
        rows_BT = token_log_probs(model, batch.rows, is_bf16=is_bf16)
        answers_B2 = answer_log_probs(rows_BT.unflatten(0, (-1, 2)), batch, unweighed=unweighed)
        found |= dict(zip(batch.numbers.tolist(), answers_B2.cpu(), strict=True))
    return torch.stack([found[i] for i in range(len(found))])


def _ends(format: ChatFormat | ChatTemplate, tokenizer: AnyTokenizer) -> tuple[int, ...]:
    return tuple(sorted(format.stop_ids(tokenizer)))


@record
class Shift:
    """How the log-probabilities of answers changed on average, in nats.

    `accuracy`: of how many pairs the chosen answer gained more than the rejected one.
    """

    chosen: float
    rejected: float
    accuracy: Share


def shift(now: Float[Tensor, "B 2"], reference: Float[Tensor, "B 2"]) -> Shift:
    """Returns the change from `reference` to `now`; both are what `log_probs` returned."""
    change_B2 = now - reference
    chosen, rejected = change_B2.mean(0).tolist()
    return Shift(chosen=chosen, rejected=rejected,
                 accuracy=share((change_B2[:, 0] > change_B2[:, 1]).tolist()))


def fit(
    model: Llama, pairs: Sequence[Preference], tokenizer: AnyTokenizer, *, beta: float = 0.1,
    nll: float = 0.2, masks_end: bool = True, config: TrainConfig = DPO,
    format: ChatFormat | ChatTemplate | None = None, parts: TrainParts | None = None,
    folder: str | Path | None = None, is_resumed: bool = False,
    on_step: Callable[[Step], object] | None = None,
) -> History:
    """Teaches `model`, in place, to prefer the chosen answers of `pairs` to the rejected ones.

    The reference is the model as it is given. Its log-probabilities are computed once, before the
    first step, and saved with the run. Headers never count. The end of an answer does not count in
    the preference if `masks_end`, and always counts in the usual loss, whose factor is `nll`: with
    the factor 0, nothing teaches the model to stop. `config.batch_size` and `micro_batch_size`
    count pairs. Margins of pairs are not used. The other arguments: as in `sft.fit`.
    Raises ValueError before the first step unless `beta` is above 0 and `nll` at least 0, and as
    `train` and `pair_examples_of` do.
    """
    if not 0 < beta < float("inf"):
        raise ValueError("beta must be a finite number above 0, because with 0 every pair has the "
                         f"loss log 2; got {beta}. 0.1 is usual")
    if not 0 <= nll < float("inf"):
        raise ValueError("nll, the factor of the loss on chosen answers, must be finite and at "
                         f"least 0; got {nll}. 0.2 is usual")
    refuse_16_bits(model)
    format = format_of(model, tokenizer, format)
    longest = min(config.seq_len, model.config.max_seq_len) + 1
    rows = PairRows(pair_examples_of(pairs, tokenizer, format, max_tokens=longest), tokenizer)
    unweighed = _ends(format, tokenizer) if masks_end else ()
    settings = {"beta": beta, "nll": nll, "masks_end": masks_end}
    file = peft_files.CONFIG if adapters(model) else "config.json"
    reference = (_saved_reference(folder, settings, n_pairs=len(pairs), file=file)
                 if is_resumed else
                 _log_probs(model, rows, batch_size=config.micro_batch_size or config.batch_size,
                            unweighed=unweighed, is_bf16=config.is_bf16))
    loss = PreferenceLoss(beta=beta, nll=nll, reference=reference, unweighed=unweighed)
    parts = dataclasses.replace(TrainParts() if parts is None else parts, loss=loss,
                                holds_logits=False)
    return train(model, rows, config=config, parts=parts, folder=folder, is_resumed=is_resumed,
                 on_step=on_step, source={"dpo": settings, "reference": reference.tolist()})


def _saved_reference(
    folder: str | Path | None, settings: dict[str, Any], *, n_pairs: int, file: str
) -> Float[Tensor, "B 2"]:
    """Returns the reference of the run in `folder`. Raises ValueError if it is another run.

    `file`: what marks the folder.
    """
    source = resume.read(folder, file=file).source or {}
    if "dpo" not in source:
        raise ValueError(f"resuming needs a run of dpo.fit; the run in {folder} is another "
                         "one. Resume it with what began it, or start a new run in another folder")
    if found := differences(source["dpo"], settings):
        raise ValueError("a resumed run keeps the settings it began with; for the checkpoint in "
                         f"{folder}, {'; '.join(found)}. Resume with its settings, or start a new "
                         "run in another folder")
    reference = torch.tensor(source["reference"], dtype=torch.float64)
    if len(reference) != n_pairs:
        raise ValueError("a resumed run keeps its pairs; the run in "
                         f"{folder} has {len(reference)}, got {n_pairs}. Give the same pairs")
    return reference
