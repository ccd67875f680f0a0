"""Updates of a model with one rollout: its answers, split, weighed and stepped against.

A rollout may be used several times, in several minibatches. Answers with advantage 0 have the
gradient 0, so they need not go through the model again. They still count in what the loss is
divided by.

Notebook 54.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.loop import Diverged
from llama_from_scratch.train.optimizer import clip_gradients
from llama_from_scratch.train.protocols import Optimizer
from llama_from_scratch.tune.policy.answer_log_probs import (
    answer_log_probs,
    drawn_log_probs,
    written_tokens,
)
from llama_from_scratch.tune.policy.policy_loss import Counts, is_clipped, k3, policy_loss
from llama_from_scratch.tune.policy.records import ReinforceConfig
from llama_from_scratch.tune.policy.rollout import Rollout

MAX_MISMATCH = 1e-4
"""How far a log-probability that is computed again may be from the one it was drawn with. The two
passes add in another order, which moves a number of fp32 by about 1e-5."""


@record
class Updates:
    """What the updates with one rollout did; see `ReinforceStep`."""

    n_rows: int
    mismatch: float
    ratio_min: float
    ratio_max: float
    share_clipped: float
    kl: float
    loss: float
    grad_norm: float


@record
class _Update:
    """The numbers of one update. `log_ratios`: log q of its tokens, before the update."""

    log_ratios: Float[Tensor, "N"]
    n_clipped: int
    kl: float
    loss: float
    grad_norm: float


@record
class _Tokens:
    """The tokens of all answers of a rollout: as they were drawn, and as the reference sees them.

    `reference`: None without one.
    """

    drawn: Float[Tensor, "B T"]
    is_written: Bool[Tensor, "B T"]
    reference: Float[Tensor, "B T"] | None

    def of(self, rows: Sequence[int], like: Float[Tensor, "B T"]) -> "_Tokens":
        """Returns some rows, as wide as `like`, and on its device and in its dtype."""
        def cut(x: Tensor) -> Tensor:
            return x[rows, : like.shape[1]].to(like.device)

        reference = None if self.reference is None else cut(self.reference).to(like.dtype)
        return _Tokens(drawn=cut(self.drawn).to(like.dtype), is_written=cut(self.is_written),
                       reference=reference)


def learn(
    model: Llama, rollout: Rollout, *, optimizer: Optimizer, config: ReinforceConfig, lr: float,
    step: int = 0, reference: Llama | None = None, checks_mismatch: bool = True,
) -> Updates:
    """Updates `model` with a rollout, `config.n_epochs` times `config.n_minibatches` times.

    A minibatch without any advantage makes no update, unless `config.beta` holds on to the
    `reference`. `step`: decides, with the seed, how answers are divided into minibatches.
    `checks_mismatch`: whether the first update must find the log-probabilities that were drawn
    with. Raises ValueError if it does not, and Diverged if a loss or gradient is not finite.
    """
    made: list[_Update] = []
    n_rows, tokens = 0, None
    for epoch in range(config.n_epochs):
        order = np.arange(len(rollout.answers))
        if config.n_minibatches > 1:
            order = np.random.default_rng([config.seed, step, epoch]).permutation(order)
        for part in np.array_split(order, config.n_minibatches):
            moving = [b for b in part.tolist() if config.beta or rollout.advantages[b] != 0]
            if not moving:
                continue
            tokens = _tokens(rollout, reference, config) if tokens is None else tokens
            counts = Counts(n_answers=len(part), n_tokens=int(tokens.is_written[part].sum()),
                            max_tokens=config.max_tokens)
            rows = moving if config.skips_zeros else part.tolist()
            update = _backward(model, rollout, rows, tokens, counts=counts, config=config)
            if not made and checks_mismatch:
                _refuse_mismatch(update)
            _refuse_infinite(update, step=step, lr=lr, config=config)
            optimizer.step(lr=lr)
            optimizer.zero_grad()
            made.append(update)
            n_rows += len(rows) * (epoch == 0)
    if not made:
        return Updates(n_rows=0, mismatch=0.0, ratio_min=1.0, ratio_max=1.0, share_clipped=0.0,
                       kl=0.0, loss=0.0, grad_norm=0.0)
    log_ratios = torch.cat([update.log_ratios for update in made])
    return Updates(
        n_rows=n_rows, mismatch=made[0].log_ratios.abs().max().item(),
        ratio_min=log_ratios.min().exp().item(), ratio_max=log_ratios.max().exp().item(),
        share_clipped=sum(update.n_clipped for update in made) / len(log_ratios),
        kl=sum(update.kl for update in made) / len(log_ratios),
        loss=made[-1].loss, grad_norm=made[-1].grad_norm)


def _tokens(rollout: Rollout, reference: Llama | None, config: ReinforceConfig) -> _Tokens:
    reference_BT = None
    if config.beta:
        if reference is None:
            raise ValueError(f"beta={config.beta} holds the model close to a reference, and there "
                             "is none. Give a frozen copy of the model, or beta=0")
        width = max(len(answer.ids) for answer in rollout.answers)
        reference_BT = torch.zeros(len(rollout.answers), width)
        with torch.no_grad():
            for rows in _pieces(range(len(rollout.answers)), config.answers_at_once):
                found_BT = _log_probs(reference, rollout, rows, config)
                reference_BT[rows, : found_BT.shape[1]] = found_BT.to(reference_BT)
    return _Tokens(drawn=drawn_log_probs(rollout.answers),
                   is_written=written_tokens(rollout.answers), reference=reference_BT)


def _backward(
    model: Llama, rollout: Rollout, rows: Sequence[int], tokens: _Tokens, *, counts: Counts,
    config: ReinforceConfig,
) -> _Update:
    """Computes the clipped gradient of the loss of these rows, a few of them at a time."""
    clip = {"clip_low": config.clip_low, "clip_high": config.clip_high}
    loss, kl, n_clipped, log_ratios = 0.0, 0.0, 0, []
    for some in _pieces(rows, config.answers_at_once):
        log_probs_BT = _log_probs(model, rollout, some, config)
        seen = tokens.of(some, log_probs_BT)
        advantages_B = rollout.advantages[some].to(log_probs_BT)
        partial = policy_loss(log_probs_BT, seen.drawn, advantages_B, seen.is_written,
                              normalizer=config.normalizer, counts=counts, beta=config.beta,
                              reference=seen.reference, **clip)
        partial.backward()
        loss += partial.item()
        with torch.no_grad():
            log_ratio_BT = log_probs_BT - seen.drawn
            log_ratios.append(log_ratio_BT[seen.is_written])
            n_clipped += int(is_clipped(log_ratio_BT, advantages_B, **clip)[seen.is_written].sum())
            if seen.reference is not None:
                kl += k3(log_probs_BT, seen.reference)[seen.is_written].sum().item()
    grad_norm = float(clip_gradients(model.parameters(), max_norm=config.max_grad_norm))
    return _Update(log_ratios=torch.cat(log_ratios), n_clipped=n_clipped, kl=kl, loss=loss,
                   grad_norm=grad_norm)


def _log_probs(
    model: Llama, rollout: Rollout, rows: Sequence[int], config: ReinforceConfig
) -> Float[Tensor, "B T"]:
    return answer_log_probs(model, [rollout.prompts[b] for b in rows],
                            [rollout.answers[b] for b in rows], temperature=config.temperature,
                            shares_prompts=config.shares_prompts)


def _pieces(rows: Sequence[int], n: int) -> list[list[int]]:
    return [list(rows[begin : begin + n]) for begin in range(0, len(rows), n)]


def _refuse_mismatch(update: _Update) -> None:
    if (mismatch := update.log_ratios.abs().max().item()) > MAX_MISMATCH:
        raise ValueError("a model learns from the distribution it has drawn from, so both passes "
                         f"give a token the same log-probability, up to {MAX_MISMATCH}; at the "
                         f"first update they differ by {mismatch:.2g}. Let the sampler report "
                         "log-probabilities at the config's temperature, and use a model in fp32")


def _refuse_infinite(update: _Update, *, step: int, lr: float, config: ReinforceConfig) -> None:
    if not (math.isfinite(update.loss) and math.isfinite(update.grad_norm)):
        raise Diverged(f"the loss is {update.loss} and the gradient's length {update.grad_norm} at "
                       f"step {step}, where the learning rate is {lr:.3g}. Lower peak_lr="
                       f"{config.peak_lr}, or use a clip")
