import pytest
from tiny_checkpoints import TOKENIZER, VOCAB, tiny, tokenizer_for

from llama_from_scratch import family
from llama_from_scratch.checkpoint import meta
from llama_from_scratch.checkpoint.load import load


def test_the_tokenizer_of_a_folder_is_told_by_its_content_and_its_special_tokens_by_the_model(
    tmp_path
):
    for generation in family.GENERATIONS:
        written = tokenizer_for(generation)
        meta.write(tmp_path / generation, tiny(generation), tokenizer=written)
        _, tokenizer = load(tmp_path / generation)
        assert type(tokenizer) is type(written) and tokenizer.special_ids == written.special_ids
        assert tokenizer.encode("the cat sat", bos=True,
                                eos=True) == written.encode("the cat sat", bos=True, eos=True)
    assert "<|eom_id|>" in load(tmp_path / "llama-3.1")[1].special_ids
    assert "<|eom_id|>" not in load(tmp_path / "llama-3")[1].special_ids


def test_a_tokenizer_that_would_not_come_back_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"no place for special tokens and pattern: they are "
                                         r"those of llama-3.1"):
        meta.write(tmp_path / "m", tiny("llama-3.1"), tokenizer=tokenizer_for("llama-3"))
    assert list(tmp_path.iterdir()) == []


def test_a_padded_embedding_is_accepted_and_another_tokenizers_is_not(tmp_path):
    meta.write(tmp_path / "m", tiny(vocab_size=VOCAB + 255), tokenizer=TOKENIZER)
    assert load(tmp_path / "m")[1].vocab_size == VOCAB
    with pytest.raises(ValueError, match="the tokenizer has 520 ids and the embedding 776 rows"):
        meta.write(tmp_path / "n", tiny(vocab_size=VOCAB + 256), tokenizer=TOKENIZER)
