"""Logits -> text: the loop that writes, how it chooses, and what makes it faster.

sampling  generate  checks  batch     the loop, its choices, its door, its rows
prefix  speculative  screen  greedy   less to read, more at once, fewer bytes
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
