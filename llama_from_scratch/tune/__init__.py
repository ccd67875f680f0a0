"""From a model to an assistant: verbs that teach a finished model, judge it, and let it act.

- `world`: the small world in which everything is measured
- `dialogs`, `rows`: dialogs from the files that people have, and as rows of ids to learn from
- `sft`: supervised fine-tuning: a model that continues texts learns to answer
- `evals`: shares with standard errors, pass@k, pass^k, win rates
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
