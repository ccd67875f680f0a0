"""What an agent is made of, in addition to its tools and its loop.

- `schema`: the schema of a typed function, and whether arguments fit it
- `tool_file`: tools from a file of Python functions
- `guards`: what may run: gates that ask, and rules on where arguments come from
- `variables`: the dual channel, whose model never reads a result
- `trace`: the record of a run, and its replay

Notebooks 55 and 56.
"""
