"""The tokenizer beside the weights of a published checkpoint: which of its files to read, and which to write.

Notebook 18.
"""

from pathlib import Path
from typing import Any

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer

_MAX_PADDING = 255


def read(folder: Path, config: LlamaConfig) -> Any:
    """The tokenizer of a checkpoint's folder. Raises ValueError if there is none, or one of another model."""
    file = folder / "tokenizer.model"
    if not file.is_file():
        raise ValueError(f"a checkpoint's folder has a tokenizer.model or a tokenizer.json; {folder} has neither. "
                         "Download it again")
    tokenizer = Tokenizer.load(file, special_tokens=BEGIN_AND_END)
    refuse_other_vocabulary(tokenizer, config, where=str(folder))
    return tokenizer


def write(folder: Path, tokenizer: Any) -> None:
    """Writes the tokenizer's own file."""
    tokenizer.save(folder / "tokenizer.model")


def refuse_other_vocabulary(tokenizer: Any, config: LlamaConfig, *, where: str) -> None:
    """Raises ValueError unless every id has a row in the embedding, and every row but some padding has an id.

    Embeddings are padded to a multiple of 8 to 256 rows, so that matrices divide well; more is another tokenizer's.
    """
    if not 0 <= config.vocab_size - tokenizer.vocab_size <= _MAX_PADDING:
        raise ValueError(f"the tokenizer and the embedding must belong together; in {where} the tokenizer has "
                         f"{tokenizer.vocab_size} ids and the embedding {config.vocab_size} rows. "
                         "Take both from the same checkpoint")
