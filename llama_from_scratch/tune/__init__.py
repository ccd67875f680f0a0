"""From a model to an assistant: verbs that teach a finished model, and judge what it learned.

- `world`: the small world in which everything is measured
- `dialogs`, `rows`: dialogs from the files that people have, and as rows of ids to learn from
- `sft`: supervised fine-tuning: a model that continues texts learns to answer
- `evals`: shares with standard errors, pass@k, pass^k, win rates

Notebooks 50 to 59.
"""
