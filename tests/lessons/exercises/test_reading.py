"""Exercises: read from the notebooks, handed out with nothing but blanks, proved, and recorded without a loss."""

import json
import multiprocessing
from pathlib import Path

import pytest

from llama_from_scratch.lessons import exercises, notebook, progress
from llama_from_scratch.lessons.exercises import NOTEBOOKS

MARKDOWN = r"""## 9. Your turn

★ is easy.

**Exercise 1 (★, 5 min).** Turn *back*. It takes one line, $a * b$. *Hint: what does `-x * 1` do?*

## 10. What it costs

**Nothing.**"""
CODE = """\
def turned(x):
    ### BEGIN SOLUTION: return minus x
    if x:
        return -x
    return x
    ### END SOLUTION

assert turned(3) == -3"""
SECOND = """**Exercise 2 (★★, change and rerun).** Put 3 for 2: what
changes? *Hint: look.* And why? *Hint: look twice.*

**Exercise 3 (★★★, 20 min, break it).** Which check catches it?"""
CODE_2 = "### BEGIN SOLUTION\nanswer = turned(2)\n### END SOLUTION\nassert answer == -2"


def cell(source, *, tags=(), markdown=False):
    code = {} if markdown else {"execution_count": None, "outputs": []}
    kind = "markdown" if markdown else "code"
    return {"cell_type": kind, "metadata": {"tags": [*tags]} if tags else {}, "source": source, **code}


def write(path, *cells):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cells": [*cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


CELLS = (
    cell("# Turn", markdown=True), cell("print('before')"), cell(MARKDOWN, markdown=True),
    cell("print('for the teacher')", tags=["teacher-only"]), cell(CODE, tags=["exercise"]), cell(SECOND, markdown=True),
    cell(CODE_2, tags=["exercise"]), cell("print('after')"),
)


@pytest.fixture
def chapter(tmp_path):
    return write(tmp_path / "notebooks" / "12_turn.ipynb", *CELLS)


@pytest.fixture
def place(chapter, tmp_path):
    return {"folder": chapter.parent, "file": tmp_path / "runs" / "progress.json"}


def swapped(old, new):
    return [cell | {"source": cell["source"].replace(old, new)} for cell in CELLS]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_exercise_is_read_with_all_that_the_notebook_says(chapter):
    first, second, third = exercises.read(chapter)
    assert (first.id, first.chapter, first.stars, first.minutes) == ("12.1", "12_turn", 1, 5)
    assert (first.kind, first.cell, third.cell) == ("", 4, 6)
    assert first.task == "Turn *back*. It takes one line, $a * b$." and first.title == "Turn *back*."
    assert first.hints == ("what does `-x * 1` do?",)
    assert first.solution == "if x:\n    return -x\nreturn x"
    assert first.stub == 'def turned(x):\n    raise NotImplementedError("return minus x")\n\nassert turned(3) == -3'
    assert (second.minutes, second.kind, second.cell) == (None, "change and rerun", None)
    assert second.hints == ("look.", "look twice.")
    assert second.task == "Put 3 for 2: what\nchanges? And why?" and second.title == "Put 3 for 2: what\nchanges?"
    assert (third.id, third.stars, third.minutes, third.kind) == ("12.3", 3, 20, "break it")
    assert 'raise NotImplementedError("your turn: write this part' in third.stub


@pytest.mark.parametrize(("old", "new", "words"), [
    ("(★, 5 min)", "(5 min)", r"cell 3: an exercise opens with .*; got '\*\*Exercise 1 \(5 min\)"),
    ("(★, 5 min)", "(★)", "minutes"),
    ("(★★, change", "(★★, sing", "got .*sing and rerun"),
    ("Exercise 1", "Exercise 2", "got 12.2 where 1 is due"),
    ("**Exercise", "**Example", "each with one cell; got a cell without such an opening"),
    ("### BEGIN", "# BEGIN", "got none \\(a reader's copy"),
])
def test_exercise_in_another_form_is_refused(tmp_path, old, new, words):
    path = write(tmp_path / "12_turn.ipynb", *swapped(old, new))
    with pytest.raises(ValueError, match=words):
        exercises.read(path)


def test_solution_without_tag_and_file_without_cells_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has the tag `exercise`; add it"):
        exercises.read(write(tmp_path / "12_turn.ipynb", CELLS[2], cell(CODE)))
    (tmp_path / "13_bad.ipynb").write_text("{")
    with pytest.raises(ValueError, match="is not a notebook"):
        exercises.read(tmp_path / "13_bad.ipynb")


@pytest.mark.parametrize("name", ["12.9", "99.1", "12", "", "..", 12.1, "12.1 "])
def test_unknown_exercise_is_refused_with_those_there_are(place, name):
    with pytest.raises(ValueError, match=r'such as "12.1" with its quotes; got .* 12'):
        exercises.find(name, folder=place["folder"])


def test_course_without_its_repository_is_told_apart(tmp_path):
    with pytest.raises(ValueError, match="Work in a clone of the repository"):
        exercises.find("12.1", folder=tmp_path / "nowhere")


def test_hints_and_solution_are_shown_on_demand_as_markdown(place):
    folder = place["folder"]
    assert exercises.hint("12.1", folder=folder)._repr_markdown_() == "**Hint for 12.1:** what does `-x * 1` do?"
    assert exercises.hint("12.2", folder=folder).count("**Hint for 12.2:**") == 2
    assert "there is none" in exercises.hint("12.3", folder=folder)
    assert "```python\nif x:\n    return -x\nreturn x\n```" in exercises.solution("12.1", folder=folder)
    assert "no code to write" in exercises.solution("12.2", folder=folder)


# --- the reader's copy -----------------------------------------------------------------------------------------------


def test_copy_has_no_solution_no_output_after_it_and_records_what_is_passed(chapter, tmp_path):
    notebook.run(chapter)
    cells = json.loads(exercises.student(chapter, tmp_path / "out").read_text())["cells"]
    assert [c["id"] for c in cells] == [f"turn-0{number}" for number in (1, 2, 3, 5, 6, 7, 8)]
    assert "".join(cells[3]["source"]) == (
        'def turned(x):\n    raise NotImplementedError("return minus x")\n\nassert turned(3) == -3\n\n'
        "# Reached only if everything above is right.\nfrom llama_from_scratch.lessons import exercises\n\n"
        'exercises.passed("12.1")')
    assert [bool(c.get("outputs")) for c in cells] == [False, True, False, False, False, False, False]
    assert exercises.prove_copy(chapter) == []


def test_copy_overwrites_neither_the_lesson_nor_the_readers_work(chapter, tmp_path, capsys):
    with pytest.raises(ValueError, match="a folder of its own"):
        exercises.student(chapter, chapter.parent)
    copy = exercises.student(chapter, tmp_path / "out")
    assert exercises.student(chapter, tmp_path / "out") == copy, "an untouched copy may be made again"
    copy.write_text(copy.read_text().replace("return minus x", "my own work"))
    with pytest.raises(FileExistsError, match="has work in it; it is kept"):
        exercises.student(chapter, tmp_path / "out")
    assert notebook.main(["student", str(tmp_path / "out"), str(chapter)]) == 0
    assert "it is kept" in capsys.readouterr().out and "my own work" in copy.read_text()


def test_command_makes_the_copy(chapter, tmp_path, capsys):
    assert notebook.main(["student", str(tmp_path / "out"), str(chapter)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / '12_turn.ipynb'}\n"


def test_solved_copy_records_its_exercises_and_an_unsolved_one_does_not(chapter, place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PROGRESS", place["file"])
    cells = json.loads(exercises.student(chapter, tmp_path / "out").read_text())["cells"]
    source = "".join(cells[3]["source"])
    with pytest.raises(NotImplementedError, match="return minus x"):
        exec(source, {})
    assert not place["file"].exists()
    with pytest.raises(AssertionError):
        exec(source.replace('raise NotImplementedError("return minus x")', "return x"), {})
    assert not place["file"].exists()
    exec(source.replace('raise NotImplementedError("return minus x")', "return -x"), {})
    assert progress.load(place["file"]).passed == {"12.1"}
    assert capsys.readouterr().out.startswith("✓ exercise 12.1 is done: 1 of ")


# --- the proof -------------------------------------------------------------------------------------------------------


def test_proof_runs_stub_and_solution_in_one_kernel(chapter):
    assert exercises.prove(chapter) == []


@pytest.mark.parametrize(("old", "new", "words"), [
    ("assert turned(3) == -3", "", "the stub of exercise 12.1 must raise NotImplementedError and raised nothing"),
    ("assert turned(3) == -3", "try: turned(3)\nexcept NotImplementedError: pass", "12.1 must raise NotImplementedError"),
    ("assert turned(3) == -3", "assert not turned.__code__.co_names", "12.1 must raise NotImplementedError and raised Assert"),
    ("\nassert turned", "\nassert no_such_name or turned", "does not run to its end"),
    ("def turned(x):\n", "def turned(x, y):\n", "does not run to its end"),
    ("assert turned(3) == -3", "turned(3, 4)", "does not run to its end"),
])
def test_proof_finds_a_stub_that_passes_and_a_solution_that_fails(tmp_path, old, new, words):
    cells = swapped(old, new)[:5]
    [problem] = exercises.prove(write(tmp_path / "12_turn.ipynb", *cells))
    assert words in problem


def test_proof_notices_a_stub_that_spoils_what_the_solution_needs(tmp_path):
    cells = [cell(MARKDOWN, markdown=True), cell("box = [1]"), cell("box.pop()\n" + CODE, tags=["exercise"])]
    [problem] = exercises.prove(write(tmp_path / "12_turn.ipynb", *cells))
    assert "does not run to its end with stubs tried first" in problem


@pytest.mark.parametrize("change", ["a line outside", "no recording", "solution left", "markdown", "cell lost", "output left"])
def test_proof_notices_a_copy_that_differs_in_more_than_its_blanks(chapter, monkeypatch, change):
    notebook.run(chapter)
    plain = exercises.student

    def careless(path, folder):
        copy = plain(path, folder)
        content = json.loads(copy.read_text())
        cells = content["cells"]
        source = cells[3]["source"] = "".join(cells[3]["source"])
        match change:
            case "a line outside":
                cells[3]["source"] = source.replace("turned(3) == -3", "turned(3) == 3")
            case "no recording":
                cells[3]["source"] = source.partition("\n\n#")[0]
            case "solution left":
                cells[3]["source"] = source.replace("    raise", "    return -x\n    raise")
            case "markdown":
                cells[2]["source"] = "".join(cells[2]["source"]).replace("easy", "hard")
            case "cell lost":
                del cells[1]
            case "output left":
                cells[6]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": "after\n"}]
        copy.write_text(json.dumps(content))
        return copy

    monkeypatch.setattr(exercises, "student", careless)
    assert len(exercises.prove_copy(chapter)) == 1


ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_copy_of_each_chapter_differs_only_in_its_blanks(path):
    assert exercises.prove_copy(path) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in ALL if exercises.read(path)], ids=lambda path: path.stem)
def test_each_stub_fails_and_each_solution_passes(path):
    assert exercises.prove(path) == []


def test_every_chapter_has_three_to_six_exercises_and_one_that_changes_something():
    for stem, found in exercises.chapters().items():
        assert 3 <= len(found) <= 6, stem
        assert any(exercise.kind for exercise in found), stem


# --- progress --------------------------------------------------------------------------------------------------------


def test_passed_exercise_is_recorded_once_and_shown(place, capsys):
    assert "0 of 3 exercises done; 25 minutes left" in exercises.progress_table(**place)
    for name in ("12.2", "12.1", "12.1"):
        assert exercises.passed(name, **place) is None
    assert capsys.readouterr().out.splitlines() == [
        "✓ exercise 12.2 is done: 1 of 3 in this chapter", "✓ exercise 12.1 is done: 2 of 3 in this chapter",
        "✓ exercise 12.1 is done: 2 of 3 in this chapter"]
    assert exercises.progress_table(**place).splitlines() == [
        "12 turn  ■■□       20 minutes left", "", "2 of 3 exercises done; 20 minutes left"]
    assert json.loads(place["file"].read_text()) == {"format": 1, "passed": ["12.1", "12.2"]}
    exercises.passed("12.3", **place)
    assert exercises.progress_table(**place).splitlines()[0].endswith("■■■       done")


def test_unknown_exercise_is_not_recorded(place):
    with pytest.raises(ValueError, match="12.7"):
        exercises.passed("12.7", **place)
    assert not place["file"].exists()


def test_looking_at_progress_writes_nothing(place):
    exercises.progress_table(**place)
    assert not place["file"].parent.exists()


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1, "passed": [12.1]}', b'{"format": 2, "passed": []}', b'{"format": 1}',
    b'{"passed": ["12.1"]}',
])
def test_damaged_record_is_kept_aside_and_a_new_one_begins(place, capsys, content):
    file = place["file"]
    file.parent.mkdir()
    file.write_bytes(content)
    exercises.passed("12.1", **place)
    words = "could not be read. It is kept as progress.damaged-1.json; a new one begins."
    assert words in capsys.readouterr().out
    assert (file.parent / "progress.damaged-1.json").read_bytes() == content
    assert progress.load(file).passed == {"12.1"}
    file.write_bytes(content)
    assert words.replace("-1", "-2") in exercises.progress_table(**place)
    assert (file.parent / "progress.damaged-2.json").read_bytes() == content
    assert "damaged" not in exercises.progress_table(**place)


def test_record_that_cannot_be_written_spoils_no_right_answer(place, capsys):
    place["file"].parent.write_text("a file where the folder should be")
    exercises.passed("12.1", **place)
    assert "✓ exercise 12.1 is done, but this could not be recorded" in capsys.readouterr().out


def test_crash_while_writing_loses_nothing(place, monkeypatch):
    exercises.passed("12.1", **place)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            exercises.passed("12.2", **place)
    assert progress.load(place["file"]).passed == {"12.1"}


def add_many(file, first):
    for number in range(first, first + 40):
        progress.record(f"12.{number}", file)


def test_two_processes_at_once_lose_nothing(tmp_path):
    file = tmp_path / "progress.json"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_many, args=(file, first)) for first in (0, 1000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(progress.load(file).passed) == 80
    assert [path.name for path in sorted(Path(tmp_path).iterdir())] == ["progress.json", "progress.json.lock"]


def test_view_shows_the_readers_progress_and_its_still_picture_does_not(place):
    from llama_from_scratch.lessons.widgets.course import ProgressView

    view = ProgressView(**place)
    before, still = view.picture.value, view._repr_mimebundle_()["image/png"]
    assert view.words.value == "0 of 3 exercises done."
    exercises.passed("12.1", **place)
    view.again.click()
    assert view.words.value == "1 of 3 exercises done." and view.picture.value != before
    bundle = view._repr_mimebundle_()
    assert bundle["image/png"] == still and "application/vnd.jupyter.widget-view+json" in bundle
    place["file"].write_text("{")
    view.again.click()
    assert "0 of 3 exercises done. The record of your progress could not be read." in view.words.value


def test_picture_has_a_square_for_each_exercise(chapter):
    from matplotlib.colors import to_hex

    from llama_from_scratch.lessons.figures import BLUE
    from llama_from_scratch.lessons.widgets.course import draw

    found = exercises.chapters(chapter.parent)
    ax = draw(found, done=frozenset({"12.1"})).axes[0]
    assert [to_hex(patch.get_facecolor()).upper() == BLUE for patch in ax.patches] == [True, False, False]
    assert [text.get_text() for text in ax.texts] == ["✓", "★★", "★★★", "20 minutes left"]


# --- a new reader ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_new_reader_solves_the_first_chapters_and_sees_the_progress(tmp_path):
    """The calls of a person: make the copies, write into the blanks, run the notebooks, look at the progress."""
    import nbformat

    file, done = tmp_path / "runs" / "progress.json", set()
    for path in sorted(NOTEBOOKS.glob("1[0-2]_*.ipynb")):
        assert notebook.main(["student", str(tmp_path), str(path)]) == 0
        nb = nbformat.read(tmp_path / path.name, as_version=4)
        solved = {exercise.cell: exercise for exercise in exercises.read(path) if exercise.cell is not None}
        for exercise in solved.values():
            cell = next(cell for cell in nb.cells if f'exercises.passed("{exercise.id}")' in cell.source)
            blanks = [line for line in cell.source.splitlines() if 'raise NotImplementedError("' in line]
            for blank, found in zip(blanks, notebook.SOLUTION.finditer(exercise.source), strict=True):
                cell.source = cell.source.replace(blank, found[0])
            done.add(exercise.id)
        here = "from pathlib import Path\nfrom llama_from_scratch.lessons.exercises import progress\n"
        nb.cells.insert(0, nbformat.v4.new_code_cell(f"{here}progress.PROGRESS = Path({str(file)!r})"))
        notebook.client(nb, tmp_path, 120).execute()
    assert progress.load(file).passed == done and len(done) >= 9
    assert f"{len(done)} of " in exercises.progress_table(file=file)
