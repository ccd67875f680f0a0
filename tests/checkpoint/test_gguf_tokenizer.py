import gguf as reference
import pytest
from gguf_reference import STRANGE, by_their_writer, write
from tiny_checkpoints import TEXT, large_tokenizer, tiny, tokenizer_for

from llama_from_scratch import family
from llama_from_scratch.checkpoint import gguf
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_the_tokenizer_comes_back_with_the_model(generation, tmp_path):
    tokenizer = tokenizer_for(generation)
    path = write(tmp_path, tiny(generation, vocab_size=540), generation=generation)
    back = gguf.open_checkpoint(path).tokenizer()
    assert type(back) is type(tokenizer) and back.vocab_size == tokenizer.vocab_size == 520
    assert (back.special_ids, back.bos_id,
            back.eos_id) == (tokenizer.special_ids, tokenizer.bos_id, tokenizer.eos_id)
    for text in (TEXT, STRANGE):
        assert back.encode(text, bos=True) == tokenizer.encode(text, bos=True)
        assert back.encode(text,
                           allowed_special="all") == tokenizer.encode(text, allowed_special="all")
    tokens = reference.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 540, "as many as the embedding has rows"


def test_a_tokenizer_that_does_not_belong_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must belong together"):
        gguf.write(tmp_path / "m.gguf", tiny(), tokenizer=large_tokenizer(600))
    other = Tokenizer(tokenizer_for("llama-3").ranks, special_tokens=released.LLAMA_3,
                      pattern=r"\w+|\W+")
    with pytest.raises(ValueError, match=r"has a name for the pattern of Llama 3, and none for "
                                         r"another"):
        gguf.write(tmp_path / "m.gguf", tiny(), tokenizer=other)
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "none.gguf", tiny()))
    with pytest.raises(ValueError, match=r"tokenizer.ggml.model must be \"llama\""):
        opened.tokenizer()
