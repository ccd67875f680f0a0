import pytest
import torch
from torch import nn

from llama_from_scratch.experiments.torch_optimizer import TorchOptimizer
from llama_from_scratch.train.optimizer import AdamW, Group


def params():
    torch.manual_seed(0)
    return {"a.weight": nn.Parameter(torch.randn(3, 4)), "b": nn.Parameter(torch.randn(4))}


def groups(own):
    return [Group(params={"a.weight": own["a.weight"]}, weight_decay=0.1),
            Group(params={"b": own["b"]}, weight_decay=0.0)]


def steps(optimizer, own, numbers):
    for number in numbers:
        optimizer.zero_grad()
        for p in own.values():
            p.grad = torch.sin(p.detach() * (number + 1))
        optimizer.step(lr=0.01 * (number + 1))


# The optimizers of PyTorch that step without a closure and train matrices and vectors.
MAKES = ["Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam",
         "RMSprop", "Rprop", "SGD"]


def test_torch_adamw_equals_ours():
    ours, theirs = params(), params()
    steps(AdamW(groups(ours), beta1=0.9, beta2=0.999), ours, range(5))
    steps(TorchOptimizer(torch.optim.AdamW, groups(theirs)), theirs, range(5))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours["b"], params()["b"])


@pytest.mark.parametrize("name", MAKES)
def test_the_state_survives_a_resume_exactly(name, tmp_path):
    from llama_from_scratch.checkpoint.safetensors_file import read_tensors, write_tensors

    make = getattr(torch.optim, name)
    whole, first = params(), params()
    steps(TorchOptimizer(make, groups(whole)), whole, range(6))
    optimizer = TorchOptimizer(make, groups(first))
    steps(optimizer, first, range(3))
    write_tensors(tmp_path / "state", optimizer.state_dict())
    again = TorchOptimizer(make, groups(first))
    again.load_state_dict(read_tensors(tmp_path / "state"))
    steps(again, first, range(3, 6))
    assert all(torch.equal(whole[key], first[key]) for key in whole)


def test_the_rate_of_each_step_and_the_decay_of_each_group_arrive():
    optimizer = TorchOptimizer(torch.optim.SGD, groups(params()))
    assert [group["weight_decay"] for group in optimizer.inner.param_groups] == [0.1, 0.0]
    for p in params().values():
        p.grad = torch.ones_like(p)
    optimizer.step(lr=0.25)
    assert [group["lr"] for group in optimizer.inner.param_groups] == [0.25, 0.25]


def test_the_state_of_other_parameters_is_refused():
    own = params()
    optimizer = TorchOptimizer(torch.optim.Adam, groups(own))
    with pytest.raises(ValueError, match="must belong to the same parameters; got 'c.step'"):
        optimizer.load_state_dict({"c.step": torch.tensor(1.0)})


def test_a_class_with_other_arguments_is_refused():
    class Mine(torch.optim.SGD):
        def __init__(self, params):
            super().__init__(params)

    with pytest.raises(ValueError, match="must accept parameters and lr; Mine raised"):
        TorchOptimizer(Mine, groups(params()))
