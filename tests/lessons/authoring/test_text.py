"""A notebook as text: sources, outputs, and a line for each picture."""

import subprocess
import sys

from tiny_notebooks import outputs

from llama_from_scratch.lessons.authoring.text import show
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS


def test_show_prints_sources_and_text_and_a_hash_for_a_picture(tiny):
    text = show(tiny)
    assert "loss 0.8444" in text and "random.seed(0)" in text
    assert "=> ValueError: head_dim must be even; got 7" in text
    assert "--- 6 code raises-exception" in text
    picture = outputs(tiny, 2)[0]["data"]["image/png"]
    assert f"=> <image/png {len(picture)} chars " in text and picture not in text


def test_show_needs_no_package_so_that_git_diff_is_fast(tiny):
    command = [sys.executable, "-S", "-m", "llama_from_scratch.lessons.authoring", "show", tiny]
    done = subprocess.run(command, cwd=NOTEBOOKS.parent, capture_output=True, text=True)
    assert done.stdout == show(tiny), done.stderr
