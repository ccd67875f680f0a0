"""The settings and the history of learning by reward, as frozen records.

Each method that has a name is a row of `METHODS`: the same loop with other terms switched on.

Notebook 54. Sources: REINFORCE, Williams, 1992; RLOO, arXiv:2402.14740; GRPO, arXiv:2402.03300;
Dr. GRPO, arXiv:2503.20783; DAPO, arXiv:2503.14476.
"""

import math

from llama_from_scratch.config import record
from llama_from_scratch.tune.policy.advantages import Baseline, check_group
from llama_from_scratch.tune.policy.policy_loss import NORMALIZERS, Normalizer

_AT_LEAST = {"n_steps": 1, "n_prompts": 1, "n_answers": 1, "max_tokens": 1, "n_epochs": 1,
             "n_minibatches": 1, "n_rounds": 1, "patience": 1, "checkpoint_every": 1,
             "answers_at_once": 1, "soft_tokens": 0, "n_warmup": 0, "seed": 0, "beta": 0,
             "weight_decay": 0}
_ABOVE_0 = ("temperature", "peak_lr", "adam_eps", "max_grad_norm", "clip_low", "clip_high")


@record
class ReinforceConfig:
    """Everything that defines a run except the model, the prompts and the reward.

    The defaults suit a model of 1M parameters on a laptop's CPU.

    Sampling. A step draws `n_answers` answers to each of `n_prompts` prompts, each of at most
    `max_tokens` ids, at `temperature`. `n_rounds`: how often, at most, a step draws other prompts
    in place of those whose answers all earned the same (DAPO); 1 keeps such groups.
    `soft_tokens`, `max_cut_reward`: see `rewards`.

    Advantages. `baseline`, `is_scaled`: see `advantages`.

    Loss. `normalizer`, `clip_low`, `clip_high`: see `policy_loss`; a limit of None is off. `beta`:
    the weight of the penalty for leaving the reference, 0 without one.

    Updates. A step's answers are used `n_epochs` times, each time in `n_minibatches` updates.
    `answers_at_once`: how many answers go through the model together; the result is the same.
    `skips_zeros`: answers whose advantage is 0 do not go through the model again (unless `beta` is
    above 0); the result is the same. `shares_prompts`: see `answer_log_probs`. The learning rate
    rises for `n_warmup` steps to `peak_lr`, and falls along a cosine to `final_lr_ratio` of it; a
    ratio of 1 keeps it. `patience`: after how many steps a run ends with an error if no answer had
    an advantage until then.
    """

    n_steps: int = 40
    n_prompts: int = 16
    n_answers: int = 8
    max_tokens: int = 48
    temperature: float = 1.0
    n_rounds: int = 1
    soft_tokens: int = 0
    max_cut_reward: float | None = 0.0
    baseline: Baseline = "mean"
    is_scaled: bool = False
    normalizer: Normalizer = "token"
    clip_low: float | None = None
    clip_high: float | None = None
    beta: float = 0.0
    n_epochs: int = 1
    n_minibatches: int = 1
    answers_at_once: int = 256
    skips_zeros: bool = True
    shares_prompts: bool = True
    peak_lr: float = 5e-4
    n_warmup: int = 10
    final_lr_ratio: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    adam_eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    patience: int = 10
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"ReinforceConfig.{name} must be finite and at least {least}; "
                                 f"got {getattr(self, name)}")
        for name in _ABOVE_0:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"ReinforceConfig.{name} must be above 0 and finite; got {value}")
        for name in ("final_lr_ratio", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"ReinforceConfig.{name} must be between 0 and 1; "
                                 f"got {getattr(self, name)}")
        if self.normalizer not in NORMALIZERS:
            raise ValueError(f"normalizer is one of {', '.join(NORMALIZERS)}; got "
                             f"{self.normalizer!r:.80}")
        check_group(self.n_answers, baseline=self.baseline, is_scaled=self.is_scaled)
        if self.max_cut_reward is not None and not math.isfinite(self.max_cut_reward):
            raise ValueError("max_cut_reward is a finite number, or None for no limit; got "
                             f"{self.max_cut_reward}")
        if self.soft_tokens > self.max_tokens:
            raise ValueError("the soft penalty is for the last tokens of an answer, so soft_tokens "
                             f"is at most max_tokens={self.max_tokens}; got {self.soft_tokens}")
        if self.n_minibatches > self.n_prompts * self.n_answers:
            raise ValueError("a minibatch has at least one answer; got n_minibatches="
                             f"{self.n_minibatches} for {self.n_prompts * self.n_answers} answers")
        if self.clip_low is not None and self.clip_low >= 1:
            raise ValueError("a ratio is never below 0, so clip_low is below 1; got "
                             f"{self.clip_low}. None turns it off")
        if self.n_rounds > 1 and self.n_answers < 2:
            raise ValueError("groups of equal rewards are drawn again only if a group has several "
                             f"answers; got n_answers={self.n_answers}. Set n_rounds=1")
        if not self.n_warmup < self.n_steps:
            raise ValueError(f"the warm-up must be shorter than the run; got n_warmup="
                             f"{self.n_warmup} of {self.n_steps} steps")


METHODS = {
    "reinforce": ReinforceConfig(baseline="none", normalizer="constant"),
    "rloo": ReinforceConfig(baseline="others", normalizer="constant"),
    "grpo": ReinforceConfig(baseline="mean", is_scaled=True, normalizer="sequence", clip_low=0.2,
                            clip_high=0.2, beta=0.04),
    "dr-grpo": ReinforceConfig(baseline="mean", normalizer="constant", clip_low=0.2,
                               clip_high=0.2),
    "dapo": ReinforceConfig(baseline="mean", is_scaled=True, normalizer="token", clip_low=0.2,
                            clip_high=0.28, n_rounds=4, soft_tokens=16),
}
"""The terms of the published methods, with this project's sizes."""


@record
class ReinforceStep:
    """One step of a run: what was drawn, and what the updates did.

    Of all answers that were drawn: `reward`, the mean that they earned; `share_equal`, of groups
    whose rewards are equal; `share_cut`, of answers that were cut off; `n_tokens`, the mean length;
    `n_groups`, how many groups there were. `n_rows`: the answers that went through the model again,
    in the first epoch. `mismatch`: the largest difference between a log-probability when it was
    drawn and when it was first computed again. Over all updates: `ratio_min` and `ratio_max`, the
    extremes of q; `share_clipped`, of the tokens without gradient because of the clip; `kl`, the
    mean of k3 in nats per token. `loss` and `grad_norm`: of the last update, before clipping. A
    step without an advantage makes no update; its loss and grad_norm are 0 and its ratios are 1.
    """

    step: int
    reward: float
    share_equal: float
    share_cut: float
    n_tokens: float
    n_groups: int
    n_rows: int
    mismatch: float
    ratio_min: float
    ratio_max: float
    share_clipped: float
    kl: float
    loss: float
    grad_norm: float
    lr: float
    sampling_s: float
    update_s: float


@record
class ReinforceHistory:
    """All steps of a run, including those before it was resumed.

    `is_complete`: whether the run was not interrupted.
    """

    steps: tuple[ReinforceStep, ...]
    is_complete: bool

    @property
    def rewards(self) -> list[float]:
        """The mean reward of each step."""
        return [step.reward for step in self.steps]
