"""A blank waits, a wrong answer is counted and gets help, a right one is recorded."""

import pytest

from llama_from_scratch.lessons import attempt, check
from llama_from_scratch.lessons.check import CheckFailed
from llama_from_scratch.lessons.exercises import progress


def blank(config, gpu_bytes):
    raise NotImplementedError("the number of tokens")


def test_blank_ends_the_block_with_one_line(capsys):
    with attempt("13.1"):
        blank(1, 2)
        pytest.fail("the block goes on")
    assert capsys.readouterr().out == "13.1 is not tried yet: the number of tokens\n"


def test_blank_inside_a_check_waits_too(capsys):
    with attempt("13.1"):
        check.answers(blank, [((1, 2), 3)])
    assert capsys.readouterr().out == "13.1 is not tried yet: the number of tokens\n"


def test_blank_without_words_waits_too(capsys):
    with attempt("13.1"):
        raise NotImplementedError
    assert capsys.readouterr().out == "13.1 is not tried yet\n"


def test_wrong_answer_stays_an_error_and_is_counted(reader, capsys):
    for n_tries in (1, 2):
        with pytest.raises(CheckFailed), attempt("13.1"):
            check.equal(1, 2)
        assert progress.load(reader).tries == {"13.1": n_tries}
    assert progress.load(reader).passed == frozenset()
    assert capsys.readouterr().out.count('help: exercises.hint("13.1")') == 2


def test_error_of_the_reader_is_neither_counted_nor_hidden_and_gets_help(reader, capsys):
    with pytest.raises(ZeroDivisionError), attempt("13.1"):
        print(1 / 0)
    assert not reader.exists() and 'help: exercises.hint("13.1")' in capsys.readouterr().out


def test_right_answer_is_recorded_in_a_readers_copy_only(reader, capsys):
    with attempt("13.1"):
        check.equal(2, 2)
    assert progress.load(reader).passed == {"13.1"}
    assert capsys.readouterr().out.endswith("✓ exercise 13.1 is done: 1 of 6 in this chapter\n")


def test_original_says_nothing_more_than_its_checks(capsys):
    with attempt("13.1"):
        check.equal(2, 2)
    assert capsys.readouterr().out == "✓ your result is right\n"


def test_the_mistakes_of_the_exercise_are_looked_for(capsys):
    from llama_from_scratch import family
    from llama_from_scratch.lessons.mistakes import attention

    config = family.config("llama-1-7b")

    def tokens_that_fit(config, gpu_bytes):
        return attention.without_weights(config, gpu_bytes)

    with pytest.raises(CheckFailed, match="the weights are not subtracted"), attempt("13.1"):
        check.answers(tokens_that_fit, [((config, 24 * 10**9), 20_071)])


def test_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match=r"13\.9"), attempt("13.9"):
        pass
