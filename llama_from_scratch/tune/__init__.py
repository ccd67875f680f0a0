"""From a model to an assistant: verbs that teach a finished model, and judge what it learned.

- `world`: the small world in which everything is measured
- `dialogs`, `rows`: dialogs from the files that people have, and as rows of ids to learn from
- `sft`: supervised fine-tuning: a model that continues texts learns to answer
- `preferences`, `pair_rows`: pairs of a better and a worse answer, from files and as rows
- `reward`: a reward model, which learns from pairs to give each answer a number
- `best_of`: the best of n answers, exactly, and rejection sampling
- `dpo`, `log_probs`: direct preference optimization: learning from pairs without a reward model
- `evals`: shares with standard errors, pass@k, pass^k, win rates

Notebooks 50 to 59.
"""
