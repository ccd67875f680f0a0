"""What the checks say: to right answers one line, to wrong ones where and why, to functions that misbehave their own error."""

import contextlib
import dataclasses
import math
import re
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.lessons import check
from llama_from_scratch.lessons.check.calling import NotWritten
from llama_from_scratch.lessons.check import CheckFailed
from llama_from_scratch.model.attention import Attention
from llama_from_scratch.model.feed_forward import FeedForward
from llama_from_scratch.model.norm import RMSNorm
from llama_from_scratch.model.transformer import Block, Llama

x_BHTS = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))


def message(function, *args, **settings):
    with pytest.raises(CheckFailed) as failed:
        function(*args, **settings)
    return str(failed.value)


# --- equal -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mine", "expected"), [
    (x_BHTS * (1 + 1e-6), x_BHTS), (x_BHTS.clone().requires_grad_(), x_BHTS), (x_BHTS.double(), x_BHTS), (3, 3),
    (0.1 + 0.2, 0.3),
    (torch.tensor(2.5), 2.5), (2.5, torch.tensor(2.5)), (np.float32(2.5), 2.5), (True, True), ("é", "é"),
    (b"a", b"a"),
    (None, None),     ([1, [2.0, "x"]], (1, [2.0, "x"])), ({"a": x_BHTS, "b": [1]}, {"b": [1], "a": x_BHTS}), ({1, 2}, {2, 1}),
    (math.nan, math.nan),
    (torch.tensor([1, -math.inf, math.nan]), torch.tensor([1, -math.inf, math.nan])), (np.arange(3), np.arange(3)),
    (torch.zeros(0, 3), torch.zeros(0, 3)),
])
def test_equal_values_print_one_line_and_return_nothing(mine, expected, capsys):
    assert check.equal(mine, expected, name="mine") is None
    shown = capsys.readouterr().out
    assert shown.startswith("✓ mine is right") and shown.count("\n") == 1


def test_the_line_names_the_shape_and_nothing_that_varies(capsys):
    check.equal(x_BHTS * (1 + 1e-6), x_BHTS, name="scores_BHTS")
    assert capsys.readouterr().out == "✓ scores_BHTS is right, shape (2, 4, 5, 5)\n"


@pytest.mark.parametrize(("name", "verb"), [
    ("your losses", "are"), ("the sizes of the layer", "are"), ("your ids", "are"), ("the list of losses", "is"),
    ("the weight after 20 steps", "is"), ("your loss", "is"), ("the axis", "is"), ("the bias", "is"), ("scores_BHTS", "is"),
])
def test_the_line_agrees_in_number_with_the_name(name, verb, capsys):
    check.equal([1, 2], [1, 2], name=name)
    assert capsys.readouterr().out == f"✓ {name} {verb} right\n"
    has = {"is": "has", "are": "have"}[verb]
    assert message(check.equal, [1], [1, 2], name=name).startswith(f"{name} {has} 1 entry")
    assert message(check.equal, "a", "b", name=name).startswith(f"{name} {verb} not what")


def test_failure_shows_shapes_with_letters_place_count_largest_and_cause():
    wrong = x_BHTS * 4
    wrong[0, 0, 0] = x_BHTS[0, 0, 0]
    wrong[1, 1, 1, 1] += 0.1
    assert message(check.equal, wrong, x_BHTS, name="scores_BHTS").splitlines() == [
        "scores_BHTS is not what it should be.",
        "         yours                  expected",
        "  shape  (B=2, H=4, T=5, S=5)   (B=2, H=4, T=5, S=5)",
        f"  first difference at [0, 0, 1, 0]: yours {wrong[0, 0, 1, 0]:.6g}, expected {x_BHTS[0, 0, 1, 0]:.6g}",
        f"  195 of 200 values differ, the largest difference is {(wrong - x_BHTS).abs().max():.4g} at "
        f"{((wrong - x_BHTS).abs() == (wrong - x_BHTS).abs().max()).nonzero()[0].tolist()}",
    ]
    assert "likely cause: every value is 4 times the expected" in message(check.equal, x_BHTS * 4, x_BHTS)
    assert "axis 1 (H) and axis 2 (T) are swapped" in message(check.equal, x_BHTS.transpose(1, 2), x_BHTS, name="scores_BHTS")


@pytest.mark.parametrize(("mine", "expected", "words"), [
    (None, x_BHTS, "must be a tensor, yours is None. Did you forget `return`?"),
    ([1, 2], torch.tensor([1, 2]), "must be a tensor, yours is a list of 2: [1, 2]. `torch.tensor(...)`"),
    (np.zeros(2), torch.zeros(2), "`torch.from_numpy(...)`"),
    (print, x_BHTS, "yours is the function print. Call it"), (nn.Linear, x_BHTS, "yours is the class Linear. Call it"),
    (nn.Linear(2, 2), x_BHTS, "yours is the module Linear. Call it"),
    (x_BHTS, 3.0, "must be a number, yours is a float32 tensor of shape (2, 4, 5, 5). `.item()`"),
    (3.0, x_BHTS, "must be a tensor, yours is 3.0."),
    (torch.tensor([1, 2]), [1, 2], "`.tolist()`"), (b"a", "a", "`.decode("), ("a", b"a", "`.encode("),
    ({1}, [1], "must be a sequence"),
    (x_BHTS[0], x_BHTS, "shape  (4, 5, 5)"),
    (torch.tensor([1, 0]), torch.tensor([True, False]), "yours is int64, expected is bool"),
    (torch.tensor([1, 2]), torch.tensor([1.0, 2.0]), "right values in the wrong type"),
    (x_BHTS.bfloat16(), x_BHTS, "dtype  bfloat16"), (2, 3, "your result is 2, expected is 3."),
    (math.e / math.log(2), math.e, "likely cause: every value is 1/ln 2 times"),
    (1.0, math.nan, "expected is nan"), (math.nan, 1.0, "is nan"),
    ("hello", "hallo", "your result is not what it should be: they part at character 1\n"),
    (b"a", b"bc", "1 byte, expected 2; they part at byte 0"), ([1], [1, 2], "your result has 1 entry, expected 2;"),
    ("hell", "hello", "4 characters, expected 5; they part at character 4"),
    ([1, 2, 4], [1, 2, 3], "your result[2] is 4, expected is 3"),
    ([1, 2], [1, 2, 3], "the first 2 are right, then 3 is missing"),
    ([1, 2, 3], [1, 2], "then 3 is too many"),
    ([2, 5, 10], [1, 4, 9], "every value is 1 too large"),
    ([1, 1], [1, None], "[1] must be None"),
    ({"a": [1]}, {"a": [2]}, "your result['a'][0] is 1, expected is 2"),
    ({"a": 1}, {"b": 1}, "it lacks ['b'], it should not have ['a']"),
    ({1}, {2}, "your result is {1}, expected is {2}"), (1.0001, 1.0, "is 1.0001"), (1e-7, 2e-7, "is 1e-07"),
    (1e-7 * x_BHTS, 2e-7 * x_BHTS, "1/2 of the expected"),
])
def test_wrong_value_is_told_in_words(mine, expected, words):
    assert words in message(check.equal, mine, expected)


def test_tolerances_are_obeyed():
    check.equal(x_BHTS + 0.01, x_BHTS, atol=0.02)
    check.equal([1.1], [1.0], rtol=0.2)
    message(check.equal, x_BHTS * (1 + 1e-6), x_BHTS, rtol=1e-8, atol=0.0)
    with pytest.raises(ValueError, match="a tolerance is a number from 0 on; got rtol=-1"):
        check.equal(1.0, 1.0, rtol=-1)
    with pytest.raises(ValueError, match="no values to compare"):
        check.equal(torch.zeros(3, device="meta"), torch.zeros(3))


# --- function --------------------------------------------------------------------------------------------------------


def double(x):
    return 2 * x


def random_inputs(generator):
    return torch.randn(3, 4, generator=generator), 0.5


def scaled(x_TS, scale):
    return x_TS * scale


def test_function_is_called_with_each_input(capsys):
    check.function(lambda x: x + x, double, inputs=[(1,), (2.5,), ("a",)], name="twice")
    assert capsys.readouterr().out == "✓ twice is right for 3 inputs\n"
    check.function(scaled, lambda x, scale: x * scale, inputs=random_inputs)
    check.function(scaled, scaled, inputs=[{"scale": 2, "x_TS": 3}])
    check.function(double, double, inputs=[torch.ones(2)])
    assert "with input 3 of 3: x = 3" in message(check.function, lambda x: min(2 * x, 5), double, inputs=[(1,), (2,), (3,)])


def test_random_inputs_are_seeded_and_differ():
    seen = []
    check.function(lambda x, scale: seen.append(x) or x * scale, scaled, inputs=random_inputs)
    again = []
    check.function(lambda x, scale: again.append(x) or x * scale, scaled, inputs=random_inputs)
    assert len(seen) == 5 and all(torch.equal(a, b) for a, b in zip(seen, again)) and not torch.equal(seen[0], seen[1])


def no_return(x):
    2 * x


def changes_its_argument(x):
    x *= 2
    return x


def swallows_everything(x):
    until = time.monotonic() + 8
    while time.monotonic() < until:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def two_arguments(x, y):
    return x


@pytest.mark.parametrize(("mine", "words"), [
    (no_return, "what no_return returns must be a tensor, yours is None. Did you forget `return`?"),
    (lambda x: [1], "must be a tensor, yours is a list"),
    (lambda x: x[:1], "shape  (1, 4)   (3, 4)"), (lambda x: x, "likely cause: every value is 1/2"),
    (changes_its_argument, "changes its argument x; work on a copy"),
    (lambda: 3, "cannot be called as the task asks: too many positional"),
    (two_arguments, "two_arguments(x, y) cannot be called as the task asks: missing a required argument: 'y'"),
    (torch.ones(3), "yours is a float32 tensor of shape (3,). Hand over the function, not its result"),
])
def test_wrong_function_is_told_in_words_with_its_input(mine, words):
    text = message(check.function, mine, double, inputs=[(torch.arange(12.0).reshape(3, 4) + 1,)])
    assert words in text
    assert callable(mine) == ("with input 1 of 1: x = a float32 tensor" in text or "argument 1 = a float32 tensor" in text)


def deep_inside(x):
    return x.no_such_thing


def raises(x):
    return deep_inside(x)


def test_error_of_the_reader_keeps_its_own_traceback_and_says_which_input():
    with pytest.raises(AttributeError, match="no_such_thing") as failed:
        check.function(raises, lambda x: x, inputs=[(3,)])
    assert failed.value.__notes__ == ["raised by raises\n  with input 1 of 1: x = 3"]
    names = [frame.name for frame in traceback.extract_tb(failed.value.__traceback__)]
    assert names[-2:] == ["raises", "deep_inside"]
    assert not {"call", "_by_signal"} & set(names)
    ours = [f.frame.f_locals for f in failed.traceback if str(f.path).startswith(str(Path(check.__file__).parent))]
    assert ours and all("__tracebackhide__" in variables for variables in ours), "IPython and pytest hide what is marked so"


def test_unwritten_exercise_says_its_task_and_shows_no_trace():
    def stub(x):
        raise NotImplementedError("return the tensor as it was before")

    with pytest.raises(NotImplementedError, match="^stub is yet to be written: return the tensor as it was before$") as failed:
        check.function(stub, double, inputs=[(1,)])
    assert failed.value.__suppress_context__
    assert "stub" not in [frame.name for frame in traceback.extract_tb(failed.value.__traceback__)]


@pytest.mark.parametrize("error", [CheckFailed, NotWritten])
def test_notebook_shows_the_words_under_the_readers_line_and_no_trace_through_the_library(error):
    library = {"error": error}
    exec(compile("def fail(): raise error('words')", Path(check.__file__).parent / "any.py", "exec"), library)
    with pytest.raises(error) as failed:
        library["fail"]()
    arrow, *words = failed.value._render_traceback_()
    assert re.fullmatch(r"----> \d+ library\[.fail.\]\(\)", arrow)
    assert words == ["", f"{error.__name__}: words"]


@pytest.mark.parametrize("in_thread", [False, True])
def test_endless_loop_is_stopped_after_the_stated_time(in_thread):
    def endless(x):
        until = time.monotonic() + 8  # so that this test ends if the limit does not work
        while time.monotonic() < until:
            x += 1

    texts = []

    def work():
        texts.append(message(check.function, endless, double, inputs=[(1,)], time_limit_s=0.3))

    began = time.monotonic()
    if in_thread:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    assert time.monotonic() - began < 5
    assert "endless was still running after 0.3 s and was stopped in its line" in texts[0]
    assert "with input 1 of 1: x = 1" in texts[0]


def test_loop_that_swallows_every_exception_is_stopped_too():
    assert "still running" in message(check.function, swallows_everything, double, inputs=[(1,)], time_limit_s=0.2)


def test_time_limit_leaves_no_alarm_behind():
    check.function(double, double, inputs=[(1,)], time_limit_s=0.1)
    with pytest.raises(AttributeError):
        check.function(raises, double, inputs=[(1,)], time_limit_s=0.1)
    time.sleep(0.25)


@pytest.mark.parametrize(("settings", "words"), [
    ({"inputs": []}, "inputs is a list of tuples of arguments"),
    ({"inputs": torch.ones(3)}, "For a single input write inputs=\\[\\(x,\\)\\]"),
    ({"inputs": [(1,)], "time_limit_s": 0}, "time_limit_s must be above 0"),
    ({"inputs": [(1,)], "atol": math.inf}, "a tolerance is"),
])
def test_wrong_use_of_a_check_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        check.function(double, double, **settings)


# --- changed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mine", "baseline", "settings", "line"), [
    (2.18001, 2.31, {"name": "the final loss", "is_lower": True}, "✓ the final loss has changed: 2.31 → 2.18"),
    (3, 2, {"name": "your losses", "is_lower": False}, "✓ your losses have changed: 2 → 3"),
    ("One day", "Once", {}, "✓ your result has changed: 'Once' → 'One day'"),
    (torch.tensor(2.5), 2.0, {}, "✓ your result has changed: 2 → 2.5"),
    (torch.ones(2), torch.zeros(2), {}, "✓ your result has changed: a float32 tensor of shape (2,) → a float32 tensor of "
                                        "shape (2,)"),
    (math.nan, 2.0, {}, "✓ your result has changed: 2 → nan"),
])
def test_a_changed_result_prints_one_line_with_both(mine, baseline, settings, line, capsys):
    check.changed(mine, baseline, **settings)
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(("mine", "baseline", "settings", "words"), [
    (2.31, 2.31, {}, "your result has not changed: 2.31 before, 2.31 now. Was the change made"),
    (2.31, 2.3101, {"rtol": 0.01}, "not changed"), (torch.ones(3), torch.ones(3), {}, "not changed"),
    (2.4, 2.31, {"is_lower": True}, "went up: 2.31 before, 2.4 now; a lower one is asked for"),
    (2.2, 2.31, {"is_lower": False}, "went down: 2.31 before, 2.2 now; a higher one is asked for"),
    (math.nan, 2.31, {"is_lower": True}, "is not a number: 2.31 before"),
    (None, 2.31, {}, "yours is None. Did you forget `return`?"), ([1.0], 2.31, {}, "must be a number"),
])
def test_a_result_that_did_not_change_as_asked_is_told_in_words(mine, baseline, settings, words):
    assert words in message(check.changed, mine, baseline, **settings)


def test_only_numbers_can_be_lower():
    with pytest.raises(ValueError, match=r"only a number.*got 'b'\. Leave is_lower out"):
        check.changed("b", "a", is_lower=True)


# --- gradients -------------------------------------------------------------------------------------------------------


class HalfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_right_gradients_print_one_line(capsys):
    check.gradients(lambda x, scale: torch.stack([x[0] * scale, *(x[1:] * scale)]), scaled, inputs=random_inputs)
    assert capsys.readouterr().out == "✓ <lambda> is right for 5 inputs, and so are its gradients for 1 argument\n"


def test_gradients_say_how_many_parameters_agreed(capsys):
    config = family.tiny("llama-3.1")
    ids_BT, models = torch.arange(6)[None], []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Llama(config))
    check.gradients(*models, inputs=[(ids_BT,)], name="llama-3.1")
    n = len(list(models[0].parameters()))
    assert capsys.readouterr().out == f"✓ llama-3.1 is right for 1 input, and so are its gradients for {n} parameters\n"
    check.gradients(*(RMSNorm(8, eps=1e-5) for _ in range(2)), inputs=[(torch.ones(2, 8),)])
    assert capsys.readouterr().out.endswith("for 1 argument and 1 parameter\n")


@pytest.mark.parametrize(("mine", "words"), [
    (lambda x: HalfGradient.apply(x), "its backward pass differs:\nthe gradient of x is"),
    (lambda x: HalfGradient.apply(x), "1/2 of the expected"),
    (lambda x: (2 * x).detach(), "no gradient reaches x"),
    (lambda x: 3 * x, "what <lambda> returns is not"),
    (lambda x: torch.tensor((2 * x).tolist()), "`torch.tensor(...)`"),
])
def test_wrong_gradients_are_told_in_words(mine, words):
    assert words in message(check.gradients, mine, double, inputs=[(torch.linspace(1, 2, 12).reshape(3, 4),)])


def test_errors_that_cancel_in_a_plain_sum_are_found():
    def turned(x):
        return 2 * x + (x - x.detach()) - (x - x.detach()).roll(1)

    x = torch.linspace(1, 2, 7)
    assert torch.equal(torch.autograd.functional.jacobian(lambda x: turned(x).sum(), x), torch.full((7,), 2.0))
    assert "backward pass differs" in message(check.gradients, turned, double, inputs=[(x,)])


def test_gradients_of_parameters_are_compared():
    class Detached(RMSNorm):
        def forward(self, x):
            return super().forward(x) / self.weight * self.weight.detach()

    inputs = [(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)),)]
    check.gradients(RMSNorm(8, eps=1e-5), RMSNorm(8, eps=1e-5), inputs=inputs)
    assert "parameter weight" in message(check.gradients, Detached(8, eps=1e-5), RMSNorm(8, eps=1e-5), inputs=inputs)


def test_whole_numbers_have_no_gradients():
    with pytest.raises(ValueError, match="double has none"):
        check.gradients(double, double, inputs=[(torch.arange(3),)])


# --- models ----------------------------------------------------------------------------------------------------------

config = dataclasses.replace(family.tiny("llama-3"), max_seq_len=32)
ids_BT = torch.randint(0, config.vocab_size, (2, 7), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def twins():
    """Two equal models that may be damaged."""
    torch.manual_seed(0)
    reference = Llama(config)
    mine = Llama(config)
    mine.load_state_dict(reference.state_dict())
    return mine, reference


def test_equal_models_print_one_line(twins, capsys):
    check.compare(*twins, ids=ids_BT)
    assert capsys.readouterr().out == f"✓ the models agree, output of shape (2, 7, {config.vocab_size})\n"
    assert not any(m._forward_hooks or m._forward_pre_hooks for model in twins for m in model.modules()), "no hook stays behind"


class Ungated(FeedForward):
    def forward(self, x):
        return self.w_down(torch.nn.functional.silu(self.w_gate(x)) + self.w_up(x))


class NoResidual(Block):
    def forward(self, x, *, rotation, visible, cache):
        x = self.attention(self.attention_norm(x), rotation=rotation, visible=visible, cache=cache)
        return x + self.feed_forward(self.ffn_norm(x))


class ForgottenNorm(Llama):
    def hidden(self, ids, **settings):
        norm, self.norm = self.norm, nn.Identity()
        try:
            return super().hidden(ids, **settings)
        finally:
            self.norm = norm


class Unscaled(Attention):
    def forward(self, x, **settings):
        return super().forward(x * 2, **settings)


def test_first_diverging_module_is_named_with_its_weights(twins):
    mine, reference = twins
    with torch.no_grad():
        mine.layers[1].attention.wk.weight.copy_(mine.layers[1].attention.wk.weight.flip(0))
    text = message(check.compare, mine, reference, ids=ids_BT)
    assert text.startswith("layers.1.attention.wk is the first module that diverges, and its weights differ.\n")
    assert "likely cause: the order along axis 0 is reversed" in text
    assert "up to the " in text and "the output of layers.1.attention.wk" in text


@pytest.mark.parametrize(("damage", "words"), [
    (lambda m: setattr(m.layers[0].feed_forward, "__class__", Ungated),
     "What enters layers.0.feed_forward.w_down differs first: the mistake is in the forward of layers.0.feed_forward"),
    (lambda m: setattr(m.layers[1], "__class__", NoResidual),
     "What enters layers.1.ffn_norm differs first: the mistake is in the forward of layers.1"),
    (lambda m: setattr(m, "__class__", ForgottenNorm), "norm is not called in your model"),
    (lambda m: setattr(m.layers[0].attention, "__class__", Unscaled), "What enters layers.0.attention.wq differs first"),
    (lambda m: setattr(m.norm, "eps", 0.1),
     "norm is the first module that diverges: its input and weights agree, its output does not."),
])
def test_place_of_a_mistake_in_a_forward_is_found(twins, damage, words):
    mine, reference = twins
    damage(mine)
    text = message(check.compare, mine, reference, ids=ids_BT)
    assert text.startswith(words) and "agree" in text


class Renamed(nn.Module):
    """The reader's own model, with names of its own."""

    def __init__(self, reference, *, scale=1.0):
        super().__init__()
        self.table, self.blocks = reference.tok_embeddings, reference.layers
        self.last, self.head = reference.norm, reference.output
        self.turn, self.inner, self.scale = reference.rope, [reference], scale

    def forward(self, ids):
        reference, = self.inner
        return self.head(reference.hidden(ids) * self.scale)


def test_models_with_other_names_are_matched_by_their_outputs(twins, capsys):
    mine, reference = twins
    check.compare(Renamed(mine), reference, ids=ids_BT)
    assert "the models agree" in capsys.readouterr().out
    text = message(check.compare, Renamed(mine, scale=2.0), reference, ids=ids_BT)
    assert "No module of yours has the output of output" in text and "after the output of norm (last in yours)" in text
    with torch.no_grad():
        mine.layers[1].ffn_norm.weight.mul_(2)
    assert "output of layers.1.ffn_norm" in message(check.compare, Renamed(mine), reference, ids=ids_BT)


def test_error_inside_a_model_says_in_which_module(twins):
    mine, reference = twins
    mine.layers[1].feed_forward.w_down = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shapes") as failed:
        check.compare(mine, reference, ids=ids_BT)
    assert "inside layers.1.feed_forward.w_down" in failed.value.__notes__


def test_what_is_no_model_is_refused(twins):
    assert "yours is the function double" in message(check.compare, double, twins[1], ids=ids_BT)
