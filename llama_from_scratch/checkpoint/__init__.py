"""Files <-> parameters: a model from a checkpoint of any published format, and back.

To use: `load` (a model and its tokenizer), `open_checkpoint` (what a checkpoint is, no weight
read), `build`, `convert` (from any format to any other), `write` (a model to any format), `facts`
(a table of what a checkpoint is).

The formats: `native` (our own, which training saves), `hugging_face`, `meta`, `gguf`, `llama2c`.
What they share: `names` (the table of parameters), `translation` (reads the table), `plain` (the
layers that they can describe), `described` (a model is what its config says), `strict` (tensors are
those of the config), `folders`, `machine`, `hub`.
"""

from llama_from_scratch.checkpoint.convert import convert as convert
from llama_from_scratch.checkpoint.convert import write as write
from llama_from_scratch.checkpoint.described import refuse_undescribed as refuse_undescribed
from llama_from_scratch.checkpoint.inspect import facts as facts
from llama_from_scratch.checkpoint.load import load as load
from llama_from_scratch.checkpoint.load import open_checkpoint as open_checkpoint
from llama_from_scratch.checkpoint.opened import Opened as Opened
from llama_from_scratch.checkpoint.opened import build as build
