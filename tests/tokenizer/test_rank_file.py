"""Meta's rank files: written, read as tiktoken reads them, and refused where they are malformed."""

import base64
import re

import pytest
from tiktoken.load import load_tiktoken_bpe
from tokenizer_texts import BOS, BYTES, CORPUS, EOS, EOT

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer.train(CORPUS, 440, special_tokens=[BOS, EOS, EOT])


def test_a_saved_tokenizer_loads_as_it_was_and_leaves_no_other_file(tok, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_text("an old file")
    tok.save(path)
    again = Tokenizer.load(path, special_tokens=list(tok.special_ids))
    assert (again.ranks, again.special_ids) == (tok.ranks, tok.special_ids)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.model"]
    assert path.read_bytes().splitlines()[97] == base64.b64encode(b"a") + b" 97"
    assert load_tiktoken_bpe(str(path)) == tok.ranks


def test_a_save_that_fails_leaves_the_old_file(tok, tmp_path, monkeypatch):
    def fail(*paths):
        raise OSError("disk full")

    (tmp_path / "t").write_text("an old file")
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        tok.save(tmp_path / "t")
    assert (tmp_path / "t").read_text() == "an old file"


def test_blank_and_crlf_lines_of_a_rank_file_are_tolerated(tmp_path):
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in BYTES.items()]
    (tmp_path / "t").write_bytes(b"\r\n\r\n".join(lines) + b"\n \n")
    assert Tokenizer.load(tmp_path / "t").ranks == BYTES


def test_ranks_of_another_order_than_the_bytes_are_kept(tmp_path):
    # Meta's file has another order too: its rank 0 is "!"
    ranks = {bytes([value]): 255 - value for value in range(256)}
    Tokenizer(ranks).save(tmp_path / "t")
    assert Tokenizer.load(tmp_path / "t").encode("a") == [255 - 97]


@pytest.mark.parametrize(
    "line, message",
    [
        (b"!!! 256", "line 257"),
        (b"YWI=", "line 257"),
        (b"YWI= x", "line 257"),
        (b"YWI= 256 0", "line 257"),
        (b"YQ== 256", "got b'a' again in line 257"),
        (b"YWI= 257", "257 tokens must have the ranks 0 to 256, each once; got none with rank 256"),
        (b"YWI= 255", "257 tokens must have the ranks 0 to 256, each once; got none with rank 256"),
    ],
)
def test_a_malformed_rank_file_is_refused_with_its_line(tmp_path, line, message):
    Tokenizer(BYTES).save(tmp_path / "t")
    with open(tmp_path / "t", "ab") as file:
        file.write(line)
    with pytest.raises(ValueError, match=re.escape(message)):
        Tokenizer.load(tmp_path / "t")


def test_lines_come_in_the_order_of_the_ranks(tmp_path):
    Tokenizer(dict(reversed(BYTES.items()))).save(tmp_path / "t")
    lines = (tmp_path / "t").read_bytes().splitlines()
    assert [int(line.split()[1]) for line in lines] == list(range(256))


def test_ranks_without_every_byte_or_with_an_empty_token_are_refused(tmp_path):
    (tmp_path / "t").write_bytes(b"\n")
    message = r"256 bytes must be a token; got ranks without \[0, 1, .* 256 in all"
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(tmp_path / "t")
    with pytest.raises(ValueError, match=r"at least one byte; got b'' at rank 256"):
        Tokenizer(BYTES | {b"": 256})
