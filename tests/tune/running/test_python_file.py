import pytest

from llama_from_scratch.tune.running.python_file import module_of


def test_a_file_becomes_a_module_with_its_own_names(tmp_path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("x = 1\n")
    two.write_text("x = 2\ndef double():\n    return 2 * x\n")
    assert module_of(one, what="a file").x == 1
    assert module_of(two, what="a file").double() == 4


@pytest.mark.parametrize(("text", "words"), [
    ("1 / 0\n", "ZeroDivisionError"), ("def\n", "SyntaxError"), ("raise SystemExit(3)\n", "Exit"),
    ("import nothing_of_this_name\n", "ModuleNotFoundError"),
])
def test_a_file_that_fails_is_named_with_what_it_is(tmp_path, text, words):
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"a file of tests must run .*own.py fails with .*{words}"):
        module_of(file, what="a file of tests")
