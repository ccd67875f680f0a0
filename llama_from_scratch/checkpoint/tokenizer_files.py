"""The tokenizer of a published checkpoint: which of its files to read, and what follows.

A tokenizer.model is one of two things under one name: SentencePiece's protobuf up to Llama 2, a
list of ranks in text from Llama 3. The ranks have no special tokens with them; those go with the
generation, which the config shows. Hugging Face's tokenizer.json says all that there is to say.

Notebook 18.
"""

import json
from pathlib import Path
from typing import TypeGuard

from llama_from_scratch.checkpoint import hugging_face_prompting
from llama_from_scratch.checkpoint.json_file import read_json
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.foreign import is_there
from llama_from_scratch.tokenizer import hugging_face as tokenizer_json
from llama_from_scratch.tokenizer import rank_file, released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer, JsonTokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


def read_hugging_face(folder: Path, config: LlamaConfig) -> AnyTokenizer:
    """Returns the tokenizer of tokenizer.json, or of tokenizer.model if that is all there is.

    With what the files beside it add. Raises ValueError as `read_meta` does, and for a token that
    has no row in the embedding or an end that is no token.
    """
    if is_there(folder / "tokenizer.json"):
        tokenizer = tokenizer_json.read_folder(folder, n_rows=config.vocab_size)
    else:
        tokenizer = _with_added(read_meta(folder, config), folder, n_rows=config.vocab_size)
    refuse_other_vocabulary(tokenizer, config, where=str(folder))
    _refuse_framing_beyond(tokenizer, folder)
    return tokenizer


def _with_added(tokenizer: AnyTokenizer, folder: Path, *, n_rows: int) -> AnyTokenizer:
    """Returns a SentencePiece with the tokens that the files beside it add, if they add any."""
    beside = tokenizer_json.read_beside(folder)
    known = {piece.text for piece in tokenizer.pieces} if is_pieces(tokenizer) else set()
    if not is_pieces(tokenizer) or {entry["content"] for entry in beside.numbered} <= known:
        return tokenizer
    return tokenizer_json.of_folder(tokenizer_json.to_json(tokenizer), beside, n_rows=n_rows)


def _refuse_framing_beyond(tokenizer: AnyTokenizer, folder: Path) -> None:
    """Raises ValueError if config.json begins or ends a text with an id that is no token."""
    about = read_json(folder / "config.json")
    for key in ("bos_token_id", "eos_token_id"):
        said = about.get(key)
        for i in said if isinstance(said, list) else [said]:
            if type(i) is int and i >= tokenizer.vocab_size:
                raise ValueError(f"{key} is the id of a token; config.json in {folder} says {i}, "
                                 f"and the tokenizer has {tokenizer.vocab_size} ids. It may have "
                                 "lost a part, or be another model's: take all files from the "
                                 "same checkpoint")


def read_meta(folder: Path, config: LlamaConfig) -> Tokenizer | SentencePiece:
    """Returns the tokenizer of tokenizer.model.

    Raises ValueError if there is none, or one of another model. Special tokens follow the ranks, so
    ranks and special tokens together must fill the embedding: a file that lost its last lines would
    move them.
    """
    file = folder / "tokenizer.model"
    if not is_there(file):
        raise ValueError("a checkpoint has its tokenizer in a tokenizer.model or, in Hugging "
                         f"Face's layout, a tokenizer.json; {folder} has none. Download it to this "
                         "folder")
    if not rank_file.is_one(file):
        tokenizer = SentencePiece.load(file)
        refuse_other_vocabulary(tokenizer, config, where=str(folder))
        return tokenizer
    generation = generation_of(config)
    n_special = len(released.SPECIAL_TOKENS[generation])
    tokenizer = released.load(file, generation, n_ranks=len(rank_file.read_ranks(file)))
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(f"the embedding has {config.vocab_size} rows, of which {n_special} are of "
                         f"the special tokens of {generation}, so tokenizer.model must have "
                         f"{config.vocab_size - n_special} ranks; the one in {folder} has "
                         f"{len(tokenizer.ranks)}. It may have lost lines, or belong to another "
                         "model: take both from the same checkpoint")
    return tokenizer


def write_hugging_face(folder: Path, tokenizer: AnyTokenizer) -> None:
    """Writes tokenizer.json, the config by which transformers opens it, and tokenizer.model.

    The last for Llama 1 and 2 only, where it says the same. transformers takes the tokenizer.json
    as it is by the class that is named here; its LlamaTokenizer would put other steps in place of
    those in the file, and give other ids than SentencePiece at blanks.
    """
    tokenizer_json.write(folder / "tokenizer.json", tokenizer)
    about = {"tokenizer_class": "PreTrainedTokenizerFast", **framing_names(tokenizer),
             **tokenizer.prompting.token_names,
             **hugging_face_prompting.written(tokenizer.prompting)}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if is_pieces(tokenizer) and tokenizer.prefix in ("always", "never"):
        tokenizer.save(folder / "tokenizer.model")


def framing_names(tokenizer: AnyTokenizer) -> dict[str, str]:
    """Returns the tokens that begin and end a text, as tokenizer_config.json has them.

    Raises ValueError if there is none of Llama's own; another vocabulary may lack them.
    """
    if isinstance(tokenizer, JsonTokenizer):
        names = {"bos_token": tokenizer.bos, "eos_token": tokenizer.eos}
        return {key: name for key, name in names.items() if name is not None}
    name_of = {i: name for name, i in tokenizer.special_ids.items()}
    return {"bos_token": name_of[tokenizer.bos_id], "eos_token": name_of[tokenizer.eos_id]}


def framing_ids(tokenizer: AnyTokenizer) -> dict[str, int]:
    """The ids that begin and end a text, as config.json has them. Raises as `framing_names`."""
    ids = {"bos_token": lambda: tokenizer.bos_id, "eos_token": lambda: tokenizer.eos_id}
    return {f"{key}_id": ids[key]() for key in framing_names(tokenizer)}


def is_pieces(tokenizer: AnyTokenizer) -> TypeGuard[SentencePiece]:
    """Is this a tokenizer of Llama 1 and 2, which a tokenizer.model of SentencePiece can hold?"""
    return isinstance(tokenizer, SentencePiece)


def refuse_what_ranks_cannot_say(
    tokenizer: AnyTokenizer, config: LlamaConfig, *, where: str
) -> None:
    """Raises ValueError unless `read_meta` would give this tokenizer back.

    The model must know its ids, too.
    """
    refuse_other_vocabulary(tokenizer, config, where=where)
    if isinstance(tokenizer, SentencePiece):
        return
    generation = generation_of(config)
    if isinstance(tokenizer, JsonTokenizer):
        raise ValueError("Meta's layout has the tokenizers of Llama 1 to 3.3, and none for added "
                         "tokens or steps of other vocabularies; write Hugging Face's layout or "
                         "our own")
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError("in Meta's layout ranks and special tokens fill the embedding; got "
                         f"{tokenizer.vocab_size} ids and {config.vocab_size} rows. Write Hugging "
                         "Face's layout or our own, which may have spare rows")
    if (tuple(tokenizer.special_ids) != released.SPECIAL_TOKENS[generation]
        or tokenizer.pattern != released.LLAMA3_PATTERN):
        raise ValueError("a tokenizer.model of ranks has no place for special tokens and pattern: "
                         f"they are those of {generation}, "
                         f"released.SPECIAL_TOKENS[{generation!r}]; got "
                         f"{list(tokenizer.special_ids)[:3]} and so on. Train the tokenizer with "
                         "those, or save our own format")


def refuse_other_vocabulary(
    tokenizer: AnyTokenizer, config: LlamaConfig, *, where: str
) -> None:
    """Raises ValueError unless every id has a row.

    There may be spare rows, any number of them: embeddings are padded to round numbers, and made
    larger for tokens to come.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(f"the tokenizer and the embedding must belong together; in {where} the "
                         f"tokenizer has {tokenizer.vocab_size} ids and the embedding "
                         f"{config.vocab_size} rows. Take both from the same checkpoint")


def generation_of(config: LlamaConfig) -> str:
    """Returns the generation whose special tokens go with ranks.

    3.1 brought the scaling of RoPE, and the names that all later ones keep.
    """
    return "llama-3" if config.rope_scaling is None else "llama-3.1"
