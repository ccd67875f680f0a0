"""The command `llama`: one file per subcommand, with its arguments and its output.

`add(commands)` adds a subcommand's parser. `run(args)` runs the subcommand and returns its exit
status. Heavy packages are imported inside `run`, so that `llama --help` answers at once. Several
subcommands share `loading` (a model, with progress), `device`, `writing` (how an answer is
sampled), `pictures` (images that a user names) and `target` (how a checkpoint is written). For
`doctor`, `machine` measures and `symptoms` judges.
"""
