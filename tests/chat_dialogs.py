"""Small vocabularies with each generation's special tokens, and short ways to write dialogs."""

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.chat_format import Message, Special, Tool, ToolCall
from llama_from_scratch.tokenizer.released import LLAMA_3 as NAMES_3
from llama_from_scratch.tokenizer.released import LLAMA_3_1 as NAMES_3_1
from llama_from_scratch.tokenizer.released import LLAMA_4 as NAMES_4
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN

CORPUS = (
    "system user assistant ipython Environment: ipython\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    "You are helpful. [INST] <<SYS>>\nHi\n<</SYS>>\n\n [/INST] "
    '{"name": "weather", "parameters": {"city": "Rome"}}\n'
    "<|eot_id|><|start_header_id|><|eom|> naïve café; 日本語 привет 👍🏽\n"
    + "".join(map(chr, range(33, 127)))
)


def _small(names, pattern):
    size = 320 + len(names)
    return Tokenizer.train([CORPUS] * 2, size, special_tokens=names, pattern=pattern)


SMALL = {
    "llama-2": SentencePiece.train([CORPUS] * 2, 460),
    "llama-3": _small(NAMES_3, LLAMA3_PATTERN),
    "llama-3.1": _small(NAMES_3_1, LLAMA3_PATTERN),
    "llama-4": _small(NAMES_4, LLAMA4_PATTERN),
}
GENERATIONS = list(SMALL)
WITH_CALLS = ["llama-3.1", "llama-3.2", "llama-3.3", "llama-4"]
CITY = {"city": {"type": "string"}}


def tokenizer_of(name):
    return SMALL.get(name, SMALL["llama-3.1"])


def system(content, **more):
    return Message(role="system", content=content, **more)


def user(content, **more):
    return Message(role="user", content=content, **more)


def assistant(content="", *calls, **more):
    return Message(role="assistant", content=content, tool_calls=calls, **more)


def ipython(content, **more):
    return Message(role="ipython", content=content, **more)


def call(name, **arguments):
    return ToolCall(name=name, arguments=arguments)


WEATHER = Tool(
    name="weather", description="The weather of a city.", properties=CITY, required=("city",)
)

ROME = call("weather", city="Rome")


def shown(parts):
    return "".join(part.name if isinstance(part, Special) else part for part in parts)


def answer_ids(format, tokenizer, text, end):
    """What a model would write: `text` with the special tokens in it, then `end`."""
    return [*tokenizer.encode(text, allowed_special="all"), tokenizer.special_ids[end]]


def parsed(format, text, end=None):
    tokenizer = SMALL["llama-4" if format.name == "Llama 4" else "llama-3.1"]
    return format.parse(answer_ids(format, tokenizer, text, end or format.frame.eot), tokenizer)
