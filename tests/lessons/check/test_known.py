"""A known mistake is named when it explains all that was seen, and only then."""

import pytest
import torch
from failing_checks import double, message

from llama_from_scratch.lessons import check
from llama_from_scratch.lessons.check import known as known_mistakes
from llama_from_scratch.lessons.check.known import Mistake, looking_for


def tripled(x):
    return 3 * x


def halved(x):
    return x / 2


def known(*pairs, of="mine"):
    return lambda: [Mistake(of=of, words=words, wrong=wrong) for words, wrong in pairs]


def test_mistake_that_explains_every_answer_takes_the_place_of_a_likely_cause():
    def mine(x):
        return 3 * x

    with looking_for(known(("it is halved", halved), ("it is taken three times", tripled))):
        said = message(check.function, mine, double, inputs=[1.0, 2.0])
    assert said.startswith("what mine returns is 3.0, but should be 2.0.\n"
                           "  you get exactly this result if it is taken three times\n"
                           "  with input 1")
    assert "likely cause" not in said and "halved" not in said


def test_mistake_that_explains_only_one_of_the_answers_is_not_named():
    def mine(x):
        return 3 * x if x > 1 else 2 * x + 0 * x if x < 0 else 2 * x

    def tripled_at_once(x):
        return 3 * x

    with looking_for(known(("it is taken three times", tripled_at_once))):
        said = message(check.function, mine, double, inputs=[1.0, 2.0])
    assert "exactly this result" not in said and "with input 2 of 2" in said


def test_two_mistakes_with_the_same_result_are_both_named():
    def mine(x):
        return 3 * x

    with looking_for(known(("one", tripled), ("other", tripled))):
        assert "you get exactly this result if one\n  or if other\n" in message(
            check.answers, mine, [(1.0, 2.0)])


def test_mistakes_of_another_function_and_of_no_block_are_not_looked_for():
    def mine(x):
        return 3 * x

    with looking_for(known(("it is taken three times", tripled), of="other")):
        assert "exactly" not in message(check.function, mine, double, inputs=[4.5])
    assert "exactly this result" not in message(check.function, mine, double, inputs=[4.5])


def test_mistakes_are_asked_for_only_after_a_failure(capsys):
    with looking_for(lambda: pytest.fail("asked for")):
        check.function(double, double, inputs=[1.0])


@pytest.mark.parametrize(("quiet_s", "said"), [
    (-1, "comparing your answer with 2 known mistakes ...\n"), (1e9, "")])
def test_long_search_says_once_that_it_runs(monkeypatch, capsys, quiet_s, said):
    monkeypatch.setattr(known_mistakes, "_QUIET_S", quiet_s)
    with looking_for(known(("it is halved", halved), ("it is taken three times", tripled))):
        message(check.function, tripled, double, inputs=[1.0], name="mine")
    assert capsys.readouterr().out == said


def test_mistake_in_a_value_and_in_a_backward_pass_are_named():
    with looking_for(known(("it is three", lambda: 3), of="the number")):
        assert "result if it is three" in message(check.equal, 3, 2, name="the number")

    def mine(x):
        return x * x.detach()

    def detached(x):
        return x * x.detach()

    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    with looking_for(known(("one factor is detached", detached), ("it is doubled", double))):
        said = message(check.gradients, mine, lambda x: x * x, inputs=[x])
    assert "backward pass is wrong" in said and "if one factor is detached" in said


def test_gradients_of_the_reader_are_computed_once_for_each_input():
    class Tripled(torch.autograd.Function):
        n_backward = 0

        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            Tripled.n_backward += 1
            return 3 * gradient

    wrong = lambda x: 2 * x + (x - x.detach())
    with looking_for(known(("its gradient is 3", wrong), ("it is doubled", double))):
        assert "if its gradient is 3" in message(check.gradients, Tripled.apply, double,
                                                 inputs=[torch.ones(3)], name="mine")
    assert Tripled.n_backward == 1


def test_answers_take_the_place_of_a_reference(capsys):
    check.answers(double, [(1, 2), ((3,), 6)])
    assert capsys.readouterr().out == "✓ double is right for 2 inputs\n"
    assert "with input 2 of 2: x = 3" in message(check.answers, double, [(1, 2), (3, 5)])


def test_answers_are_compared_after_what_they_go_through(capsys):
    def mine():
        return "3"

    check.answers(mine, [((), 3)], through=int)
    assert "✓ mine is right for 1 input" in capsys.readouterr().out
    with looking_for(known(("it is four", lambda: "4"), ("it is three", lambda: " 3"))):
        said = message(check.answers, mine, [((), 5)], through=int)
    assert said.startswith("what mine computes is 3, but should be 5.")
    assert "you get exactly this result if it is three\n" in said and "it is four" not in said


def test_failure_on_the_way_is_explained_by_a_mistake_with_the_same_failure():
    def mine():
        return -1

    def positive(value):
        if value < 0:
            raise check.CheckFailed(f"a count is positive; got {value}")
        return value

    with looking_for(known(("a sign is turned", lambda: -1), ("one less", lambda: -2),
                           ("one more", lambda: 1))):
        said = message(check.answers, mine, [((), 0)], through=positive)
    assert said.startswith("a count is positive; got -1\n  you get exactly this result if "
                           "a sign is turned\n")
