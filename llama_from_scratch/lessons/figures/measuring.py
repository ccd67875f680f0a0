"""Measures the shapes in a run of a real module, so that a drawing shows true shapes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


def axes(names: Sequence[str], shape: Sequence[int]) -> dict[str, int]:
    """Returns axis letter -> size, in order.

    Raises ValueError unless there are as many letters as axes.
    """
    return dict(zip(names, shape, strict=True))


@contextmanager
def shapes_of(module: nn.Module) -> Iterator[Mapping[str, list[tuple[int, ...]]]]:
    """Records the input and output shapes of each child in a run, under "wq in", "wq out" etc."""
    seen: dict[str, list[tuple[int, ...]]] = {}

    def note(name: str):
        def hook(child: nn.Module, args: tuple, out: object) -> None:
            for key, values in ((f"{name} in", args), (f"{name} out", (out,))):
                seen[key] = [tuple(v.shape) for v in values if isinstance(v, Tensor)]
        return hook

    handles = [child.register_forward_hook(note(name)) for name, child in module.named_children()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
