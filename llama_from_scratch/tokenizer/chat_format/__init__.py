"""Dialogs and tool calls <-> ids: what a chat model is shown, and what its answer says.

- `messages`: Message, ToolCall and Tool, the parts of a dialog
- `calls`: the ways to write tool calls as text, and to read them back
- `frames`: how turns are marked: in plain text (Llama 2) or with headers of special tokens
- `dialogs`: which dialogs the format of a generation allows
- `answers`: reads an answer as content or tool calls, or reports why text is not a call
- `format`: ChatFormat, which combines these
- `generations`: the format of each Llama, as data
- `template`: ChatTemplate, the format of a template in a model's files
- `sandbox`: runs templates, which are programs written by others
- `recognition`: finds the format that files use, and makes a template for each of our formats

Notebook 19. Sources: meta-llama/llama, llama/generation.py (2); llama-models,
models/llama3/chat_format.py and the prompt formats of 3.1 to 4. Meta's sentences that introduce
tools are not included: give them as `instructions`, or our own sentences are used.
"""

from llama_from_scratch.tokenizer.chat_format.answers import Answer as Answer
from llama_from_scratch.tokenizer.chat_format.calls import JSON_CALLS as JSON_CALLS
from llama_from_scratch.tokenizer.chat_format.calls import PYTHONIC_CALLS as PYTHONIC_CALLS
from llama_from_scratch.tokenizer.chat_format.calls import TAGGED_CALLS as TAGGED_CALLS
from llama_from_scratch.tokenizer.chat_format.calls import CallStyle as CallStyle
from llama_from_scratch.tokenizer.chat_format.format import ChatFormat as ChatFormat
from llama_from_scratch.tokenizer.chat_format.frames import Headers as Headers
from llama_from_scratch.tokenizer.chat_format.frames import Instructions as Instructions
from llama_from_scratch.tokenizer.chat_format.frames import Part as Part
from llama_from_scratch.tokenizer.chat_format.frames import Special as Special
from llama_from_scratch.tokenizer.chat_format.generations import FORMATS as FORMATS
from llama_from_scratch.tokenizer.chat_format.generations import LLAMA_2 as LLAMA_2
from llama_from_scratch.tokenizer.chat_format.generations import LLAMA_3 as LLAMA_3
from llama_from_scratch.tokenizer.chat_format.generations import LLAMA_3_1 as LLAMA_3_1
from llama_from_scratch.tokenizer.chat_format.generations import LLAMA_3_2 as LLAMA_3_2
from llama_from_scratch.tokenizer.chat_format.generations import (
    LLAMA_3_2_VISION as LLAMA_3_2_VISION,
)
from llama_from_scratch.tokenizer.chat_format.generations import LLAMA_3_3 as LLAMA_3_3
from llama_from_scratch.tokenizer.chat_format.generations import LLAMA_4 as LLAMA_4
from llama_from_scratch.tokenizer.chat_format.messages import CODE as CODE
from llama_from_scratch.tokenizer.chat_format.messages import Message as Message
from llama_from_scratch.tokenizer.chat_format.messages import Tool as Tool
from llama_from_scratch.tokenizer.chat_format.messages import ToolCall as ToolCall
from llama_from_scratch.tokenizer.chat_format.recognition import format_of as format_of
from llama_from_scratch.tokenizer.chat_format.recognition import prompting_for as prompting_for
from llama_from_scratch.tokenizer.chat_format.recognition import template_of as template_of
from llama_from_scratch.tokenizer.chat_format.template import ChatTemplate as ChatTemplate
