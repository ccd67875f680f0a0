"""What a checkpoint's files say about texts: how a text begins, what ends it, and chat templates.

The vocabulary cannot say this, because the base model and the chat model of a generation share one.
So the tokenizer carries it as a record, from the files that are read to the files that are written.

Notebook 19. All Llamas.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from llama_from_scratch.config import record

DEFAULT = "default"
"""The name of the template that is used when no other is asked for."""
TOOL_USE = "tool_use"
"""The name of the template that is used instead when there are tools."""

# Meta's code of Llama 3 and 4 also stops at the end of a turn, for base models and chat models.
USUAL_ENDS = ("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>")
"""The tokens that end a text, a turn or a message in Llama 3 and 4."""
_TURN_ENDS = ("<|eot_id|>", "<|eot|>")


@record
class Prompting:
    """What files say about texts. A field about which they say nothing is empty or None.

    `end_ids`: each of them ends a text. `eos_ids`: the ends among them that the files call this
    model's end of text. `adds_bos`: whether a text begins with the BOS token. `templates`: Jinja
    sources by name that write a dialog as text; "default" is the usual one. `token_names`: the
    special tokens by their names in templates, such as "bos_token": "<s>".
    """

    end_ids: frozenset[int] = frozenset()
    eos_ids: frozenset[int] = frozenset()
    adds_bos: bool | None = None
    templates: Mapping[str, str] = field(default_factory=dict)
    token_names: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that are not empty, as JSON values."""
        said = {"end_ids": sorted(self.end_ids), "eos_ids": sorted(self.eos_ids),
                "templates": dict(self.templates), "token_names": dict(self.token_names)}
        said = {key: value for key, value in said.items() if value}
        return said if self.adds_bos is None else said | {"adds_bos": self.adds_bos}

    @classmethod
    def from_dict(cls, said: Any, *, vocab_size: int) -> "Prompting":
        """Returns the record that `to_dict` wrote. Raises ValueError for other values or ids."""
        keys = {"end_ids": list, "eos_ids": list, "templates": dict, "token_names": dict,
                "adds_bos": bool}
        if not isinstance(said, dict) or any(type(value) is not keys.get(key)
                                             for key, value in said.items()):
            raise ValueError(f"\"prompting\" must be an object with any of {', '.join(keys)}; got "
                             f"{said!r:.200}")
        ids = [*said.get("end_ids", []), *said.get("eos_ids", [])]
        if wrong := [i for i in ids if type(i) is not int or not 0 <= i < vocab_size]:
            raise ValueError("the ends of a text must be ids below "
                             f"{vocab_size}; got {wrong[0]!r:.80}")
        texts = [*said.get("templates", {}).values(), *said.get("token_names", {}).values()]
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise ValueError(f"templates and names of tokens must be texts; got {wrong[0]!r:.80}")
        sets = {key: frozenset(said[key]) for key in ("end_ids", "eos_ids") if key in said}
        return cls(**said | sets)

    def is_for_chats(self, special_ids: Mapping[str, int]) -> bool:
        """Returns whether the files say that the model is for chats.

        They do so by a template, or by an end of text that is the end of a turn among the
        `special_ids`.
        """
        is_turn = self.token_names.get("eos_token") in _TURN_ENDS
        return bool(self.templates) or is_turn or any(
            special_ids[name] in self.eos_ids for name in _TURN_ENDS if name in special_ids)


NOTHING_SAID = Prompting()
"""The record of a tokenizer that does not come from a checkpoint's files."""


def usual_ends(special_ids: Mapping[str, int], eos: str | None = None) -> frozenset[int]:
    """Returns the ids that end a text, a message or a turn: of `eos` and of `USUAL_ENDS`.

    Names that the vocabulary lacks are left out, so the result may be empty.
    """
    names = USUAL_ENDS if eos is None else (eos, *USUAL_ENDS)
    return frozenset(special_ids[name] for name in names if name in special_ids)


class Prompted:
    """What every tokenizer has: the `prompting` of the files that it came from, and stop ids.

    `bos`, `eos`: the names of the tokens that begin and end a text, None if there is none.
    """

    prompting: Prompting = NOTHING_SAID
    special_ids: dict[str, int]
    bos: str | None
    eos: str | None

    @property
    def named_ids(self) -> Mapping[str, int]:
        """The ids of all tokens that are found by name: special tokens and other added ones."""
        return self.special_ids

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids after which a text ends: from the files, or otherwise the usual ends."""
        return self.prompting.end_ids or usual_ends(self.named_ids, self.eos)

    @property
    def adds_bos(self) -> bool:
        """Whether a text begins with bos_id: from the files, or otherwise if there is one."""
        said = self.prompting.adds_bos
        return self.bos in self.special_ids if said is None else said
