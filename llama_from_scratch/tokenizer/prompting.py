"""What the files of a checkpoint say about texts: how one begins, what ends it, how chats go.

A vocabulary does not say it: the base model and the chat model of a generation share theirs. So it
travels with the tokenizer as a record, from the files that are read to those that are written.

Notebook 19. All Llamas.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from llama_from_scratch.config import record

DEFAULT = "default"
"""The name of the template that is used when no other is asked for."""
TOOL_USE = "tool_use"
"""The name of the one that is used instead when tools are offered."""

# As in Meta's own code of Llama 3 and 4, which stops at the end of a turn whether or not the model
# was trained to chat.
USUAL_ENDS = ("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>")
"""Of Llama 3 and 4."""
_TURN_ENDS = ("<|eot_id|>", "<|eot|>")


@record
class Prompting:
    """What files say about texts. What they leave open is empty, or None.

    `end_ids`: any of them ends a text. `eos_ids`: those of them that the files call the end of a
    text of this model. `adds_bos`: does a text begin with the BOS token? `templates`: Jinja sources
    that write a dialog as text, by name; "default" is the usual one. `token_names`: what the
    templates call special tokens, such as "bos_token": "<s>".
    """

    end_ids: frozenset[int] = frozenset()
    eos_ids: frozenset[int] = frozenset()
    adds_bos: bool | None = None
    templates: Mapping[str, str] = field(default_factory=dict)
    token_names: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns what is said, as JSON values."""
        said = {"end_ids": sorted(self.end_ids), "eos_ids": sorted(self.eos_ids),
                "templates": dict(self.templates), "token_names": dict(self.token_names)}
        said = {key: value for key, value in said.items() if value}
        return said if self.adds_bos is None else said | {"adds_bos": self.adds_bos}

    @classmethod
    def from_dict(cls, said: Any, *, vocab_size: int) -> "Prompting":
        """What `to_dict` gave. Raises ValueError for anything else, or an id that is none."""
        keys = {"end_ids": list, "eos_ids": list, "templates": dict, "token_names": dict,
                "adds_bos": bool}
        if not isinstance(said, dict) or any(type(value) is not keys.get(key)
                                             for key, value in said.items()):
            raise ValueError(f"what is said of texts is an object of {', '.join(keys)}; got "
                             f"{said!r:.200}")
        ids = [*said.get("end_ids", []), *said.get("eos_ids", [])]
        if wrong := [i for i in ids if type(i) is not int or not 0 <= i < vocab_size]:
            raise ValueError(f"the ends of a text are ids below {vocab_size}; got {wrong[0]!r:.80}")
        texts = [*said.get("templates", {}).values(), *said.get("token_names", {}).values()]
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise ValueError(f"templates and names of tokens are texts; got {wrong[0]!r:.80}")
        sets = {key: frozenset(said[key]) for key in ("end_ids", "eos_ids") if key in said}
        return cls(**said | sets)

    def is_for_chats(self, special_ids: Mapping[str, int]) -> bool:
        """Do the files say that the texts of the model, with these special tokens, are turns?

        A template says so, or an end of texts that is the end of a turn.
        """
        is_turn = self.token_names.get("eos_token") in _TURN_ENDS
        return bool(self.templates) or is_turn or any(
            special_ids[name] in self.eos_ids for name in _TURN_ENDS if name in special_ids)


NOTHING_SAID = Prompting()
"""Of a tokenizer that no checkpoint's files came with."""


def usual_ends(special_ids: Mapping[str, int], eos: str | None = None) -> frozenset[int]:
    """The ids that end a text, a message or a turn in a vocabulary: `eos`, and those of Llama 3, 4.

    None if it has no such tokens.
    """
    names = USUAL_ENDS if eos is None else (eos, *USUAL_ENDS)
    return frozenset(special_ids[name] for name in names if name in special_ids)


class Prompted:
    """What every tokenizer hands on from the files that it came with: its `prompting`.

    `bos`, `eos`: the names of the tokens that begin and end a text, None for none.
    """

    prompting: Prompting = NOTHING_SAID
    special_ids: dict[str, int]
    bos: str | None
    eos: str | None

    @property
    def named_ids(self) -> Mapping[str, int]:
        """The ids of all tokens that are found by their names: the special ones and any others."""
        return self.special_ids

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids after which a text ends: those that the files named, or else its usual ends."""
        return self.prompting.end_ids or usual_ends(self.named_ids, self.eos)

    @property
    def adds_bos(self) -> bool:
        """Does a text begin with bos_id? By what the files say, or else if there is one."""
        said = self.prompting.adds_bos
        return self.bos in self.special_ids if said is None else said
