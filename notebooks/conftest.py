"""What nbval lacks for these notebooks: a tolerance for floats, tags for slow and GPU cells, and
lost figures.

Text must equal the stored text, except that numbers with a decimal point may differ in their last
digits, as they do between processors. Warnings on stderr are not compared, so that a new
deprecation elsewhere does not break a lesson.
"""

import functools
import math
import re

import pytest

FLOAT = re.compile(r"(?<![\w.])[-+]?\d+\.\d*(?:e[-+]?\d+)?")
REL_TOL, ABS_TOL = 2e-3, 2e-4  # a few times what other instruction sets change in a float32 result
# nbval waits five seconds for a cell's next message, too little on a busy machine
OUTPUT_TIMEOUT_S = 60


def is_close(new: str, ref: str) -> bool:
    """True if the texts differ at most in the last digits of their floats."""
    if FLOAT.sub("#", new) != FLOAT.sub("#", ref):
        return False
    pairs = zip(FLOAT.findall(new), FLOAT.findall(ref), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=REL_TOL, abs_tol=ABS_TOL) for a, b in pairs)


def align(new: list[dict], ref: list[dict]) -> None:
    """Copies the reference over text that is close to it, so that nbval's own comparison, which is
    exact, agrees.
    """
    for n, r in zip(new, ref, strict=False):  # nbval itself refuses another number of outputs
        if n["output_type"] != r["output_type"]:
            return
        for a, b in ((n, r), (n.get("data", {}), r.get("data", {}))):
            for key, text in a.items():
                is_text = key in ("text", "evalue") or key.startswith("text/")
                if is_text and isinstance(b.get(key), str) and is_close(text, b[key]):
                    a[key] = b[key]


def count_pictures(outputs: list[dict]) -> int:
    return sum("image/png" in out.get("data", {}) for out in outputs)


def compare(cell, plain, new, ref, *rest):
    align(new, ref)
    is_equal = plain(new, ref, *rest)
    if is_equal and count_pictures(new) != count_pictures(ref):
        cell.comparison_traceback.append(f"{count_pictures(ref)} pictures stored, "
                                         f"{count_pictures(new)} drawn")
        return False
    return is_equal


@functools.cache
def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collectstart(collector):
    if type(collector).__name__ == "IPyNbFile":
        collector.skip_compare += ("stderr",)


@pytest.hookimpl(tryfirst=True)  # before -m "not slow" looks at the markers
def pytest_collection_modifyitems(items):
    for item in items:
        if type(item).__name__ != "IPyNbCell":
            continue
        tags = item.cell.metadata.get("tags", [])
        if "slow" in tags:
            item.add_marker("slow")
        if "gpu" in tags and not has_cuda():
            item.options["skip"] = True
        item.output_timeout = OUTPUT_TIMEOUT_S
        item.compare_outputs = functools.partial(compare, item, item.compare_outputs)
