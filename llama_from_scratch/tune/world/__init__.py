"""The small world: people with things, places and tastes, and all that an assistant can be asked.

Every function is a pure function of a `random.Random`, so the same seed gives the same texts on
every machine. Training and test differ by combinations of words, not by seeds.

- `words`: the words, and which combinations are held out
- `scenes`: people, facts and questions
- `instructions`, `checking`: verifiable instructions: a writer, and a judge that shares no code
- `rewriting`: careless questions, and what they should be
- `functions`: functions of two steps to write in Python, with tests
- `errands`: requests that need tools, the tools themselves, and a judge of what was done
- `describing`: descriptions by a careless writer, with an exact score
- `documents`: plain text for a base model
- `requests`: requests that should be refused, and requests that only look like them
- `leaks`: searches texts for combinations that are held out

Notebooks 50 to 59.
"""
