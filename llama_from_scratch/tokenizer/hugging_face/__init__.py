"""tokenizer.json, the form in which Hugging Face keeps every tokenizer: read and written for Llama.

Its merges name pairs of tokens, where Meta's files rank what a pair becomes. Both give the same
ids: whatever surrounds the letters of a token, the last merge that makes it always joins the same
two parts. So a list of merges is a ranking if it holds these two parts of each token, in the order
of the ranks; that is checked here.

Notebook 10. All Llamas. Format: https://huggingface.co/docs/tokenizers; the merges written are
those of transformers, convert_slow_tokenizer.py.
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
