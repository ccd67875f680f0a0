import pytest
from tokenizer_texts import CORPUS

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.released import LLAMA_3_1, LLAMA_4
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokenizer.json"


@pytest.fixture(scope="module", params=["llama 3", "llama 4"])
def byte_bpe(request) -> Tokenizer:
    is_3 = request.param == "llama 3"
    pattern, special = (LLAMA3_PATTERN, LLAMA_3_1) if is_3 else (LLAMA4_PATTERN, LLAMA_4)
    size = 430 + len(special)
    return Tokenizer.train([CORPUS] * 2, size, special_tokens=special, pattern=pattern)


@pytest.fixture(scope="module")
def pieces() -> SentencePiece:
    return SentencePiece.train([CORPUS] * 2, 480)
