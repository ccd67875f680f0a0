"""Studies: the tables of the chapters on assistants, each method with several seeds.

- `study`: what a study is, and how its results are kept
- `starts`: what several studies begin with
- `answering`, `ranks`, `judging`, `preferring`, `rewarding`, `refusing`, `coding`: one question
  each

`llama experiment run NAME` makes a study again; data/studies has the results of the course.

Notebooks 50 to 58.
"""

from llama_from_scratch.config import nearest
from llama_from_scratch.tune.studies import (
    answering,
    coding,
    judging,
    preferring,
    ranks,
    refusing,
    rewarding,
)
from llama_from_scratch.tune.studies.study import Study

STUDIES = {part.STUDY.name: part.STUDY
           for part in (answering, ranks, judging, preferring, rewarding, refusing,
                        coding)}
"""Every study, by name."""


def study_named(name: str) -> Study:
    """Returns the study with this name. Raises ValueError with the nearest one."""
    if name not in STUDIES:
        raise ValueError(f"no study is called {name!r:.60}; {nearest(name, STUDIES)}")
    return STUDIES[name]
