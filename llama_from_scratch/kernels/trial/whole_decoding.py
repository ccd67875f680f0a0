"""Tokens per second of a whole model that decodes one token after another, at the shape of the 8B.

A step of decoding reads every weight once, and the keys and values of all earlier tokens. So its
time is compared with a copy of the same bytes. The weights are random, because only their number
and their bytes matter here. A step runs under a CUDA graph: it reads an id, computes the logits
after a context of `CONTEXT` tokens, and writes the most likely id to where it read the first one.

The plain model in fp32 has the exact logits. The logits with kernels must be as near to them as the
timed plain model's logits are.

Notebook 35.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from llama_from_scratch import family
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.kernels.fuse import fuse
from llama_from_scratch.kernels.trial import bench, timing
from llama_from_scratch.kernels.trial.bench import BenchRow
from llama_from_scratch.kernels.trial.parts import Finding, Say, TrialStep
from llama_from_scratch.kernels.trial.timing import Floors
from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.quantized import Int4Linear, Int8Linear
from llama_from_scratch.model.static_cache import StaticCache
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten

SHAPE = "llama-3.1-8b"
CONTEXT = 512
GROUP = 128   # of 4-bit weights
# The kernels' logits may be twice as far from the exact ones as the plain model's, and this more.
FACTOR, SLACK = 2, 1e-3
WEIGHTS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "bf16": lambda linear: linear, "int8": Int8Linear.from_linear,
    "int4": partial(Int4Linear.from_linear, group=GROUP)}
FP32_COPIES = 3.5   # times the bytes of the bf16 model: itself, a copy in fp32, and the rest


def random_model(config: LlamaConfig, *, dtype: torch.dtype, device: torch.device) -> Llama:
    """Returns a model with random weights, drawn on the device in its dtype."""
    generator = torch.Generator(device).manual_seed(0)
    model = unwritten(config)
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            draw = torch.randn(p.shape, generator=generator, dtype=dtype, device=device)
            value = torch.ones_like(draw) if p.ndim == 1 else draw.mul_(p.shape[1] ** -0.5)
            setattr(module, name, nn.Parameter(value, requires_grad=False))
    if config.is_tied:
        model.output.weight = model.tok_embeddings.weight
    return model.to(device)


def with_weights(model: Llama, kind: str) -> Llama:
    """Returns the model with the linear layers of this kind of weights, in place.

    The embedding stays as it is; only one of its rows is read.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, WEIGHTS[kind](child))
    return model


def bytes_per_token(model: Llama, *, context: int) -> int:
    """Returns how many bytes of weights, keys and values a step reads."""
    tensors = {id(x): x for x in (*model.parameters(), *model.buffers())}
    n_bytes = sum(x.nbytes for x in tensors.values())
    embedding = model.tok_embeddings.weight
    if type(model.output) is not nn.Linear or model.output.weight is not embedding:
        n_bytes -= embedding.nbytes   # only a row of it is read
    itemsize = embedding.dtype.itemsize
    return n_bytes + context * model.config.kv_bytes_per_token(itemsize)


class Decoder:
    """A model, a cache that holds a context, and the id that the next step reads.

    `is_static`: whether steps are those that `kernels.step_graph` records.
    """

    def __init__(self, model: Llama, *, context: int, is_static: bool = False) -> None:
        self.model, self.context = model, context
        self.cache: KVCache = model.new_cache(batch_size=1, max_seq_len=context + 1)
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(model.config.vocab_size, (1, context + 1), generator=generator)
        self.ids = ids[:, context:].to(model.device)
        with torch.inference_mode():
            model(ids[:, :context].to(model.device), cache=self.cache)
            self.static = StaticCache(self.cache) if is_static else None

    def logits(self) -> Tensor:
        """Returns the logits after the id, (V,), and forgets that it was read."""
        with torch.inference_mode():
            if self.static is not None:
                self.static.slot.fill_(self.context)
                return self.model.static_step(self.ids, cache=self.static)[0]
            self.cache.truncate(self.context)
            return self.model(self.ids, cache=self.cache)[0, -1]

    def step(self) -> None:
        """Replaces the id by the most likely next one."""
        with torch.inference_mode():
            self.ids.copy_(self.logits().argmax()[None, None])


def decoding_row(
    config: LlamaConfig, kind: str, *, context: int, floors: Floors, device: torch.device, say: Say
) -> BenchRow:
    """Returns the row of one kind of weights: a step's time, and the plain model's times."""
    model = with_weights(random_model(config, dtype=torch.bfloat16, device=device), kind)
    model.requires_grad_(False)
    exact = Decoder(copy.deepcopy(model).float(), context=context).logits().double()
    bench.free(device)
    n_bytes = bytes_per_token(model, context=context)
    plain_logits = Decoder(model, context=context).logits()
    rivals = []
    for name, time in (("eager, in a graph", timing.time_graph), ("eager", timing.time_stream)):
        say(f"decoding, {kind}: {name}")
        rivals.append(bench.timed(name, lambda: [Decoder(model, context=context).step], say,
                                  ways=(time,)))
    fuse(model, emulate=device.type == "cpu")
    fused_logits = Decoder(model, context=context, is_static=True).logits()
    say(f"decoding, {kind}: fused")
    time = timing.time_graph(lambda: [Decoder(model, context=context, is_static=True).step])
    off, plain_off = (float((x.double() - exact).norm() / exact.norm())
                      for x in (fused_logits, plain_logits))
    return BenchRow(
        kernel=f"decoding, {kind} weights", size=(1, context), dtype="bfloat16", n_bytes=n_bytes,
        n_operations=0.0, time=time, rivals=tuple(rivals), floors=floors,
        error_ratio=off / plain_off, is_right=off <= FACTOR * plain_off + SLACK)


def steps(device: torch.device, *, shape: str = SHAPE) -> list[TrialStep]:
    """Returns the steps of the part `decoding`: the floors, then one for each kind of weights."""
    config = family.config(shape)
    floors, first = bench.floors_step(device)

    def run(kind: str, say: Say) -> Finding:
        if why_not := _why_not(config, device):
            return Finding(why_not=why_not)
        row = decoding_row(config, kind, context=CONTEXT, floors=floors(), device=device, say=say)
        found = bench.found([row], say)
        per_s = 1e6 / row.time.median
        say(f"{shape}, {kind}: {per_s:.0f} tokens/s after {CONTEXT} tokens")
        return Finding(wrong=found.wrong, data=found.data | {"tokens_per_s": per_s})

    return [first, *(TrialStep(name=kind, run=partial(run, kind)) for kind in WEIGHTS)]


def _why_not(config: LlamaConfig, device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    needed = FP32_COPIES * 2 * config.n_params
    total = torch.cuda.get_device_properties(device).total_memory
    if total >= needed:
        return ""
    return (f"the model and its copy in fp32 need {needed / 2**30:.0f} GiB; this GPU has "
            f"{total / 2**30:.0f} GiB")
