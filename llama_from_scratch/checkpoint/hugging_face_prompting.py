"""What Hugging Face's files say about texts: their ends, the BOS token, the chat templates.

generation_config.json or config.json has the ids that end a text. The templates that write chats
are in chat_template.jinja and the folder additional_chat_templates, or in tokenizer_config.json in
older checkpoints.

Notebook 18. Source: transformers, tokenization_utils_base.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_from_scratch.checkpoint.json_file import read_json
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.foreign import decoded, is_there, read_bytes
from llama_from_scratch.tokenizer.chat_format.sandbox import MAX_SOURCE
from llama_from_scratch.tokenizer.hugging_face import read_beside
from llama_from_scratch.tokenizer.prompting import DEFAULT, Prompting

_CONFIG = "tokenizer_config.json"


def read_prompting(folder: Path, about: Mapping[str, Any], config: LlamaConfig) -> Prompting:
    """Returns what the files in `folder` say about texts. `about`: the content of config.json.

    Raises ValueError if a file is damaged, or names an end that the embedding has no row for.
    """
    generation = _read_object(folder / "generation_config.json")
    eos_ids = _ids(about.get("eos_token_id"), config, where=folder / "config.json")
    said = _ids(generation.get("eos_token_id"), config, where=folder / "generation_config.json")
    tokens = _read_object(folder / _CONFIG)
    # As in transformers, the steps of a tokenizer.json decide whether BOS comes first.
    adds_bos = None if is_there(folder / "tokenizer.json") else tokens.get("add_bos_token")
    return Prompting(
        end_ids=said or eos_ids, eos_ids=eos_ids,
        adds_bos=adds_bos if isinstance(adds_bos, bool) else None,
        templates=_templates(folder, tokens),
        token_names=read_beside(folder).names)


def written(prompting: Prompting) -> dict[str, Any]:
    """Returns entries of tokenizer_config.json with the templates that `read_prompting` reads."""
    entries: dict[str, Any] = {}
    if set(prompting.templates) == {DEFAULT}:
        entries["chat_template"] = prompting.templates[DEFAULT]
    elif prompting.templates:
        entries["chat_template"] = [{"name": name, "template": source}
                                    for name, source in prompting.templates.items()]
    return entries


def _ids(said: Any, config: LlamaConfig, *, where: Path) -> frozenset[int]:
    """Returns the value of an eos_token_id: an id, several, or nothing."""
    ids = said if isinstance(said, list) else [] if said is None else [said]
    if wrong := [i for i in ids if type(i) is not int or not 0 <= i < config.vocab_size]:
        raise ValueError(f"eos_token_id must be an id below vocab_size={config.vocab_size}, or a "
                         f"list of such ids; {where} has {wrong[0]!r:.80}. Correct it, or download "
                         "the file again")
    return frozenset(ids)


def _templates(folder: Path, tokens: Mapping[str, Any]) -> dict[str, str]:
    """Returns the templates by name, from tokenizer_config.json only if no other file has any."""
    found = {}
    if is_there(folder / "chat_template.jinja"):
        found[DEFAULT] = _read_template(folder / "chat_template.jinja")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[file.stem] = _read_template(file)
    said = tokens.get("chat_template")
    if found or said is None:
        return found
    entries = said if isinstance(said, list) else [{"name": DEFAULT, "template": said}]
    for entry in entries:
        if not (isinstance(entry, Mapping) and isinstance(entry.get("name"), str)
                and isinstance(entry.get("template"), str)):
            raise ValueError("chat_template must be a text, or a list of objects with name and "
                             f"template; {folder / _CONFIG} has {entry!r:.80}. Correct it, or "
                             "download the file again")
        found[entry["name"]] = entry["template"]
    return found


def _read_template(file: Path) -> str:
    data = read_bytes(file, need="a chat needs a template")
    try:
        if len(data) > MAX_SOURCE:
            raise ValueError(f"it has more than {MAX_SOURCE:,} bytes")
        return decoded(data)
    except ValueError as error:
        raise ValueError(f"a chat template must be a text file in UTF-8; {file} cannot be read "
                         f"({error}). Download it again") from error


def _read_object(file: Path) -> Mapping[str, Any]:
    """Returns the object in a JSON file, an empty one if the file is not there."""
    said = read_json(file) if is_there(file) else {}
    if not isinstance(said, Mapping):
        raise ValueError(f"{file} must hold a JSON object; got {type(said).__name__}. Download it "
                         "again")
    return said
