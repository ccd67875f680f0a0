"""Checkpoints in Hugging Face's layout: config.json, safetensors in one file or several with an index, tokenizer files.

Most Llamas travel in this form. Reading is lazy and strict: the headers of all files are held against the config before
a weight is touched, and a key of the config that would change the arithmetic is refused, never skipped. The rows of wq
and wk change their order on the way (`names.py`), the values never do.

Notebook 18. Llama 1 to 3.3. Source: transformers, models/llama/configuration_llama.py and modeling_rope_utils.py.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch import Tensor

from llama_from_scratch.checkpoint import native, safetensors_file, tokenizer_files
from llama_from_scratch.checkpoint.names import HUGGING_FACE, Name, expand, refuse_differences, shapes, to_halves, to_pairs
from llama_from_scratch.checkpoint.opened import Opened, common_dtype, kinds_of
from llama_from_scratch.checkpoint.safetensors_file import Entry
from llama_from_scratch.config import LayerSpec, LlamaConfig, RopeScaling
from llama_from_scratch.model.transformer import Llama

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

_SIZES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "intermediate_size": "ffn_dim", "vocab_size": "vocab_size"}
# Read by `config_from`, which knows what they mean.
_READ = {*_SIZES, "model_type", "architectures", "num_hidden_layers", "num_key_value_heads", "head_dim",
         "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings"}
# What a plain Llama computes. Another value is another model.
_MUST_BE = {"hidden_act": ("silu", "swish"), "attention_bias": (False,), "mlp_bias": (False,), "attention_dropout": (0,),
            "partial_rotary_factor": (1,), "sliding_window": (None,), "rope_interleaved": (False,), "layer_types": (None,)}
# What does not change the logits: about training, generation, files and the program that wrote them.
_IGNORED = {
    "_name_or_path", "_attn_implementation", "_flash_attn_2_enabled", "_commit_hash", "attn_implementation",
    "transformers_version", "torch_dtype", "dtype", "use_cache", "pretraining_tp", "initializer_range", "bos_token_id",
    "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id", "max_sequence_length",
    "max_length", "model_max_length", "is_llama_config", "is_decoder", "is_encoder_decoder", "add_cross_attention",
    "tie_encoder_decoder", "output_attentions", "output_hidden_states", "return_dict", "return_dict_in_generate",
    "output_scores", "use_return_dict", "chunk_size_feed_forward", "cross_attention_hidden_size", "finetuning_task",
    "id2label", "label2id", "num_labels", "problem_type", "prefix", "pruned_heads", "task_specific_params",
    "tokenizer_class", "torchscript", "use_bfloat16", "tf_legacy_loss", "gradient_checkpointing", "neftune_noise_alpha",
    "unsloth_version", "unsloth_fixed", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens",
}
_LATER = {"mllama": "the vision encoder and cross-attention of Llama 3.2 Vision",
          "mllama_text_model": "the cross-attention layers of Llama 3.2 Vision",
          "llama4": "the experts and the vision of Llama 4", "llama4_text": "the experts of Llama 4"}


def read(folder: str | Path) -> Opened:
    """The checkpoint in `folder`, its weights not yet read.

    Raises ValueError if the folder lacks a file, a file is damaged, the config describes another arithmetic than ours, or
    the tensors are not exactly those of the config.
    """
    folder = Path(folder)
    about = native.read_json(folder / "config.json")
    found = {name: entry for name, entry in _entries(folder).items() if not name.endswith("rotary_emb.inv_freq")}
    config = config_from(about, where=folder / "config.json", max_layers=len(found))
    rows = expand(HUGGING_FACE, config.n_layers)
    needed = {rows[name].theirs: shape for name, shape in shapes(config).items()}
    embedding, head = rows["tok_embeddings.weight"].theirs, rows["output.weight"].theirs
    if config.is_tied and head in found:
        if embedding in found and not safetensors_file.are_same(found[embedding], found[head]):
            raise ValueError(f"tie_word_embeddings makes the head the embedding itself, but {folder} holds a {head} with other "
                             f"values than {embedding}. Set tie_word_embeddings to false in config.json, or remove {head}")
        del found[head]
    dtypes = {entry.dtype for entry in found.values()}
    dtype = common_dtype(dtypes)
    refuse_differences({name: entry.shape for name, entry in found.items()}, needed, where=str(folder))
    return Opened(format="Hugging Face", where=folder, files=tuple(sorted({entry.file for entry in found.values()})),
                  config=config, kinds=kinds_of(dtypes), dtype=dtype, end_ids=_end_ids(folder, about, config),
                  tensors=partial(_tensors, config, {ours: (row, found[row.theirs]) for ours, row in rows.items()
                                                     if row.theirs in needed}),
                  read_tokenizer=partial(tokenizer_files.read_hugging_face, folder, config))


def config_from(about: Any, *, where: str | Path = "config.json", max_layers: int | None = None) -> LlamaConfig:
    """Our config from the content of a config.json, in the words of transformers 4 or 5.

    A key that is absent has the default of their `LlamaConfig`. `max_layers`: refuses more, as a forged number would
    allocate. Raises ValueError naming each key that is missing, unknown or asks for another arithmetic.
    """
    if not isinstance(about, Mapping):
        raise ValueError(f"{where} must hold a JSON object; got {type(about).__name__}. Download it again")
    kind = about.get("model_type")
    if kind in _LATER:
        raise ValueError(f"{where} is of a {kind!r} model, which needs {_LATER[kind]}; this version has the text models "
                         "Llama 1 to 3.3. Load one of those")
    if kind != "llama":
        raise ValueError(f"{where} must say \"model_type\": \"llama\"; got {kind!r}. Only Llamas can be loaded")
    if (made_for := about.get("architectures")) not in (None, ["LlamaForCausalLM"]):
        raise ValueError(f"{where} must be of a LlamaForCausalLM, which predicts the next token; got {made_for}. "
                         "Load a language model")
    problems = [f"{key} is missing" for key in (*_SIZES, "num_hidden_layers") if key not in about]
    problems += [f"{key} is {about[key]!r}, and only {allowed[0]!r} can be computed"
                 for key, allowed in _MUST_BE.items() if key in about and about[key] not in allowed]
    if about.get("quantization_config") is not None:
        problems.append("quantization_config says that the weights are quantized, which cannot be read")
    problems += [f"{key} is not a key that is known" for key in about
                 if key not in {*_READ, *_MUST_BE, *_IGNORED, "quantization_config"}]
    n_layers = about.get("num_hidden_layers")
    if type(n_layers) is not int or (max_layers is not None and n_layers > max_layers):
        problems.append(f"num_hidden_layers is {n_layers!r}, and the files hold {max_layers} tensors in all")
    if problems:
        raise ValueError(f"{where} describes no model of this version: {'; '.join(problems[:8])}. "
                         "Remove a key only if you are sure that it does not change what the model computes")
    heads = about["num_attention_heads"]
    theta, scaling = _rope(about, where=where)
    try:
        config = LlamaConfig(
            **{ours: about[theirs] for theirs, ours in _SIZES.items()},
            n_kv_heads=_or(about.get("num_key_value_heads"), heads), layers=(LayerSpec(),) * n_layers,
            max_seq_len=about.get("max_position_embeddings", 2048), norm_eps=about.get("rms_norm_eps", 1e-6),
            rope_theta=theta, rope_scaling=scaling, is_tied=about.get("tie_word_embeddings", False))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error
    if not isinstance(config.is_tied, bool):
        raise ValueError(f"{where} must say true or false for tie_word_embeddings; got {config.is_tied!r}")
    if _or(about.get("head_dim"), config.head_dim) != config.head_dim:
        raise ValueError(f"head_dim must be hidden_size / num_attention_heads = {config.head_dim} in every Llama up to 3.3; "
                         f"{where} has {about['head_dim']!r}. Models of other proportions cannot be loaded")
    return config


def _rope(about: Mapping[str, Any], *, where: str | Path) -> tuple[Any, RopeScaling | None]:
    """theta, not yet checked, and scaling: transformers 5 has both in "rope_parameters", 4 in two keys."""
    old, new = _or(about.get("rope_scaling"), {}), _or(about.get("rope_parameters"), {})
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        raise ValueError(f"rope_scaling and rope_parameters must be JSON objects or null; {where} has {old!r} and {new!r}")
    rope = {**new, **old}
    kinds = {str(part[key]) for part in (old, new) for key in ("rope_type", "type") if key in part} or {"default"}
    thetas = [part["rope_theta"] for part in (about, old, new) if "rope_theta" in part] or [1e4]
    if len(kinds) > 1 or any(theta != thetas[0] for theta in thetas) or any(old[k] != new[k] for k in old.keys() & new.keys()):
        raise ValueError(f"{where} says several things about RoPE: {old} and {new}, theta {thetas}. Keep one of them")
    theta, kind = thetas[0], kinds.pop()
    keys = {"factor": "factor", "low_freq_factor": "low_freq_factor", "high_freq_factor": "high_freq_factor",
            "original_max_position_embeddings": "original_max_seq_len"}
    given = rope.keys() - {"rope_type", "type", "rope_theta"}
    if kind == "default":
        if given:
            raise ValueError(f"unscaled RoPE has theta and nothing else; {where} also has {', '.join(sorted(given))}")
        return theta, None
    if kind != "llama3":
        raise ValueError(f"RoPE is scaled as in Llama 3.1 (\"llama3\") or not at all (\"default\"); {where} asks for {kind!r}, "
                         "which is not built")
    if given != keys.keys():
        raise ValueError(f"\"llama3\" scaling of RoPE has just {', '.join(keys)}; {where} has {', '.join(sorted(given))}")
    try:
        return theta, RopeScaling(**{ours: rope[theirs] for theirs, ours in keys.items()})
    except ValueError as error:
        raise ValueError(f"{where} describes no model of this version: {error}") from error


def config_to(config: LlamaConfig, *, dtype: torch.dtype) -> dict[str, Any]:
    """The content of a config.json, in the words that transformers 4 and 5 both read.

    Raises ValueError for layers that it has no words for.
    """
    if set(config.layers) != {LayerSpec()}:
        raise ValueError("a config.json of a Llama has layers that all turn their heads and see everything before them; "
                         f"got {sorted({str(spec) for spec in config.layers})}")
    about = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False,
        "hidden_act": "silu", "hidden_size": config.dim, "intermediate_size": config.ffn_dim, "head_dim": config.head_dim,
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads, "num_key_value_heads": config.n_kv_heads,
        "vocab_size": config.vocab_size, "max_position_embeddings": config.max_seq_len, "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta, "rope_scaling": None, "tie_word_embeddings": config.is_tied,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    if (scaling := config.rope_scaling) is not None:
        about["rope_scaling"] = {
            "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor, "original_max_position_embeddings": scaling.original_max_seq_len}
    return about


def write(folder: str | Path, model: Llama, *, tokenizer: Any, shard_bytes: int | None = None) -> None:
    """Writes `model` and `tokenizer` to `folder`, which must be new or empty, all or nothing.

    `shard_bytes`: starts another file before one grows larger than this. Tensors keep their dtype; a tied head is stored
    once, in the embedding. Raises ValueError if the tokenizer has ids that the model does not know.
    """
    tokenizer_files.refuse_other_vocabulary(tokenizer, model.config, where=str(folder))
    rows = expand(HUGGING_FACE, model.config.n_layers)
    tensors = {rows[ours].theirs: (rows[ours], weight.detach()) for ours, weight in model.named_parameters()}
    dtype = model.tok_embeddings.weight.dtype
    with native.creating(folder) as unfinished:
        _write_json(unfinished / "config.json", config_to(model.config, dtype=dtype) | _framing_ids(tokenizer))
        ends = sorted(tokenizer_files.ends(tokenizer))
        _write_json(unfinished / "generation_config.json", _framing_ids(tokenizer) | {
            "eos_token_id": ends if len(ends) > 1 else ends[0], "do_sample": True, "temperature": 0.6, "top_p": 0.9})
        tokenizer_files.write_hugging_face(unfinished, tokenizer)
        shards = _shards({name: weight.nbytes for name, (_, weight) in tensors.items()}, shard_bytes)
        files = [SINGLE] if len(shards) == 1 else [
            f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
        for file, names in zip(files, shards):
            native.write_tensors(unfinished / file, {name: _theirs(*tensors[name], model.config) for name in names})
        if len(files) > 1:
            _write_json(unfinished / INDEX, {
                "metadata": {"total_size": sum(weight.nbytes for _, weight in tensors.values())},
                "weight_map": {name: file for file, names in zip(files, shards) for name in names}})


def _entries(folder: Path) -> dict[str, Entry]:
    """The tensors of all shards by name, each from the one file that the index says it is in."""
    has_single, has_index = (folder / SINGLE).exists(), (folder / INDEX).exists()
    if has_single and has_index:
        raise ValueError(f"weights lie in {SINGLE} or in the shards of {INDEX}; {folder} has both. "
                         "Remove the one that is older")
    if not has_single and not has_index:
        raise ValueError(f"a checkpoint in Hugging Face's layout has {SINGLE} or {INDEX}; {folder} has neither"
                         + (", but weights as pickles (.bin), which are not read: take its safetensors version"
                            if list(folder.glob("pytorch_model*.bin")) else ". Download it again"))
    if has_single:
        return safetensors_file.entries(folder / SINGLE)
    index = native.read_json(folder / INDEX)
    weight_map = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(weight_map, Mapping) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise ValueError(f"{folder / INDEX} must map each tensor to its file in \"weight_map\"; it does not. Download it again")
    files = sorted(set(weight_map.values()))
    if outside := [f for f in files if f in ("", ".", "..") or not f == PurePosixPath(f).name == PureWindowsPath(f).name]:
        raise ValueError(f"the shards of {folder / INDEX} must lie beside it; it names {outside[0]!r}, which is elsewhere. "
                         "Do not trust this checkpoint")
    if missing := [f for f in files if not (folder / f).is_file()]:
        raise ValueError(f"{folder / INDEX} names files that are not there: {', '.join(missing[:4])}. Download them")
    shards = {f: safetensors_file.entries(folder / f) for f in files}
    if extra := sorted(p.name for p in folder.iterdir()
                       if re.fullmatch(r"model-\d+-of-\d+\.safetensors", p.name) and p.name not in shards):
        raise ValueError(f"{folder / INDEX} does not name {', '.join(extra[:4])}, which may be of another checkpoint. "
                         "Remove what does not belong, or download the index again")
    problems = [f"{name} is not in {f}" for name, f in weight_map.items() if name not in shards[f]]
    for f, found in shards.items():
        for name in found:
            if name not in weight_map:
                problems.append(f"{name} is in {f} and not in the index")
            elif weight_map[name] != f:
                problems.append(f"{name} is in {f} and in {weight_map[name]}")
    if problems:
        raise ValueError(f"the shards of {folder / INDEX} must hold just what it says; {'; '.join(problems[:8])}. "
                         "Download the checkpoint again")
    return {name: entry for found in shards.values() for name, entry in found.items()}


def _end_ids(folder: Path, about: Mapping[str, Any], config: LlamaConfig) -> frozenset[int]:
    """What generation_config.json or else config.json has for eos_token_id: an id, several, or nothing."""
    file = folder / "generation_config.json"
    generation = native.read_json(file) if file.is_file() else {}
    if not isinstance(generation, Mapping):
        raise ValueError(f"{file} must hold a JSON object; got {type(generation).__name__}. Download it again")
    for said, where in ((generation.get("eos_token_id"), file), (about.get("eos_token_id"), folder / "config.json")):
        ids = said if isinstance(said, list) else [] if said is None else [said]
        if wrong := [i for i in ids if type(i) is not int or not 0 <= i < config.vocab_size]:
            raise ValueError(f"eos_token_id is an id below vocab_size={config.vocab_size}, or a list of them; {where} has "
                             f"{wrong[0]!r:.80}. Correct it, or download the file again")
        if ids:
            return frozenset(ids)
    return frozenset()


def _tensors(
    config: LlamaConfig, sources: Mapping[str, tuple[Name, Entry]], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Views of the mapped files where nothing changes; where dtype or rows do, memory of its own, one tensor at a time.

    What has been read of a mapped file counts as ours until it is closed, so what is copied is mapped for itself.
    """
    whole = {file: safetensors_file.mapped(file) for file in {entry.file for _, entry in sources.values()}}
    for ours in shapes(config):
        row, entry = sources[ours]
        if row.heads is None and dtype in (None, entry.dtype):
            yield ours, safetensors_file.view(entry, whole[entry.file])
            continue
        theirs = safetensors_file.view(entry, safetensors_file.mapped(entry.file))
        own = torch.empty(entry.shape, dtype=dtype or entry.dtype)
        if row.heads is None:
            own.copy_(theirs)
        else:
            to_pairs(theirs, getattr(config, row.heads), out=own)
        yield ours, own


def _theirs(row: Name, weight: Tensor, config: LlamaConfig) -> Tensor:
    return weight if row.heads is None else to_halves(weight, getattr(config, row.heads))


def _shards(sizes: Mapping[str, int], shard_bytes: int | None) -> list[list[str]]:
    """Names in order, cut before a file would grow beyond `shard_bytes`; one tensor may be larger than that."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, n_bytes in sizes.items():
        if room is not None and n_bytes > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room = None if room is None else room - n_bytes
    return shards


def _framing_ids(tokenizer: Any) -> dict[str, int]:
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
