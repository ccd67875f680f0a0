"""An optimizer of `torch.optim` as the training loop calls one: `step(lr=...)`, state by name.

Notebook 09.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from llama_from_scratch.train.optimizer import Group


class TorchOptimizer:
    """Wraps a class of `torch.optim`, or a partial of one.

    Its other settings keep their defaults, except for the weight decay.
    A class without weight decay gets none. The state is tensors by parameter name.
    """

    def __init__(
        self, make: Callable[..., torch.optim.Optimizer], groups: Sequence[Group]
    ) -> None:
        self._names = [name for group in groups for name in group.params]
        rows = [{"params": list(group.params.values()), "weight_decay": group.weight_decay}
                for group in groups]
        try:
            self.inner = make(rows, lr=1.0)
        except TypeError as error:
            name = getattr(make, "__name__", repr(make))
            raise ValueError(f"the optimizer must accept parameters and lr; {name:.80} raised "
                             f"{error}. Wrap it in a function (groups, config)") from error

    def step(self, *, lr: float) -> None:
        for group in self.inner.param_groups:
            group["lr"] = lr
        self.inner.step()

    def zero_grad(self) -> None:
        self.inner.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the state as tensors, named "PARAMETER.KEY"."""
        state = self.inner.state_dict()["state"]
        return {f"{self._names[i]}.{key}": torch.as_tensor(value)
                for i, values in state.items() for key, value in values.items()
                if value is not None}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies in what `state_dict` returned. Raises ValueError for other parameters."""
        numbers = {name: i for i, name in enumerate(self._names)}
        found: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            parameter, _, key = name.rpartition(".")
            if parameter not in numbers:
                raise ValueError("the optimizer's state must belong to the same parameters; got "
                                 f"{name!r}. Resume with the model and settings of the run")
            found.setdefault(numbers[parameter], {})[key] = value
        self.inner.load_state_dict(self.inner.state_dict() | {"state": found})
