"""Reads a tokenizer's file without a checkpoint; its first bytes, not its name, show its kind.

A rank file does not hold the special tokens, which get the ids after the ranks. So without a
checkpoint it must have the length of a published rank file, or the caller must give its length.

Notebook 18.
"""

from pathlib import Path

from llama_from_scratch.checkpoint import gguf_file, gguf_tokenizer
from llama_from_scratch.foreign import is_there, opened
from llama_from_scratch.tokenizer import hugging_face as tokenizer_json
from llama_from_scratch.tokenizer import rank_file, released, tokenizer_bin
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

GENERATION_OF = {n_ranks: "llama-4" if generation == "llama-4" else "llama-3.1"
                 for generation, n_ranks in released.N_RANKS.items()}
"""Number of ranks -> generation with such a rank file; it is the same from Llama 3 to 3.3."""
_NAMES = ("tokenizer.json", "tokenizer.model", "tokenizer.bin")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_file(
    path: Path, *, n_ranks: int | None = None, generation: str = "llama-3.1"
) -> AnyTokenizer | None:
    """Returns the tokenizer in a tokenizer's file; None if `path` is not such a file.

    Such a file is a tokenizer.json, a tokenizer.model of SentencePiece or of ranks, a
    tokenizer.bin, or a GGUF file without tensors. In a folder, the first of these is read.
    `n_ranks`: how many ranks a rank file must have, if not as many as a published one.
    `generation`: the special tokens that follow these ranks. Raises ValueError for a damaged file.
    """
    if path.is_dir():
        path = next((path / name for name in _NAMES if is_there(path / name)), path)
    if path.is_dir() or not is_there(path):
        return None
    if gguf_file.is_one(path):
        header = gguf_file.header(path)
        return (None if header.tensors
                else gguf_tokenizer.read_tokenizer(header.facts, None, where=path))
    if tokenizer_bin.is_one(path):
        return SentencePiece.load_llama2c(path)
    if rank_file.is_one(path):
        return _of_ranks(path, n_ranks=n_ranks, generation=generation)
    with opened(path, need="a tokenizer needs a file", may_be_empty=True) as source:
        start = source.read(64)
    if start.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        is_named = path.name == _NAMES[0]
        return (tokenizer_json.read_folder(path.parent) if is_named
                else tokenizer_json.read_tokenizer(path))
    # A SentencePiece file begins with a piece, and a piece begins with its text.
    return SentencePiece.load(path) if start[:1] == start[2:3] == b"\n" else None


def _of_ranks(path: Path, *, n_ranks: int | None, generation: str) -> AnyTokenizer:
    if n_ranks is not None:
        return released.load(path, generation, n_ranks=n_ranks)
    n_found = len(rank_file.read_ranks(path))
    if n_found in GENERATION_OF:
        return released.load(path, GENERATION_OF[n_found])
    lengths = " or ".join(f"{n:,}" for n in sorted(GENERATION_OF))
    raise ValueError(f"a rank file without a checkpoint must have {lengths} ranks, as in Llama 3 "
                     "and 4, because special tokens get the ids after the ranks; got "
                     f"{n_found:,} in {path}. It may have lost lines: download it again. If it is "
                     "your own, give the folder of its checkpoint, or its number of ranks (--ranks "
                     f"{n_found})")
