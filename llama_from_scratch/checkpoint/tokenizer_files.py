"""The tokenizer of a published checkpoint: which of its files to read, and which tokens to add.

Two kinds of files are called tokenizer.model: SentencePiece's protobuf up to Llama 2, and a text
file with ranks from Llama 3 on. A file of ranks has no special tokens. They depend on the
generation, which the config shows. Hugging Face's tokenizer.json is complete.

Notebook 18.
"""

import dataclasses
import json
from pathlib import Path
from typing import TypeGuard

from llama_from_scratch.checkpoint import hugging_face_prompting
from llama_from_scratch.checkpoint.expert_layers import has_experts
from llama_from_scratch.checkpoint.json_file import read_json
from llama_from_scratch.config import FusionLlamaConfig, LlamaConfig, VisionLlamaConfig
from llama_from_scratch.foreign import is_there
from llama_from_scratch.tokenizer import hugging_face as tokenizer_json
from llama_from_scratch.tokenizer import rank_file, released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer, JsonTokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


def read_hugging_face(folder: Path, config: LlamaConfig) -> AnyTokenizer:
    """Returns the tokenizer of tokenizer.json, or of tokenizer.model if there is no other.

    It includes what other files of the folder add. Raises ValueError as `read_meta` does, for a
    token that has no row in the embedding, and for an end that is not a token.
    """
    if is_there(folder / "tokenizer.json"):
        tokenizer = tokenizer_json.read_folder(folder, n_rows=config.n_ids)
    else:
        tokenizer = _with_added(read_meta(folder, config), folder, n_rows=config.n_ids)
    refuse_other_vocabulary(tokenizer, config, where=str(folder))
    _refuse_framing_beyond(tokenizer, folder)
    return tokenizer


def _with_added(tokenizer: AnyTokenizer, folder: Path, *, n_rows: int) -> AnyTokenizer:
    """Returns the tokenizer with the tokens that other files add, if it is a SentencePiece."""
    beside = tokenizer_json.read_beside(folder)
    known = {piece.text for piece in tokenizer.pieces} if is_pieces(tokenizer) else set()
    if not is_pieces(tokenizer) or {entry["content"] for entry in beside.numbered} <= known:
        return tokenizer
    return tokenizer_json.of_folder(tokenizer_json.to_json(tokenizer), beside, n_rows=n_rows)


def _refuse_framing_beyond(tokenizer: AnyTokenizer, folder: Path) -> None:
    """Raises ValueError if an id in config.json that begins or ends a text is not a token."""
    about = read_json(folder / "config.json")
    about = about | about.get("text_config", {})  # in a model that sees
    for key in ("bos_token_id", "eos_token_id"):
        said = about.get(key)
        for i in said if isinstance(said, list) else [said]:
            if type(i) is int and i >= tokenizer.vocab_size:
                raise ValueError(f"{key} must be the id of a token; config.json in {folder} has "
                                 f"{i}, and the tokenizer has {tokenizer.vocab_size} ids. It may "
                                 "have lost a part, or belong to another model: use all files of "
                                 "the same checkpoint")


def read_meta(folder: Path, config: LlamaConfig) -> Tokenizer | SentencePiece:
    """Returns the tokenizer of tokenizer.model.

    Raises ValueError if there is none, or if it belongs to another model. Ranks and special tokens
    together must fill the embedding. Special tokens follow the ranks, so a file that lost its last
    lines would change their ids.
    """
    file = folder / "tokenizer.model"
    if not is_there(file):
        raise ValueError("a checkpoint needs its tokenizer in a tokenizer.model or, in Hugging "
                         f"Face's layout, a tokenizer.json; {folder} has none. Download it to this "
                         "folder")
    if not rank_file.is_one(file):
        tokenizer = SentencePiece.load(file)
        refuse_other_vocabulary(tokenizer, config, where=str(folder))
        return tokenizer
    generation = generation_of(config)
    n_special = len(released.SPECIAL_TOKENS[generation])
    tokenizer = released.load(file, generation, n_ranks=len(rank_file.read_ranks(file)))
    if tokenizer.vocab_size != (n_tokens := n_tokens_of(config)):
        raise ValueError(f"the embedding has {n_tokens} rows, and {n_special} of them are "
                         f"for the special tokens of {generation}, so tokenizer.model must have "
                         f"{n_tokens - n_special} ranks; the one in {folder} has "
                         f"{len(tokenizer.ranks)}. It may have lost lines, or belong to another "
                         "model: use both from the same checkpoint")
    return tokenizer


def write_hugging_face(folder: Path, tokenizer: AnyTokenizer) -> None:
    """Writes tokenizer.json, the config with which transformers opens it, and tokenizer.model.

    The last one is written only for Llama 1 and 2, where it has the same content. The class named
    here makes transformers use the tokenizer.json unchanged. Its LlamaTokenizer would replace the
    steps of the file, and give other ids than SentencePiece at spaces.
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
    """Returns the entries of tokenizer_config.json with the tokens that begin and end a text.

    Raises ValueError if one of Llama's own tokenizers lacks them; other vocabularies may.
    """
    if isinstance(tokenizer, JsonTokenizer):
        names = {"bos_token": tokenizer.bos, "eos_token": tokenizer.eos}
        return {key: name for key, name in names.items() if name is not None}
    name_of = {i: name for name, i in tokenizer.special_ids.items()}
    return {"bos_token": name_of[tokenizer.bos_id], "eos_token": name_of[tokenizer.eos_id]}


def framing_ids(tokenizer: AnyTokenizer) -> dict[str, int]:
    """Returns the entries of config.json with the ids of `framing_names`, and raises as it does."""
    ids = {"bos_token": lambda: tokenizer.bos_id, "eos_token": lambda: tokenizer.eos_id}
    return {f"{key}_id": ids[key]() for key in framing_names(tokenizer)}


def is_pieces(tokenizer: AnyTokenizer) -> TypeGuard[SentencePiece]:
    """Returns whether this is a SentencePiece tokenizer, the kind of Llama 1 and 2."""
    return isinstance(tokenizer, SentencePiece)


def refuse_what_ranks_cannot_say(
    tokenizer: AnyTokenizer, config: LlamaConfig, *, where: str
) -> None:
    """Raises ValueError unless `read_meta` would return this tokenizer again.

    The embedding must also have a row for each of its ids.
    """
    refuse_other_vocabulary(tokenizer, config, where=where)
    if isinstance(tokenizer, SentencePiece):
        return
    generation = generation_of(config)
    if isinstance(tokenizer, JsonTokenizer):
        raise ValueError("Meta's layout can hold only the tokenizers of Llama 1 to 4; this one "
                         "has added tokens or steps of other vocabularies. Write Hugging Face's "
                         "layout or our own")
    if tokenizer.vocab_size != (n_tokens := n_tokens_of(config)):
        raise ValueError("in Meta's layout ranks and special tokens must fill the embedding; got "
                         f"{tokenizer.vocab_size} ids and {n_tokens} rows. Write Hugging "
                         "Face's layout or our own, which may have spare rows")
    if (tuple(tokenizer.special_ids) != released.SPECIAL_TOKENS[generation]
        or tokenizer.pattern != released.pattern_of(generation)):
        raise ValueError("a tokenizer.model of ranks cannot store special tokens and pattern, so "
                         f"they must be {generation}'s, released.SPECIAL_TOKENS[{generation!r}]; "
                         f"got {list(tokenizer.special_ids)[:3]} and so on. Train the tokenizer "
                         "with those, or save our own format")


def refuse_other_vocabulary(
    tokenizer: AnyTokenizer, config: LlamaConfig, *, where: str
) -> None:
    """Raises ValueError unless every id has a row in the embedding, and images their own id.

    There may be any number of spare rows, because embeddings are padded to round numbers or
    enlarged for future tokens.
    """
    if tokenizer.vocab_size > config.n_ids:
        raise ValueError(f"the tokenizer and the embedding must belong together; in {where} the "
                         f"tokenizer has {tokenizer.vocab_size} ids and the embedding "
                         f"{config.n_ids} rows. Use both from the same checkpoint")
    if isinstance(config, FusionLlamaConfig):
        for name, number in dataclasses.asdict(config.image_ids).items():
            found = tokenizer.named_ids.get(f"<|{name}|>", number)
            if found != number:
                raise ValueError(f"<|{name}|> has the id {number} in this model; in {where} the "
                                 f"tokenizer's is {found}. Use both from the same checkpoint")
    if isinstance(config, VisionLlamaConfig):
        image_id = tokenizer.named_ids.get(IMAGE_TOKEN, config.image_id)
        if image_id != config.image_id:
            raise ValueError(f"an image has the id {config.image_id} in this model; in {where} the "
                             f"tokenizer's {IMAGE_TOKEN} is {image_id}. Use both from the same "
                             "checkpoint")


IMAGE_TOKEN = "<|image|>"
"""What stands for an image in a text."""


def n_tokens_of(config: LlamaConfig) -> int:
    """Returns how many tokens a released tokenizer of this config has.

    They fill the vocabulary. In a model that sees, `IMAGE_TOKEN` follows it.
    """
    is_seeing = isinstance(config, VisionLlamaConfig)
    return config.image_id + 1 if is_seeing else config.vocab_size


def generation_of(config: LlamaConfig) -> str:
    """Returns the generation whose special tokens belong to a file of ranks.

    Llama 3.1 introduced the scaling of RoPE, and the names that all later ones keep up to 3.3. Of
    the published models only Llama 4 has experts.
    """
    if has_experts(config):
        return "llama-4"
    if isinstance(config, VisionLlamaConfig):
        return "llama-3.2-vision"
    return "llama-3" if config.rope_scaling is None else "llama-3.1"
