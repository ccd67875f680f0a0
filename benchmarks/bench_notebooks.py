"""How long every notebook takes, and how much memory: from start to end, in its own kernel.

The seconds are the processor's, of the kernel and of the compilers that it starts, with one thread
and an empty cache of compiled kernels. So they do not depend on what else the machine does. Run it
in a fresh clone: what the store of experiments remembers is not trained again.

    python benchmarks/bench_notebooks.py
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import nbformat
from measure import write

from llama_from_scratch.experiments.store import default_folder
from llama_from_scratch.lessons.authoring.executing import client
from llama_from_scratch.lessons.authoring.form import read_notebook

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
COUNT = """
import resource
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
[sum(each.ru_utime + each.ru_stime for each in used), max(each.ru_maxrss for each in used)]
"""


def measured(path: Path, *, timeout_s: int) -> dict[str, object]:
    """One row: the notebook's processor seconds, and the memory of its largest process."""
    nb = read_notebook(path)
    nb["cells"].append(nbformat.v4.new_code_cell(COUNT))
    client(nb, path.parent, timeout_s).execute()
    seconds, kilobytes = json.loads(nb["cells"][-1]["outputs"][-1]["data"]["text/plain"])
    return {"notebook": path.name, "processor_s": round(seconds, 1),
            "largest_process_gb": round(kilobytes * 1024 / 1e9, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timeout", type=int, default=600, help="seconds for a cell (default 600)")
    args = parser.parse_args()
    if default_folder().exists():
        parser.error(f"remembered runs take no time; {default_folder()} has some. Run this in a "
                     "fresh clone")
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {"XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1"}
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            rows.append(measured(path, timeout_s=args.timeout))
            print("{notebook:<28} {processor_s:6.1f} s   {largest_process_gb:.2f} GB"
                  .format(**rows[-1]), flush=True)
    write("notebooks", {"n_threads": 1, "clock": "processor", "rows": rows},
          packages=("torch", "matplotlib", "ipykernel"))


if __name__ == "__main__":
    main()
