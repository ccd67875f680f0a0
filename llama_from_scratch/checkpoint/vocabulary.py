"""The tokenizer at a path: of a checkpoint of any format, or of a tokenizer's file alone.

Notebook 18.
"""

from pathlib import Path

from llama_from_scratch.checkpoint.load import open_checkpoint
from llama_from_scratch.checkpoint.tokenizer_file import GENERATION_OF, read_file
from llama_from_scratch.tokenizer import rank_file
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer

_CONFIGS = ("config.json", "params.json")


def read_tokenizer(
    path: str | Path, *, tokenizer: str | Path | None = None, n_ranks: int | None = None
) -> AnyTokenizer:
    """Returns the tokenizer of a checkpoint at `path`, or of a file that `read_file` reads.

    `path`: as for `load`. `tokenizer`: the file of the tokenizer, if the checkpoint has it in an
    unusual place. `n_ranks`: how many ranks a rank file of your own has; it gets the special tokens
    of Llama 3.1. Without `n_ranks`, a rank file in the folder of a config is read as part of that
    checkpoint. Raises ValueError if nothing is recognized, or if a file is damaged or lost a part.
    """
    if tokenizer is not None:
        return open_checkpoint(path, tokenizer=tokenizer).tokenizer()
    file = Path(path)
    if n_ranks is None and _is_part_of_a_checkpoint(file):
        return open_checkpoint(file.parent).tokenizer()
    is_checkpoint = file.is_dir() and (any((file / name).exists() for name in _CONFIGS)
                                       or (file / "model.bin").is_file())
    found = None if is_checkpoint else read_file(file, n_ranks=n_ranks)
    return open_checkpoint(path).tokenizer() if found is None else found


def _is_part_of_a_checkpoint(file: Path) -> bool:
    """Returns whether this is a rank file of no published length in the folder of a config."""
    return (file.name == "tokenizer.model" and file.is_file() and rank_file.is_one(file)
            and any((file.parent / name).is_file() for name in _CONFIGS)
            and len(rank_file.read_ranks(file)) not in GENERATION_OF)
