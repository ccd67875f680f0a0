"""Many texts on all cores: the same ids in order, the same errors, and no process left behind."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from tokenizer_texts import BOS, CORPUS, EOS, EOT, random_text

from llama_from_scratch.tokenizer import Tokenizer, batch
from llama_from_scratch.tokenizer.batch import encode_batch
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

PARENT = os.getpid()


@pytest.fixture(scope="module", params=["byte BPE", "sentencepiece"])
def tok(request):
    if request.param == "byte BPE":
        return Tokenizer.train(CORPUS, 400, special_tokens=[BOS, EOS, EOT])
    return SentencePiece.train(CORPUS, 440)


@pytest.fixture(params=sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
def method(request):
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture(autouse=True)
def no_process_stays():
    yield
    assert not multiprocessing.active_children()


def texts_of(seed: int) -> list[str]:
    rng = random.Random(seed)
    texts = [random_text(rng, ["<s>", EOT]) for _ in range(60)]
    return [*texts, "", "a\ud800b", CORPUS, "", "a" * 3000]


def test_a_batch_gives_the_ids_of_each_text_in_order(tok, method):
    texts = texts_of(0)
    for options in ({}, {"bos": True, "eos": True, "allowed_special": "all"}):
        expected = [tok.encode(text, **options) for text in texts]
        for n_workers in (1, 2, 3) if method == "fork" else (2,):
            assert tok.encode_batch(iter(texts), n_workers=n_workers, **options) == expected
    assert tok.encode_batch(["the", "cat"], n_workers=100) == [tok.encode("the"), tok.encode("cat")]
    assert tok.encode_batch([], n_workers=2) == []


def test_the_error_of_the_first_text_that_fails_comes_back_as_it_was_raised(tok, method):
    name = max(tok.special_ids, key=len)
    texts = texts_of(1)[:10]
    for fails in ([3, 8], [8], [0, 9], range(10)):
        marked = [text.replace(name, "") for text in texts]
        for i in fails:
            marked[i] += name
        with pytest.raises(ValueError) as alone:
            for text in marked:
                tok.encode(text, disallowed_special={name})
        with pytest.raises(ValueError) as together:
            tok.encode_batch(marked, n_workers=2, disallowed_special={name})
        assert str(together.value) == str(alone.value)


def test_only_enough_text_is_shared_out(monkeypatch):
    asked = []

    def shared_out(encode, texts, shares):
        asked.append(shares)
        return [[] for _ in texts]

    monkeypatch.setattr(batch, "_shared_out", shared_out)
    monkeypatch.setattr(batch, "_n_cores", lambda: 3)
    few, many = ["a" * 1000] * 10, ["a" * 100_000] * 40
    assert encode_batch(len_as_ids, few, n_workers=None) == [[1000]] * 10 and not asked
    encode_batch(len_as_ids, many, n_workers=None)
    encode_batch(len_as_ids, many[:9], n_workers=None)
    assert [len(shares) for shares in asked] == [3, 2]
    assert sorted(i for share in asked[0] for i in share) == list(range(40))
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    assert len(encode_batch(len_as_ids, many, n_workers=None)) == 40 and len(asked) == 2


def test_shares_hold_about_as_much_text(monkeypatch):
    rng, given = random.Random(2), []
    texts = ["a" * rng.randrange(1000) for _ in range(101)]
    take = lambda encode, texts, shares: given.extend(shares) or []
    monkeypatch.setattr(batch, "_shared_out", take)
    encode_batch(len_as_ids, texts, n_workers=3)
    sizes = [sum(len(texts[i]) for i in share) for share in given]
    assert max(sizes) - min(sizes) < 1000


def test_large_ids_come_back_whole():
    ids = encode_batch(large_id, ["a", "bb", "ccc"], n_workers=3)
    assert ids == [[2**32 - 2], [2**32 - 3], [2**32 - 4]]


def test_a_process_that_dies_is_told_with_a_cure():
    message = r"got exit code 3 from one before that. Give n_workers=1, .*__main__"
    with pytest.raises(RuntimeError, match=message):
        encode_batch(dies_elsewhere, ["a", "b"], n_workers=2)


def test_an_interrupt_ends_all_processes_at_once():
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        encode_batch(interrupted_here_slow_elsewhere, ["a", "b", "c"], n_workers=3)
    assert time.monotonic() - start < 45  # the others sleep for 60


def test_no_process_outlives_a_caller_that_is_killed(tmp_path):
    script = """
import os, pathlib, sys, time
from llama_from_scratch.tokenizer.batch import encode_batch
parent = os.getpid()
def encode(text):
    pathlib.Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(60)
encode_batch(encode, ["a", "b", "c"], n_workers=3)
"""
    caller = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    assert comes_true(lambda: len(list(tmp_path.iterdir())) == 3)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    workers = [int(path.name) for path in tmp_path.iterdir() if int(path.name) != caller.pid]
    assert len(workers) == 2 and comes_true(lambda: not any(map(is_running, workers)))


def test_one_text_or_no_workers_are_refused(tok):
    with pytest.raises(TypeError, match="a list of texts; got one str. Put it in a list"):
        tok.encode_batch("the cat")
    with pytest.raises(ValueError, match="at least 1; got 0. Leave it out"):
        tok.encode_batch(["the cat"], n_workers=0)


def len_as_ids(text: str) -> list[int]:
    return [len(text)]


def large_id(text: str) -> list[int]:
    return [2**32 - 1 - len(text)]


def dies_elsewhere(text: str) -> list[int]:
    if os.getpid() != PARENT:
        os._exit(3)
    return [0]


def interrupted_here_slow_elsewhere(text: str) -> list[int]:
    if os.getpid() == PARENT:
        raise KeyboardInterrupt
    time.sleep(60)
    return [0]


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def comes_true(claim, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
