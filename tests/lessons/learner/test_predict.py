"""A question takes a guess, keeps it, and gives the answer only afterwards."""

import pytest
from matplotlib.figure import Figure

from llama_from_scratch.lessons import predict
from llama_from_scratch.lessons.exercises import progress


def test_number_is_asked_kept_and_compared(reader, capsys):
    question = predict.number("13.z", "the variance")
    question.field.value = "2^6"
    question.keep.click()
    assert "You guessed: 64. Now find out." in question.words.value
    assert progress.load(reader).guesses == {"13.z": {"guess": 64.0}}
    predict.compare("13.z", 128)
    assert capsys.readouterr().out == (
        "Your guess of 64 was 2.0 times too small. The answer: 128.\n")
    kept = progress.load(reader).guesses["13.z"]
    assert (kept["guess"], kept["answer"]) == (64, 128) and kept["surprise"] > 0.5


def test_what_is_no_number_is_said_and_not_kept(reader):
    question = predict.number("13.z", "the variance")
    question.field.value = "many"
    question.keep.click()
    assert "a guess must be a number" in question.words.value and question.guess is None
    assert not reader.exists()


def test_guess_is_there_again_when_the_cell_is_run_again(reader):
    question = predict.choice("13.z", "which", ["keys", "values"])
    question.keep.click()
    assert "choose an option first" in question.words.value
    question.field.value = "keys"
    question.keep.click()
    again = predict.choice("13.z", "which", ["keys", "values"])
    assert again.guess == "keys" and "You guessed: keys" in again.words.value


def test_without_a_guess_only_the_answer_is_shown(capsys):
    predict.number("13.z", "the variance")
    assert predict.compare("13.z", 131_072) is None
    assert capsys.readouterr().out == "answer 13.z: 131,072\n"


def test_sketch_is_drawn_beside_the_answer(reader):
    question = predict.sketch("13.z", "the loss", x=[1, 2, 3], low=0, high=6,
                              labels=("step", "loss (nats)"))
    for handle, value in zip(question.handles, (6.0, 3.0, 3.0), strict=True):
        handle.value = value
    question.keep.click()
    figure = predict.compare("13.z", [6.0, 3.0, 1.0])
    assert isinstance(figure, Figure)
    yours, answer = figure.axes[0].lines
    assert list(yours.get_ydata()) == [6, 3, 3] and list(answer.get_ydata()) == [6, 3, 1]
    with pytest.raises(ValueError, match="low < high"):
        predict.sketch("13.z", "the loss", x=[1], low=0, high=6)


def test_logarithmic_sketch_has_handles_and_curves_that_are_logarithmic(reader):
    question = predict.sketch("10.z", "the size", x=[1, 2], low=1, high=16, is_log=True)
    assert question.content() == [4, 4]  # half of the way from 1 to 16
    question.handles[1].value = 16
    question.keep.click()
    assert question.guess == [4, 16]
    assert predict.compare("10.z", [1, 16]).axes[0].get_yscale() == "log"
    with pytest.raises(ValueError, match="must be above 0; got low=0"):
        predict.sketch("10.z", "the size", x=[1, 2], low=0, high=16, is_log=True)


def test_words_are_shown_beside_one_answer(reader, capsys):
    question = predict.words("13.z", "why")
    question.keep.click()
    assert "write a sentence" in question.words.value
    question.field.value = " because "
    question.keep.click()
    predict.compare("13.z", "it is so")
    assert capsys.readouterr().out == "You wrote: because\nOne answer: it is so\n"


def test_answer_before_its_question_or_outside_its_options_is_refused():
    with pytest.raises(ValueError, match="the question '13.never' was not asked yet"):
        predict.compare("13.never", 1)
    predict.choice("13.z", "which", ["keys", "values"])
    with pytest.raises(ValueError, match="one of keys, values; got 'nothing'"):
        predict.compare("13.z", "nothing")


def test_surprises_list_the_furthest_guess_first(reader, capsys):
    predict.surprises("13")
    assert capsys.readouterr().out == "no guesses yet in this chapter\n"
    for name, guess in (("13.x", "100"), ("13.y", "3"), ("13.z", "50"), ("12.x", "1")):
        question = predict.number(name, f"question {name}")
        question.field.value = guess
        question.keep.click()
        predict.compare(name, 100)
    capsys.readouterr()
    predict.surprises("13")
    assert capsys.readouterr().out.splitlines() == [
        "1 of 3 guesses were right.",
        "  13.y  question 13.y: you guessed 3, it is 100",
        "  13.z  question 13.z: you guessed 50, it is 100"]


def test_stored_notebook_shows_the_question_as_text():
    bundle = predict.number("13.z", "the variance")._repr_mimebundle_()
    assert bundle["text/plain"] == "Your guess: the variance (run the cell to write it down)"
