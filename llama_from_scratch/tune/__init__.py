"""From a model to an assistant: verbs that are applied from outside to any finished Llama.

- `schema`: what a typed function accepts, as JSON Schema, and what is wrong with an argument
- `tools`: functions that a model may call; `tool_file` finds them in a file, `timed` and
  `isolated` run them in bounded time
- `guards`: who may call what, and where an argument came from; `variables`: results that the
  model never reads
- `agent`: the loop of answers, calls and results, and `trace`, what it leaves behind
- `sandbox`: runs programs that a model wrote, in a child process (`child`); `code` scores them by
  their tests

Notebooks 50 to 59.
"""
