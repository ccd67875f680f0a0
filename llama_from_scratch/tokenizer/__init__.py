"""Text <-> ids: the tokenizers of Llama 1 to 4, their files, and the format of dialogs.

- `merges`: byte-pair encoding, the algorithm of both tokenizers
- `byte_bpe`: the tokenizer of Llama 3 and 4, over bytes. `split` cuts text into pre-tokens,
  `rank_file` reads and writes its file
- `sentencepiece`: the tokenizer of Llama 1 and 2, over characters. `pieces` is its vocabulary,
  `piece_training` learns it. `sentencepiece_file` (which uses `protobuf`) and `tokenizer_bin` read
  and write its files
- `hugging_face`: tokenizer.json, for both tokenizers and for vocabularies derived from them, with
  tokens that are found before anything else (`added_tokens`) and patterns from files
  (`file_pattern`)
- `released`: which file, pattern and special tokens belong to each generation
- `special_tokens`: which special strings of a text become ids
- `chat_format`: dialogs <-> ids
- for speed: `pair_counts`, `long_words`, `word_cache`, `piece_words`, `ascii_split`, and `batch`,
  which uses all cores
"""

from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END as BEGIN_AND_END
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer as Tokenizer
from llama_from_scratch.tokenizer.chat_format import CODE as CODE
from llama_from_scratch.tokenizer.chat_format import FORMATS as FORMATS
from llama_from_scratch.tokenizer.chat_format import Answer as Answer
from llama_from_scratch.tokenizer.chat_format import ChatFormat as ChatFormat
from llama_from_scratch.tokenizer.chat_format import Message as Message
from llama_from_scratch.tokenizer.chat_format import Tool as Tool
from llama_from_scratch.tokenizer.chat_format import ToolCall as ToolCall
from llama_from_scratch.tokenizer.pieces import Kind as Kind
from llama_from_scratch.tokenizer.pieces import Piece as Piece
from llama_from_scratch.tokenizer.released import SPECIAL_TOKENS as SPECIAL_TOKENS
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece as SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN as LLAMA3_PATTERN
from llama_from_scratch.tokenizer.split import LLAMA4_PATTERN as LLAMA4_PATTERN
