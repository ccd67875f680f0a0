"""What ranks print: whole lines, with the rank's number, in an order that is always the same."""

import threading

import pytest

from llama_from_scratch.parallel.output import Said, Transcript


@pytest.fixture
def said():
    told = []
    stream = Said(told.append)
    stream.told = told
    return stream


def test_whole_lines_are_told_and_a_line_that_is_begun_waits(said):
    print("a", end="", file=said, flush=True)
    assert said.told == []
    print("b\nc", file=said)
    assert said.told == ["ab\nc\n"] or "".join(said.told) == "ab\nc\n"
    print("d", end="", file=said)
    said.finish()
    said.finish()
    assert "".join(said.told) == "ab\nc\nd\n"


def test_it_is_a_stream_that_programs_accept(said):
    assert said.writable() and not said.isatty() and said.encoding == "utf-8"
    assert said.write("héé\n") == 4 and said.told == ["héé\n"]


def test_lines_of_several_threads_are_not_lost(said):
    threads = [threading.Thread(target=lambda: [said.write("x\n") for _ in range(500)])
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "".join(said.told) == "x\n" * 2000


def test_rank_0_is_printed_at_once_and_the_others_follow_in_order(capsys):
    transcript = Transcript()
    transcript.add(2, "c\n")
    transcript.add(0, "a\n")
    assert capsys.readouterr().out == "[rank 0] a\n"
    transcript.add(1, "b\n")
    transcript.add(2, "d\n")
    transcript.finish()
    transcript.finish()
    assert capsys.readouterr().out == "[rank 1] b\n[rank 2] c\n[rank 2] d\n"


def test_every_line_has_the_number_also_an_empty_one(capsys):
    transcript = Transcript()
    transcript.add(0, "a\n\nb\u2028c\n")
    assert capsys.readouterr().out == "[rank 0] a\n[rank 0] \n[rank 0] b\u2028c\n"
