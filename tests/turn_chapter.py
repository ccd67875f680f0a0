"""A chapter of three exercises, as a notebook, that several tests read, copy, prove and pass."""

import json

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

with attempt("12.1"):
    assert turned(3) == -3"""
SECOND = """**Exercise 2 (★★, change and rerun).** Put 3 for 2: what
changes? *Hint: look.* And why? *Stronger hint: look twice.*

**Exercise 3 (★★★, 20 min, break it).** Which check catches it?"""
CODE_2 = """\
def answer():
    ### BEGIN SOLUTION
    return turned(2)
    ### END SOLUTION

with attempt("12.3"):
    assert answer() == -2"""
BEFORE = "from llama_from_scratch.lessons import attempt\nprint('before')"


def cell(source, *, tags=(), markdown=False):
    code = {} if markdown else {"execution_count": None, "outputs": []}
    kind = "markdown" if markdown else "code"
    return {"cell_type": kind, "metadata": {"tags": [*tags]} if tags else {}, "source": source,
            **code}


def write(path, *cells):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cells": [*cells], "metadata": {}, "nbformat": 4,
                                "nbformat_minor": 5}))
    return path


CELLS = (
    cell("# Turn", markdown=True), cell(BEFORE), cell(MARKDOWN, markdown=True),
    cell("print('for the teacher')", tags=["teacher-only"]), cell(CODE, tags=["exercise"]),
    cell(SECOND, markdown=True),
    cell(CODE_2, tags=["exercise"]), cell("print('after')"),
)


def swapped(old, new):
    return [cell | {"source": cell["source"].replace(old, new)} for cell in CELLS]
