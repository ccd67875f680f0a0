"""The chat format of each generation, as data.

Notebook 19. Sources: meta-llama/llama, llama/generation.py (2); llama-models,
models/llama3/chat_format.py and the prompt formats of 3.1 to 4.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END
from llama_from_scratch.tokenizer.chat_format.calls import JSON_CALLS, PYTHONIC_CALLS
from llama_from_scratch.tokenizer.chat_format.format import ChatFormat
from llama_from_scratch.tokenizer.chat_format.frames import Headers, Instructions
from llama_from_scratch.tokenizer.chat_format.messages import CODE, ROLES

_BEGIN, _END = BEGIN_AND_END
_HEADERS_3 = Headers(
    bos=_BEGIN, start="<|start_header_id|>", end="<|end_header_id|>", eot="<|eot_id|>", eom=None,
    final=_END,
)  # fmt: skip

LLAMA_2 = ChatFormat(name="Llama 2", frame=Instructions(), alternates=True)
LLAMA_3 = ChatFormat(name="Llama 3", frame=_HEADERS_3, strips=True)
LLAMA_3_1 = ChatFormat(
    name="Llama 3.1", roles=ROLES, open_roles=("assistant",), knowledge_date="December 2023",
    frame=replace(_HEADERS_3, eom="<|eom_id|>", code=("<|python_tag|>", "")),
    calls=JSON_CALLS, tools_role="user", builtin_tools=("brave_search", "wolfram_alpha", CODE))
LLAMA_3_2 = replace(LLAMA_3_1, name="Llama 3.2", calls=PYTHONIC_CALLS, tools_role="system")
LLAMA_3_2_VISION = replace(LLAMA_3_1, name="Llama 3.2 Vision", image="<|image|>")
LLAMA_3_3 = replace(LLAMA_3_2, name="Llama 3.3")
LLAMA_4 = ChatFormat(
    name="Llama 4", roles=ROLES, open_roles=("assistant", "ipython"),
    frame=Headers(bos=_BEGIN, start="<|header_start|>", end="<|header_end|>", eot="<|eot|>",
                  eom="<|eom|>", final=_END, code=("<|python_start|>", "<|python_end|>")),
    calls=PYTHONIC_CALLS, builtin_tools=(CODE,), image="<|image|>")

FORMATS: Mapping[str, ChatFormat] = MappingProxyType({
    "llama-2": LLAMA_2, "llama-3": LLAMA_3, "llama-3.1": LLAMA_3_1, "llama-3.2": LLAMA_3_2,
    "llama-3.2-vision": LLAMA_3_2_VISION, "llama-3.3": LLAMA_3_3, "llama-4": LLAMA_4,
})
"""The chat format of each generation that has one."""
