"""The content of a tokenizer.json: vocabulary, merges and added tokens, checked for consistency.

Notebook 10. All Llamas. Format: https://huggingface.co/docs/tokenizers.
"""

from typing import Any, NamedTuple

from llama_from_scratch.tokenizer.added_tokens import AddedToken
from llama_from_scratch.tokenizer.hugging_face.json_values import get, require
from llama_from_scratch.tokenizer.hugging_face.pair_merging import Merges

_FLAGS = {"special": "is_special", "normalized": "is_normalized", "lstrip": "strips_left",
          "rstrip": "strips_right", "single_word": "is_single_word"}


class Parts(NamedTuple):
    """A tokenizer.json, parsed.

    `file`: all of it. `base`: the ids of the tokens that are not added. `ids`: the ids of all
    tokens. `merges`: pairs of tokens, in order.
    """

    file: dict[str, Any]
    base: dict[str, int]
    ids: dict[str, int]
    added: tuple[AddedToken, ...]
    merges: list[tuple[str, str]]

    @property
    def model(self) -> dict[str, Any]:
        """The "model" of the file."""
        return self.file["model"]

    def ranked_merges(self) -> Merges:
        """Returns for each pair of ids its place in the list of merges and the id it becomes."""
        vocab = self.model["vocab"]
        return {(vocab[left], vocab[right]): (rank, vocab[left + right])
                for rank, (left, right) in enumerate(self.merges)}


def parts_of(file: Any) -> Parts:
    """Returns the parts of a parsed tokenizer.json.

    Raises ValueError if a part is missing, or if the parts do not belong together.
    """
    model = get(require(file, dict, "the file"), "model", dict)
    vocab = get(model, "vocab", dict)
    for key, wanted in {
        "type": ["BPE", None], "dropout": [None, 0],
        "continuing_subword_prefix": [None, ""], "end_of_word_suffix": [None, ""],
    }.items():
        if model.get(key) not in wanted:
            raise ValueError(f"the model of a Llama must have {key} {wanted[0]}; got "
                             f"{model[key]!r:.80}. Give the tokenizer.json of a Llama")
    if wrong := [(name, i) for name, i in vocab.items() if type(i) is not int]:
        name, i = wrong[0]
        raise ValueError(f"an id must be a whole number; got {i!r:.80} for {name!r}. The file is "
                         "damaged")
    added = tuple(_added_token(entry) for entry in get(file, "added_tokens", list))
    if len({token.text for token in added}) < len(added):
        raise ValueError("each added token must have its own text; got one text twice. The file is "
                         "damaged")
    ids = vocab | {token.text: token.id for token in added}
    in_order = sorted(ids.values())
    if in_order != list(range(len(ids))):
        gap = next((i for i, found in enumerate(in_order) if i != found), len(ids))
        raise ValueError(f"{len(ids)} tokens must have the ids 0 to {len(ids) - 1}, each once; got "
                         f"none or two at {gap}. The file lost a part: download it again")
    merges = [_pair(entry) for entry in get(model, "merges", list)]
    if unknown := [pair for pair in merges if not {*pair, "".join(pair)} <= vocab.keys()]:
        raise ValueError(f"a merge must make a token of two tokens; got {unknown[0]}. The file is "
                         "damaged")
    names = {token.text for token in added}
    base = {name: i for name, i in vocab.items() if name not in names}
    return Parts(file=file, base=base, ids=ids, added=added, merges=merges)


def _added_token(entry: Any) -> AddedToken:
    entry = require(entry, dict, "an added token")
    text, i = get(entry, "content", str), get(entry, "id", int)
    flags = {ours: entry.get(theirs, False) for theirs, ours in _FLAGS.items()}
    if not text or any(type(flag) is not bool for flag in flags.values()):
        raise ValueError("an added token must have a text, and flags that are true or false; got "
                         f"{entry!r:.200}. The file is damaged")
    return AddedToken(text, i, **flags)


def _pair(entry: Any) -> tuple[str, str]:
    parts = entry.split(" ") if isinstance(entry, str) else entry
    is_list = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
    if not is_list or len(parts) != 2:
        raise ValueError(f"a merge must be two tokens; got {entry!r:.80}. The file is damaged")
    return parts[0], parts[1]
