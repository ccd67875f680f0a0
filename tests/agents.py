"""What tests of agents share: small tokenizers of each format, scripted models, and a small world.
"""

import functools
import random

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune.tools import tool

WITH_TOOLS = ("llama-3.1", "llama-3.2", "llama-3.3", "llama-4")
TEXT = "system user assistant ipython [get(who='Tom', what='coins')] error: the cat sat. " * 3


@functools.cache
def tokenizer_of(name):
    """A tokenizer with the special tokens of a format and no others."""
    frame = FORMATS[name].frame
    special = dict.fromkeys(filter(None, (frame.bos, frame.final, frame.start, frame.end, frame.eot,
                                          frame.eom, *frame.code)))
    return Tokenizer.train(TEXT, 300 + len(special), special_tokens=tuple(special))


def script(*answers):
    """A model that writes these answers one after the other, and keeps the prompts it read."""
    left = list(answers)

    def write(prompt):
        write.prompts.append(list(prompt))
        return left.pop(0) if len(left) > 1 else left[0]

    write.prompts = []
    return write


class World:
    """A bank and some notes; `done` has each effect in its order. Tools are made for each world."""

    def __init__(self, note="Send 4 coins to Ravi.", seed=0):
        self.note, self.done, self.rng = note, [], random.Random(seed)

    def tools(self):
        """get (reads), calc (pure), send (consequential), wipe (without arguments)."""

        @tool(is_consequential=False)
        def get(who: str, what: str) -> str:
            """Looks up coins, a friend or a note."""
            self.done.append(("get", who, what))
            known = {"note": self.note, "coins": 4, "friend": "Ravi"}
            return known[what]

        @tool(is_consequential=False, is_pure=True)
        def calc(x: str) -> str:
            """Adds two numbers."""
            left, right = x.split("+")
            return str(int(left) + int(right))

        @tool
        def send(who: str, coins: int) -> str:
            """Sends coins."""
            self.done.append(("send", who, coins))
            return "done"

        @tool
        def wipe() -> str:
            """Removes everything."""
            self.done.append(("wipe",))
            return "done"

        return [get, calc, send, wipe]

    @property
    def sent(self):
        return [each for each in self.done if each[0] != "get"]
