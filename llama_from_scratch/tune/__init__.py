"""From a model to an assistant: verbs that teach a finished model, judge it, and let it act.

- `world`: the small world in which everything is measured
- `dialogs`, `rows`: dialogs from the files that people have, and as rows of ids to learn from
- `sft`: supervised fine-tuning: a model that continues texts learns to answer
- `preferences`, `pair_rows`: pairs of a better and a worse answer, from files and as rows
- `reward`: a reward model, which learns from pairs to give each answer a number
- `best_of`: the best of n answers, exactly, and rejection sampling
- `dpo`, `log_probs`: direct preference optimization: learning from pairs without a reward model
- `lora`, `adapter_runs`, `bases`, `peft_files`: low-rank adapters, their training and their files
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
