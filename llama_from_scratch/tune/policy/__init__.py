"""What `reinforce` is made of: answers that are drawn, judged, and made more or less likely.

- `samples`: groups of answers, with one prefill per prompt
- `rewards`: calls a reward function, and checks what it returns
- `prompts`: prompts from the files that people have, and a reward function from a Python file
- `rollout`: draws the answers of a step and rewards them
- `advantages`: how much better an answer is than its group
- `answer_log_probs`: log-probabilities of answers, whose prompt is read once
- `policy_loss`: the ratio, the clip, the KL divergence, and what they are divided by
- `policy_update`: the update of a step, in epochs and minibatches
- `records`, `saving`: settings, history, and checkpoints

Notebook 54.
"""
