"""Measures the steps that turn a model into an assistant, on one thread.

The model has the size of the bundled assistant. Three pairs take turns: group sampling against the
same answers with a prompt for each; an update by reward in which the answers to a prompt share it,
against one row for each answer; and a step of fine-tuning with logits of learned tokens only,
against all logits. Both sides of a pair are asserted to compute the same. Then whole steps of
learning by reward are timed. Times are processor seconds.

    python benchmarks/bench_tune.py

It prints the table and writes benchmarks/results/tune.json.
"""

import random
import statistics
import time
from collections.abc import Callable

import torch
from measure import race, ratio, write

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import IGNORE, Batch
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.optimizer import AdamW, clip_gradients, decay_groups
from llama_from_scratch.tune.policy import samples
from llama_from_scratch.tune.policy.policy_update import learn
from llama_from_scratch.tune.policy.records import ReinforceConfig
from llama_from_scratch.tune.policy.rollout import Rollout
from llama_from_scratch.tune.rows import learned_nats

SHAPE = LlamaConfig(
    dim=96, n_heads=4, n_kv_heads=2, ffn_dim=256, vocab_size=1152, max_seq_len=512, norm_eps=1e-5,
    rope_theta=1e4, layers=(LayerSpec(),) * 4)
N_PROMPTS, N_ANSWERS, SAMPLED, TOLD = 16, 8, 10, 16
DIALOGS, DIALOG_TOKENS, LEARNED_SHARE = 32, 50, 0.3
STOPS = frozenset({0})
N_ROUNDS = 15


def make() -> Llama:
    torch.manual_seed(0)
    return Llama(SHAPE)


def prompts() -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(1, SHAPE.vocab_size) for _ in range(draw.randrange(51, 64))]
            for _ in range(N_PROMPTS)]


def grouped(model: Llama, n_tokens: int) -> list[list[samples.SampledAnswer]]:
    return samples.groups(model, prompts(), n=N_ANSWERS, max_tokens=n_tokens, stop_ids=STOPS)


def padded(model: Llama) -> list[list[int]]:
    every = [prompt for prompt in prompts() for _ in range(N_ANSWERS)]
    return generate(model, every, max_tokens=SAMPLED, sampling=Sampling(), stop_ids=STOPS)


def rollout(model: Llama) -> Rollout:
    answers = [each for group in grouped(model, TOLD) for each in group]
    every = [prompt for prompt in prompts() for _ in range(N_ANSWERS)]
    weights = torch.randn(len(answers), generator=torch.Generator().manual_seed(0))
    return Rollout(prompts=every, answers=answers, advantages=weights, reward=0.0,
                   share_equal=0.0, share_cut=1.0, n_tokens=float(TOLD), n_groups=N_PROMPTS)


def update(drawn: Rollout, *, shares_prompts: bool) -> Callable[[], float]:
    model = make()
    optimizer = AdamW(decay_groups(model, weight_decay=0.0))
    config = ReinforceConfig(max_tokens=TOLD, shares_prompts=shares_prompts)

    def step() -> float:
        return learn(model, drawn, optimizer=optimizer, config=config, lr=1e-6,
                     checks_mismatch=False).grad_norm

    return step


def whole_step() -> Callable[[], float]:
    model = make()
    optimizer = AdamW(decay_groups(model, weight_decay=0.0))
    config = ReinforceConfig(max_tokens=TOLD)

    def step() -> float:
        return learn(model, rollout(model), optimizer=optimizer, config=config, lr=1e-6).loss

    return step


def fine_tuning(loss: Callable[..., torch.Tensor]) -> Callable[[], float]:
    model, draw = make(), torch.Generator().manual_seed(0)
    optimizer = AdamW(decay_groups(model, weight_decay=0.1))
    ids_BT = torch.randint(SHAPE.vocab_size, (DIALOGS, DIALOG_TOKENS + 1), generator=draw)
    targets_BT = ids_BT[:, 1:].clone()
    targets_BT[:, : round(DIALOG_TOKENS * (1 - LEARNED_SHARE))] = IGNORE
    positions_BT = torch.arange(DIALOG_TOKENS).repeat(DIALOGS, 1)
    batch = Batch(ids=ids_BT[:, :-1], targets=targets_BT, positions=positions_BT,
                  documents=torch.zeros_like(positions_BT))

    def step() -> float:
        optimizer.zero_grad()
        nats = loss(model, batch) / batch.n_targets
        nats.backward()
        clip_gradients(model.parameters(), max_norm=1.0)
        optimizer.step(lr=1e-4)
        return nats.item()

    return step


def main() -> None:
    torch.set_num_threads(1)
    model = make()
    drawn = rollout(model)
    fast, slow = update(drawn, shares_prompts=True), update(drawn, shares_prompts=False)
    a, b = fast(), slow()
    assert abs(a - b) < 1e-3 * b, f"both must have the same gradient; got lengths {a} and {b}"
    few, all_logits = fine_tuning(learned_nats), fine_tuning(sum_of_nats)
    a, b = few(), all_logits()
    assert abs(a - b) < 1e-4, f"both must have the same loss; got {a} and {b}"
    alone = samples.groups(model, prompts()[:1], n=1, max_tokens=SAMPLED, stop_ids=STOPS)
    assert alone[0][0].ids == grouped(model, SAMPLED)[0][0].ids, "a group changes no answer"
    times = race({
        "group sampling": lambda: grouped(model, SAMPLED), "padded sampling": lambda: padded(model),
        "update, shared prompts": fast, "update, a row each": slow,
        "reinforce step": whole_step(),
        "fine-tuning, learned logits": few, "fine-tuning, all logits": all_logits,
    }, n_rounds=N_ROUNDS, n_warmup=2, clock=time.process_time)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    results = {
        "shape": SHAPE.to_dict() | {"layers": SHAPE.n_layers}, "n_params": SHAPE.n_params,
        "n_prompts": N_PROMPTS, "n_answers": N_ANSWERS, "n_threads": 1,
        "prompt_tokens": statistics.mean(map(len, prompts())),
        "answer_tokens": {"sampling": SAMPLED, "update": TOLD, "reinforce step": TOLD},
        "dialogs": [DIALOGS, DIALOG_TOKENS], "learned_share": LEARNED_SHARE,
        "cpu_s": medians,
        "padded_over_group_sampling": ratio(times, "padded sampling", "group sampling"),
        "row_each_over_shared_update": ratio(times, "update, a row each", "update, shared prompts"),
        "all_over_learned_logits":
            ratio(times, "fine-tuning, all logits", "fine-tuning, learned logits"),
    }
    for name, seconds in medians.items():
        print(f"{name:30} {1e3 * seconds:7.1f} ms")
    for name in ("padded_over_group_sampling", "row_each_over_shared_update",
                 "all_over_learned_logits"):
        print(f"{name:30} {results[name]:.2f}")
    print(write("tune", results, packages=("torch",)))


if __name__ == "__main__":
    main()
