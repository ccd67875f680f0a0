"""What several tests share of the sentencepiece library, and files that are damaged at random."""

import io
import random
import time

import sentencepiece
from tokenizer_texts import CORPUS

from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

# What a text may hold that only looks like a piece.
ODD = ["<s>", "</s>", "<unk>", "<0x0A>", "<0x", "⁇", "\ufffd"]


def theirs_of(tok: SentencePiece, folder) -> sentencepiece.SentencePieceProcessor:
    tok.save(folder / "theirs.model")
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "theirs.model"))


def trained_by_them(**options) -> bytes:
    options = dict(
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
    ) | options
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines() * 3), model_writer=file, **options
    )
    return file.getvalue()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut short, or with a few bits turned."""
    if rng.random() < 0.4:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        end = len(data) - 1
        place = rng.choice([rng.randrange(len(data)), rng.randrange(20), end - rng.randrange(80)])
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def assert_damaged_files_are_refused_or_read(path, save, load) -> None:
    """Damages a small vocabulary's file 200 times; `load` may refuse with its name or read it."""
    save(SentencePiece.train("the cat sat on the mat", 259 + 16 + 10 + 4), path)
    whole, rng = path.read_bytes(), random.Random(3)
    n_refused, start = 0, time.process_time()
    for _ in range(200):
        path.write_bytes(damaged(whole, rng))
        try:
            read = load(path)
            assert read.decode(read.encode("the cat")) is not None
        except ValueError as error:
            n_refused += 1
            assert str(path) in str(error)
    assert n_refused > 80 and time.process_time() - start < 20
