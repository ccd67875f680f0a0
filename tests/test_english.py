"""The project is written in plain modern American English, as far as a machine can tell.

What it looks for is in english.py, with a command that lists the findings of any path.
"""

import fnmatch
import functools
import json

import pytest
from english import (
    ALLOWED,
    COMPILED,
    PATTERNS,
    ROOT,
    Allowed,
    allowances,
    files,
    findings,
    misspellings,
    passages,
)

# Paths that have not been read yet. Every other file is clean, and a new one has to be.
STILL_TO_DO = ()


@functools.cache
def clean_passages():
    names = [path.relative_to(ROOT).as_posix() for path in files([])]
    clean = [name for name in names
             if not any(fnmatch.fnmatch(name, pattern) for pattern in STILL_TO_DO)]
    return [each for name in clean for each in passages(ROOT / name)]


def test_no_phrase_of_the_table_is_in_a_clean_file():
    assert [str(each) for passage in clean_passages() for each in findings(passage)] == []


def test_no_word_of_a_clean_file_is_misspelled():
    pytest.importorskip("codespell_lib", reason="codespell is in the extra `test`")
    assert misspellings(clean_passages()) == []


def test_every_pattern_of_paths_still_to_do_is_of_some_file():
    names = [path.relative_to(ROOT).as_posix() for path in files([])]
    assert [each for each in STILL_TO_DO if not fnmatch.filter(names, each)] == []


def test_every_allowed_phrase_is_needed():
    for allowed in ALLOWED:
        paths = [path for path in files([])
                 if fnmatch.fnmatch(path.relative_to(ROOT).as_posix(), allowed.path)]
        near = [each for path in paths for each in passages(path) if allowances(each, allowed)]
        assert any(len(list(findings(each, ()))) > len(list(findings(each, (allowed,))))
                   for each in near), f"nothing needs {allowed}"


# --- what is read ---------------------------------------------------------------------------------

PYTHON = '''\
"""Begins anew."""

import this  # stands behind


def f(x):
    """First line.

    The second lies below.
    """
    # A comment of two lines, which nobody
    # reads; `anew` is a name.
    raise ValueError(f"Got {x:>{len('whoever')}}, "
                     f"those of {g('a longer one, which is dear')} are none")
'''
MARKDOWN = """\
# Everybody

Plain `besides` and [a link](https://host/besides), then
so
much.

```
besides()   # a comment, mend it
```
"""
CUDA = "/* The first\n   whoever */\nint anew;  // mended\n"


def found(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return [(each.where.removeprefix(f"{tmp_path}/"), each.phrase)
            for passage in passages(path) for each in findings(passage)]


def test_docstrings_comments_and_messages_of_python_are_read(tmp_path):
    places = found(tmp_path, "a.py", PYTHON)
    assert {phrase for _, phrase in places} == {
        "anew", "stands", "lies", "nobody", "those of", "· are none", "is dear"}
    assert [place for place, phrase in places if phrase in ("anew", "stands", "lies", "nobody")
            ] == ["a.py:3", "a.py:11", "a.py:1", "a.py:9"]


def test_markdown_is_read_without_code_and_addresses_but_with_the_comments_of_code(tmp_path):
    assert sorted(found(tmp_path, "a.md", MARKDOWN)) == [
        ("a.md:1", "Everybody"), ("a.md:4", "so much"), ("a.md:8", "mend")]


def test_comments_of_cuda_are_read(tmp_path):
    assert found(tmp_path, "a.cu", CUDA) == [("a.cu:2", "whoever"), ("a.cu:3", "mended")]


def notebook(*cells):
    return json.dumps({"cells": [{"cell_type": kind, "source": source.splitlines(keepends=True)}
                                 for kind, source in cells]})


def test_prose_comments_and_strings_of_notebooks_are_read(tmp_path):
    text = notebook(("markdown", "Prose\nanew, $besides$"), ("code", "%matplotlib inline\nbesides"),
                    ("code", "x = 1  # nobody\nprint('it is whoever')"))
    assert found(tmp_path, "a.ipynb", text) == [
        ("a.ipynb cell 0:2", "anew"), ("a.ipynb cell 2:1", "nobody"),
        ("a.ipynb cell 2:2", "whoever")]


# --- the table ------------------------------------------------------------------------------------

WRONG = """\
begin anew | begin afresh | mended it | it costs dearly | is too dear | whoever reads
whosoever reads | nobody asks | everybody knows | over so many targets | in small
what it shall do | the file whereof | whence it came | the part wherein | naught is left
put it upon the stack | likewise for b | do it forthwith | half way there | the set-up
a norm stands alone | here lies a model | it may lie there | a token that is none | those of b
longer than that of b | one that has no bias | kept, for it is used | kept, for nobody asks
written, for the kernel is fast | kept, as it has more | kept, as the table has rows
as right angles want | trained so | all but two | none but two | measured in turns
held against the model | not to be had | not as yet | a file that may not be read
a blank in front | the leading blank | no index, but for one | it is of a Llama 4
asked of the model | hears of each tensor
tells of every access | knows of all formats | the error is said | it is told first
refused in words | said aloud | the layer wants two | asks itself | learnt fast | misspelt key
whilst it runs | towards zero | two colours | normalised weights | analysed it | a licence
the centre | grey bars | a catalogue | a modelled clock | a programme | besides the ids
beside the weights
"""
RIGHT = """\
B stands for batch | stand-ins, a script that stands in. | so much that it fails | once upon a time
there is none | where there are none | the one of b | for each of them | loss, for a model that was
written, for example | kept, as it is | as the table shows | you want to see | what was said before
it was said to be fast | our four hours | the size of a part | it raises, exercises and promises
in small steps | it is of no use | fill the blank
one step toward it | a learned table | the parallel rows are labeled | therefore it holds
"""


def phrases(text):
    return [each.strip() for line in text.splitlines() for each in line.split("|")]


@pytest.mark.parametrize("phrase", phrases(WRONG))
def test_phrase_is_found(tmp_path, phrase):
    assert found(tmp_path, "a.md", phrase) != []


@pytest.mark.parametrize("phrase", phrases(RIGHT))
def test_phrase_that_is_right_is_not_found(tmp_path, phrase):
    assert found(tmp_path, "a.md", phrase) == []


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_has_an_example(pattern):
    (compiled,) = [each for each in COMPILED if each.pattern == pattern.replace(" ", r"\s+")]
    assert any(compiled.search(phrase) for phrase in phrases(WRONG))


def test_allowed_phrase_is_not_found_there_and_only_there(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("The motto was:\nnothing stands alone. Here one stands.")
    (passage,) = passages(path)
    motto = Allowed("*/a.md", "nothing stands alone", "a motto, quoted")
    assert [each.where.removeprefix(f"{tmp_path}/") for each in findings(passage, (motto,))] == [
        "a.md:2"]
    assert len(list(findings(passage, (motto._replace(path="*/b.md"),)))) == 2


# --- spelling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text", "place"), [
    ("a.md", "One line.\n\nA seperate line.", "a.md:3: seperate ==> separate"),
    ("a.py", '"""One line.\n\nA seperate line.\n"""\n', "a.py:3: seperate ==> separate"),
    ("a.py", "x = 1\n# seperate\n", "a.py:2: seperate ==> separate"),
    ("a.py", 'x = f"a {x} seperate line"\n', "a.py:1: seperate ==> separate"),
    ("a.ipynb", notebook(("code", "x = 1"), ("markdown", "One line.\nA seperate line.")),
     "a.ipynb cell 1:2: seperate ==> separate"),
    ("a.md", "Two colours.", "a.md:1: colours ==> colors"),
])
def test_seeded_misspelling_is_found(tmp_path, name, text, place):
    pytest.importorskip("codespell_lib", reason="codespell is in the extra `test`")
    path = tmp_path / name
    path.write_text(text)
    found = misspellings(list(passages(path)))
    assert [each.removeprefix(f"{tmp_path}/") for each in found] == [place]


def test_names_in_backticks_are_not_spelled(tmp_path):
    pytest.importorskip("codespell_lib", reason="codespell is in the extra `test`")
    path = tmp_path / "a.md"
    path.write_text("The argument `colour` of `seperate`.")
    assert misspellings(list(passages(path))) == []
