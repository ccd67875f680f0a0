"""Measures greedy decoding on a CPU, against transformers' `generate` and the speed of memory.

It runs two shapes with random weights, on one thread and on two: llama2.c's 15M in fp32, and Llama
3.2 1B in fp32 and in bf16. On one thread the clock counts processor seconds. With two threads, the
numbers are meaningful only on an idle machine. All contestants have the same weights and, in fp32,
must write the same tokens (asserted). A time is the time of one more token: a long answer's time
minus a short answer's, divided by the difference in tokens, so that no prompt is counted.
Contestants take turns, and a ratio is the median of the ratios within a round.

Each row also has the least time that its bytes need: the weights and cache that this contestant
reads per token, divided by the speed at which the same weights can be read in the same round (the
faster of a plain sum and a matrix times a vector).

    python benchmarks/bench_generate.py [--only "15m 1 thread"]

It prints the table and writes benchmarks/results/generate.json.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from measure import RESULTS, write
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llama_from_scratch import family
from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.greedy import GreedyDecoder
from llama_from_scratch.model.transformer import Llama

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hugging_face_twin import hugging_face_layout, hugging_face_name

SHAPE_15M = LlamaConfig(
    dim=288, n_heads=6, n_kv_heads=6, ffn_dim=768, vocab_size=32000, max_seq_len=256,
    norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 6, is_tied=True)
PROMPT = [1, 15043, 3186, 29991]
RUNS = {  # name: config, dtype, threads, tokens, rounds
    "15m 1 thread": (SHAPE_15M, torch.float32, 1, 100, 9),
    "15m 2 threads": (SHAPE_15M, torch.float32, 2, 100, 9),
    "1b fp32 1 thread": (family.config("llama-3.2-1b"), torch.float32, 1, 4, 3),
    "1b bf16 1 thread": (family.config("llama-3.2-1b"), torch.bfloat16, 1, 4, 3),
    "1b fp32 2 threads": (family.config("llama-3.2-1b"), torch.float32, 2, 4, 3),
    "1b bf16 2 threads": (family.config("llama-3.2-1b"), torch.bfloat16, 2, 4, 3),
}


def model_of(config: LlamaConfig, dtype: torch.dtype) -> Llama:
    """Returns a model of random weights that is never in memory twice.

    One block of numbers is repeated, because drawing a billion takes a minute.
    """
    with torch.device("meta"):
        model = Llama(config)
    model = model.to(dtype).to_empty(device="cpu").eval()
    model.output.weight = model.tok_embeddings.weight  # to_empty makes two tensors of the one
    # An odd length, so that no two rows are equal.
    block = torch.randn((1 << 22) + 1, generator=torch.Generator().manual_seed(0)).to(dtype)
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.data.fill_(1.0)
        else:
            for piece in weight.data.view(-1).split(len(block)):
                torch.mul(block[: len(piece)], 0.5 / weight.shape[1] ** 0.5, out=piece)
    return model


def sharing_twin_of(model: Llama) -> transformers.LlamaForCausalLM:
    """Returns the same model in transformers, in the same memory except for wq and wk.

    transformers orders the rows of these two in another way.
    """
    config, scaling = model.config, model.config.rope_scaling
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling is not None:
        rope |= {"rope_type": "llama3", "factor": scaling.factor,
                 "low_freq_factor": scaling.low_freq_factor,
                 "high_freq_factor": scaling.high_freq_factor,
                 "original_max_position_embeddings": scaling.original_max_seq_len}
    settings = transformers.LlamaConfig(
        hidden_size=config.dim, intermediate_size=config.ffn_dim,
        num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads, vocab_size=config.vocab_size,
        max_position_embeddings=config.max_seq_len, rms_norm_eps=config.norm_eps,
        rope_parameters=rope,
        tie_word_embeddings=config.is_tied, attn_implementation="sdpa")
    with torch.device("meta"):
        twin = transformers.LlamaForCausalLM(settings)
    weights = {hugging_face_name(name): hugging_face_layout(name, w.detach(), config.head_dim)
               for name, w in model.named_parameters()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    twin.load_state_dict(weights, strict=True, assign=True)
    twin.model.rotary_emb = LlamaRotaryEmbedding(settings)
    return twin.eval()


def read_s(model: Llama, clock: Callable[[], float]) -> float:
    """Returns the seconds that it takes to read all matrices once."""
    matrices = [w.detach().view(torch.float32) for w in model.parameters() if w.ndim == 2]
    ones = {n: torch.ones(n) for n in {w.shape[1] for w in matrices}}
    times = []
    for read in (lambda w: w.sum(), lambda w: torch.mv(w, ones[w.shape[1]])):
        began = clock()
        for w in matrices:
            read(w)
        times.append(clock() - began)
    return min(times)


def measure(name: str) -> list[dict]:
    config, dtype, n_threads, n_tokens, n_rounds = RUNS[name]
    torch.set_num_threads(n_threads)
    clock = time.process_time if n_threads == 1 else time.perf_counter
    model = model_of(config, dtype)
    twin, decoder = sharing_twin_of(model), GreedyDecoder(model)
    contestants = {
        "GreedyDecoder": lambda n: list(decoder.stream(PROMPT, max_tokens=n)),
        "generate": lambda n: generate(model, [PROMPT], max_tokens=n)[0],
        "transformers": lambda n: twin.generate(
            torch.tensor([PROMPT]), max_new_tokens=n, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )[0, len(PROMPT):].tolist(),
    }
    answers = {who: run(1 + n_tokens) for who, run in contestants.items()}
    n_equal = {who: sum(a == b for a, b in zip(ids, answers["generate"], strict=True))
               for who, ids in answers.items()}
    is_equal = all(n == 1 + n_tokens for n in n_equal.values())
    assert is_equal or dtype != torch.float32, "all must write the same tokens"
    times, reads = {who: [] for who in contestants}, []
    for _ in range(n_rounds):
        reads.append(read_s(model, clock))
        for who, run in contestants.items():
            began = clock()
            run(1)
            between = clock()
            run(1 + n_tokens)
            times[who].append((clock() - between - (between - began)) / n_tokens)
    weight_bytes = sum(w.nbytes for w in model.parameters())
    cache_bytes = config.kv_bytes_per_token(dtype.itemsize) * (len(PROMPT) + n_tokens / 2)
    head_bytes = head_bytes_of(decoder, model.output.weight)
    bandwidth = weight_bytes / statistics.median(reads)
    rows = []
    for who, seconds in times.items():
        saved = model.output.weight.nbytes - head_bytes if who == "GreedyDecoder" else 0
        n_bytes = cache_bytes + weight_bytes - saved
        median = statistics.median(seconds)
        longer = [b / a for a, b in zip(seconds, times["transformers"], strict=True)]
        shares = [n_bytes / weight_bytes * r / s for r, s in zip(reads, seconds, strict=True)]
        rows.append({
            "run": name, "who": who, "ms_per_token": 1000 * median,
            "fastest_round_ms": 1000 * min(seconds),
            "transformers_takes_times_longer": statistics.median(longer),
            "megabytes_per_token": n_bytes / 1e6, "read_gigabytes_per_s": bandwidth / 1e9,
            "limit_ms": 1000 * n_bytes / bandwidth,
            "share_of_limit": statistics.median(shares),
            "equal_tokens": n_equal[who], "n_tokens": 1 + n_tokens,
        })
        print("  ".join(f"{value:.2f} {key}" if isinstance(value, float) else f"{value}"
                        for key, value in rows[-1].items()), flush=True)
    return rows


def head_bytes_of(decoder: GreedyDecoder, head: torch.Tensor) -> float:
    """Returns the bytes of the head, or of its screen and candidates, that are read per token."""
    if (screen := decoder.screen) is None:
        print("    no screen: the head itself was faster here", flush=True)
        return head.nbytes
    rows_per_token = screen.n_candidates / screen.n_asked
    print(f"    screen: {rows_per_token:.1f} candidates, "
          f"undecided {screen.n_undecided} of {screen.n_asked}", flush=True)
    return (head.numel() + rows_per_token * head.nbytes / len(head)
            + screen.n_undecided / screen.n_asked * head.nbytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=RUNS,
                        help="measure only this run and keep the others in the file")
    only = parser.parse_args().only or list(RUNS)
    path = RESULTS / "generate.json"
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {name: [row for row in old if row.get("run") == name] for name in RUNS}
    for name in only:
        rows[name] = measure(name)
        gc.collect()
        all_rows = [row for name in RUNS for row in rows[name]]
        print("written:", write("generate", {"rows": all_rows},
                                packages=("torch", "transformers")))


if __name__ == "__main__":
    main()
