"""Finds runs in a store by the words that a person uses for them.

`small` is an experiment, `small/baseline` a variant, and `small/baseline/seed-0` a run. A variant
is named by its folder, by its label, such as "peak_lr=0.003", by the beginning of one of them, or
by a piece of its label, if that leads to only one variant.

Notebook 09.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from llama_from_scratch.config import nearest
from llama_from_scratch.experiments.store import Run, Store
from llama_from_scratch.experiments.variant import Variant, grouped

_T = TypeVar("_T")


def chosen(word: str, *, kept_in: Store) -> list[Run]:
    """Returns the runs that "NAME", "NAME/VARIANT", "NAME/VARIANT/seed-0" or a run's folder names.

    Raises ValueError with the nearest for what does not exist, and for a damaged run's folder.
    """
    folder = Path(word)
    if (folder / "run.json").is_file():
        folder = folder.resolve()
        return [Store(folder.parents[2]).find(folder)]
    name, variant, seed = parsed(word)
    runs, _ = kept_in.runs(name)
    if variant is None:
        return runs
    runs = list(chosen_variant(variant, grouped(runs)).runs)
    return runs if seed is None else [_of_seed(seed, {run.seed: run for run in runs}, word)]


def chosen_variant(word: str, variants: list[Variant]) -> Variant:
    """Returns the variant that a word names; see above. Raises ValueError for none or several."""
    return _one(word, {variant.name: variant for variant in variants}, lambda v: v.label)


def folders(word: str, *, kept_in: Store) -> list[Path]:
    """Returns the folders of runs that a word names, as `chosen` does; damaged ones too."""
    name, variant, seed = parsed(word)
    runs, damaged = kept_in.runs(name)
    labels = {variant.name: variant.label for variant in grouped(runs)}
    found = [run.folder for run in runs] + [one.folder for one in damaged]
    if variant is not None:
        names = dict.fromkeys(folder.parent.name for folder in found)
        known = {name: name for name in names}
        wanted = _one(variant, known, lambda name: labels.get(name, name))
        found = [folder for folder in found if folder.parent.name == wanted]
    if seed is not None:
        found = [_of_seed(seed, {_seed_of(folder): folder for folder in found}, word)]
    return sorted(found)


def parsed(word: str) -> tuple[str, str | None, int | None]:
    """Returns experiment, variant and seed: "small/baseline/seed-1" -> ("small", "baseline", 1)."""
    name, _, rest = word.strip("/").partition("/")
    variant, seed = re.fullmatch(r"(.*?)(?:/?\bseed-(\d+))?", rest, re.DOTALL).groups()
    if seed is not None and not variant:
        raise ValueError(f"a run is named NAME/VARIANT/seed-K; got {word!r:.80}. The variant in "
                         f"which nothing is changed is called baseline")
    return name, variant or None, None if seed is None else int(seed)


def _seed_of(folder: Path) -> int:
    digits = folder.name.removeprefix("seed-")
    return int(digits) if digits.isdecimal() else -1


def _of_seed(seed: int, known: Mapping[int, _T], word: str) -> _T:
    if seed not in known:
        raise ValueError(f"{word!r:.120} has no run with the seed {seed}; it has "
                         f"{', '.join(map(str, sorted(known)))}")
    return known[seed]


def _one(word: str, known: Mapping[str, _T], label: Callable[[_T], str]) -> _T:
    by_label = [name for name, one in known.items() if label(one) == word]
    begins = [name for name, one in known.items()
              if name.startswith(word) or label(one).startswith(word)]
    holds = [name for name, one in known.items() if word in label(one)]
    found = [word] if word in known else by_label or begins or holds
    if len(found) > 1:
        raise ValueError(f"the name of a variant must lead to one; {word!r:.80} leads to "
                         f"{', '.join(found)}. Give the whole name of its folder")
    if not found:
        labels = [label(one) for one in known.values()]
        hint = nearest(word, [*labels, *known])
        if not hint.startswith("did"):
            hint = f"known: {', '.join(map(repr, labels))}"
        raise ValueError(f"no variant is called {word!r:.80}; {hint}")
    return known[found[0]]
