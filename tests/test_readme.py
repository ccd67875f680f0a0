"""The README's examples do what its comments say."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from llama_from_scratch import __main__ as command

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
LISTING = re.search(r"```\n(llama .*?)```", README, re.DOTALL)[1]


def test_library_in_ten_lines_has_ten_and_prints_what_it_says():
    code = re.search(r"## The library in ten lines\n.*?```python\n(.*?)```", README, re.DOTALL)[1]
    assert len(code.splitlines()) == len(ast.parse(code).body) == 10
    # A process of its own, because pytest executes the shapes in signatures and users do not.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                          env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stderr
    story, n_params, *report = done.stdout.splitlines()
    assert story.startswith(re.search(r"decode\(ids\)\)  # (.*) \.\.\.", code)[1])
    assert n_params == re.search(r"n_params\)  # (\d+)", code)[1]
    n_parts = re.search(r"replace (\d+) of its parts", code)[1]
    assert report[-1] == f"{n_parts} of {n_parts} parts fused"


def test_commands_of_the_readme_are_understood():
    parser = command._parser()
    for line in LISTING.splitlines():
        command_line = line.partition("#")[0].rpartition("-m llama_from_scratch ")[2]
        words = re.findall(r'"[^"]*"|\S+', command_line.removeprefix("llama "))
        assert parser.parse_args([word.strip('"') for word in words]).run


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert len(links) > 20
    assert [link for link in links if not link.startswith("http")
            and not (ROOT / link).exists()] == []
