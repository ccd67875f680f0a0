"""Adapters in the files of PEFT, the library whose layout most published adapters have.

An adapter is a folder without the model that it belongs to. PEFT uses the names of Hugging Face's
modules. There RoPE turns channels r and r + K/2 together, so the rows of B are reordered for
queries and keys, like the rows of the weights that B A is added to. A setting that changes the
arithmetic and is not built here is refused by its name.

adapter_config.json          PEFT's settings: {"peft_type": "LORA", "r": rank, "lora_alpha": ...}
adapter_model.safetensors    A as base_model.model.NAME.lora_A.weight (rank, n_in), and B as
                             base_model.model.NAME.lora_B.weight (n_out, rank)
base.json                    our own file: {"format": ..., "digest": of the model's weights};
                             other programs ignore it, and do not write it
checksums.json               as in a checkpoint

Notebook 51. Source: the documentation of PEFT, "PEFT checkpoint format" and "LoraConfig".
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.checkpoint import checksums
from llama_from_scratch.checkpoint.folders import find, replacing_folder
from llama_from_scratch.checkpoint.json_file import read_json, write_json
from llama_from_scratch.checkpoint.names import HUGGING_FACE
from llama_from_scratch.checkpoint.safetensors_file import entries, read_tensor, write_tensors
from llama_from_scratch.checkpoint.strict import listed
from llama_from_scratch.checkpoint.translation import to_halves, to_pairs, translation
from llama_from_scratch.checkpoint.vision_names import published_name
from llama_from_scratch.config import LlamaConfig, VisionLlamaConfig, record
from llama_from_scratch.foreign import is_there, naming, shown
from llama_from_scratch.model.adapted import AdaptedLinear, LowRank, adapters
from llama_from_scratch.model.costs import param_shapes
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.tune.bases import linear_layers

FORMAT = "llama_from_scratch adapter 1"
CONFIG, TENSORS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
FILES = (CONFIG, TENSORS, BASE, checksums.NAME)
TRAINING_FILES = ("training.json", "optimizer.safetensors")
"""More files of a run that trains adapters; `adapter_runs` writes and reads them."""
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_READ = ("peft_type", "task_type", "r", "lora_alpha", "use_rslora", "bias", "target_modules",
         "exclude_modules", "layers_to_transform", "init_lora_weights")
# Settings without a part in the arithmetic of a finished adapter: dropout acts in training only.
_NO_PART = ("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
            "megatron_core", "qalora_group_size", "layers_pattern", "lora_dropout")
# Ways to begin that leave the weights of the base as they are. The others change them.
_BEGINNINGS = (True, False, None, "gaussian", "orthogonal")


@record
class Slot:
    """A linear layer in Hugging Face's model: its name there, and its sizes.

    `n_heads`: how many heads have their rows in halves there; None if rows keep their order.
    """

    theirs: str
    n_in: int
    n_out: int
    n_heads: int | None


@record
class SavedAdapters:
    """The adapters in a folder: their settings, and A and B by the name of the layer in our model.

    `digest`: of the model that they were trained on; None if the files do not say it.
    """

    where: Path
    how: LowRank
    weights: dict[str, tuple[Float[Tensor, "rank F"], Float[Tensor, "D rank"]]]
    digest: str | None


def slots(config: LlamaConfig) -> dict[str, Slot]:
    """Returns the linear layers of a config's model that PEFT has a name for, by our name."""
    shapes = dict(param_shapes(config))
    shapes["output.weight"] = config.vocab_size, config.dim  # a tied head has its name there, too
    pieces = translation(HUGGING_FACE, config, params=shapes).by_ours
    found = {}
    for name in linear_layers(unwritten(config)):
        piece, *others = pieces[f"{name}.weight"]
        # Only a layer of its own has a name there; rows of a joined one are a part of another.
        if not others and piece.along is None and not piece.is_transposed:
            n_out, n_in = shapes[f"{name}.weight"]
            found[name] = Slot(theirs=piece.theirs.removesuffix(".weight"), n_in=n_in,
                                n_out=n_out, n_heads=piece.n_heads)
    return found


# --- writing --------------------------------------------------------------------------------------


def write(folder: Path, model: Llama, *, digest: str, base: str | None = None) -> None:
    """Writes the adapters of a model into an existing folder, without checksums.

    `digest`: of the weights without adapters (`bases.digest`). `base`: the name or path of the
    model that they belong to, for other programs.
    Raises ValueError for a model without adapters, and for one of a layer that PEFT has no name
    for.
    """
    adapted = described(model)
    known = slots(model.config)
    how = next(iter(adapted.values())).how
    alpha = int(how.alpha) if how.alpha == int(how.alpha) else how.alpha
    write_json(folder / CONFIG, {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": base, "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
        "layers_pattern": None, "layers_to_transform": None, "lora_alpha": alpha,
        "lora_dropout": 0.0, "modules_to_save": None, "peft_type": "LORA", "r": how.rank,
        "rank_pattern": {}, "revision": None,
        "target_modules": _targets([known[name].theirs for name in adapted], known),
        "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": how.is_rank_stabilized})
    tensors = {}
    for name, layer in adapted.items():
        place, w_b = known[name], layer.w_b.detach()
        tensors[f"{_PREFIX}{place.theirs}{_A}"] = layer.w_a.detach()
        tensors[f"{_PREFIX}{place.theirs}{_B}"] = (
            w_b if place.n_heads is None else to_halves(w_b, place.n_heads))
    write_tensors(folder / TENSORS, tensors)
    write_json(folder / BASE, {"format": FORMAT, "digest": digest})


def described(model: Llama) -> dict[str, AdaptedLinear]:
    """Returns the adapters of a model. Raises ValueError if the files could not describe them."""
    adapted = adapters(model)
    if not adapted:
        raise ValueError("only a model with adapters has some to save; this one has none. Add "
                         "them: lora.add(model, rank=8)")
    if unknown := adapted.keys() - slots(model.config).keys():
        raise ValueError("PEFT's files name the layers of the published models; there is no name "
                         f"for {listed(sorted(unknown))}. Save model.state_dict() yourself")
    if len(kinds := {layer.how for layer in adapted.values()}) > 1:
        raise ValueError("the adapters in one folder have the same rank and alpha; got "
                         f"{listed(sorted(map(str, kinds)))}. Add them in one call")
    return adapted


def replacing(folder: str | Path) -> AbstractContextManager[Path]:
    """A context that yields an empty folder, which replaces `folder` at the end (`folders`).

    Raises ValueError if `folder` holds anything except an adapter.
    """
    return replacing_folder(folder, refuse=refuse_foreign)


def refuse_foreign(folder: Path) -> None:
    """Raises ValueError if an existing folder holds anything except an adapter, or a run of one."""
    foreign = sorted(entry.name for entry in folder.iterdir()
                     if entry.name not in (*FILES, *TRAINING_FILES)) if folder.exists() else []
    if foreign:
        raise ValueError("saving replaces the whole folder, so it must hold only an adapter; "
                         f"{folder} also holds {', '.join(foreign[:4])}. Choose an empty or a new "
                         "folder")


def _targets(adapted: list[str], known: Mapping[str, Slot]) -> list[str]:
    """Returns PEFT's target_modules: last parts of names if these mean the same layers.

    Otherwise they are whole names.
    """
    short = sorted({theirs.rpartition(".")[2] for theirs in adapted})
    meant = {place.theirs for place in known.values() if _is_meant(place.theirs, short)}
    return short if meant == set(adapted) else sorted(adapted)


# --- reading --------------------------------------------------------------------------------------


def read(folder: str | Path, config: LlamaConfig) -> SavedAdapters:
    """Returns the adapters in a folder for a model with this config.

    Raises ValueError if the folder holds none, if a file is damaged, if a setting asks for
    arithmetic that is not built here, or if the tensors do not fit the config or the settings.
    """
    found = find(folder, file=CONFIG)
    if found is None:
        state = "has no adapter_config.json" if is_there(folder) else "does not exist"
        raise ValueError(f"an adapter is a folder with {CONFIG} and {TENSORS}; {folder} {state}. "
                         "Give the folder that lora.save or PEFT's save_pretrained wrote")
    with naming(found):
        known = checksums.read(found)
        for file in (CONFIG, TENSORS, BASE):
            if file in (known or {}):
                checksums.refuse_damage(found / file, known)
        about = read_json(found / CONFIG)
        how = _how(about, where=found / CONFIG)
        return SavedAdapters(where=found, how=how, digest=_digest(found),
                             weights=_weights(found, about, how, config))


def _how(about: Any, *, where: Path) -> LowRank:
    """Returns the settings. Raises ValueError for one that is not built here, by its name."""
    if not isinstance(about, Mapping):
        raise ValueError(f"an adapter's settings are a JSON object; {where} holds {shown(about)}. "
                         "Copy or save the adapter again")
    needed = {"peft_type": ("LORA",), "task_type": ("CAUSAL_LM", None), "bias": ("none", None),
              "use_rslora": (True, False, None), "init_lora_weights": _BEGINNINGS}
    wrong = [f"{name}={shown(about.get(name))}" for name, values in needed.items()
             if not any(about.get(name) is value or (isinstance(value, str)
                                                     and about.get(name) == value)
                        for value in values)]
    wrong += [f"{name}={shown(value)}" for name, value in about.items()
              if name not in (*_READ, *_NO_PART) and value not in (None, False, {}, [], ())]
    if wrong:
        raise ValueError("an adapter is read if it adds scale B A to linear layers and changes "
                         f"nothing else; {where} has {listed(wrong)}, which is not built here. "
                         "Merge this adapter with PEFT, save the merged model, and load that")
    try:
        return LowRank(rank=about.get("r"), alpha=about.get("lora_alpha"),
                       is_rank_stabilized=bool(about.get("use_rslora")))
    except ValueError as error:
        raise ValueError(f"r and lora_alpha must be numbers above 0; {where} is damaged: {error}. "
                         "Copy or save the adapter again") from error


def _weights(
    folder: Path, about: Mapping[str, Any], how: LowRank, config: LlamaConfig
) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns A and B by the name of the layer in our model, checked before any is read."""
    if not is_there(folder / TENSORS) and is_there(folder / "adapter_model.bin"):
        raise ValueError(f"an adapter is read from {TENSORS}; {folder} has adapter_model.bin, a "
                         "pickle, which can run code when it is read. Save it again with PEFT and "
                         "safe_serialization=True")
    found, known = entries(folder / TENSORS), slots(config)
    ours = {place.theirs: name for name, place in known.items()}
    normed = {_published(name, config): entry for name, entry in found.items()}
    if len(normed) < len(found):
        raise ValueError(f"each tensor has one name; in {folder / TENSORS} two spellings of one "
                         "name occur. Save the adapter again")
    wanted: dict[str, tuple[int, int]] = {}
    for theirs in _expected(about, known, found=_named(normed, ours)):
        place = known[ours[theirs]]
        wanted[f"{_PREFIX}{theirs}{_A}"] = how.rank, place.n_in
        wanted[f"{_PREFIX}{theirs}{_B}"] = place.n_out, how.rank
    problems = [f"{name} is missing" for name in wanted if name not in normed]
    problems += [f"{shown(name)} is not of an adapter of this model" for name in normed
                 if name not in wanted]
    problems += [f"{name} is {entry.dtype} {entry.shape}, not floating-point {wanted[name]}"
                 for name, entry in normed.items()
                 if name in wanted and (entry.shape != wanted[name] or entry.dtype not in _FLOATS)]
    if problems or not wanted:
        raise ValueError(f"the tensors in {folder / TENSORS} must be A and B of the layers that "
                         f"{CONFIG} names, of the sizes of this model; "
                         f"{listed(problems) or 'there are none'}. Load the model that the "
                         "adapter was trained on, or copy the adapter again")
    read = {name: read_tensor(entry) for name, entry in normed.items()}
    if bad := [name for name, tensor in read.items() if not tensor.isfinite().all()]:
        raise ValueError(f"an adapter's numbers are finite; {listed(bad)} in {folder / TENSORS} "
                         "are not. Copy the adapter again, or check the run that made it")
    weights = {}
    for name, place in known.items():
        if f"{_PREFIX}{place.theirs}{_A}" in read:
            w_b = read[f"{_PREFIX}{place.theirs}{_B}"]
            weights[name] = (read[f"{_PREFIX}{place.theirs}{_A}"],
                             w_b if place.n_heads is None else to_pairs(w_b, place.n_heads))
    return weights


def _named(tensors: Mapping[str, object], ours: Mapping[str, str]) -> list[str]:
    """Returns the layers of this model that tensors are named after, in the model's order."""
    return [theirs for theirs in ours
            if any(f"{_PREFIX}{theirs}{end}" in tensors for end in (_A, _B))]


def _expected(
    about: Mapping[str, Any], known: Mapping[str, Slot], *, found: list[str]
) -> list[str]:
    """Returns the layers that the settings name.

    A list of names, or parts of names, is obeyed. For a pattern it is the layers in the file.
    """
    targets, left_out = about.get("target_modules"), about.get("exclude_modules") or []
    layers = about.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers
    are_names = all(isinstance(each, list) and all(isinstance(name, str) for name in each)
                    for each in (targets, left_out))
    if not are_names or not (layers is None or isinstance(layers, list)):
        return found
    return [place.theirs for place in known.values()
            if _is_meant(place.theirs, [_bare(name) for name in targets])
            and not _is_meant(place.theirs, [_bare(name) for name in left_out])
            and (layers is None or any(f".layers.{i}." in f".{place.theirs}" for i in layers))]


def _bare(name: str) -> str:
    return name.removeprefix(_PREFIX)


def _is_meant(theirs: str, targets: list[str]) -> bool:
    """Returns whether PEFT's list of targets means a layer: by its name, or the end of it."""
    return any(theirs == target or theirs.endswith(f".{target}") for target in targets)


def _published(name: str, config: LlamaConfig) -> str:
    """Returns the name of a tensor with the layer's published name."""
    if not isinstance(config, VisionLlamaConfig) or not name.startswith(_PREFIX):
        return name
    return _PREFIX + published_name(name.removeprefix(_PREFIX))


def _digest(folder: Path) -> str | None:
    """Returns the digest of the base, None if another program wrote the adapter."""
    if not is_there(folder / BASE):
        return None
    about = read_json(folder / BASE)
    digest = about.get("digest") if isinstance(about, Mapping) else None
    if not isinstance(digest, str) or about.get("format") != FORMAT or (
            re.fullmatch("[0-9a-f]{64}", digest) is None):
        raise ValueError(f"{BASE} has the format {FORMAT!r} and the 64 digits of a digest; "
                         f"{folder / BASE} holds {shown(about)}. Copy or save the adapter again")
    return digest
