"""AdamW: steps whose size does not depend on how large or small a parameter's gradients are.

Each parameter has running means of its gradient and of the gradient's square. The step is the first
mean divided by the root of the second, times the learning rate. It is about the learning rate if
the gradient is nearly the same in every step, and smaller if the gradient is mostly noise. Weight
decay is decoupled: it shrinks the weights directly instead of passing through those means.

Notebook 17. Every Llama. Sources: Kingma and Ba, arXiv:1412.6980, algorithm 1; Loshchilov and
Hutter, arXiv:1711.05101, algorithm 2; clipping: Pascanu et al., arXiv:1211.5063, algorithm 1.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_from_scratch.config import record
from llama_from_scratch.foreign import plain


@record
class Group:
    """Parameters, by name, that share one weight decay."""

    params: dict[str, nn.Parameter]
    weight_decay: float


def decay_groups(model: nn.Module, *, weight_decay: float) -> list[Group]:
    """Returns all trainable parameters in at most two groups: matrices, which decay, and vectors.

    The embedding is one of the matrices. Vectors have no decay: a norm's weight is a scale near 1,
    which decay would pull to 0, and a bias multiplies no input.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {name: p for name, p in trainable.items() if p.ndim > 1}
    vectors = {name: p for name, p in trainable.items() if p.ndim <= 1}
    groups = [Group(params=matrices, weight_decay=weight_decay),
              Group(params=vectors, weight_decay=0.0)]
    return [group for group in groups if group.params]


class AdamW:
    """The optimizer's memory: two averages per parameter, and how many steps were taken."""

    def __init__(
        self, groups: Sequence[Group], *, beta1: float = 0.9, beta2: float = 0.95, eps: float = 1e-8
    ) -> None:
        names = [name for group in groups for name in group.params]
        if not names or len(set(names)) < len(names):
            raise ValueError("AdamW needs at least one parameter, and each in one group; "
                             f"got {names}")
        self.groups, self.beta1, self.beta2, self.eps = tuple(groups), beta1, beta2, eps
        self.n_steps = 0
        params = {name: p for group in groups for name, p in group.params.items()}
        self.means = {name: torch.zeros_like(p, memory_format=torch.preserve_format)
                      for name, p in params.items()}
        self.squares = {name: torch.zeros_like(p, memory_format=torch.preserve_format)
                        for name, p in params.items()}

    @torch.no_grad()
    def step(self, *, lr: float) -> None:
        """Makes one step against the gradients; every parameter must have a gradient.

        theta <- (1 - lr decay) theta - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

        The averages m and v start at 0, and the divisors correct for that. Both divisors are the
        same for all elements, so they are applied to the step's length and to eps instead, which
        saves two passes over memory.
        """
        for group in self.groups:
            if missing := [name for name, p in group.params.items() if p.grad is None]:
                raise ValueError("every parameter of a group needs a gradient; "
                                 f"{', '.join(missing[:4])} got none. "
                                 "Call backward first, or leave frozen parameters out of the "
                                 "groups")
        self.n_steps += 1
        root = (1 - self.beta2**self.n_steps) ** 0.5
        length = lr * root / (1 - self.beta1**self.n_steps)
        for group in self.groups:
            # One tensor after the other, because each fits into the processor's cache.
            for name, p in group.params.items():
                mean, square = self.means[name], self.squares[name]
                mean.lerp_(p.grad, 1 - self.beta1)
                square.mul_(self.beta2).addcmul_(p.grad, p.grad, value=1 - self.beta2)
                p.mul_(1 - lr * group.weight_decay)
                p.addcdiv_(mean, square.sqrt().add_(self.eps * root), value=-length)

    def zero_grad(self) -> None:
        """Removes all gradients."""
        for group in self.groups:
            for p in group.params.values():
                p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what an exact resume needs: the averages by parameter name and the step count."""
        state = {f"mean.{name}": mean for name, mean in self.means.items()}
        state |= {f"square.{name}": square for name, square in self.squares.items()}
        return state | {"n_steps": torch.tensor(self.n_steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies in what `state_dict` returned.

        Raises ValueError if it belongs to other parameters.
        """
        refuse_other_state(state, own=self.state_dict())
        for name in self.means:
            self.means[name].copy_(state[f"mean.{name}"])
            self.squares[name].copy_(state[f"square.{name}"])
        self.n_steps = int(state["n_steps"])


def refuse_other_state(state: Mapping[str, Tensor], *, own: Mapping[str, Tensor]) -> None:
    """Raises ValueError, with the names that differ, if `state` belongs to other parameters.

    It must have the keys and the shapes of `own`.
    """
    wrong = sorted(own.keys() ^ state.keys()) + [
        n for n in own.keys() & state.keys() if own[n].shape != state[n].shape
        or own[n].is_floating_point() != state[n].is_floating_point()]
    if wrong:
        raise ValueError("the optimizer's state must belong to the same parameters; "
                         f"{plain(', '.join(wrong[:4]))} "
                         f"{'and more ' if len(wrong) > 4 else ''}differ. Resume with the model "
                         "and settings of the run")


@torch.no_grad()
def clip_gradients(params: Iterable[nn.Parameter], *, max_norm: float) -> Float[Tensor, ""]:
    """Scales down gradients longer than `max_norm`, and returns their length before.

    It is the length of all gradients as one vector, in fp32 or, for such gradients, in float64. If
    it is not finite, the gradients are left as they are, so that the caller can refuse them.
    Scaling by 1 / inf would turn them into zeros and hide the error.
    """
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        raise ValueError("clipping needs gradients, and no parameter has one. Call backward first")
    norms = torch.stack(torch._foreach_norm(grads))
    norm = torch.linalg.vector_norm(norms.to(torch.promote_types(norms.dtype, torch.float32)))
    if torch.isfinite(norm) and norm > max_norm:
        torch._foreach_mul_(grads, (max_norm / norm).to(grads[0].dtype))
    return norm
