"""How fast greedy decoding is beside transformers' `generate`, at the 15M shape of llama2.c, fp32, on one and two threads.

The same weights, the same prompt, the same tokens (asserted). The bandwidth row says how fast the weights could be read
once per token, which nothing that reads them all can beat.

    python benchmarks/bench_generate.py        # prints the table, writes benchmarks/results/generate.json
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from measure import race, ratio, write

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.model.transformer import Llama

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hugging_face_twin import twin_of

SHAPE_15M = LlamaConfig(dim=288, n_heads=6, n_kv_heads=6, ffn_dim=768, vocab_size=32000, max_seq_len=256, norm_eps=1e-5,
                        rope_theta=1e4, layers=(LayerSpec(),) * 6, is_tied=True)
PROMPT, N_TOKENS, N_ROUNDS = [1, 15043, 3186, 29991], 100, 9


def read_gigabytes_per_s() -> float:
    data = torch.ones(64_000_000)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        data.sum()
        times.append(time.perf_counter() - began)
    return data.nbytes / statistics.median(times) / 1e9


def main() -> None:
    torch.manual_seed(0)
    model = Llama(SHAPE_15M).eval()
    twin = twin_of(model).eval()
    twin.set_attn_implementation("sdpa")  # its fast path; the default of the tests is the plain one

    def ours() -> list[int]:
        return generate(model, [PROMPT], max_tokens=N_TOKENS)[0]

    def theirs() -> list[int]:
        ids = twin.generate(torch.tensor([PROMPT]), max_new_tokens=N_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
        return ids[0, len(PROMPT):].tolist()

    assert ours() == theirs(), "both must write the same tokens"
    n_bytes = sum(p.nbytes for p in model.parameters())
    rows = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        clock = time.process_time if n_threads == 1 else time.perf_counter
        times = race({"ours": ours, "transformers": theirs}, n_rounds=N_ROUNDS, clock=clock)
        bandwidth = read_gigabytes_per_s()
        row = {
            "n_threads": n_threads,
            "ours_ms_per_token": 1000 * statistics.median(times["ours"]) / N_TOKENS,
            "transformers_ms_per_token": 1000 * statistics.median(times["transformers"]) / N_TOKENS,
            "times_faster": ratio(times, "transformers", "ours"),
            "bandwidth_limit_ms_per_token": n_bytes / bandwidth / 1e6,
        }
        rows.append(row)
        print("  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    results = {"n_params": SHAPE_15M.n_params, "n_tokens": N_TOKENS, "rows": rows}
    print("written:", write("generate", results, packages=("torch", "transformers")))


if __name__ == "__main__":
    main()
