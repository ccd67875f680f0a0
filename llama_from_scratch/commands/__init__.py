"""The command `llama`: one file per subcommand, each with its arguments and what it prints.

`add(commands)` adds a subcommand's parser and `run(args)` runs it and returns the exit status. What
is heavy is imported inside `run`, so that `llama --help` answers at once. Modules that several
subcommands share: `loading` (a model, with progress), `device`, `writing` (how an answer is
sampled), `target` (how a checkpoint is written). What `doctor` says comes from `machine`, which
measures, and `symptoms`, which judges.
"""
