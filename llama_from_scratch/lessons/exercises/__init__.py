"""The exercises of the course: read from the notebooks, shown on demand, recorded when done.

    reading      Exercise, and how it is written in a notebook
    passing      hint, solution, passed, progress_table: the functions that a reader calls
    progress     what the reader has done, in a small file in the repository's `runs/` folder

`authoring` makes the readers' copies and tests the solutions. Nothing here loads more than the
standard library.
"""

from llama_from_scratch.lessons.exercises.passing import hint as hint
from llama_from_scratch.lessons.exercises.passing import passed as passed
from llama_from_scratch.lessons.exercises.passing import progress_table as progress_table
from llama_from_scratch.lessons.exercises.passing import solution as solution
from llama_from_scratch.lessons.exercises.reading import Exercise as Exercise
from llama_from_scratch.lessons.exercises.reading import chapters as chapters
from llama_from_scratch.lessons.exercises.reading import find as find
from llama_from_scratch.lessons.exercises.reading import read_exercises as read_exercises
