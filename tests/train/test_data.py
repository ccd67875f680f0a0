import os

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train.data import (
    IGNORE,
    Packed,
    read_documents,
    read_text,
    split_validation,
)

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>")
BYTES = Tokenizer.train("", 258, special_tokens=SPECIAL)
BOS, EOS = BYTES.bos_id, BYTES.eos_id
STORIES = ["abc", "Zoë slept", "x", "the end of it all"]


def batch_of(packed, step=0, **changes):
    return packed.batch(step, **dict(batch_size=2, seq_len=5, seed=0) | changes)


def test_every_document_is_framed_and_counted():
    packed = Packed(STORIES, BYTES)
    stream = [t for story in STORIES for t in [BOS, *story.encode(), EOS]]
    whole = next(packed.in_order(batch_size=1, seq_len=len(stream) - 1))
    assert [*whole.ids[0].tolist(), EOS] == stream
    assert (packed.n_documents, packed.n_tokens) == (4, len(stream))
    assert packed.n_bytes == sum(len(story.encode()) for story in STORIES), (
        "special tokens stand for no byte")


def test_targets_are_the_next_tokens_of_the_same_document():
    packed = Packed(["abc", "de"], BYTES)
    (batch,) = packed.in_order(batch_size=1, seq_len=8)
    a, b, c, d, e = b"abcde"
    assert batch.ids.tolist() == [[BOS, a, b, c, EOS, BOS, d, e]]
    assert batch.targets.tolist() == [[a, b, c, EOS, IGNORE, d, e, EOS]]
    assert batch.documents.tolist() == [[0] * 5 + [1] * 3]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch.n_targets == 7


def test_positions_and_documents_count_from_the_first_token_of_a_window_inside_a_document():
    packed = Packed(["abcdefgh", "ij"], BYTES)
    batch = list(packed.in_order(batch_size=1, seq_len=6))[1]
    assert batch.ids[0].tolist() == [*b"fgh", EOS, BOS, *b"i"]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert batch.documents.tolist() == [[0, 0, 0, 0, 1, 1]]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=8), st.integers(2, 9), st.integers(1, 4))
def test_in_order_predicts_every_token_of_every_document_exactly_once(
    documents, seq_len, batch_size
):
    assume(any(documents))
    packed = Packed(documents, BYTES)
    if packed.n_tokens <= seq_len:
        with pytest.raises(ValueError, match=f"needs {seq_len + 1} tokens, and this text has "
                                             f"{packed.n_tokens}"):
            list(packed.in_order(batch_size=batch_size, seq_len=seq_len))
        return
    targets = [t for batch in packed.in_order(batch_size=batch_size, seq_len=seq_len)
               for t in batch.targets.flatten().tolist() if t != IGNORE]
    assert targets == [t for d in documents for t in [*BYTES.encode(d), EOS]]


def test_an_epoch_visits_each_window_once_and_leaves_out_less_than_one():
    packed = Packed(["".join(map(chr, range(33, 127)))], BYTES)  # every token differs
    n_windows = (packed.n_tokens - 1) // 7
    for epoch in range(3):
        rows = [batch_of(packed, epoch * n_windows + i, batch_size=1, seq_len=7).targets
                for i in range(n_windows)]
        seen = torch.cat(rows).flatten().tolist()
        assert len(set(seen)) == len(seen) == n_windows * 7


def test_epochs_differ_in_order_and_in_what_they_leave_out():
    packed = Packed(["".join(map(chr, range(33, 127)))], BYTES)
    epochs = []
    for epoch in range(30):
        rows = [batch_of(packed, epoch * 13 + i, batch_size=1, seq_len=7).targets
                for i in range(13)]
        epochs.append(torch.cat(rows))
    assert len({tuple(e.flatten().tolist()) for e in epochs}) == 30
    assert len({tuple(sorted(e.flatten().tolist())) for e in epochs}) > 1
    assert set(torch.cat(epochs).flatten().tolist()) == {*range(33, 127), EOS}, (
        "over some epochs every token is seen")


def test_a_batch_depends_on_seed_and_step_alone_and_not_on_how_many_rows_are_taken_at_once():
    packed, again = Packed(STORIES * 9, BYTES), Packed(STORIES * 9, BYTES)
    for step in (5, 0, 3):
        for name in ("ids", "targets", "documents", "positions"):
            assert torch.equal(getattr(batch_of(packed, step), name),
                               getattr(batch_of(again, step), name))
    in_fours = [batch_of(packed, step, batch_size=4).ids for step in range(6)]
    in_threes = [batch_of(packed, step, batch_size=3).ids for step in range(8)]
    assert torch.equal(torch.cat(in_fours), torch.cat(in_threes))
    assert not torch.equal(batch_of(packed).ids, batch_of(packed, seed=1).ids)


def test_a_batch_larger_than_the_epoch_runs_on_into_the_next():
    packed = Packed(["abcdefgh"], BYTES)
    batch = batch_of(packed, batch_size=6, seq_len=4)
    assert batch.ids.shape == (6, 4)
    assert torch.equal(batch.ids, torch.cat([batch_of(packed, step, seq_len=4).ids
                                             for step in range(3)]))


def test_micro_batches_are_the_rows_of_the_batch_in_order():
    batch = batch_of(Packed(STORIES * 9, BYTES), batch_size=5)
    parts = batch.split(2)
    assert [len(part.ids) for part in parts] == [2, 2, 1]
    for name in ("ids", "targets", "documents", "positions"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert sum(part.n_targets for part in parts) == batch.n_targets


def test_bytes_of_targets_are_those_of_their_text():
    packed = Packed(STORIES, BYTES)
    counts = [packed.n_bytes_in(b.targets) for b in packed.in_order(batch_size=1, seq_len=5)]
    assert sum(counts) == packed.n_bytes


def test_large_vocabularies_take_four_bytes_and_small_ones_two():
    assert Packed(STORIES, BYTES)._ids.dtype == np.uint16
    ranks = BYTES.ranks | {i.to_bytes(3, "big"): i for i in range(256, 1 << 16)}
    large = Tokenizer(ranks, special_tokens=SPECIAL)
    packed = Packed(["ab"], large)
    assert packed._ids.dtype == np.uint32
    assert next(packed.in_order(batch_size=1, seq_len=3)).ids.tolist() == [[large.bos_id, *b"ab"]]


def test_equal_streams_have_equal_digests_and_different_ones_do_not():
    digest = Packed(STORIES, BYTES).digest
    assert Packed(STORIES, BYTES).digest == digest
    assert Packed(STORIES[::-1], BYTES).digest != digest


def test_a_text_shorter_than_a_window_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"needs 6 tokens, and this text has 3. "
                                         r"Give more text or a smaller seq_len"):
        batch_of(Packed(["a"], BYTES))
    with pytest.raises(ValueError, match="at least 2; got 1"):
        batch_of(Packed(STORIES, BYTES), seq_len=1)
    with pytest.raises(ValueError, match="a stream needs text; got 0 documents"):
        Packed([], BYTES)
    with pytest.raises(ValueError, match="got 2 documents, all of them empty"):
        Packed(["", ""], BYTES)


def test_a_file_is_one_document_and_with_a_separator_several(tmp_path):
    file = tmp_path / "stories.txt"
    file.write_bytes("\ufeffOne.\r\nStill one.\r\n\r\nTwo — yes.\n\n\n".encode())
    assert read_documents(file) == ["One.\nStill one.\n\nTwo — yes."]
    assert read_documents(file, separator="\n\n") == ["One.\nStill one.", "Two — yes."]


def test_a_folder_is_read_in_order_of_paths_without_hidden_files(tmp_path):
    for name in ("b.txt", "a/z.py", "a/.hidden", ".git/config", "a/b/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read_documents(tmp_path) == ["b.txt", "a/z.py", "a/b/c.txt"]
    assert read_documents(tmp_path, suffixes={".txt"}) == ["b.txt", "a/b/c.txt"]
    with pytest.raises(ValueError, match=r"no files ending in .md below it"):
        read_documents(tmp_path, suffixes={".md"})


def test_a_file_that_is_not_utf8_is_named_with_its_byte_or_reported_and_skipped(tmp_path):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "latin.txt").write_bytes("caf\xe9 au lait".encode("latin-1"))
    with pytest.raises(ValueError, match=r"must be UTF-8, and in .*latin.txt byte 3 is 0xe9 "
                                         r"\(invalid continuation"):
        read_documents(tmp_path)
    skipped = []
    assert read_documents(tmp_path, on_skip=lambda file, reason: skipped.append(
        (file.name, reason))) == ["good"]
    ((name, reason),) = skipped
    assert name == "latin.txt" and "byte 3 is 0xe9" in reason


@pytest.mark.parametrize(("content", "message"), [
    (b"", "only white space"), (b" \n\n\t", "only white space")])
def test_an_empty_text_is_refused(content, message, tmp_path):
    (tmp_path / "empty.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_documents(tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="is not there"):
        read_documents(tmp_path / "other.txt")


def test_the_last_documents_are_kept_for_validation():
    documents = [str(i) for i in range(10)]
    assert split_validation(documents, fraction=0.2) == (documents[:8], documents[8:])
    assert split_validation(documents, fraction=0.001) == (documents[:9], documents[9:]), (
        "at least one")
    assert split_validation(documents, fraction=0.999) == (documents[:1], documents[1:]), (
        "at least one to train on")


def test_a_single_document_is_cut_at_the_end_of_a_line():
    text = "\n".join(f"line {i}" for i in range(10))
    train, validation = split_validation([text], fraction=0.25)
    assert (train[0] + validation[0] == text and train[0].endswith("\n")
            and validation[0] == "line 8\nline 9")
    assert split_validation(["abcdefgh"], fraction=0.25) == (["abcdef"], ["gh"])
    with pytest.raises(ValueError, match="one document of 1 characters"):
        split_validation(["a"], fraction=0.1)
    with pytest.raises(ValueError, match="between 0 and 1; got 1.5"):
        split_validation(["a", "b"], fraction=1.5)


@pytest.mark.skipif(os.name == "nt", reason="pipes are POSIX")
def test_a_pipe_among_texts_is_refused_and_not_waited_for(tmp_path):
    (tmp_path / "a.txt").write_text("the cat")
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(ValueError, match=r"a text file at .*b.txt, a regular one; there is a pipe"):
        read_documents(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="pipes are POSIX")
def test_a_pipe_that_the_process_was_started_with_is_read():
    reader, writer = os.pipe()
    os.write(writer, "caf\xe9\r\n".encode())
    os.close(writer)
    assert read_text(f"/dev/fd/{reader}") == "café\n"
    os.close(reader)
