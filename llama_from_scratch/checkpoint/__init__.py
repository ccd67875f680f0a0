"""Files <-> parameters: a model from a checkpoint of any published format, and back.

To use: `load` (a model and its tokenizer), `open_checkpoint` (a description, without reading
weights), `build` (a model from that), `convert` (any format to any other), `write` (a model to any
format), `facts` (a table that describes a checkpoint).

The formats: `native` (our own, which training saves), `hugging_face`, `meta`, `gguf`, `llama2c`.
What they share: `names` (the table of parameters), `translation` (uses the table), `plain` (the
layers that all formats can describe), `described` (checks that a model is what its config says),
`strict` (checks that the tensors fit the config), `folders`, `machine`, `hub`.
"""

from llama_from_scratch.checkpoint.convert import convert as convert
from llama_from_scratch.checkpoint.convert import write as write
from llama_from_scratch.checkpoint.described import refuse_undescribed as refuse_undescribed
from llama_from_scratch.checkpoint.inspect import facts as facts
from llama_from_scratch.checkpoint.load import load as load
from llama_from_scratch.checkpoint.load import open_checkpoint as open_checkpoint
from llama_from_scratch.checkpoint.opened import Opened as Opened
from llama_from_scratch.checkpoint.opened import build as build
