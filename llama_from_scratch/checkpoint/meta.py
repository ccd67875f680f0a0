"""Checkpoints in Meta's layout: params.json, consolidated.00.pth and on, one file per GPU of the release, tokenizer.model.

Every file holds a part of every matrix, so the whole is their concatenation along the right axis; norms are in each file.
params.json leaves out what Meta's code knows: the feed-forward width follows a rule, the context and the factor of RoPE's
scaling go with the generation. A .pth file is a pickle, which could run code: only tensors are accepted from it.

Notebook 18. Llama 1 to 3.3. Sources: llama-models, models/llama3/args.py and models/checkpoint.py; transformers,
models/llama/convert_llama_weights_to_hf.py.
"""

import dataclasses
import itertools
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_from_scratch import family
from llama_from_scratch.checkpoint import native, tokenizer_files
from llama_from_scratch.checkpoint.names import META, Name, expand, refuse_differences, shapes
from llama_from_scratch.checkpoint.opened import Opened, common_dtype, kinds_of
from llama_from_scratch.config import LayerSpec, LlamaConfig, RopeScaling
from llama_from_scratch.model.transformer import Llama

_IGNORED = {"rope.freqs"}
_NEEDED = ("dim", "n_layers", "n_heads", "multiple_of", "norm_eps")
# Keys of models that compute something else; other unknown keys are about running, such as a batch size.
_LATER = {
    "vision_chunk_size": "Llama 3.2 Vision", "vision_num_cross_attention_layers": "Llama 3.2 Vision", "moe_args": "Llama 4",
    "vision_args": "Llama 4", "nope_layer_interval": "Llama 4", "use_qk_norm": "Llama 4", "attention_chunk_size": "Llama 4",
    "quantization_args": "a quantized Llama", "lora_args": "a Llama with adapters",
}
# What a damaged pickle or zip archive may raise on its way through torch.load.
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, pickle.UnpicklingError,
           RecursionError, RuntimeError, TypeError, ValueError, struct.error, zipfile.BadZipFile)


def read(folder: str | Path) -> Opened:
    """The checkpoint in `folder`, its weights not yet read.

    Raises ValueError if the folder lacks a file, a file is damaged or holds anything but tensors, params.json describes a
    model that is not built here, or the tensors are not exactly those of the model.
    """
    folder = Path(folder)
    params = _text_params(native.read_json(folder / "params.json"), where=folder / "params.json")
    files = _files(folder)
    shards = [open_shard(file) for file in files]
    config = _config(params, shards, where=folder / "params.json")
    n_copies = _copies(params, shards)
    config = dataclasses.replace(config, n_kv_heads=config.n_kv_heads // n_copies)
    rows = expand(META, config.n_layers)
    needed = _shard_shapes(config, rows, n_shards=len(files), n_copies=n_copies,
                           is_cut_by_column=_is_cut_by_column(shards[0], config.dim))
    if config.is_tied and "output.weight" in shards[0]:
        needed["output.weight"] = tuple(shards[0]["output.weight"].shape)
    for file, shard in zip(files, shards):
        refuse_differences({name: tuple(tensor.shape) for name, tensor in shard.items()}, needed, where=str(file))
    dtypes = {tensor.dtype for shard in shards for tensor in shard.values()}
    return Opened(format="Meta", where=folder, files=tuple(files), config=config, kinds=kinds_of(dtypes),
                  dtype=common_dtype(dtypes),
                  tensors=partial(_tensors, config, files, n_copies),
                  read_tokenizer=partial(tokenizer_files.read_meta, folder, config))


def open_shard(file: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file, as views of the mapped file.

    Raises ValueError if the file is no whole archive, or if its pickle holds anything but a flat dict of tensors.
    """
    try:
        _refuse_forged_lengths(file)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except _DAMAGE as error:
        reason = str(error).split("\n")[0][:300]
        if isinstance(error, pickle.UnpicklingError):
            raise ValueError(f"a .pth file may hold tensors and nothing that runs; {file} asks for more ({reason}). "
                             "Do not open it by other means unless you trust its maker") from error
        raise ValueError(f"a checkpoint needs a whole .pth file at {file}; it cannot be read ({reason}). "
                         "Copy or download the checkpoint again") from error
    if not isinstance(content, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise ValueError(f"a .pth file of a Llama holds tensors by name; {file} holds something else. Download it again")
    size = file.stat().st_size
    for name, tensor in content.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.nbytes > size:
            raise ValueError(f"{name} in {file} is said to have {tensor.nbytes} bytes, and the file has {size}. "
                             "Download it again")
    return {name: tensor for name, tensor in content.items() if name not in _IGNORED}


def write(folder: str | Path, model: Llama, *, tokenizer: Any, n_shards: int = 1) -> None:
    """Writes `model` and `tokenizer` to `folder`, which must be new or empty, all or nothing; `n_shards` .pth files.

    With more shards than key/value heads each head is stored several times, as Meta does. What params.json cannot say by
    its own rules is added under `max_seq_len` and `rope_scaling_factor`. Raises ValueError if the shards cannot be of
    equal size, if the layers or the scaling are of a kind that params.json has no words for, or if the tokenizer has ids
    that the model does not know.
    """
    config = model.config
    tokenizer_files.refuse_what_ranks_cannot_say(tokenizer, config, where=str(folder))
    n_copies = _n_copies(config, n_shards)
    params = params_of(config)
    if n_copies > 1:
        params["n_kv_heads"] = n_shards
    is_old = "rope_theta" not in params
    rows = expand(META, config.n_layers)
    needed = _shard_shapes(config, rows, n_shards=n_shards, n_copies=n_copies, is_cut_by_column=is_old)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    with native.creating(folder) as unfinished:
        (unfinished / "params.json").write_text(json.dumps(params) + "\n", encoding="utf-8")
        tokenizer.save(unfinished / "tokenizer.model")
        for i in range(n_shards):
            shard = {rows[name].theirs: _part(weight, needed[rows[name].theirs], i, n_shards)
                     for name, weight in weights.items()}
            if config.is_tied and not is_old:
                shard["output.weight"] = shard["tok_embeddings.weight"]
            torch.save(shard, unfinished / f"consolidated.{i:02}.pth")


def params_of(config: LlamaConfig) -> dict[str, Any]:
    """The content of params.json for a config. Raises ValueError if it has no words for it."""
    width, multiplier = _width_rule(config)
    params: dict[str, Any] = {"dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads}
    is_old = config.rope_theta == 1e4 and config.rope_scaling is None
    if not is_old or config.n_kv_heads != config.n_heads:
        params["n_kv_heads"] = config.n_kv_heads
    params |= {"multiple_of": width} | ({} if multiplier is None else {"ffn_dim_multiplier": multiplier})
    params |= {"norm_eps": config.norm_eps, "vocab_size": -1 if is_old else config.vocab_size}
    if not is_old:
        params["rope_theta"] = config.rope_theta
    if config.rope_scaling is not None:
        params["use_scaled_rope"] = True
    if config.rope_scaling is not None and config.rope_scaling.factor != _scaling(params).factor:
        params["rope_scaling_factor"] = config.rope_scaling.factor
    if config.max_seq_len != _max_seq_len(params):
        params["max_seq_len"] = config.max_seq_len
    if set(config.layers) != {LayerSpec()} or _scaling(params) != config.rope_scaling:
        raise ValueError("params.json has no words for layers without RoPE or with chunks, nor for RoPE scaling with other "
                         f"constants than 1, 4 and 8192; got {config.rope_scaling} and "
                         f"{', '.join(sorted({str(spec) for spec in config.layers}))}. Write another format")
    return params


def config_from(params: Any, *, vocab_size: int, is_tied: bool, where: str | Path = "params.json") -> LlamaConfig:
    """Our config from the content of params.json and what only the weights tell.

    The factor of RoPE's scaling is not in the released files: 32 for the sizes of Llama 3.2, 8 for all others.
    Raises ValueError if a key is missing, or if the model is of a kind that is not built here.
    """
    try:
        width = family.ffn_dim(params["dim"], multiple_of=params["multiple_of"], multiplier=params.get("ffn_dim_multiplier"))
        n_kv_heads = params.get("n_kv_heads")
        return LlamaConfig(
            dim=params["dim"], n_heads=params["n_heads"], n_kv_heads=params["n_heads"] if n_kv_heads is None else n_kv_heads,
            ffn_dim=width, vocab_size=vocab_size, max_seq_len=_max_seq_len(params), norm_eps=params["norm_eps"],
            rope_theta=params.get("rope_theta", 1e4), rope_scaling=_scaling(params), layers=(LayerSpec(),) * params["n_layers"],
            is_tied=is_tied)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def _text_params(params: Any, *, where: Path) -> dict[str, Any]:
    """The keys of params.json, which some releases nest. Raises ValueError for a model that is not built here."""
    if isinstance(params, dict) and isinstance(params.get("model"), dict):
        params = params["model"]
    if not isinstance(params, dict):
        raise ValueError(f"{where} must hold a JSON object; got {type(params).__name__}. Download it again")
    if later := [f"{key}, as in {of}" for key, of in _LATER.items() if params.get(key)]:
        raise ValueError(f"{where} has {'; '.join(later)}, which is not built yet; this version has the text models "
                         "Llama 1 to 3.3. Load one of those")
    return params


def _config(params: Mapping[str, Any], shards: Sequence[Mapping[str, Tensor]], *, where: Path) -> LlamaConfig:
    """The config as stored: key/value heads that several shards repeat still count."""
    problems = [f"{key} is missing" for key in _NEEDED if key not in params]
    n_layers = params.get("n_layers")
    if type(n_layers) is not int or n_layers > len(shards[0]):
        problems.append(f"n_layers is {n_layers!r}, and a file holds {len(shards[0])} tensors in all")
    if "tok_embeddings.weight" not in shards[0] or any(s["tok_embeddings.weight"].ndim != 2 for s in shards[:1]):
        problems.append("the files hold no matrix called tok_embeddings.weight")
    if problems:
        raise ValueError(f"{where} describes no model of this version: {'; '.join(problems)}. Download it again")
    wq = shards[0].get("layers.0.attention.wq.weight")
    if wq is not None and wq.ndim == 2 and type(params["dim"]) is int and 0 < wq.shape[0] != params["dim"] / len(shards):
        raise ValueError(f"wq has {params['dim']} rows in all and {wq.shape[0]} in each file, so there must be "
                         f"{params['dim'] / wq.shape[0]:g} files consolidated.*.pth beside {where}; there are {len(shards)}. "
                         "Download the missing ones, or remove those of another model")
    is_by_column = _is_cut_by_column(shards[0], params["dim"])
    vocab_size = shards[0]["tok_embeddings.weight"].shape[0] * (1 if is_by_column else len(shards))
    if params.get("vocab_size", -1) not in (-1, vocab_size):
        raise ValueError(f"{where} says vocab_size {params['vocab_size']!r}, but the {len(shards)} files hold an embedding of "
                         f"{vocab_size} rows. Check that all files are there and of the same model")
    return config_from(params, vocab_size=vocab_size, is_tied=_is_tied(shards), where=where)


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("consolidated.*.pth"))
    if (folder / "consolidated.pth").is_file():
        files.append(folder / "consolidated.pth")
    if not files:
        raise ValueError(f"a checkpoint in Meta's layout has consolidated.00.pth and on; {folder} has none. Download it again")
    expected = [f"consolidated.{i:02}.pth" for i in range(len(files))]
    if [file.name for file in files] not in (expected, ["consolidated.pth"]):
        raise ValueError(f"the shards of a checkpoint are {', '.join(expected[:3])} and so on without a gap; {folder} has "
                         f"{', '.join(file.name for file in files[:12])}. "
                         "Download what is missing, or remove what does not belong")
    return files


def _refuse_forged_lengths(file: Path) -> None:
    """PyTorch writes its archives uncompressed, so no entry can be longer than the file; it allocates what an entry claims."""
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no zip archive, as torch.save has written since version 1.6")
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"its entry {entry.filename!r} is compressed, which PyTorch never does")
            if entry.header_offset + entry.file_size > file.stat().st_size:
                raise ValueError(f"its entry {entry.filename!r} is said to be {entry.file_size} bytes long")


def _is_cut_by_column(shard: Mapping[str, Tensor], dim: int) -> bool:
    """Llama 1 and 2 give each shard some columns of the embedding, Llama 3 some rows: whole rows are `dim` wide."""
    return shard["tok_embeddings.weight"].shape[1] != dim


def _is_tied(shards: Sequence[Mapping[str, Tensor]]) -> bool:
    """Whether the head is the embedding: params.json does not say, but the files hold it twice or not at all."""
    return all("output.weight" not in s for s in shards) or all(
        "output.weight" in s and _are_same(s["output.weight"], s["tok_embeddings.weight"]) for s in shards)


def _are_same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return all(torch.equal(x, y) for x, y in zip(a.split(1024), b.split(1024)))  # other weights differ in the first piece


def _copies(params: Mapping[str, Any], shards: Sequence[Mapping[str, Tensor]]) -> int:
    """How often each key/value head is stored: with more shards than heads, several neighbours hold the same one."""
    name = "layers.0.attention.wk.weight"
    if params.get("n_kv_heads") != len(shards) or any(name not in shard for shard in shards):
        return 1
    n = len(list(itertools.takewhile(lambda shard: _are_same(shard[name], shards[0][name]), shards)))
    return n if len(shards) % n == 0 else 1


def _n_copies(config: LlamaConfig, n_shards: int) -> int:
    n_copies = max(1, n_shards // config.n_kv_heads)
    if n_shards < 1 or config.n_heads % n_shards or (config.n_kv_heads * n_copies) % n_shards:
        raise ValueError("each shard holds the same number of heads, so n_shards must divide n_heads, and divide n_kv_heads "
                         f"or be a multiple of it; got n_shards={n_shards}, n_heads={config.n_heads} and "
                         f"n_kv_heads={config.n_kv_heads}. Choose another number")
    return n_copies


def _shard_shapes(
    config: LlamaConfig, rows: Mapping[str, Name], *, n_shards: int, n_copies: int, is_cut_by_column: bool
) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in one shard, under Meta's names."""
    parts = {}
    for ours, shape in shapes(config).items():
        axis = 1 if is_cut_by_column and ours == "tok_embeddings.weight" else rows[ours].axis
        n_parts = n_shards // n_copies if ours.endswith(("wk.weight", "wv.weight")) else n_shards
        if axis is not None and shape[axis] % n_parts:
            raise ValueError(f"all shards have the same size, so their number must divide axis {axis} of {ours}, {shape}; "
                             f"got {n_shards} shards. Choose another number")
        parts[rows[ours].theirs] = tuple(n // n_parts if i == axis else n for i, n in enumerate(shape))
    return parts


def _part(weight: Tensor, shape: tuple[int, ...], i: int, n_shards: int) -> Tensor:
    """Shard `i` of a tensor; a copy, as torch.save would write all that a view looks at."""
    for axis, (whole, part) in enumerate(zip(weight.shape, shape)):
        if whole != part:
            n_copies = n_shards * part // whole
            return weight.narrow(axis, i // n_copies * part, part).clone()
    return weight.clone()


def _tensors(
    config: LlamaConfig, files: Sequence[Path], n_copies: int, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Views of the one mapped file where nothing changes; otherwise memory of its own, one tensor at a time.

    What has been read of a mapped file counts as ours until it is closed, so the files are opened anew for each layer.
    """
    rows = expand(META, config.n_layers)
    names = list(shapes(config))
    first = open_shard(files[0])
    is_unchanged = len(files) == 1 and all(dtype in (None, tensor.dtype) for tensor in first.values())
    groups = [names] if is_unchanged else [
        list(group) for _, group in itertools.groupby(names, key=lambda name: re.match(r"layers\.\d+|.*", name)[0])]
    del first
    for group in groups:
        shards = [open_shard(file) for file in files]
        for ours in group:
            parts = [shard[rows[ours].theirs] for shard in shards]
            if n_copies > 1 and ours.endswith(("wk.weight", "wv.weight")):
                _refuse_unequal_copies(parts, n_copies, ours)
                parts = parts[::n_copies]
            yield ours, parts[0].contiguous() if is_unchanged else _joined(parts, shapes(config)[ours], dtype)
        del shards, parts


def _joined(parts: Sequence[Tensor], shape: tuple[int, ...], dtype: torch.dtype | None) -> Tensor:
    """The parts side by side along the one axis that differs; a tensor that every shard holds whole is the first one's."""
    whole = torch.empty(shape, dtype=dtype or parts[0].dtype)
    axis = next((i for i, (n, part) in enumerate(zip(shape, parts[0].shape)) if n != part), None)
    for place, part in zip([whole] if axis is None else whole.split(parts[0].shape[axis], dim=axis), parts):
        place.copy_(part)
    return whole


def _refuse_unequal_copies(parts: Sequence[Tensor], n_copies: int, name: str) -> None:
    for i, part in enumerate(parts):
        if not _are_same(part, parts[i - i % n_copies]):
            raise ValueError(f"with more shards than key/value heads, {n_copies} neighbours hold the same one; shards "
                             f"{i - i % n_copies} and {i} differ in {name}. Check that all files are of the same model")


def _scaling(params: Mapping[str, Any]) -> RopeScaling | None:
    if not params.get("use_scaled_rope"):
        return None
    sizes = [params.get(key) for key in ("dim", "n_layers", "n_heads")]
    base = next((c.rope_scaling for c in (release.config for release in family.FAMILY.values())
                 if c.rope_scaling is not None and [c.dim, c.n_layers, c.n_heads] == sizes),
                family.config("llama-3.1-8b").rope_scaling)
    factor = params.get("rope_scaling_factor")
    return base if factor is None else dataclasses.replace(base, factor=factor)


def _max_seq_len(params: Mapping[str, Any]) -> int:
    """The context of the generation that the other keys show."""
    if "max_seq_len" in params:
        return params["max_seq_len"]
    if params.get("use_scaled_rope"):
        like = "llama-3.1-8b"
    elif "rope_theta" in params:
        like = "llama-3-8b"
    else:
        like = "llama-1-7b" if params["norm_eps"] < 1e-5 else "llama-2-7b"
    return family.config(like).max_seq_len


def _width_rule(config: LlamaConfig) -> tuple[int, float | None]:
    """A `multiple_of` and a multiplier whose rule gives the feed-forward width: a published pair where one fits."""
    for multiple_of, multiplier in itertools.product((4096, 1024, 256, 32), (None, 1.3, 1.2, 1.5, 1.0)):
        if family.ffn_dim(config.dim, multiple_of=multiple_of, multiplier=multiplier) == config.ffn_dim:
            return multiple_of, multiplier
    return 1, (config.ffn_dim + 0.5) / int(2 * (4 * config.dim) / 3)
