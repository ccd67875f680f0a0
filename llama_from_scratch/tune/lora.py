"""Low-rank adapters for any finished Llama: add, train, merge, take out, save, load.

An adapter next to each matrix of the blocks learns, and everything else stays as it is. With 1 % of
the parameters there is 1 % of the optimizer's memory and a file of 1 %, and one base serves many
tasks. A step takes about as long as in full training, because gradients still pass through every
layer. Where the adapters are trained is `adapter_runs`, and their files are `peft_files`.

Adapters go next to the seven matrices of each block of text: wq, wk, wv, wo, w_gate, w_up, w_down.
Blocks of cross-attention have them too, and in a layer with experts the shared expert. Routed
experts, routers, embeddings and norms have none. The head and the encoder of images get adapters
only if they are asked for.

Notebook 51. Source: Hu et al., arXiv:2106.09685.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from llama_from_scratch.checkpoint import checksums
from llama_from_scratch.config import nearest
from llama_from_scratch.config.record import is_int
from llama_from_scratch.foreign import shown
from llama_from_scratch.model.adapted import AdaptedLinear, LowRank, adapters
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.tune import peft_files
from llama_from_scratch.tune.adapter_runs import parts as parts
from llama_from_scratch.tune.adapter_runs import weights as weights
from llama_from_scratch.tune.bases import digest, linear_layers

MATRICES = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")
"""The matrices of a block."""
_HEAD, _EYES = "output", "vision."


def add(
    model: Llama, *, rank: int, alpha: float = 16.0, targets: Sequence[str] = MATRICES,
    is_tied_head: bool = False, is_rank_stabilized: bool = False, seed: int = 0,
) -> dict[str, AdaptedLinear]:
    """Puts adapters next to linear layers of `model`, in place, and returns them by name.

    The model computes the same as before, bit for bit, until they are trained. All other weights
    are frozen. `alpha`, `is_rank_stabilized`: see `LowRank`. `targets`: names of layers, or the
    ends of names, such as "wq" or "layers.0.attention.wq". "output" is the head. What begins with
    "vision." means layers of the encoder: "vision.wq" is every wq there. `is_tied_head`: the head's
    matrix is also the embedding, and the head gets an adapter all the same; the embedding is left
    as it is, so such an adapter cannot be merged. `seed`: of the numbers in A.
    Raises ValueError, and changes nothing, for a rank that is above the sizes of a layer, for
    targets that the model lacks, and for a model that has adapters already or is divided among
    ranks.
    """
    how = LowRank(rank=rank, alpha=alpha, is_rank_stabilized=is_rank_stabilized)
    _refuse_what_cannot_be_adapted(model)
    if not is_int(seed) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 on; got {shown(seed)}")
    chosen = _chosen(model, targets, is_tied_head=is_tied_head)
    limit, name = min((min(layer.in_features, layer.out_features), name)
                      for name, layer in chosen.items())
    if rank > limit:
        raise ValueError("the rank of an adapter is at most the smaller size of its layer; got "
                         f"rank={rank} for {name}, of {chosen[name].in_features} inputs and "
                         f"{chosen[name].out_features} outputs. Choose at most {limit}")
    generator = torch.Generator().manual_seed(seed)
    made = {name: AdaptedLinear(layer, how) for name, layer in chosen.items()}
    for adapted in made.values():
        adapted.init_weights(generator=generator)
    _put(model, made)
    return made


def remove(model: Llama) -> None:
    """Takes the adapters out, in place: the model is its base again, bit for bit.

    All of its parameters are trainable afterward, as in a new model.
    Raises ValueError for a model without adapters.
    """
    _replace(model, {name: each.base for name, each in _those_of(model).items()})
    model.requires_grad_(True)


def merge(model: Llama) -> None:
    """Adds the adapters to the weights, in place: the model is plain again and computes the same.

    It can be saved, fused, quantized and divided among ranks like any other. Sums are computed in
    fp32 or wider, and each is rounded once to the dtype of its weight; in bfloat16 this rounding
    can be larger than the adapter. All parameters are trainable afterward. The base is not kept:
    save the adapters first, or use `merged`.
    Raises ValueError, and changes nothing, for a model without adapters, with a quantized base or
    with an adapter of a tied head.
    """
    _refuse_unmergeable(model)
    for name, each in _those_of(model).items():  # one after the other, to hold few matrices twice
        _replace(model, {name: _plain(each)})
    model.requires_grad_(True)


@contextlib.contextmanager
def merged(model: Llama) -> Iterator[None]:
    """A context in which the adapters are merged. After it the model is as before, bit for bit.

    The adapters and the base stay in memory meanwhile. Raises ValueError as `merge` does.
    """
    _refuse_unmergeable(model)
    before = _those_of(model)
    plain = {name: _plain(each).requires_grad_(False) for name, each in before.items()}
    with _replaced(model, plain, before):
        yield


@contextlib.contextmanager
def without(model: Llama) -> Iterator[None]:
    """A context in which the model computes without its adapters: the base, at no cost.

    It is the reference of a model that is trained with adapters. Raises ValueError for a model
    without adapters.
    """
    before = _those_of(model)
    with _replaced(model, {name: each.base for name, each in before.items()}, before):
        yield


def save(folder: str | Path, model: Llama, *, base: str | None = None) -> None:
    """Writes the adapters to `folder` in PEFT's layout, all or nothing, without the model.

    It replaces adapters that are there. `base`: the name or path of the model that they belong to;
    other programs look for it.
    Raises ValueError for a model without adapters, and if the folder holds anything else.
    """
    peft_files.described(model)
    known = digest(model)
    with peft_files.replacing(folder) as unfinished:
        peft_files.write(unfinished, model, digest=known, base=base)
        checksums.write(unfinished)


def load(
    model: Llama, folder: str | Path, *, is_other_base: bool = False
) -> dict[str, AdaptedLinear]:
    """Puts the adapters in `folder` into `model`, in place, and returns them by name.

    The folder is in PEFT's layout: `save` or PEFT wrote it. All other weights are frozen. The
    numbers of the file are kept exactly, in fp32 if they have fewer bits. `is_other_base`: the
    adapters were trained on another model, such as this one in fp32 when this one is in bfloat16,
    and you want them all the same.
    Raises ValueError, and changes nothing, if the model has adapters already, if the adapters
    belong to a model with other weights, if they do not fit, and for settings that are not built
    here (`peft_files.read`). For files of other programs, which do not say which weights they
    belong to, only the names and sizes are compared.
    """
    _refuse_what_cannot_be_adapted(model)
    saved = peft_files.read(folder, model.config)
    if is_other_base and saved.digest is None:
        raise ValueError("is_other_base=True is for an adapter whose files record the weights that "
                         f"it was trained on; {saved.where} records none. Leave it out")
    if not is_other_base and saved.digest is not None and saved.digest != (own := digest(model)):
        raise ValueError("an adapter belongs to the weights that it was trained on; "
                         f"{saved.where} is for a model with the digest {saved.digest[:12]}, and "
                         f"this one has {own[:12]}. Load that model first, in the dtype that it "
                         "was trained in. If it is the same model in another dtype, and you want "
                         "the adapter all the same: is_other_base=True")
    layers = linear_layers(model)
    made = {}
    for name, (w_a, w_b) in saved.weights.items():
        made[name] = AdaptedLinear(layers[name], saved.how)
        for parameter, read in ((made[name].w_a, w_a), (made[name].w_b, w_b)):
            dtype = torch.promote_types(read.dtype, parameter.dtype)
            parameter.data = read.to(parameter.device, dtype).contiguous()
    _put(model, made)
    return made


# --- parts ----------------------------------------------------------------------------------------


def _refuse_what_cannot_be_adapted(model: Llama) -> None:
    if not isinstance(model, Llama):
        raise ValueError(f"adapters are added to a Llama; got {shown(model)}. Load one first: "
                         "llama_from_scratch.load(PATH)")
    if there := adapters(model):
        raise ValueError("a model has one set of adapters at a time, because two would be added "
                         f"up; this one has {len(there)}, such as {next(iter(there))}. Take them "
                         "out with lora.remove(model), or merge them with lora.merge(model)")
    layers = linear_layers(model)
    if any(p.is_meta for p in model.parameters()):
        raise ValueError("adapters are added to a model with its weights in memory; this one has "
                         "none yet. Load it first")
    described = linear_layers(unwritten(model.config))
    wrong = [name for name, plain in described.items() if name not in layers
             or (layers[name].out_features, layers[name].in_features)
             != (plain.out_features, plain.in_features) or _is_elsewhere(layers[name])]
    if wrong:
        raise ValueError("adapters are added to a whole model, whose layers are linear and have "
                         f"the sizes in its config; here {', '.join(wrong[:4])} "
                         f"{'is' if len(wrong) == 1 else 'are'} not like that. Add adapters to a "
                         "plain model; one with adapters cannot be divided among ranks")


def _is_elsewhere(layer: nn.Module) -> bool:
    """Returns whether a plain layer's weight is not here as a whole, as in a model on a mesh."""
    return any(p.ndim > 1 and p.shape != (layer.out_features, layer.in_features)
               for p in layer.parameters(recurse=False))


def _chosen(
    model: Llama, targets: Sequence[str], *, is_tied_head: bool
) -> dict[str, nn.Module]:
    """Returns the layers that the targets mean, in the model's order."""
    if isinstance(targets, str) or not targets or not all(isinstance(t, str) for t in targets):
        raise ValueError("targets are a list of names of layers; got "
                         f"{shown(targets)}. Such as targets=[\"wq\", \"wv\"]")
    layers = linear_layers(model)
    if unknown := [t for t in targets if not any(_is_meant(name, t) for name in layers)]:
        known = dict.fromkeys(end for name in layers for end in (
            name.rpartition(".")[2], name, f"{_EYES}{name.rpartition('.')[2]}"))
        raise ValueError(f"each target is a linear layer of the model; got {shown(unknown[0])}, "
                         f"{nearest(unknown[0], known)} {_WITHOUT}")
    chosen = {name: layer for name, layer in layers.items()
              if any(_is_meant(name, t) for t in targets)}
    is_tied = model.config.is_tied and _HEAD in chosen
    if is_tied and not is_tied_head:
        raise ValueError("the head of this model is tied: its matrix is also the embedding, which "
                         "an adapter of the head does not change; got targets with "
                         f"{_HEAD!r}. Leave it out, or say is_tied_head=True; such an adapter "
                         "cannot be merged")
    if is_tied_head and not is_tied:
        raise ValueError("is_tied_head=True is for targets with a tied head; got targets "
                         f"{list(targets)} for a model whose head is "
                         f"{'tied' if model.config.is_tied else 'not tied'}. "
                         f"{'Add ' + repr(_HEAD) if model.config.is_tied else 'Leave it out'}")
    return chosen


_WITHOUT = "Routed experts, routers and embeddings have no adapters"


def _is_meant(name: str, target: str) -> bool:
    """Returns whether a target means a layer. One for the encoder begins with its name."""
    if name == target:
        return True
    if name.startswith(_EYES):
        return target.startswith(_EYES) and name.endswith("." + target.removeprefix(_EYES))
    return name.endswith(f".{target}")


def _those_of(model: nn.Module) -> dict[str, AdaptedLinear]:
    found = adapters(model)
    if not found:
        raise ValueError("only a model with adapters can do without them, or merge them; this one "
                         "has none. Add them: lora.add(model, rank=8)")
    return found


def _refuse_unmergeable(model: Llama) -> None:
    found = _those_of(model)
    odd = {name: type(each.base).__name__ for name, each in found.items()
           if type(each.base) is not nn.Linear}
    if odd:
        name, kind = next(iter(odd.items()))
        raise ValueError("an adapter is merged into a plain weight; the base of "
                         f"{name} is a {kind}. Keep the adapters as they are, or load the model "
                         "without quantization and merge there")
    if _HEAD in found and found[_HEAD].base.weight is model.tok_embeddings.weight:
        raise ValueError("a tied head's matrix is also the embedding, which its adapter does not "
                         f"change; the adapter of {_HEAD} cannot be merged. Keep the adapters as "
                         "they are")


def _plain(adapted: AdaptedLinear) -> nn.Linear:
    """Returns a linear layer with the sum of weight and adapter, and the base's own bias."""
    base = adapted.base
    wide = adapted.w_a.dtype
    new = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    whole = (base.weight.detach().to(wide) + adapted.delta()).to(base.weight.dtype)
    new.weight = nn.Parameter(whole)
    new.bias = base.bias
    return new.train(adapted.training)


def _put(model: Llama, made: dict[str, AdaptedLinear]) -> None:
    """Freezes the model and puts the adapted layers into it."""
    model.requires_grad_(False)
    for name, adapted in made.items():
        adapted.train(model.get_submodule(name).training)
    _replace(model, made)


def _replace(model: nn.Module, parts: dict[str, nn.Module]) -> None:
    for name, part in parts.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, part)


@contextlib.contextmanager
def _replaced(
    model: nn.Module, meanwhile: dict[str, nn.Module], before: dict[str, nn.Module]
) -> Iterator[None]:
    for name, part in meanwhile.items():
        part.train(before[name].training)
    _replace(model, meanwhile)
    try:
        yield
    finally:
        for name, part in before.items():
            part.train(model.get_submodule(name).training)
        _replace(model, before)
