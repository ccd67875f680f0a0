"""Finds the course's own data: the stories and the mini model in the repository's data/ folder.

Every notebook uses it. The data is part of the repository but not of the installed package, so
`pip install` of the package alone does not bring it. data/README.md says who made each file and
how to make it again.
"""

from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"


def path(name: str) -> Path:
    """Returns the path of a file or folder in the repository's data/, such as "stories.txt".

    Raises FileNotFoundError if it is not there.
    """
    found = DATA / name
    if not found.exists():
        raise FileNotFoundError(
            f"the course's data is in the data/ folder of its repository; got {name!r}, and "
            f"{found} does not exist. Work in a clone of the repository installed with "
            "`pip install -e .`, or remake the file with the command that data/README.md gives "
            "for it (for the stories: `python data/make_stories.py`).")
    return found
