"""Parts of safety: a dial for refusals, a second model that watches, and a search for holes.

- `margins`: how near a model is to refusing, and the curve of all thresholds
- `guard`: a model that says "safe" or "unsafe", before and after the assistant
- `red_team`: a search for wordings that make the assistant answer

Notebook 57.
"""
