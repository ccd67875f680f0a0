"""What a GGUF file says about texts: their ends, the BOS token, the chat templates.

A file can have one id for the end of a text, one for the end of a turn and one for the end of a
message.

Notebook 18. Source: ggml, docs/gguf.md; gguf-py, constants.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.prompting import DEFAULT, Prompting
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

KEY = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_TURNS = (("eot_token_id", "<|eot_id|>"), ("eom_token_id", "<|eom_id|>"),
          ("eot_token_id", "<|eot|>"), ("eom_token_id", "<|eom|>"))
"""The ends of a turn and of a message in Llama 3, and then in Llama 4."""
_NONE = (-1, 2**32 - 1)  # these ids mean that there is no such token
_NAMES = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
          "sep_token": "seperator_token_id", "pad_token": "padding_token_id"}
"""Name of a token in templates -> key of its id. One key is misspelled in the format itself."""


def read_prompting(facts: Mapping[str, Any], config: LlamaConfig, *, where: Path) -> Prompting:
    """Returns what the file says about texts.

    Raises ValueError for an end that is not an id, or a template that is not a text.
    """
    try:
        ends = {key: i for key in ENDS
                if (i := id_of(facts, key, n=config.vocab_size)) is not None}
    except ValueError as error:
        raise ValueError(f"{error} in {where}. Download it again, or another conversion of the "
                         "model") from error
    adds_bos = facts.get(KEY + "add_bos_token")
    if adds_bos is not None and type(adds_bos) is not bool:
        raise ValueError(f"{KEY}add_bos_token must be true or false; {where} has "
                         f"{adds_bos!r:.80}. Download it again")
    eos_ids = frozenset(i for key, i in ends.items() if key == "eos_token_id")
    templates = _templates(facts, where)
    return Prompting(end_ids=frozenset(ends.values()), eos_ids=eos_ids, adds_bos=adds_bos,
                     templates=templates, token_names=_token_names(facts) if templates else {})


def facts_of(tokenizer: Tokenizer | SentencePiece) -> dict[str, tuple[str, Any]]:
    """Returns the facts that `read_prompting` reads.

    Raises ValueError for more ends than the format can store.
    """
    said, special = tokenizer.prompting, tokenizer.special_ids
    eos = min(said.eos_ids, default=tokenizer.eos_id)
    left = sorted(tokenizer.stop_ids - {eos})
    keys = {"eos_token_id": eos}
    for key, name in _TURNS:
        if special.get(name) in left:
            keys[key] = special[name]
            left.remove(special[name])
    for key in ("eot_token_id", "eom_token_id"):
        if left and key not in keys:
            keys[key] = left.pop(0)
    if left:
        raise ValueError("a GGUF file can store at most three ids that end a text; this tokenizer "
                         f"has {len(tokenizer.stop_ids)}: {sorted(tokenizer.stop_ids)}. Write "
                         "Hugging Face's layout")
    facts = {KEY + key: ("u32", i) for key, i in keys.items()}
    facts[KEY + "add_bos_token"] = ("bool", tokenizer.adds_bos)
    for name, source in said.templates.items():
        facts[_TEMPLATE if name == DEFAULT else f"{_TEMPLATE}.{name}"] = ("str", source)
    if others := [name for name in said.templates if name != DEFAULT]:
        facts[_TEMPLATE + "s"] = ("[str]", others)
    return facts


def id_of(
    facts: Mapping[str, Any], key: str, *, n: int, otherwise: int | None = None
) -> int | None:
    """Returns the id that a file has under a key; None if the file says that there is no id."""
    if KEY + key not in facts:
        return otherwise
    value = facts[KEY + key]
    if type(value) is int and value in _NONE:
        return None
    if type(value) is not int or not 0 <= value < n:
        raise ValueError(f"{KEY}{key} must be an id below {n}; got {value!r:.80}")
    return value


def _templates(facts: Mapping[str, Any], where: Path) -> dict[str, str]:
    found = {key.removeprefix(_TEMPLATE).lstrip(".") or DEFAULT: value
             for key, value in facts.items()
             if key == _TEMPLATE or key.startswith(_TEMPLATE + ".")}
    for name, value in found.items():
        if not isinstance(value, str):
            raise ValueError(f"a chat template must be a text; in {where} the one called "
                             f"{name!r:.80} is {value!r:.80}. Download it again")
    return found


def _token_names(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns the texts of the tokens that templates may name, as far as the file has them."""
    tokens = facts.get(KEY + "tokens")
    ids = {name: facts.get(KEY + key) for name, key in _NAMES.items()}
    return {name: tokens[i] for name, i in ids.items()
            if isinstance(tokens, list) and type(i) is int and 0 <= i < len(tokens)}
