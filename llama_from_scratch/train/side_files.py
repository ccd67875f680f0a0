"""Files of published checkpoints that loading does not need: one function for each layout.

Notebook 18.
"""

import hashlib
import json
from pathlib import Path

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


def write_checklist(folder: Path, tokenizer: Tokenizer | SentencePiece) -> None:
    """Writes checklist.chk, with the MD5 digest and the name of every file."""
    lines = [f"{hashlib.md5(file.read_bytes()).hexdigest()}  {file.name}\n"
             for file in sorted(folder.iterdir())]
    (folder / "checklist.chk").write_text("".join(lines))


def write_special_tokens_map(folder: Path, tokenizer: Tokenizer | SentencePiece) -> None:
    """Writes special_tokens_map.json, with the tokens that begin and end a text."""
    name_of = {i: name for name, i in tokenizer.special_ids.items()}
    framing = {"bos_token": name_of[tokenizer.bos_id], "eos_token": name_of[tokenizer.eos_id]}
    (folder / "special_tokens_map.json").write_text(json.dumps(framing, indent=2) + "\n")


SIDE_FILES = {"meta": write_checklist, "hugging-face": write_special_tokens_map}
"""By format, the function that writes the files to a finished folder. Other formats have none."""
