"""What a GGUF file says about texts: their ends, the BOS token, the chat templates.

It has one id for the end of a text, one for the end of a turn and one for the end of a message.

Notebook 18. Source: ggml, docs/gguf.md; gguf-py, constants.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.prompting import DEFAULT, Prompting
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

_KEY = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_NAMES = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
          "sep_token": "seperator_token_id", "pad_token": "padding_token_id"}
"""By what a template calls a token: the key of its id. One of them is misspelt in the format."""


def read_prompting(facts: Mapping[str, Any], config: LlamaConfig, *, where: Path) -> Prompting:
    """What the file says.

    Raises ValueError for an end that is no id, or a template that is no text.
    """
    ends = {key: facts[_KEY + key] for key in _END_KEYS if _KEY + key in facts}
    for key, value in ends.items():
        if type(value) is not int or not 0 <= value < config.vocab_size:
            raise ValueError(f"{_KEY}{key} is an id below the {config.vocab_size} rows of the "
                             f"embedding; {where} has {value!r:.80}. Download it again")
    adds_bos = facts.get(_KEY + "add_bos_token")
    if adds_bos is not None and type(adds_bos) is not bool:
        raise ValueError(f"{_KEY}add_bos_token is a truth value; {where} has {adds_bos!r:.80}. "
                         "Download it again")
    eos_ids = frozenset(i for key, i in ends.items() if key == "eos_token_id")
    return Prompting(end_ids=frozenset(ends.values()), eos_ids=eos_ids, adds_bos=adds_bos,
                     templates=_templates(facts, where), token_names=_token_names(facts))


def facts_of(tokenizer: Tokenizer | SentencePiece) -> dict[str, tuple[str, Any]]:
    """The facts that say what `read_prompting` reads.

    Raises ValueError for more ends than the format has words for.
    """
    said, special = tokenizer.prompting, tokenizer.special_ids
    eos = min(said.eos_ids, default=tokenizer.eos_id)
    left = sorted(tokenizer.stop_ids - {eos})
    keys = {"eos_token_id": eos}
    for key, name in {"eot_token_id": "<|eot_id|>", "eom_token_id": "<|eom_id|>"}.items():
        if special.get(name) in left:
            keys[key] = special[name]
            left.remove(special[name])
    for key in ("eot_token_id", "eom_token_id"):
        if left and key not in keys:
            keys[key] = left.pop(0)
    if left:
        raise ValueError("a GGUF file has words for three ids that end a text, and this tokenizer "
                         f"has {len(tokenizer.stop_ids)}: {sorted(tokenizer.stop_ids)}. Write "
                         "Hugging Face's layout")
    facts = {_KEY + key: ("u32", i) for key, i in keys.items()}
    facts[_KEY + "add_bos_token"] = ("bool", tokenizer.adds_bos)
    for name, source in said.templates.items():
        facts[_TEMPLATE if name == DEFAULT else f"{_TEMPLATE}.{name}"] = ("str", source)
    if others := [name for name in said.templates if name != DEFAULT]:
        facts[_TEMPLATE + "s"] = ("[str]", others)
    return facts


def _templates(facts: Mapping[str, Any], where: Path) -> dict[str, str]:
    found = {key.removeprefix(_TEMPLATE).lstrip(".") or DEFAULT: value
             for key, value in facts.items()
             if key == _TEMPLATE or key.startswith(_TEMPLATE + ".")}
    for name, value in found.items():
        if not isinstance(value, str):
            raise ValueError(f"a chat template is a text; in {where} the one called {name!r:.80} "
                             f"is {value!r:.80}. Download it again")
    return found


def _token_names(facts: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the tokens that templates speak of, as far as the file has them."""
    tokens = facts.get(_KEY + "tokens")
    ids = {name: facts.get(_KEY + key) for name, key in _NAMES.items()}
    return {name: tokens[i] for name, i in ids.items()
            if isinstance(tokens, list) and type(i) is int and 0 <= i < len(tokens)}
