"""Executes a notebook in a new kernel of this Python, and stores the outputs."""

from pathlib import Path

from llama_from_scratch.lessons.authoring.form import canonical, read_notebook, tags_of
from llama_from_scratch.lessons.authoring.palette import shrink_png

CELL_TIMEOUT_S = 900
SLOW_CELL_TIMEOUT_S = 1800


class CellFailed(Exception):
    """A cell raised an error without the tag `raises-exception`, or took too long.

    Nothing was written.
    """


def run(path: Path, *, timeout_s: int = CELL_TIMEOUT_S) -> bool:
    """Executes a notebook in a new kernel of this Python and stores it.

    Returns whether the file changed. Cells tagged `gpu` are skipped on a machine without CUDA;
    cells tagged `slow` get more time. Raises CellFailed, and does not change the file, if a cell
    fails.
    """
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    nb = read_notebook(path)
    for cell in nb.cells:
        if cell.cell_type == "code" and not _is_skipped(cell):
            cell.outputs = []
    try:
        client(nb, path.parent, timeout_s).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise CellFailed(f"{path.name}: {error}") from error
    for cell in nb.cells:
        for out in cell.get("outputs", ()):
            if "image/png" in out.get("data", {}):
                out.data["image/png"] = shrink_png(out.data["image/png"])
    return _write_if_changed(path, canonical(nb))


def client(nb: dict, folder: Path, timeout_s: int):
    """Returns an executor of this notebook in a new kernel of this Python."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient

    class Flat(NotebookClient):
        """Keeps in the cell what an Output widget prints, and what `clear_output` would remove.

        nbval sees the same outputs, so even the cells of `interact` can be compared. Also, plain
        nbclient can lose a reply and hang while it copies Output widgets.
        """

        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            # otherwise a kernel whose manager nbclient was given runs until this process ends
            self.owns_km = True
            self.comm_open_handlers = {}

        def clear_output(self, outs, msg, cell_index):
            pass

    # Without kernel folders, "python3" can only mean the interpreter that runs this line.
    manager = AsyncKernelManager(kernel_name="python3",
                                 kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    return Flat(
        nb,
        km=manager,
        timeout_func=lambda cell: SLOW_CELL_TIMEOUT_S if "slow" in tags_of(cell) else timeout_s,
        record_timing=False,
        skip_cells_with_tag="" if not _wants_gpu(nb) or _has_cuda() else "gpu",
        extra_arguments=["--log-level=ERROR"],
        shutdown_kernel="immediate",  # a cell that never ends would ignore a graceful request
        resources={"metadata": {"path": str(folder)}},
    )


def _wants_gpu(nb: dict) -> bool:
    return any("gpu" in tags_of(cell) for cell in nb["cells"])


def _is_skipped(cell: dict) -> bool:
    return "gpu" in tags_of(cell) and not _has_cuda()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _write_if_changed(path: Path, text: str) -> bool:
    if path.exists() and path.read_bytes() == text.encode():
        return False
    path.write_bytes(text.encode())
    return True
