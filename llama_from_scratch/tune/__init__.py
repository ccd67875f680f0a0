"""From a model to an assistant: verbs that teach a finished model, and judge what it learned.

- `world`: the small world in which everything is measured
- `dialogs`, `rows`: dialogs from the files that people have, and as rows of ids to learn from
- `sft`: supervised fine-tuning: a model that continues texts learns to answer
- `evals`: shares with standard errors, pass@k, pass^k, win rates
- `lora` (parts in `adapters`): low-rank adapters
- `reward`, `best_of`, `dpo` (parts in `pairs`): a reward model, the best of n answers, and
  direct preference optimization
- `reinforce` (parts in `policy`): learning from any reward
- `tools`, `agent` (parts in `agents`): functions that a model calls, and the loop around it
- `safety` (parts in `safeguards`): refusals that are right and wrong, guards, red teams
- `explain`, `bias`, `model_card`: why an answer, what a model prefers, and what to say about it
- `studies`: several methods next to a control, with several seeds, as one table
- `sandbox`, `code` (parts in `running`): programs that a model wrote, run and scored

Notebooks 50 to 59.
"""
