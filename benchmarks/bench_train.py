"""Measures how fast one training step is, on one thread.

It is compared with transformers' LlamaForCausalLM and torch's fused AdamW, with the same weights
and the same 8 x 256 tokens: forward, backward, clipping and update. Both sides run in fp32 and
under bf16 autocast, and ours also with the document mask that real batches need. The losses of the
first steps are asserted equal. Contestants take turns. Times are processor seconds, which equal the
time on an idle machine with one thread, and depend little on other load.

    python benchmarks/bench_train.py

It prints the table and writes benchmarks/results/train.json.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import race, ratio, write
from torch.nn import functional as F

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import Batch
from llama_from_scratch.train.loop import gradients
from llama_from_scratch.train.optimizer import AdamW, clip_gradients, decay_groups

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hugging_face_twin import twin_of

SHAPE = LlamaConfig(
    dim=128, n_heads=4, n_kv_heads=2, ffn_dim=352, vocab_size=1024, max_seq_len=512,
    norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 4, is_tied=True)
B, T, LR, N_ROUNDS = 8, 256, 1e-4, 15


def make() -> Llama:
    torch.manual_seed(0)
    return Llama(SHAPE)


def batch(document_len: int) -> Batch:
    ids_BT = torch.randint(SHAPE.vocab_size, (B, T + 1), generator=torch.Generator().manual_seed(1))
    places_BT = torch.arange(T).repeat(B, 1)
    return Batch(ids=ids_BT[:, :-1], targets=ids_BT[:, 1:], documents=places_BT // document_len,
                 positions=places_BT % document_len)


def our_step(*, document_len: int, is_bf16: bool) -> Callable[[], float]:
    model, data = make(), batch(document_len)
    optimizer = AdamW(decay_groups(model, weight_decay=0.1))

    def step() -> float:
        optimizer.zero_grad()
        loss = gradients(model, data, is_bf16=is_bf16)
        clip_gradients(model.parameters(), max_norm=1.0)
        optimizer.step(lr=LR)
        return loss

    return step


def their_step(*, is_bf16: bool) -> Callable[[], float]:
    model, data = twin_of(make()), batch(T)
    model.set_attn_implementation("sdpa")
    model.train()
    matrices, norms = ([p for p in model.parameters() if (p.ndim > 1) == is_matrix]
                       for is_matrix in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), fused=True)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            logits_BTV = model(data.ids, use_cache=False).logits
        loss = F.cross_entropy(logits_BTV.float().flatten(0, 1), data.targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    torch.set_num_threads(1)
    ours, theirs = our_step(document_len=T, is_bf16=False), their_step(is_bf16=False)
    for _ in range(3):
        a, b = ours(), theirs()
        assert abs(a - b) < 1e-4, f"both must have the same loss; got {a} and {b}"
    times = race({
        "ours": ours, "transformers": theirs,
        "ours, document mask": our_step(document_len=90, is_bf16=False),
        "ours, bf16": our_step(document_len=T, is_bf16=True),
        "transformers, bf16": their_step(is_bf16=True),
    }, n_rounds=N_ROUNDS, n_warmup=2, clock=time.process_time)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    results = {
        "shape": SHAPE.to_dict() | {"layers": SHAPE.n_layers}, "n_params": SHAPE.n_params,
        "batch": [B, T], "n_threads": 1,
        "step_cpu_s": medians,
        "transformers_over_ours": ratio(times, "transformers", "ours"),
        "transformers_over_ours_with_document_mask":
            ratio(times, "transformers", "ours, document mask"),
        "transformers_over_ours_bf16": ratio(times, "transformers, bf16", "ours, bf16"),
        "fp32_over_bf16": ratio(times, "ours", "ours, bf16"),
    }
    for name, seconds in medians.items():
        print(f"{name:30} {1e3 * seconds:7.1f} ms/step  {B * T / seconds:8,.0f} tokens/s")
    for name in ("transformers_over_ours", "transformers_over_ours_with_document_mask",
                 "transformers_over_ours_bf16", "fp32_over_bf16"):
        print(f"{name:45} {results[name]:.2f}")
    print(write("train", results, packages=("torch", "transformers")))


if __name__ == "__main__":
    main()
