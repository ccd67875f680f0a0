"""The tokenizer of a published checkpoint: which of its files to read, and what follows.

A tokenizer.model is one of two things under one name: SentencePiece's protobuf up to Llama 2, a
list of ranks in text from Llama 3. The ranks have no special tokens with them; those go with the
generation, which the config shows. Hugging Face's tokenizer.json says all that there is to say.

Notebook 18.
"""

import json
import re
from pathlib import Path

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.foreign import is_there, opened
from llama_from_scratch.tokenizer import hugging_face as tokenizer_json
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

_MAX_PADDING = 255
# As in Meta's own code of Llama 3 and 4, which stops at the end of a turn whether or not the model
# was trained to chat.
_ENDS = {"<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>"}


def read_hugging_face(folder: Path, config: LlamaConfig) -> Tokenizer | SentencePiece:
    """The tokenizer of tokenizer.json, or of tokenizer.model if that is all there is.

    Raises ValueError as `read_meta` does.
    """
    if not is_there(folder / "tokenizer.json"):
        return read_meta(folder, config)
    tokenizer = tokenizer_json.read_tokenizer(folder / "tokenizer.json")
    refuse_other_vocabulary(tokenizer, config, where=str(folder))
    return tokenizer


def read_meta(folder: Path, config: LlamaConfig) -> Tokenizer | SentencePiece:
    """The tokenizer of tokenizer.model.

    Raises ValueError if there is none, or one of another model.
    """
    file = folder / "tokenizer.model"
    if not is_there(file):
        raise ValueError("a checkpoint has its tokenizer in a tokenizer.model or, in Hugging "
                         f"Face's layout, a tokenizer.json; {folder} has none. Download it to this "
                         "folder")
    with opened(file, need="a checkpoint needs a tokenizer") as source:
        is_ranks = re.fullmatch(rb"[A-Za-z0-9+/=]+\s+\d+\s*", source.readline(4096))
    tokenizer = released.load(file, _generation(config)) if is_ranks else SentencePiece.load(file)
    refuse_other_vocabulary(tokenizer, config, where=str(folder))
    return tokenizer


def write_hugging_face(folder: Path, tokenizer: Tokenizer | SentencePiece) -> None:
    """Writes tokenizer.json, the config by which transformers opens it, and tokenizer.model.

    The last for Llama 1 and 2 only.
    """
    tokenizer_json.write(folder / "tokenizer.json", tokenizer)
    name_of = {i: name for name, i in tokenizer.special_ids.items()}
    is_pieces = isinstance(tokenizer, SentencePiece)
    about = {"tokenizer_class": "LlamaTokenizer" if is_pieces else "PreTrainedTokenizerFast",
             "bos_token": name_of[tokenizer.bos_id], "eos_token": name_of[tokenizer.eos_id]}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n",
                                                  encoding="utf-8")
    if is_pieces:
        tokenizer.save(folder / "tokenizer.model")


def ends(tokenizer: Tokenizer | SentencePiece) -> frozenset[int]:
    """The ids that end a text, a message or a turn in the vocabulary of `tokenizer`.

    None if it has no such tokens.
    """
    names = {tokenizer.eos} if isinstance(tokenizer, SentencePiece) else _ENDS
    return frozenset(tokenizer.special_ids[name] for name in names if name in tokenizer.special_ids)


def refuse_what_ranks_cannot_say(
    tokenizer: Tokenizer | SentencePiece, config: LlamaConfig, *, where: str
) -> None:
    """Raises ValueError unless `read_meta` would give this tokenizer back.

    The model must know its ids, too.
    """
    refuse_other_vocabulary(tokenizer, config, where=where)
    if isinstance(tokenizer, SentencePiece):
        return
    generation = _generation(config)
    if (tuple(tokenizer.special_ids) != released.SPECIAL_TOKENS[generation]
        or tokenizer.pattern != released.LLAMA3_PATTERN):
        raise ValueError("a tokenizer.model of ranks has no place for special tokens and pattern: "
                         f"they are those of {generation}, "
                         f"released.SPECIAL_TOKENS[{generation!r}]; got "
                         f"{list(tokenizer.special_ids)[:3]} and so on. Train the tokenizer with "
                         "those, or save our own format")


def refuse_other_vocabulary(
    tokenizer: Tokenizer | SentencePiece, config: LlamaConfig, *, where: str
) -> None:
    """Raises ValueError unless every id has a row, and all rows but some padding have an id.

    Embeddings are padded to a multiple of up to 256 rows, so that matrices divide well; more is
    another tokenizer's.
    """
    if not 0 <= config.vocab_size - tokenizer.vocab_size <= _MAX_PADDING:
        raise ValueError(f"the tokenizer and the embedding must belong together; in {where} the "
                         f"tokenizer has {tokenizer.vocab_size} ids and the embedding "
                         f"{config.vocab_size} rows. Take both from the same checkpoint")


def _generation(config: LlamaConfig) -> str:
    """The generation whose special tokens go with ranks.

    3.1 brought the scaling of RoPE, and the names that all later ones keep.
    """
    return "llama-3" if config.rope_scaling is None else "llama-3.1"
