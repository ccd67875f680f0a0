import os
import subprocess
import sys

import pytest

from llama_from_scratch.experiments import provenance


@pytest.fixture
def fresh():
    """Clears what is kept of the code's version, before and after."""
    provenance.code.cache_clear()
    yield
    provenance.code.cache_clear()


def test_the_code_is_known_by_version_commit_and_digest(fresh):
    found = provenance.code()
    assert set(found) == {"version", "commit", "is_dirty", "digest"} and len(found["digest"]) == 12
    assert found["commit"] is None or len(found["commit"]) == 40


def test_every_source_that_decides_the_numbers_exists():
    for name in provenance._NUMERIC:
        assert provenance._python_files(provenance._PACKAGE / name), name


def test_an_edit_of_a_source_that_decides_numbers_changes_the_digest(tmp_path, monkeypatch, fresh):
    for name in ("config/text.py", "family.py", "model/norm.py", "experiments/running.py",
                 "experiments/export.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a = 1\n")
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    digests = []
    for edited in (None, "model/norm.py", "experiments/export.py", "experiments/running.py"):
        if edited:
            (tmp_path / edited).write_text("a = 2\n")
        provenance.code.cache_clear()
        digests.append(provenance.code()["digest"])
    assert digests[0] != digests[1] == digests[2] != digests[3]


def test_without_git_there_is_no_commit_and_no_claim_about_edits(monkeypatch, fresh):
    monkeypatch.setenv("PATH", "")
    found = provenance.code()
    assert found["commit"] is None and found["is_dirty"] is None


def test_an_edited_file_makes_the_tree_dirty(tmp_path, monkeypatch, fresh):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "norm.py").write_text("a = 1\n")
    try:
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a"]):
            subprocess.run([*git, *words], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs git, which is not installed here")
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    assert provenance.code()["is_dirty"] is False
    (tmp_path / "model" / "norm.py").write_text("a = 2\n")
    provenance.code.cache_clear()
    assert provenance.code()["is_dirty"] is True


def test_versions_and_machine_name_neither_user_nor_host_nor_folder():
    told = str(provenance.versions()) + str(provenance.machine())
    assert set(provenance.versions()) == {"python", "torch", "numpy"}
    for secret in (os.path.expanduser("~"), os.getcwd(), os.uname().nodename if hasattr(
            os, "uname") else ""):
        assert not secret or len(secret) < 4 or secret not in told
    assert provenance.machine()["n_cores"] >= 1 and provenance.machine()["device"] == "cpu"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits the cores")
def test_cores_that_this_process_may_not_use_do_not_count():
    code = ("import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
            "from llama_from_scratch.experiments.provenance import usable_cores\n"
            "print(usable_cores())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "1\n", done.stderr
