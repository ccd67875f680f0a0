"""What `function` and `gradients` say to right functions, and to wrong ones."""

import math

import pytest
import torch
from failing_checks import double, message, random_inputs, scaled

from llama_from_scratch import family
from llama_from_scratch.lessons import check
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.transformer import Llama


def test_function_is_called_with_each_input(capsys):
    check.function(lambda x: x + x, double, inputs=[(1,), (2.5,), ("a",)], name="twice")
    assert capsys.readouterr().out == "✓ twice is right for 3 inputs\n"
    check.function(scaled, lambda x, scale: x * scale, inputs=random_inputs)
    check.function(scaled, scaled, inputs=[{"scale": 2, "x_TS": 3}])
    check.function(double, double, inputs=[torch.ones(2)])
    assert "with input 3 of 3: x = 3" in message(check.function, lambda x: min(2 * x, 5), double,
                                                 inputs=[(1,), (2,), (3,)])


def no_return(x):
    2 * x


def changes_its_argument(x):
    x *= 2
    return x


def two_arguments(x, y):
    return x


@pytest.mark.parametrize(("mine", "words"), [
    (no_return,
     "what no_return returns must be a tensor, but yours is None. Did you forget `return`?"),
    (lambda x: [1], "must be a tensor, but yours is a list"),
    (lambda x: x[:1], "shape  (1, 4)   (3, 4)"), (lambda x: x, "likely cause: every value is 1/2"),
    (changes_its_argument, "changes its argument x. Methods that end in _"),
    (lambda: 3, "does not take the arguments that the task gives it: too many positional"),
    (two_arguments, "two_arguments(x, y) does not take the arguments "
                    "that the task gives it: missing a required argument: 'y'"),
    (torch.ones(3), "yours is a float32 tensor of shape (3,). "
                    "Give it the function itself, not its result"),
])
def test_wrong_function_is_told_in_words_with_its_input(mine, words):
    text = message(check.function, mine, double, inputs=[(torch.arange(12.0).reshape(3, 4) + 1,)])
    assert words in text
    assert callable(mine) == ("with input 1 of 1: x = a float32 "
                              "tensor" in text or "argument 1 = a float32 tensor" in text)


@pytest.mark.parametrize(("settings", "words"), [
    ({"inputs": []}, "`inputs` must be a list of tuples of arguments"),
    ({"inputs": torch.ones(3)}, "For a single input write inputs=\\[\\(x,\\)\\]"),
    ({"inputs": [(1,)], "time_limit_s": 0}, "time_limit_s must be above 0"),
    ({"inputs": [(1,)], "atol": math.inf}, "a tolerance must be"),
])
def test_wrong_use_of_a_check_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        check.function(double, double, **settings)


class HalfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_right_gradients_print_one_line(capsys):
    check.gradients(lambda x, scale: torch.stack([x[0] * scale, *(x[1:] * scale)]), scaled,
                    inputs=random_inputs)
    assert (capsys.readouterr().out == "✓ <lambda> is right for 5 inputs, and "
                                       "so are its gradients for 1 argument\n")


def test_gradients_say_how_many_parameters_agreed(capsys):
    config = family.tiny("llama-3.1")
    ids_BT, models = torch.arange(6)[None], []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Llama(config))
    check.gradients(*models, inputs=[(ids_BT,)], name="llama-3.1")
    n = len(list(models[0].parameters()))
    assert (capsys.readouterr().out == "✓ llama-3.1 is right for 1 input, and so "
                                       f"are its gradients for {n} parameters\n")
    check.gradients(*(RMSNorm(8, eps=1e-5) for _ in range(2)), inputs=[(torch.ones(2, 8),)])
    assert capsys.readouterr().out.endswith("for 1 argument and 1 parameter\n")


@pytest.mark.parametrize(("mine", "words"), [
    (lambda x: HalfGradient.apply(x), "its backward pass is wrong:\nthe gradient of x is"),
    (lambda x: HalfGradient.apply(x), "1/2 of the expected"),
    (lambda x: (2 * x).detach(), "gives no gradient for x"),
    (lambda x: 3 * x, "what <lambda> returns is not"),
    (lambda x: torch.tensor((2 * x).tolist()), "`torch.tensor(...)`"),
])
def test_wrong_gradients_are_told_in_words(mine, words):
    assert words in message(check.gradients, mine, double,
                            inputs=[(torch.linspace(1, 2, 12).reshape(3, 4),)])


def test_errors_that_cancel_in_a_plain_sum_are_found():
    def turned(x):
        return 2 * x + (x - x.detach()) - (x - x.detach()).roll(1)

    x = torch.linspace(1, 2, 7)
    assert torch.equal(torch.autograd.functional.jacobian(lambda x: turned(x).sum(), x),
                       torch.full((7,), 2.0))
    assert "backward pass is wrong" in message(check.gradients, turned, double, inputs=[(x,)])


def test_gradients_of_parameters_are_compared():
    class Detached(RMSNorm):
        def forward(self, x):
            return super().forward(x) / self.weight * self.weight.detach()

    inputs = [(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)),)]
    check.gradients(RMSNorm(8, eps=1e-5), RMSNorm(8, eps=1e-5), inputs=inputs)
    assert "parameter weight" in message(check.gradients, Detached(8, eps=1e-5),
                                         RMSNorm(8, eps=1e-5), inputs=inputs)


def test_whole_numbers_have_no_gradients():
    with pytest.raises(ValueError, match="double has none"):
        check.gradients(double, double, inputs=[(torch.arange(3),)])
