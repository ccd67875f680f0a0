"""Frozen records of data that refuse unknown keys, and checks of the values in them.

Notebook 15.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, dataclass_transform


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns a hint for an error message: the known word closest to `word`, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type) -> type:
    """Returns a frozen, keyword-only dataclass that names the nearest field to a misspelled one."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    build = cls.__init__
    fields = tuple(f.name for f in dataclasses.fields(cls))  # names, which torch.compile can trace
    required = tuple(f.name for f in dataclasses.fields(cls)
                     if f.default is dataclasses.MISSING
                     and f.default_factory is dataclasses.MISSING)

    def __init__(self, **values: Any) -> None:
        if tuple(values) != fields:  # equal means that every field was given, in order
            _refuse_other_fields(cls.__name__, values, fields, required)
        build(self, **values)

    cls.__init__ = __init__
    return cls


def _refuse_other_fields(
    name: str, values: Mapping[str, Any], fields: tuple[str, ...], required: tuple[str, ...]
) -> None:
    for key in values:
        if key not in fields:
            raise ValueError(f"{name} has no field {key!r}; {nearest(key, fields)}")
    if missing := [field for field in required if field not in values]:
        raise ValueError(f"{name} needs {', '.join(missing)}; "
                         f"got only {', '.join(values) or 'nothing'}")


LARGEST = 2**63 - 1
"""The largest size: PyTorch counts in signed 64-bit integers."""


def check_number(
    owner: object, name: str, kind: type, *, above: float = 0.0, below: float | None = None
) -> None:
    """Raises ValueError unless a field is a number of this kind between the two limits.

    A float must also fit into fp32, where it is used: 1e-60 would become 0 there, and 1e60
    infinity. An int in place of a float, such as a theta of 100000 in some files, becomes a float.
    """
    value = getattr(owner, name)
    accepted = (int,) if kind is int else (int, float)
    field = f"{type(owner).__name__}.{name}"
    if isinstance(value, bool) or not isinstance(value, accepted) or not value > above:
        article = "an int" if kind is int else "a number"
        raise ValueError(f"{field} must be {article} above {above:g}; got {short(value)}")
    if kind is int and value > LARGEST:
        raise ValueError(f"{field} must be at most {LARGEST}; got {short(value)}")
    if kind is float and not _SMALLEST_FP32 <= value <= _LARGEST_FP32:
        raise ValueError(f"{field} is used in fp32, whose numbers above 0 are {_SMALLEST_FP32:.3g} "
                         f"to {_LARGEST_FP32:.3g}; got {short(value)}")
    if below is not None and not value < below:
        raise ValueError(f"{field} must be below {below:g}; got {short(value)}")
    if kind is float:
        object.__setattr__(owner, name, float(value))


_SMALLEST_FP32, _LARGEST_FP32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127


def short(value: object) -> str:
    """Returns a value as an error message shows it, shortened if it is long."""
    if isinstance(value, int) and value.bit_length() > 256:  # repr fails for very long ints
        return f"an int of {value.bit_length()} bits"
    return f"{value!r:.80}"


def check_claims(owner: object, *names: str) -> None:
    """Raises ValueError unless these fields are True or False."""
    for name in names:
        if not isinstance(value := getattr(owner, name), bool):
            raise ValueError(f"{type(owner).__name__}.{name} must be True or False; "
                             f"got {short(value)}")


def without_defaults(plain: dict[str, Any], names: tuple[str, ...], cls: type) -> dict[str, Any]:
    """Returns `plain` without the named fields that have their default value.

    This way a new field changes no byte of files that do not use it, and older versions can still
    read them.
    """
    return {name: value for name, value in plain.items()
            if name not in names or value != cls.__dataclass_fields__[name].default}


def json_object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a JSON object; got {short(value)}")
    return value


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
