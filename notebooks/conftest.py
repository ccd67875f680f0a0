"""What nbval lacks for these notebooks: a tolerance for floats, tags for slow and GPU cells, and
lost figures.

What is compared, and with which tolerance, is said in `lessons/authoring/stored.py`.
"""

import functools

import pytest

from llama_from_scratch.lessons.authoring.stored import is_close

# nbval waits five seconds for a cell's next message, too little on a busy machine
OUTPUT_TIMEOUT_S = 60


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
