"""From a model to an assistant: verbs that teach a finished model, and judge what it learned.

- `world`: the small world in which everything is measured
- `dialogs`, `rows`: dialogs from the files that people have, and as rows of ids to learn from
- `sft`: supervised fine-tuning: a model that continues texts learns to answer
- `preferences`, `pair_rows`: pairs of a better and a worse answer, from files and as rows
- `reward`: a reward model, which learns from pairs to give each answer a number
- `best_of`: the best of n answers, exactly, and rejection sampling
- `dpo`, `log_probs`: direct preference optimization: learning from pairs without a reward model
- `lora`, `adapter_runs`, `bases`, `peft_files`: low-rank adapters, their training and their files
- `evals`: shares with standard errors, pass@k, pass^k, win rates
- `samples`, `answer_log_probs`: groups of answers to a prompt, and their log-probabilities
- `reinforce`: learning by reward, of `rewards`, `advantages`, `rollout`, `policy_loss` and
  `policy_update`; `reinforce_records` has the settings, `reinforce_saving` the checkpoints

Notebooks 50 to 59.
"""
