"""The reader's copy: blanks for solutions, and nothing of a reader's work overwritten."""

import json

import pytest
from turn_chapter import BEFORE

from llama_from_scratch.lessons import exercises
from llama_from_scratch.lessons.authoring.__main__ import main
from llama_from_scratch.lessons.authoring.copies import student
from llama_from_scratch.lessons.authoring.executing import client, run
from llama_from_scratch.lessons.authoring.proof import prove_copy
from llama_from_scratch.lessons.exercises import progress
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS, SOLUTION


def test_copy_has_blanks_no_output_no_hint_and_remembers(chapter, tmp_path):
    run(chapter)
    cells = json.loads(student(chapter, tmp_path / "out").read_text())["cells"]
    assert [c["id"] for c in cells] == [f"turn-0{number}" for number in (1, 2, 3, 5, 6, 7, 8)]
    assert "".join(cells[1]["source"]) == BEFORE + (
        "\n\nfrom llama_from_scratch.lessons import remember\n\n"
        "remember()  # keeps your guesses and what you solve in runs/progress.json")
    assert "".join(cells[3]["source"]) == (
        'def turned(x):\n    raise NotImplementedError("return minus x")\n\n'
        'with attempt("12.1"):\n    assert turned(3) == -3')
    assert not any(c.get("outputs") for c in cells)
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert "int:" not in text and "It takes one line, $a * b$." in text and "And why?" in text
    assert prove_copy(chapter) == []


def test_copy_overwrites_neither_the_lesson_nor_the_readers_work(chapter, tmp_path, capsys):
    with pytest.raises(ValueError, match="must be in another folder"):
        student(chapter, chapter.parent)
    copy = student(chapter, tmp_path / "out")
    assert student(chapter, tmp_path / "out") == copy, "an untouched copy may be made again"
    copy.write_text(copy.read_text().replace("return minus x", "my own work"))
    with pytest.raises(FileExistsError, match="has work in it, so it is not replaced"):
        student(chapter, tmp_path / "out")
    assert main(["student", str(tmp_path / "out"), str(chapter)]) == 0
    assert "so it is not replaced" in capsys.readouterr().out and "my own work" in copy.read_text()


@pytest.mark.slow
def test_new_reader_solves_the_first_chapters_and_sees_the_progress(tmp_path):
    """The calls of a person: make the copies, write into the blanks, run the notebooks, look at the
    progress.
    """
    import nbformat

    file, done = tmp_path / "runs" / "progress.json", set()
    for path in sorted(NOTEBOOKS.glob("1[0-2]_*.ipynb")):
        assert main(["student", str(tmp_path), str(path)]) == 0
        nb = nbformat.read(tmp_path / path.name, as_version=4)
        solved = {exercise.cell: exercise
                  for exercise in exercises.read_exercises(path) if exercise.cell is not None}
        for exercise in solved.values():
            cell = next(cell for cell in nb.cells if exercise.opening in cell.source)
            blanks = [line for line in cell.source.splitlines() if 'raise '
                                                                   'NotImplementedError("' in line]
            for blank, found in zip(blanks, SOLUTION.finditer(exercise.source), strict=True):
                cell.source = cell.source.replace(blank, found[0])
            done.add(exercise.id)
        here = ("from pathlib import Path\nfrom "
                "llama_from_scratch.lessons.exercises import progress\n")
        nb.cells.insert(0,
                        nbformat.v4.new_code_cell(f"{here}progress.PROGRESS = Path({str(file)!r})"))
        client(nb, tmp_path, 120).execute()
    assert progress.load(file).passed == done and len(done) >= 9
    assert f"{len(done)} of " in exercises.progress_table(file=file)
