"""Reads and writes tokenizer.json, the file in which Hugging Face stores any kind of tokenizer.

Its merges are pairs of tokens, while Meta's files rank the token that a pair becomes. Both give the
same ids, because the last merge that makes a token always joins the same two parts, in any text.
So a list of merges equals a ranking if it has these two parts of each token, in the order of the
ranks. This package checks that.

Notebook 10. All Llamas. Format: https://huggingface.co/docs/tokenizers. The merges are written as
in transformers, convert_slow_tokenizer.py.
"""

from llama_from_scratch.tokenizer.hugging_face.beside import read_beside as read_beside
from llama_from_scratch.tokenizer.hugging_face.json_tokenizer import AnyTokenizer as AnyTokenizer
from llama_from_scratch.tokenizer.hugging_face.json_tokenizer import (
    JsonTokenizer as JsonTokenizer,
)
from llama_from_scratch.tokenizer.hugging_face.reading import from_json as from_json
from llama_from_scratch.tokenizer.hugging_face.reading import of_folder as of_folder
from llama_from_scratch.tokenizer.hugging_face.reading import plainly as plainly
from llama_from_scratch.tokenizer.hugging_face.reading import read_folder as read_folder
from llama_from_scratch.tokenizer.hugging_face.reading import read_tokenizer as read_tokenizer
from llama_from_scratch.tokenizer.hugging_face.writing import to_json as to_json
from llama_from_scratch.tokenizer.hugging_face.writing import write as write
