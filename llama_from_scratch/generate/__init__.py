"""Logits -> text: the decoding loop, how it chooses tokens, and what makes it faster.

sampling  generate  checks  batch     choosing a token, the loop, refusals, rows in one batch
prefix  speculative  screen  greedy   fewer tokens to read, several at once, fewer bytes
score  chat                           how likely a text is; a conversation
"""

from llama_from_scratch.generate.chat import Chat as Chat
from llama_from_scratch.generate.generate import generate as generate
from llama_from_scratch.generate.generate import stream as stream
from llama_from_scratch.generate.generate import stream_text as stream_text
from llama_from_scratch.generate.greedy import GreedyDecoder as GreedyDecoder
from llama_from_scratch.generate.prefix import PrefixCache as PrefixCache
from llama_from_scratch.generate.sampling import GREEDY as GREEDY
from llama_from_scratch.generate.sampling import Sampling as Sampling
from llama_from_scratch.generate.score import generate_scored as generate_scored
from llama_from_scratch.generate.score import score as score
from llama_from_scratch.generate.speculative import (
    generate_speculatively as generate_speculatively,
)
