"""Text <-> ids."""

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer as Tokenizer
