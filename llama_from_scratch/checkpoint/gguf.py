"""Checkpoints in one GGUF file, as llama.cpp runs them: config, tokenizer and weights, which may be packed to 4 to 8 bits.

Reading unpacks one tensor after the other. Numbers of the config are fp32 there, and RoPE's scaling is not told at all:
in its place stand the divisors of the frequencies, from which it is found again, or refused. Norms are always fp32.

Notebook 18. Llama 1 to 3.3. Sources: ggml, docs/gguf.md; gguf-py, constants.py; llama.cpp, convert_hf_to_gguf.py.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from llama_from_scratch.checkpoint import gguf_file, gguf_tokenizer, safetensors_file, tokenizer_files
from llama_from_scratch.checkpoint.gguf_blocks import KINDS
from llama_from_scratch.checkpoint.gguf_file import DTYPES, Packed
from llama_from_scratch.checkpoint.names import GGUF, expand, refuse_differences, shapes
from llama_from_scratch.checkpoint.opened import Opened
from llama_from_scratch.config import LayerSpec, LlamaConfig, RopeScaling
from llama_from_scratch.model.rope import rope_frequencies
from llama_from_scratch.model.transformer import Llama

DIVISORS = "rope_freqs.weight"
_SAME_DIVISOR = 1e-5
"""Largest relative difference of two divisors that come from the same scaling, computed in fp32 in another order."""

_SIZES = {"embedding_length": "dim", "attention.head_count": "n_heads", "feed_forward_length": "ffn_dim",
          "context_length": "max_seq_len"}
_READ = {*_SIZES, "block_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "rope.freq_base", "vocab_size"}
# What a plain Llama computes. Another value is another model.
_MUST_BE = {"expert_count": (0,), "expert_used_count": (0,), "rope.scaling.type": ("none",), "rope.scale_linear": (1.0,),
            "attention.causal": (True,), "attention.sliding_window": (0,),
            "tensor_data_layout": ("reference", "Meta AI original pth")}
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7}


def read(file: str | Path) -> Opened:
    """The checkpoint in `file`, its weights not yet read. Its dtype is that of the matrices, and float32 for packed ones.

    Raises ValueError if the file is damaged, the model is of another kind than ours, or the tensors are not exactly its.
    """
    file = Path(file)
    header = gguf_file.header(file)
    tensors = dict(header.tensors)
    divisors = tensors.pop(DIVISORS, None)
    config = _config(header.facts, tensors, divisors, where=file)
    rows = expand(GGUF, config.n_layers)
    needed = {rows[name].theirs: shape for name, shape in shapes(config).items()}
    refuse_differences({name: entry.shape for name, entry in tensors.items()}, needed, where=str(file))
    kinds = {entry.kind.name for entry in tensors.values() if len(entry.shape) > 1}
    return Opened(format="GGUF", where=file, files=(file,), config=config,
                  kinds=tuple(sorted({entry.kind.name for entry in tensors.values()})),
                  dtype=DTYPES.get(kinds.pop(), torch.float32) if len(kinds) == 1 else torch.float32,
                  tensors=partial(_tensors, file, {ours: tensors[rows[ours].theirs] for ours in shapes(config)}),
                  read_tokenizer=partial(gguf_tokenizer.read, header.facts, config, where=file),
                  end_ids=gguf_tokenizer.end_ids(header.facts, config, where=file))


def write(file: str | Path, model: Llama, *, tokenizer: Any, kind: str = "F32") -> None:
    """Writes `model` and `tokenizer` to `file`, all or nothing. `kind`: of the matrices, "F32", "F16" or "Q8_0".

    Raises ValueError for what the format cannot say: a config that would not come back the same, numbers beyond F16,
    rows that are no multiple of 32 in Q8_0; or if the tokenizer has ids that the model does not know.
    """
    if kind not in _FILE_TYPES:
        raise ValueError(f"kinds that are written are {', '.join(_FILE_TYPES)}; got {kind!r}")
    file, config = Path(file), model.config
    tokenizer_files.refuse_other_vocabulary(tokenizer, config, where=str(file))
    facts = {"general.architecture": ("str", "llama"), "general.file_type": ("u32", _FILE_TYPES[kind])}
    facts |= {"general.quantization_version": ("u32", 2)} if kind == "Q8_0" else {}
    facts |= config_to(config) | gguf_tokenizer.facts_of(tokenizer, config)
    rows = expand(GGUF, config.n_layers)
    weights = dict(model.named_parameters())
    by_name = {kind.name: kind for kind in KINDS.values()}
    tensors = [(rows[ours].theirs, by_name[kind if len(shape) > 1 else "F32"], weights[ours])
               for ours, shape in shapes(config).items()]
    if config.rope_scaling is not None:
        tensors.append((DIVISORS, by_name["F32"], divisors_of(config)))
    gguf_file.write(file, facts, tensors)


def config_to(config: LlamaConfig) -> dict[str, tuple[str, Any]]:
    """The facts by which a file tells of a config, but for the scaling of RoPE. Raises ValueError if it has no words for it."""
    if set(config.layers) != {LayerSpec()}:
        raise ValueError("the layers of a Llama in GGUF all turn their heads and see everything before them; "
                         f"got {sorted({str(spec) for spec in config.layers})}")
    for name in ("norm_eps", "rope_theta"):
        if _shortest(value := getattr(config, name)) != value:
            raise ValueError(f"GGUF has numbers in fp32, and {name}={value!r} would come back as {_shortest(value)!r}. "
                             "Choose that, or write another format")
    if config.rope_scaling is not None and (back := scaling_of(divisors_of(config), config)) != config.rope_scaling:
        raise ValueError("GGUF tells of the scaling of RoPE by its divisors alone, and those of "
                         f"{config.rope_scaling} would be read as {back}. Write another format")
    facts = {theirs: ("u32", getattr(config, ours)) for theirs, ours in _SIZES.items()}
    facts |= {"block_count": ("u32", config.n_layers), "attention.head_count_kv": ("u32", config.n_kv_heads),
              "attention.layer_norm_rms_epsilon": ("f32", config.norm_eps), "rope.freq_base": ("f32", config.rope_theta),
              "rope.dimension_count": ("u32", config.head_dim), "vocab_size": ("u32", config.vocab_size)}
    return {f"llama.{key}": fact for key, fact in facts.items()}


def divisors_of(config: LlamaConfig) -> Float32[Tensor, "R"]:
    """How many times slower the scaling of RoPE turns each pair."""
    freq_R = rope_frequencies(config.head_dim, theta=config.rope_theta)
    return freq_R / rope_frequencies(config.head_dim, theta=config.rope_theta, scaling=config.rope_scaling)


def scaling_of(divisor_R: Float32[Tensor, "R"], config: LlamaConfig) -> RopeScaling | None:
    """The scaling of RoPE that has these divisors, None if all are 1; of several, one that was published.

    Looks among the published constants, then among contexts that are powers of two; the factor is the slowest pair's.
    Raises ValueError if none has them.
    """
    def turns_alike(scaling: RopeScaling | None) -> bool:
        freq_R = rope_frequencies(config.head_dim, theta=config.rope_theta)
        other_R = freq_R / rope_frequencies(config.head_dim, theta=config.rope_theta, scaling=scaling)
        return torch.allclose(other_R, divisor_R, rtol=_SAME_DIVISOR, atol=0)

    if turns_alike(None):
        return None
    factor = _shortest(divisor_R[-1].item())
    if factor > 0 and math.isfinite(factor):
        for original in (8192, *(1 << n for n in range(6, 21))):
            for high in (4.0, 1.0, 2.0, 8.0):
                scaling = RopeScaling(factor=factor, low_freq_factor=1.0, high_freq_factor=high, original_max_seq_len=original)
                if turns_alike(scaling):
                    return scaling
    raise ValueError(f"{DIVISORS} must be the divisors of a scaling as in Llama 3.1; no such scaling has "
                     f"{[round(x, 4) for x in divisor_R.tolist()]}. Load a Llama, or another format of it")


def _config(
    facts: Mapping[str, Any], tensors: Mapping[str, Packed], divisors: Packed | None, *, where: Path
) -> LlamaConfig:
    architecture = facts.get("general.architecture")
    if architecture == "llama4":
        raise ValueError(f"{where} is of a Llama 4, which is not built yet; this version has the text models Llama 1 to 3.3. "
                         "Load one of those")
    if architecture != "llama":
        raise ValueError(f"general.architecture must be \"llama\"; {where} has {architecture!r:.80}. Only Llamas can be loaded")
    about = {name.removeprefix("llama."): value for name, value in facts.items() if name.startswith("llama.")}
    problems = [f"{key} is missing" for key in (*_SIZES, "block_count", "attention.layer_norm_rms_epsilon") if key not in about]
    problems += [f"{key} is {about[key]!r:.80}, and only {allowed[0]!r} can be computed"
                 for key, allowed in _MUST_BE.items() if key in about and not _is_among(about[key], allowed)]
    widths = ("rope.dimension_count", "attention.key_length", "attention.value_length")
    problems += [f"{key} is not a key that is known" for key in about if key not in {*_READ, *_MUST_BE, *widths}]
    if not _is_among(facts.get("split.count", 0), (0, 1)):
        problems.append(f"it is one of {facts['split.count']!r:.80} files, which are not read: join them first")
    n_layers = about.get("block_count")
    if type(n_layers) is not int or n_layers > len(tensors):
        problems.append(f"block_count is {n_layers!r:.80}, and the file holds {len(tensors)} tensors in all")
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        problems.append("it has no matrix called token_embd.weight")
    if problems:
        raise ValueError(f"{where} describes no model of this version: {'; '.join(problems[:8])}. Download it again, or take "
                         "another format of this model")
    try:
        n_heads = about["attention.head_count"]
        config = LlamaConfig(
            **{ours: about[theirs] for theirs, ours in _SIZES.items()}, layers=(LayerSpec(),) * n_layers,
            vocab_size=embedding.shape[0], n_kv_heads=about.get("attention.head_count_kv", n_heads),
            norm_eps=_shortest(about["attention.layer_norm_rms_epsilon"]),
            rope_theta=_shortest(about.get("rope.freq_base", 1e4)), is_tied="output.weight" not in tensors)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error
    expected = dict.fromkeys(widths, config.head_dim) | {"vocab_size": config.vocab_size}
    wrong = [f"{key} is {about[key]!r:.80}, not {n}" for key, n in expected.items()
             if key in about and not _is_among(about[key], (n,))]
    if divisors is not None and (divisors.kind.name, divisors.shape) != ("F32", (config.head_dim // 2,)):
        wrong.append(f"{DIVISORS} is {divisors.shape} in {divisors.kind.name}, not {(config.head_dim // 2,)} in F32")
    if wrong:
        raise ValueError(f"the facts in {where} must be those of its tensors; {'; '.join(wrong)}. Download it again")
    if divisors is None:
        return config
    values = gguf_file.read(divisors, safetensors_file.mapped(where)).clone()
    return dataclasses.replace(config, rope_scaling=scaling_of(values, config))


def _tensors(
    file: Path, entries: Mapping[str, Packed], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Views of the mapped file where nothing changes; otherwise memory of its own, one tensor at a time.

    What has been read of a mapped file counts as ours until it is closed, so what is unpacked is mapped for itself.
    """
    whole = safetensors_file.mapped(file)
    for ours, entry in entries.items():
        is_unchanged = entry.kind.unpack is None and dtype in (None, DTYPES[entry.kind.name])
        yield ours, gguf_file.read(entry, whole if is_unchanged else safetensors_file.mapped(file), dtype=dtype)


def _shortest(value: Any) -> float:
    """The number with the fewest digits among those that are the same in fp32: 1e-5, not 0.0000099999997."""
    return float(str(np.float32(value)))


def _is_among(value: Any, allowed: tuple) -> bool:
    return not isinstance(value, np.ndarray) and value in allowed
