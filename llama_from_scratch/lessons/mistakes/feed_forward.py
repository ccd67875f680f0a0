"""Mistakes that readers make in chapter 14."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: gate and up in one matrix -----------------------------------------------------------------


def _both(x_TD: Tensor, w_gate_up: Tensor) -> tuple[Tensor, ...]:
    return (x_TD @ w_gate_up.T).chunk(2, dim=-1)


@listed("14.1", of="swiglu_fused")
def up_first(x_TD: Tensor, w_gate_up: Tensor, w_down_DF: Tensor) -> Tensor:
    """the two halves are exchanged: the first half is the gate"""
    up_TF, gate_TF = _both(x_TD, w_gate_up)
    return (silu(gate_TF) * up_TF) @ w_down_DF.T


@listed("14.1", of="swiglu_fused")
def silu_of_both(x_TD: Tensor, w_gate_up: Tensor, w_down_DF: Tensor) -> Tensor:
    """silu is applied to both halves: it belongs to the gate alone"""
    gate_TF, up_TF = _both(x_TD, w_gate_up)
    return (silu(gate_TF) * silu(up_TF)) @ w_down_DF.T


@listed("14.1", of="swiglu_fused")
def silu_of_product(x_TD: Tensor, w_gate_up: Tensor, w_down_DF: Tensor) -> Tensor:
    """silu is applied after the product of gate and up instead of to the gate"""
    gate_TF, up_TF = _both(x_TD, w_gate_up)
    return silu(gate_TF * up_TF) @ w_down_DF.T


@listed("14.1", of="swiglu_fused")
def gate_without_silu(x_TD: Tensor, w_gate_up: Tensor, w_down_DF: Tensor) -> Tensor:
    """silu is left out"""
    gate_TF, up_TF = _both(x_TD, w_gate_up)
    return (gate_TF * up_TF) @ w_down_DF.T


@listed("14.1", of="swiglu_fused")
def gate_is_a_switch(x_TD: Tensor, w_gate_up: Tensor, w_down_DF: Tensor) -> Tensor:
    """the gate is sigmoid(g): silu is g times sigmoid(g)"""
    gate_TF, up_TF = _both(x_TD, w_gate_up)
    return (gate_TF.sigmoid() * up_TF) @ w_down_DF.T


@listed("14.1", of="swiglu_fused")
def every_other_row(x_TD: Tensor, w_gate_up: Tensor, w_down_DF: Tensor) -> Tensor:
    """gate and up are taken from every other row: the gate is the whole first half"""
    gate_TF, up_TF = x_TD @ w_gate_up[0::2].T, x_TD @ w_gate_up[1::2].T
    return (silu(gate_TF) * up_TF) @ w_down_DF.T


# --- 2: half of the neurons for each GPU ----------------------------------------------------------

Triples = list[tuple[Tensor, Tensor, Tensor]]


@listed("14.2", of="halves")
def down_by_rows(w_gate_FD: Tensor, w_up_FD: Tensor, w_down_DF: Tensor) -> Triples:
    """`w_down` is divided by rows: its rows are channels, and its columns are neurons"""
    return list(zip(w_gate_FD.chunk(2), w_up_FD.chunk(2), w_down_DF.chunk(2), strict=True))


@listed("14.2", of="halves")
def down_not_divided(w_gate_FD: Tensor, w_up_FD: Tensor, w_down_DF: Tensor) -> Triples:
    """both GPUs get the whole `w_down`: each needs the columns of its own neurons"""
    return list(zip(w_gate_FD.chunk(2), w_up_FD.chunk(2), [w_down_DF] * 2, strict=True))


@listed("14.2", of="halves")
def channels_divided(w_gate_FD: Tensor, w_up_FD: Tensor, w_down_DF: Tensor) -> Triples:
    """the channels of the token are divided: the neurons are to be divided"""
    return list(zip(w_gate_FD.chunk(2, dim=1), w_up_FD.chunk(2, dim=1), w_down_DF.chunk(2),
                    strict=True))


@listed("14.2", of="halves")
def down_exchanged(w_gate_FD: Tensor, w_up_FD: Tensor, w_down_DF: Tensor) -> Triples:
    """the halves of `w_down` are exchanged: a neuron and its column belong to one GPU"""
    first_DF, second_DF = w_down_DF.chunk(2, dim=1)
    return list(zip(w_gate_FD.chunk(2), w_up_FD.chunk(2), (second_DF, first_DF), strict=True))


@listed("14.2", of="halves")
def up_not_divided(w_gate_FD: Tensor, w_up_FD: Tensor, w_down_DF: Tensor) -> Triples:
    """`w_up` is not divided: a neuron has a row in it, as in `w_gate`"""
    return list(zip(w_gate_FD.chunk(2), [w_up_FD] * 2, w_down_DF.chunk(2, dim=1), strict=True))


# --- 3: the backward pass of the gate -------------------------------------------------------------


def _slope(gate: Tensor) -> Tensor:
    switch = gate.sigmoid()
    return switch * (1 + gate * (1 - switch))


@listed("14.3", of="gate_backward")
def gradients_exchanged(grad_h: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """the two gradients are exchanged: the gradient at the gate comes first"""
    return grad_h * silu(gate), grad_h * up * _slope(gate)


@listed("14.3", of="gate_backward")
def without_product_rule(grad_h: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """the slope of silu is taken as sigmoid(g): the term g σ(g) (1 - σ(g)) is missing"""
    return grad_h * up * gate.sigmoid(), grad_h * silu(gate)


@listed("14.3", of="gate_backward")
def slope_of_the_switch(grad_h: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """the slope of the switch, σ(g) (1 - σ(g)), is taken for the slope of silu"""
    switch = gate.sigmoid()
    return grad_h * up * switch * (1 - switch), grad_h * silu(gate)


@listed("14.3", of="gate_backward")
def up_forgotten(grad_h: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """the gradient at the gate lacks the factor `up`"""
    return grad_h * _slope(gate), grad_h * silu(gate)


@listed("14.3", of="gate_backward")
def gate_for_silu(grad_h: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """the gradient at `up` has the factor gate instead of silu(gate)"""
    return grad_h * up * _slope(gate), grad_h * gate


@listed("14.3", of="gate_backward")
def incoming_forgotten(grad_h: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """neither gradient has the factor `grad_h`: the chain rule multiplies by it"""
    return up * _slope(gate), silu(gate)


# --- 4: does anything learn -----------------------------------------------------------------------


def _gradients(x_TD: Tensor, *matrices: Tensor) -> tuple[Tensor, ...]:
    leaves = [matrix.detach().clone().requires_grad_() for matrix in matrices]
    w_gate, w_up, w_down = leaves
    out_TD = (silu(x_TD @ w_gate.T) * (x_TD @ w_up.T)) @ w_down.T
    return torch.autograd.grad(out_TD.sum(), leaves)


@listed("14.4", of="learns")
def asks_the_outputs(x_TD: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> bool:
    """the outputs are asked instead of the gradients: a layer that adds nothing can still learn"""
    out_TD = (silu(x_TD @ w_gate.T) * (x_TD @ w_up.T)) @ w_down.T
    return out_TD.any().item()


@listed("14.4", of="learns")
def all_gradients(x_TD: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> bool:
    """all three gradients must be there: one of them is enough"""
    return all(gradient.any().item() for gradient in _gradients(x_TD, w_gate, w_up, w_down))


@listed("14.4", of="learns")
def only_the_gate(x_TD: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> bool:
    """only the gradient at `w_gate` is asked for: another matrix can learn"""
    return _gradients(x_TD, w_gate, w_up, w_down)[0].any().item()


@listed("14.4", of="learns")
def only_down(x_TD: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> bool:
    """only the gradient at `w_down` is asked for: another matrix can learn"""
    return _gradients(x_TD, w_gate, w_up, w_down)[2].any().item()


@listed("14.4", of="learns")
def gradient_exists(x_TD: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> bool:
    """the question is whether gradients exist, not whether they are zero"""
    return all(gradient is not None for gradient in _gradients(x_TD, w_gate, w_up, w_down))


# --- 5: the race without silu ---------------------------------------------------------------------


@listed("14.5", of="without_silu")
def silu_still_there(x_ND: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """silu is still there"""
    return (silu(x_ND @ w_gate) * (x_ND @ w_up)) @ w_down


@listed("14.5", of="without_silu")
def gate_left_out(x_ND: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """the gate is left out together with silu: its product with `up` stays"""
    return (x_ND @ w_up) @ w_down


@listed("14.5", of="without_silu")
def gate_added(x_ND: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """gate and up are added: they are multiplied"""
    return ((x_ND @ w_gate) + (x_ND @ w_up)) @ w_down


@listed("14.5", of="without_silu")
def gate_squared(x_ND: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """the gate is multiplied by itself instead of by up"""
    return (x_ND @ w_gate).square() @ w_down
