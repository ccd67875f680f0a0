"""Learning by reward: draw answers, see what they earn, and make the better ones likelier.

No one shows the model what to say. It samples a group of answers to each prompt, a function scores
them, and each token's log-probability moves with the advantage of its answer. What is never sampled
is never learned. Every term of the published methods is a switch in `ReinforceConfig`, and the
methods are rows of `METHODS`.

Notebook 54. Sources: REINFORCE, Williams, 1992; GRPO, arXiv:2402.03300.
"""

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llama_from_scratch.checkpoint import folders
from llama_from_scratch.config import record
from llama_from_scratch.generate.checks import check_limits
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate, Message
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.train.loop import Diverged, take_steps
from llama_from_scratch.train.optimizer import AdamW, decay_groups
from llama_from_scratch.train.schedule import learning_rate
from llama_from_scratch.tune.dialogs import Dialog
from llama_from_scratch.tune.policy import samples, saving
from llama_from_scratch.tune.policy.policy_update import learn
from llama_from_scratch.tune.policy.records import (
    ReinforceConfig,
    ReinforceHistory,
    ReinforceStep,
)
from llama_from_scratch.tune.policy.rewards import Reward
from llama_from_scratch.tune.policy.rollout import Sampler, draw
from llama_from_scratch.tune.sft import format_of, refuse_16_bits


def as_given(prompt: Any) -> Any:
    """Returns the prompt, which is itself what is asked."""
    return prompt


def fit(
    model: Llama, prompts: Sequence[Any], tokenizer: AnyTokenizer, *, reward: Reward,
    config: ReinforceConfig | None = None, ask: Callable[[Any], Any] = as_given,
    format: ChatFormat | ChatTemplate | None = None, stop_ids: frozenset[int] | None = None,
    reference: Llama | None = None, sample: Sampler = samples.groups,
    folder: str | Path | None = None, is_resumed: bool = False,
    on_step: Callable[[ReinforceStep], object] | None = None,
) -> ReinforceHistory:
    """Teaches `model`, in place, answers that earn a higher reward.

    `prompts`: texts, dialogs, ids, or tasks of any kind, of which `ask(task)` returns one of these.
    `reward(prompt, text, is_finished)` gets the prompt as it is in this list; see `rewards`.
    `format`, `stop_ids`: how prompts are written and what ends an answer, by default as the model's
    files say. `reference`: the frozen model that `config.beta` holds on to, by default a copy of
    `model` as it is given. `folder`, `is_resumed`, `on_step`: as in `train`. A resumed run gets the
    model that the run began with.
    All prompts are used once before one is used again, in an order drawn from the seed. Only
    trainable weights move, so that adapters can be taught alone.

    Raises ValueError before the first step for prompts that are empty or too long, or a run that
    cannot be saved or resumed; at the first update if the log-probabilities are not those that
    were drawn with; and for a reward function that fails. Raises Diverged if a loss or gradient is
    not finite.
    """
    config = ReinforceConfig() if config is None else config
    run = _begun(model, prompts, tokenizer, reward=reward, config=config, ask=ask, format=format,
                 stop_ids=stop_ids, reference=reference, sample=sample)
    if folder is None:
        return _fit(run, None, is_resumed=is_resumed, on_step=on_step)
    with folders.held(folder) as place:
        return _fit(run, place, is_resumed=is_resumed, on_step=on_step)


@record
class _Run:
    """Everything a run works with. `ids`: of each prompt."""

    model: Llama
    reference: Llama | None
    optimizer: AdamW
    tokenizer: AnyTokenizer
    prompts: Sequence[Any]
    ids: Sequence[Sequence[int]]
    stop_ids: frozenset[int]
    reward: Reward
    sample: Sampler
    config: ReinforceConfig


def _begun(
    model: Llama, prompts: Sequence[Any], tokenizer: AnyTokenizer, *, reward: Reward,
    config: ReinforceConfig, ask: Callable[[Any], Any],
    format: ChatFormat | ChatTemplate | None, stop_ids: frozenset[int] | None,
    reference: Llama | None, sample: Sampler,
) -> _Run:
    """Returns the run, after refusing what would fail later."""
    refuse_16_bits(model)
    if not len(prompts):
        raise ValueError("learning by reward needs prompts; got none")
    asked = [ask(prompt) for prompt in prompts]
    if stop_ids is None or any(isinstance(each, str | Dialog) for each in asked):
        format = format_of(model, tokenizer, format)
    ids = [_ids_of(i, each, tokenizer, format) for i, each in enumerate(asked)]
    check_limits(model, ids, config.max_tokens)
    stop_ids = format.stop_ids(tokenizer) if stop_ids is None else frozenset(stop_ids)
    if not stop_ids:
        raise ValueError("an answer that never ends earns nothing, so answers need an id that "
                         "ends them; got none. Give stop_ids")
    if reference is model or (reference is not None and not config.beta):
        raise ValueError("a reference is another model, which stays as it is, and beta is its "
                         f"weight; got {'the model itself' if reference is model else 'beta=0'}. "
                         "Leave the reference out, or give a copy and beta above 0")
    if config.beta and reference is None:
        reference = copy.deepcopy(model).requires_grad_(False)
    optimizer = AdamW(decay_groups(model, weight_decay=config.weight_decay), beta1=config.beta1,
                      beta2=config.beta2, eps=config.adam_eps)
    return _Run(model=model, reference=reference, optimizer=optimizer, tokenizer=tokenizer,
                prompts=prompts, ids=ids, stop_ids=stop_ids, reward=reward, sample=sample,
                config=config)


def _ids_of(
    number: int, asked: Any, tokenizer: AnyTokenizer, format: ChatFormat | ChatTemplate | None
) -> list[int]:
    if isinstance(asked, str):
        if not asked.strip():
            raise ValueError(f"a prompt has words; prompt {number} is {asked!r:.80}. Leave it out")
        return format.encode([Message(role="user", content=asked)], tokenizer)
    if isinstance(asked, Dialog):
        return format.encode(asked.messages, tokenizer, tools=asked.tools)
    if not isinstance(asked, Sequence) or not all(type(each) is int for each in asked):
        raise ValueError("a prompt is a text, a dialog or a list of ids; prompt "
                         f"{number} is {asked!r:.80}. For tasks, give ask=, a function that "
                         "returns what is asked")
    return list(asked)


def _fit(
    run: _Run, folder: Path | None, *, is_resumed: bool,
    on_step: Callable[[ReinforceStep], object] | None,
) -> ReinforceHistory:
    config, model = run.config, run.model
    settings = saving.settings_of(model, config, prompts=run.ids, reference=run.reference)
    steps = saving.begin(folder, model, run.tokenizer, optimizer=run.optimizer, settings=settings,
                         is_resumed=is_resumed)
    n_saved = len(steps)

    def save() -> None:
        nonlocal n_saved
        if folder is not None and n_saved < len(steps):
            if not all(p.isfinite().all() for p in model.parameters()):
                raise Diverged(f"the update of step {len(steps) - 1} made a weight infinite or not "
                               "a number, so this state is not saved. Lower peak_lr="
                               f"{config.peak_lr}")
            saving.save(folder, model, run.tokenizer, optimizer=run.optimizer, settings=settings,
                        steps=steps)
            n_saved = len(steps)

    def take() -> ReinforceStep:
        taken = _step(run, steps)
        _refuse_nothing_learned([*steps, taken], config)
        return taken

    take_steps(steps, take=take, save=save, n_steps=config.n_steps,
               checkpoint_every=config.checkpoint_every, on_step=on_step)
    return ReinforceHistory(steps=tuple(steps), is_complete=len(steps) == config.n_steps)


def _step(run: _Run, before: Sequence[ReinforceStep]) -> ReinforceStep:
    """Draws answers, updates the model with them, and returns the record of both."""
    config, number = run.config, len(before)
    lr = learning_rate(number, n_steps=config.n_steps, peak=config.peak_lr,
                       n_warmup=config.n_warmup, final_ratio=config.final_lr_ratio)
    began = time.perf_counter()
    drawn = draw(run.model, run.prompts, run.tokenizer, ids=run.ids, reward=run.reward,
                 stop_ids=run.stop_ids, config=config, sample=run.sample,
                 n_used=sum(step.n_groups for step in before))
    sampled = time.perf_counter()
    made = learn(run.model, drawn, optimizer=run.optimizer, config=config, lr=lr, step=number,
                 reference=run.reference,
                 checks_mismatch=not any(step.n_rows for step in before))
    return ReinforceStep(
        step=number, reward=drawn.reward, share_equal=drawn.share_equal,
        share_cut=drawn.share_cut, n_tokens=drawn.n_tokens, n_groups=drawn.n_groups,
        n_rows=made.n_rows, mismatch=made.mismatch, ratio_min=made.ratio_min,
        ratio_max=made.ratio_max, share_clipped=made.share_clipped, kl=made.kl, loss=made.loss,
        grad_norm=made.grad_norm, lr=lr, sampling_s=sampled - began,
        update_s=time.perf_counter() - sampled)


def _refuse_nothing_learned(steps: Sequence[ReinforceStep], config: ReinforceConfig) -> None:
    """Raises ValueError if no answer of a run has had an advantage for `patience` steps."""
    # A penalty moves answers without an advantage too, so the rows that moved do not show this.
    has_taught = any(step.share_equal < 1 or (config.baseline == "none" and step.reward != 0)
                     for step in steps)
    if len(steps) < config.patience or has_taught:
        return
    n_groups = sum(step.n_groups for step in steps)
    raise ValueError("learning by reward needs answers to one prompt that earn different rewards; "
                     f"in the first {len(steps)} steps the answers of all {n_groups} groups earned "
                     f"the same, {steps[-1].reward:.3g} in the last step, so nothing can be "
                     "learned. Give a reward with grades, easier prompts, a higher temperature or "
                     "more answers to a prompt")
