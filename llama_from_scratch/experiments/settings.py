"""Settings by their dotted names: read all of an experiment, change some, list what differs.

`changed(experiment, {"train.peak_lr": 3e-3, "model.n_kv_heads": 1})` returns another experiment. A
name leads through the records: `data.path`, `train.n_steps`. Two names are special, because
`model.layers` is a tuple with one spec per layer: `model.n_layers` sets their number, and
`model.layers.has_rope` sets a field in all of them (`model.layers.2.has_rope` in one).

Notebook 09.
"""

import contextlib
import dataclasses
import json
import types
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_from_scratch.config import (
    FeedForwardSpec,
    LayerSpec,
    LlamaConfig,
    RopeScaling,
    TemperatureTuning,
    nearest,
)
from llama_from_scratch.experiments.experiment import Experiment
from llama_from_scratch.foreign import shown

_FIXED = ("name", "about", "parts")
"""Fields of an experiment that are no settings: `parts` has its own rules."""
_ELSEWHERE = {"train.seed": "seed"}
"""Names that are refused, with the one to use instead."""
_OF_SCALING = ("model.rope_scaling", *(f"model.rope_scaling.{field.name}"
                                       for field in dataclasses.fields(RopeScaling)))
"""Names of settings whether an experiment has a scaling of RoPE or not."""
_OF_LLAMA_4 = ("has_qk_norm", "temperature")
"""Fields of a layer that are listed only if a layer uses them: older stored runs lack them."""


def settings(experiment: Experiment) -> dict[str, Any]:
    """Returns all settings by dotted name, as plain values ready for JSON.

    A field that is the same in all layers is one setting; otherwise it is a list, one value per
    layer. What only Llama 4 has is left out where no layer has it.
    """
    return {name: value for name, value in _all(experiment).items()
            if name.removeprefix("model.layers.") not in _OF_LLAMA_4 or value}


def _all(experiment: Experiment) -> dict[str, Any]:
    """Returns all settings, with those that no layer uses."""
    return {name: value for name, value in _flat("", experiment) if name not in _ELSEWHERE}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Returns each dotted name with its last word, or with itself if another one ends alike."""
    last = {name: name.rpartition(".")[2] for name in names}
    n_alike = Counter(last.values())
    return {name: word if n_alike[word] == 1 else name for name, word in last.items()}


def difference(experiment: Experiment, other: Experiment) -> dict[str, Any]:
    """Returns the settings of `experiment` that `other` does not share, without the seed."""
    ours, theirs = _all(experiment), _all(other)
    # A name that only `other` has is inside a record, such as the scaling of RoPE, that is None
    # here, and that None is among the differences.
    return {name: value for name, value in ours.items()
            if name != "seed" and (name not in theirs or theirs[name] != value)}


def changed(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """Returns the experiment with these settings changed, each by its dotted name.

    Raises ValueError for a name that does not exist (with the nearest), for a value of another
    type, and for settings that do not go together.
    """
    # All the changes of one record at once, because only together they may fit (dim and n_heads).
    # A setting of all layers comes before the settings of one layer, which are exceptions to it.
    tree: dict[str, Any] = {}
    known = [*_all(experiment)]
    known += [one for one in _OF_SCALING if one not in known]
    for name, value in sorted(values.items(), key=lambda item: str(item[0]).count(".")):
        _refuse_other_name(name, known)
        if outer := [other for other in values if name.startswith(f"{other}.")]:
            raise ValueError(f"{outer[0]} and {name} set the same thing; give one of them")
        branch = tree
        *parents, leaf = name.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return _replaced(experiment, tree, where="")


def parsed(text: str) -> Any:
    """Returns the value that a person typed: JSON where it is JSON, else the text itself.

    `3e-3` is a number, `true` and `True` are True, `none` is None, and `stories` is a text.
    """
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is a word here")


def listed(text: str) -> list[Any]:
    """Returns the values in "1e-3,3e-3": between commas, outside of brackets and quotes."""
    pieces, depth, quoted, begin = [], 0, False, 0
    for i, sign in enumerate(text):
        if sign == '"' and text[i - 1 : i] != "\\":
            quoted = not quoted
        if not quoted:
            depth += (sign in "[{") - (sign in "]}")
            if sign == "," and depth == 0:
                pieces.append(text[begin:i])
                begin = i + 1
    pieces.append(text[begin:])
    if any(not piece.strip() for piece in pieces):
        raise ValueError(f"a list of values has a value on both sides of each comma; got {text!r}")
    return [parsed(piece) for piece in pieces]


# --- reading ------------------------------------------------------------------------------------


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    pairs = []
    for field in dataclasses.fields(value):
        name = f"{prefix}{field.name}"
        inner = getattr(value, field.name)
        if name in _FIXED:
            continue
        if name == "model.layers":
            pairs += _layers(inner)
        elif dataclasses.is_dataclass(inner) and not isinstance(inner, FeedForwardSpec):
            pairs += _flat(f"{name}.", inner)
        else:
            pairs.append((name, _plain(inner)))
    return pairs


def _layers(layers: Sequence[LayerSpec]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = [("model.n_layers", len(layers))]
    for field in dataclasses.fields(LayerSpec):
        each = [_plain(getattr(spec, field.name)) for spec in layers]
        is_same = all(value == each[0] for value in each)
        pairs.append((f"model.layers.{field.name}", each[0] if is_same else each))
    return pairs


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, FeedForwardSpec):
        try:
            return LayerSpec(feed_forward=value).to_dict()["feed_forward"]
        except ValueError:  # a kind of the reader's own
            return repr(value)
    if isinstance(value, TemperatureTuning):
        return dataclasses.asdict(value)
    return value


# --- changing -----------------------------------------------------------------------------------


def _refuse_other_name(name: str, known: Sequence[str]) -> None:
    if not isinstance(name, str):
        raise ValueError("a setting is named by a text, such as 'train.peak_lr'; "
                         f"got {shown(name)}")
    if name in _ELSEWHERE:
        raise ValueError(f"the setting {name!r} is called {_ELSEWHERE[name]!r}, which decides the "
                         "weights and the order of the data")
    if name == "parts" or name.startswith("parts."):
        raise ValueError("parts are not settings; give them with replace={...}, or --replace on "
                         "the command line")
    fields = {field.name for field in dataclasses.fields(LayerSpec)}
    steps = name.split(".")
    is_layer = (len(steps) == 4 and steps[:2] == ["model", "layers"] and steps[2].isdecimal()
                and steps[3] in fields)
    if name not in known and not is_layer:
        raise ValueError(f"no setting is called {shown(name)}; {_nearest(name, known)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    """Returns a hint: the nearest of the whole names, or of their last words."""
    last = {other.rpartition(".")[2]: other for other in known}
    word = name.rpartition(".")[2]
    if word in last:
        return f"did you mean {last[word]!r}?"
    hint = nearest(name, known)
    if hint.startswith("did"):
        return hint
    hint = nearest(word, last)
    if hint.startswith("did"):
        found = hint.split("'")[1]
        return f"did you mean {last[found]!r}?"
    return f"they begin with {', '.join(dict.fromkeys(n.split('.')[0] for n in known))}; see all " \
           "with `llama experiment show`"


def _replaced(owner: Any, tree: Mapping[str, Any], *, where: str) -> Any:
    if isinstance(owner, LlamaConfig):
        tree = _with_layers(owner, tree)
    hints = typing.get_type_hints(type(owner))
    values = {}
    for name, value in tree.items():
        full, now = f"{where}{name}", getattr(owner, name)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(now):
            values[name] = _replaced(now, value, where=f"{full}.")
        else:
            values[name] = _fitting(value, hints[name], full)
    try:
        return dataclasses.replace(owner, **values)
    except TypeError as error:  # a check of the record that compares with another type
        raise ValueError(f"{where.rstrip('.') or 'the experiment'} cannot take "
                         f"{shown(dict(values))}: {error}") from error


def _with_layers(config: LlamaConfig, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree with `n_layers` and `layers` made into one tuple of specs."""
    tree = dict(tree)
    layers, count = list(config.layers), tree.pop("n_layers", None)
    if count is not None:
        count = _fitting(count, int, "model.n_layers")
        if not 1 <= count <= 10_000:
            raise ValueError(f"model.n_layers is from 1 to 10,000; got {count}")
        if count > len(layers) and len(set(layers)) > 1:
            raise ValueError("more layers can be added only where all are the same; the layers of "
                             f"this experiment differ. Give the specs with model.layers in Python; "
                             f"got model.n_layers={count}")
        layers = (layers * count)[:count] if count > len(layers) else layers[:count]
    hints = typing.get_type_hints(LayerSpec)
    for key, value in (tree.pop("layers", None) or {}).items():
        chosen = [int(key)] if key.isdecimal() else range(len(layers))
        fields = value if key.isdecimal() else {key: value}
        for i in chosen:
            if i >= len(layers):
                raise ValueError(f"this model has layers 0 to {len(layers) - 1}; got "
                                 f"model.layers.{i}")
            layers[i] = dataclasses.replace(layers[i], **{
                field: _spec(_of_layer(given, i, len(layers), field), hints[field],
                             f"model.layers.{field}")
                for field, given in fields.items()})
    if tuple(layers) != config.layers:
        tree["layers"] = tuple(layers)
    return tree


def _of_layer(value: Any, i: int, n_layers: int, field: str) -> Any:
    """Returns the value for layer `i`: a list has one per layer, as `settings` shows them."""
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) != n_layers:
        raise ValueError(f"a list for model.layers.{field} has one value per layer, {n_layers}; "
                         f"got {len(value)}")
    return value[i]


def _spec(value: Any, hint: Any, name: str) -> Any:
    if name.endswith(".feed_forward") and isinstance(value, Mapping):
        return LayerSpec.from_dict({"feed_forward": value}).feed_forward
    if name.endswith(".temperature") and isinstance(value, Mapping):
        return LayerSpec.from_dict({"temperature": value}).temperature
    return _fitting(value, hint, name)


def _fitting(value: Any, hint: Any, name: str) -> Any:
    """Returns the value as its field holds it. Raises ValueError for a value of another type."""
    kinds = typing.get_args(hint) if _is_union(hint) else (hint,)
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if origin is type(None) and value is None:
            return None
        if not isinstance(origin, type):
            continue
        if origin is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if origin is float and isinstance(value, int) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):
                return float(value)
        if origin is tuple and isinstance(value, (list, tuple)):
            return tuple(_fitting(item, typing.get_args(kind)[0], f"each item of {name}")
                         for item in value)
        if dataclasses.is_dataclass(origin) and isinstance(value, Mapping):
            return _record_of(origin, value, name)
        if origin is str and isinstance(value, str) and not _is_whole(value):
            raise ValueError(f"{name} must consist of whole characters; got {shown(value)}")
        if isinstance(value, origin) and (origin is bool or not isinstance(value, bool)):
            return value
    words = " or ".join("None" if kind is type(None) else _WORDS.get(kind, getattr(
        kind, "__name__", str(kind))) for kind in kinds)
    is_typed = str in kinds and isinstance(value, (int, float))  # what `parsed` makes of 2024
    quotes = f"""; in quotes it is a text: '"{shown(value)}"'""" if is_typed else ""
    raise ValueError(f"{name} must be {words}; got {shown(value)}{quotes}")


def _record_of(kind: type, values: Mapping[Any, Any], name: str) -> Any:
    """Returns a record such as RopeScaling from its fields."""
    hints = typing.get_type_hints(kind)
    for field in values:
        if field not in hints:
            raise ValueError(f"{name} has no field {shown(field)}; {nearest(str(field), hints)}")
    return kind(**{field: _fitting(value, hints[field], f"{name}.{field}")
                   for field, value in values.items()})


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
