"""Measures a layer of experts and a cache that forgets on a CPU, in fp32 on one thread.

The layer races transformers' with the same weights, which computes every expert for every token. A
second table has the cost of a layer against its number of experts, where each token always goes to
one: the slope of the line through (log experts, log seconds) is 0 if experts cost nothing, and 1 if
twice as many cost twice as much. Contestants take turns; a ratio is the median of the ratios within
a round, and the clock counts processor seconds. Results are compared before anything is timed.

    python benchmarks/bench_moe.py

It prints the tables and writes benchmarks/results/moe.json.
"""

import math
import statistics
import time

import torch
import transformers
from measure import race, ratio, write
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.llama4.modeling_llama4 import Llama4TextMoe

from llama_from_scratch.config import Experts, LayerSpec, LlamaConfig, TemperatureTuning
from llama_from_scratch.model.chunk_cache import forgetful_cache
from llama_from_scratch.model.mask import Tokens
from llama_from_scratch.model.moe import MoE
from llama_from_scratch.model.transformer import Llama

DIM, WIDTH, N_TOKENS = 256, 512, 256
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
N_ROUNDS = 7
CHUNK, CONTEXT, N_DECODED = 8192, 65_536, 4


def layer_of(n_experts: int) -> MoE:
    torch.manual_seed(0)
    moe = MoE(DIM, Experts(n_experts=n_experts, n_active=1, width=WIDTH, shared_width=WIDTH))
    moe.init_weights(n_additions=1)
    return moe


def twin_of(moe: MoE) -> Llama4TextMoe:
    twin = Llama4TextMoe(transformers.Llama4TextConfig(
        hidden_size=DIM, intermediate_size=WIDTH, num_local_experts=moe.n_experts,
        num_experts_per_tok=1))
    experts, shared = moe.experts, moe.shared
    twin.load_state_dict({
        "router.weight": moe.router.directions.weight,
        "experts.gate_up_proj": torch.cat([experts.w_gate, experts.w_up], -1),
        "experts.down_proj": experts.w_down,
        "shared_expert.gate_proj.weight": shared.w_gate.weight,
        "shared_expert.up_proj.weight": shared.w_up.weight,
        "shared_expert.down_proj.weight": shared.w_down.weight})
    return twin


def tokens(n_tokens: int) -> torch.Tensor:
    return torch.randn(n_tokens, DIM, generator=torch.Generator().manual_seed(1))


def forward(layer, x):
    """Returns a function that runs the layer without gradients."""
    def run():
        with torch.no_grad():
            out = layer(x)
        return out[0] if isinstance(out, tuple) else out
    return run


def forward_and_backward(layer, x):
    """Returns a function that runs the layer and returns the gradient of its input."""
    x = x.clone().requires_grad_()

    def run():
        out = layer(x)
        out = out[0] if isinstance(out, tuple) else out
        x.grad = None
        layer.zero_grad(set_to_none=True)
        out.square().sum().backward()
        return x.grad
    return run


def against_transformers(n_experts: int, n_tokens: int) -> list[dict]:
    moe, x, rows = layer_of(n_experts), tokens(n_tokens), []
    twin = twin_of(moe)
    for what, make in (("forward", forward), ("forward and backward", forward_and_backward)):
        contestants = {"ours": make(moe, x), "transformers": make(twin, x)}
        ours, theirs = (run() for run in contestants.values())
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        times = race(contestants, n_rounds=N_ROUNDS, clock=time.process_time)
        medians = {who: statistics.median(seconds) for who, seconds in times.items()}
        rows.append({"what": what, "n_experts": n_experts, "n_tokens": n_tokens,
                     "seconds": medians,
                     "times_as_long": ratio(times, "transformers", "ours")})
        print(f"{n_experts} experts, {n_tokens} tokens, {what}: transformers / ours = "
              f"{rows[-1]['times_as_long']:.2f}", flush=True)
    return rows


def against_experts(what: str, make, n_tokens: int) -> dict:
    x = tokens(n_tokens)
    contestants = {str(n): make(layer_of(n), x) for n in COUNTS}
    times = race(contestants, n_rounds=N_ROUNDS, clock=time.process_time)
    medians = [statistics.median(times[str(n)]) for n in COUNTS]
    row = {"what": what, "n_tokens": n_tokens, "n_experts": list(COUNTS), "seconds": medians,
           "times_as_long": medians[-1] / medians[0],
           "slope": slope([math.log(n) for n in COUNTS], [math.log(s) for s in medians])}
    print(f"{what}, {n_tokens} tokens, 1 to 128 experts: slope {row['slope']:.2f}, "
          + ", ".join(f"{1000 * s:.1f} ms" for s in medians), flush=True)
    return row


def slope(xs: list[float], ys: list[float]) -> float:
    """Returns the slope of the line with the least squares."""
    x, y = statistics.mean(xs), statistics.mean(ys)
    return (sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
            / sum((a - x) ** 2 for a in xs))


class BytesOfMatrices(TorchDispatchMode):
    """Counts the bytes of the second factor of each product, which is a weight here."""

    n_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.out, torch.ops.aten.mm.default):
            self.n_bytes += args[1].numel() * args[1].element_size()
        return func(*args, **(kwargs or {}))


def bytes_of_a_token() -> list[dict]:
    rows = []
    for n_experts in (1, 16, 128):
        moe = layer_of(n_experts)
        with torch.no_grad(), BytesOfMatrices() as counted:
            moe(tokens(1))
        rows.append({"n_experts": n_experts, "read_bytes": counted.n_bytes,
                     "stored_bytes": sum(p.nbytes for p in moe.parameters())})
        print(rows[-1], flush=True)
    return rows


@torch.inference_mode()
def forgetting() -> dict:
    layers = tuple(LayerSpec(
        has_rope=i % 4 != 3, chunk_size=CHUNK if i % 4 != 3 else None,
        temperature=TemperatureTuning(floor=8192, strength=0.1) if i % 4 == 3 else None)
        for i in range(4))
    torch.manual_seed(0)
    model = Llama(LlamaConfig(dim=512, n_heads=8, n_kv_heads=2, ffn_dim=1024, vocab_size=512,
                              max_seq_len=CONTEXT, norm_eps=1e-5, rope_theta=5e5, layers=layers))
    room = dict(batch_size=1, max_seq_len=CONTEXT)
    caches = {"plain": model.new_cache(**room), "forgetful": forgetful_cache(model, **room)}
    n_read = CONTEXT - N_DECODED * (N_ROUNDS + 2)
    keys = torch.randn(len(layers), 2, 1, n_read, 2, 64)
    for cache in caches.values():  # as if that many tokens had been read
        cache.extend(Tokens(positions=torch.arange(n_read)[None], documents=None, is_plain=True),
                     batch_size=1)
        for layer, (k, v) in zip(cache.layers, keys, strict=True):
            layer.append(k, v)

    def decode(cache):
        for token in range(N_DECODED):
            logits = model(torch.tensor([[token]]), cache=cache)
        return logits

    torch.testing.assert_close(*(decode(cache) for cache in caches.values()), rtol=1e-4, atol=1e-5)
    times = race({name: lambda cache=cache: decode(cache) for name, cache in caches.items()},
                 n_rounds=N_ROUNDS, clock=time.process_time)
    row = {"context": CONTEXT, "chunk_size": CHUNK, "n_layers": len(layers),
           "seconds": {name: statistics.median(each) for name, each in times.items()},
           "times_as_long": ratio(times, "plain", "forgetful"),
           "bytes": {name: cache.n_bytes for name, cache in caches.items()},
           "bytes_of_a_chunked_layer": {name: cache.layers[0].n_bytes
                                        for name, cache in caches.items()}}
    print(row, flush=True)
    return row


def main() -> None:
    torch.set_num_threads(1)
    results = {
        "dim": DIM, "width": WIDTH,
        "against_transformers": [row for n_experts in (16, 128) for n_tokens in (1, N_TOKENS)
                                 for row in against_transformers(n_experts, n_tokens)],
        "against_experts": [against_experts(what, make, n_tokens) for n_tokens in (1, N_TOKENS)
                            for what, make in (("forward", forward),
                                               ("forward and backward", forward_and_backward))],
        "one_token": bytes_of_a_token(),
        "forgetting": forgetting()}
    print(write("moe", results, packages=("torch", "transformers")))


if __name__ == "__main__":
    main()
