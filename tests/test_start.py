"""The set-up script, by calls of its parts; nothing here installs or reaches the network."""

import ast
import errno
import functools
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
WANT = {"digest": "d", "extras": ["notebooks"], "is_cpu": False}


@pytest.fixture
def start(monkeypatch, tmp_path):
    """A fresh copy of the module whose `.venv` is in an empty temporary folder."""
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path / ".venv"
    monkeypatch.setattr(module, "VENV", str(folder))
    monkeypatch.setattr(module, "STAMP", str(folder / "stamp.json"))
    monkeypatch.setattr(module, "UNFINISHED", str(folder / "unfinished"))
    return module


def test_script_can_be_read_by_an_old_python_and_needs_only_the_standard_library():
    tree = ast.parse((ROOT / "start.py").read_text(), feature_version=(3, 6))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(isinstance(node, ast.Import) for node in imports)
    names = {name.name.split(".")[0] for node in imports for name in node.names}
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("version", [(3, 6, 9), (3, 10, 14)])
def test_old_python_gets_its_version_and_the_cure(start, monkeypatch, capsys, version):
    monkeypatch.setattr(start.sys, "version_info", version)
    assert start.main([]) == 1
    words = capsys.readouterr().err
    assert f"needs Python 3.11 or newer, this is {version[0]}.{version[1]}." in words
    assert "python3.12 start.py" in words


def test_missing_venv_module_names_the_debian_package(start):
    with pytest.raises(start.CannotStart, match="apt install python3-venv"):
        start.check_modules(lambda name: name != "ensurepip")


def test_little_disk_states_the_need_and_what_there_is(start):
    with pytest.raises(start.CannotStart, match=r"needs 3 GB .* there are 1\.5 GB") as plain:
        start.check_disk(1.5e9, start.PLAIN_NEED)
    assert "--cpu" not in str(plain.value)
    with pytest.raises(start.CannotStart, match="--cpu"):
        start.check_disk(5e9, start.CUDA_NEED)
    start.check_disk(5e9, start.PLAIN_NEED)


@pytest.mark.parametrize(("words", "meaning"), [
    ("ERROR: No matching distribution found for torch==2.13.0", "too new"),
    ("WARNING: Retrying after connection broken by 'NewConnectionError'\n"
     "ERROR: No matching distribution found for torch==2.13.0", "no network"),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
     "disk is full"),
    ("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
     "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: "
     "none)\nERROR: No matching distribution found for torch==2.13.0", "no network"),
    ("ERROR: Could not install packages due to an OSError: HTTPSConnectionPool(host='x', port=443):"
     " Max retries exceeded with url: /t.whl (Caused by ProxyError('Cannot connect'))", "a proxy"),
    ("ERROR: Exception:\nTraceback\npip._vendor.urllib3.exceptions.ReadTimeoutError: "
     "HTTPSConnectionPool(host='x', port=443): Read timed out.", "no network"),
    ("WARNING: Retrying after connection broken by 'SSLError(CERTIFICATE_VERIFY_FAILED)'\n"
     "ERROR: No matching distribution found for torch==2.13.0", "PIP_CERT"),
    ("ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: "
     "none)\nERROR: No matching distribution found for torch==2.13.0", "pip config list"),
    ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'",
     "without sudo"),
    ("ERROR: something else", "pip failed"),
])
def test_failure_of_pip_is_explained(start, words, meaning):
    assert meaning in start.explain_pip(words, (3, 16))


@pytest.mark.parametrize("error", [
    "ERROR: Can not perform a '--user' install. User site-packages are not visible in this "
    "virtualenv.",
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: "
    "2.6.0, 2.7.0)\nERROR: No matching distribution found for torch==2.13.0",
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
])
def test_network_is_not_blamed_for_what_failed_after_it_came_back(start, error):
    words = "WARNING: Retrying after connection broken by 'NewConnectionError'\n" + error
    assert not start.is_unreachable(words) and not start.is_unreachable(error)
    assert "no network" not in start.explain_pip(words, (3, 16))


def test_python_of_the_environment_is_found_on_every_system(start):
    assert start.venv_python("v", "posix") == os.path.join("v", "bin", "python")
    assert start.venv_python("v", "nt") == os.path.join("v", "Scripts", "python.exe")


# --- the stamp ------------------------------------------------------------------------------------


def test_stamp_of_an_equal_or_larger_set_up_is_up_to_date(start):
    os.makedirs(start.VENV)
    start.write_json({**WANT, "extras": ["notebooks", "test"]}, start.STAMP)
    assert start.is_up_to_date(start.read_stamp(start.STAMP), WANT)


@pytest.mark.parametrize("change", [{"digest": "e"}, {"extras": ["notebooks", "test"]},
                                    {"is_cpu": True}])
def test_other_requirements_are_not_up_to_date(start, change):
    assert start.is_up_to_date(WANT, WANT)
    assert not start.is_up_to_date(WANT, {**WANT, **change})


def test_cpu_build_serves_a_later_start_without_the_option(start):
    assert start.is_up_to_date({**WANT, "is_cpu": True}, WANT)


def test_set_up_never_takes_extras_away(start):
    merged = start.merge({**WANT, "extras": ["test"], "is_cpu": True}, {**WANT, "digest": "new"})
    assert merged == {"digest": "new", "extras": ["notebooks", "test"], "is_cpu": True}


def test_digest_follows_the_requirements_the_python_the_torch_and_the_place(start, monkeypatch):
    digests = {start.digest("a", (3, 11, 1), "/x"), start.digest("b", (3, 11, 1), "/x"),
               start.digest("a", (3, 12, 1), "/x"), start.digest("a", (3, 11, 1), "/moved")}
    assert start.digest("a", (3, 11, 2), "/x") in digests
    monkeypatch.setattr(start, "TORCH", "9.9.9")
    assert len(digests | {start.digest("a", (3, 11, 1), "/x")}) == 5


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest": "d"}',
                                  '{"digest": "d", "extras": 3, "is_cpu": 0}'])
def test_spoilt_stamp_means_set_up_again(start, tmp_path, text):
    (tmp_path / "stamp").write_text(text)
    assert not start.is_up_to_date(start.read_stamp(str(tmp_path / "stamp")), WANT)


# --- the environment ------------------------------------------------------------------------------


@pytest.fixture
def steps(start, monkeypatch):
    """What a set-up does, in order, with an environment whose Python runs if `works` is true."""
    record = SimpleNamespace(done=[], works=True, fails=False, brings=["torch", "numpy"],
                             has_compiler=True)

    def make(command, **kwargs):
        record.done.append("venv")
        Path(start.python()).parent.mkdir(parents=True)
        Path(start.python()).touch()
        return SimpleNamespace(returncode=0, stdout=b"")

    def pip(*arguments):
        assert os.path.exists(start.UNFINISHED)
        record.done.append(" ".join(a for a in arguments if a not in ("--quiet", "--report")))
        if record.fails:
            raise KeyboardInterrupt
        if "--dry-run" in arguments:
            names = [{"metadata": {"name": name}} for name in record.brings]
            report = Path(arguments[arguments.index("--report") + 1])
            report.write_text(json.dumps({"install": names}))

    def runs(program):
        return record.works and os.path.exists(start.python())

    monkeypatch.setattr(start, "subprocess", SimpleNamespace(
        run=make, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT,
        CalledProcessError=subprocess.CalledProcessError))
    monkeypatch.setattr(start, "runs", runs)
    monkeypatch.setattr(start, "pip_install", pip)
    monkeypatch.setattr(start, "works", lambda *command: record.has_compiler)
    monkeypatch.setattr(start, "torch_build", lambda: "")
    return record


def test_first_run_installs_torch_and_then_the_course_and_the_second_does_nothing(start, steps):
    start.set_up(["notebooks"], False)
    assert steps.done[0] == "venv"
    assert steps.done[-2:] == ["torch==2.13.0", "torch==2.13.0 -e .[notebooks]"]
    assert not os.path.exists(start.UNFINISHED)
    before = list(steps.done)
    start.set_up(["notebooks"], False)
    assert steps.done == before
    steps.brings = []
    start.set_up(["notebooks", "test"], False)
    assert steps.done[len(before) + 1 :] == ["torch==2.13.0 -e .[notebooks,test]"]


def test_set_up_that_was_stopped_is_made_again(start, steps):
    steps.fails = True
    with pytest.raises(KeyboardInterrupt):
        start.set_up(["notebooks"], False)
    (Path(start.VENV) / "half").mkdir()
    steps.fails = False
    start.set_up(["notebooks"], False)
    assert steps.done.count("venv") == 2 and not (Path(start.VENV) / "half").exists()


def test_environment_whose_python_is_gone_is_made_again_even_with_a_good_stamp(start, steps):
    start.set_up(["notebooks"], False)
    os.remove(start.python())
    start.set_up(["notebooks"], False)
    assert steps.done.count("venv") == 2


def test_environment_made_by_hand_is_kept(start, steps):
    python = Path(start.python())
    python.parent.mkdir(parents=True)
    python.touch()
    start.set_up(["notebooks"], False)
    assert "venv" not in steps.done


def test_broken_environment_in_use_is_not_deleted(start, steps, monkeypatch):
    start.set_up(["notebooks"], False)
    steps.works = False
    monkeypatch.setattr(start.sys, "prefix", start.VENV)
    with pytest.raises(start.CannotStart, match="deactivate"):
        start.set_up(["notebooks"], False)


def test_download_of_cuda_is_announced_with_the_way_around_it(start, steps, capsys):
    steps.brings = ["torch", "nvidia-cublas"]
    start.set_up(["notebooks"], False)
    words = capsys.readouterr().out
    assert "2.7 GB" in words and "start.py --cpu" in words


def test_cuda_is_not_announced_where_the_plain_wheel_brings_none(start, steps, capsys):
    start.set_up(["notebooks"], False)
    assert "CUDA" not in capsys.readouterr().out


def test_cpu_build_comes_from_its_own_index_on_linux_only(start, steps, monkeypatch):
    for system, command in (
        ("linux", f"torch==2.13.0+cpu --no-deps --index-url {start.CPU_INDEX}"),
        ("darwin", "torch==2.13.0"),
    ):
        monkeypatch.setattr(start.sys, "platform", system)
        start.set_up(["notebooks"], True)
        assert steps.done[-2] == command
        os.remove(start.STAMP)


def test_machine_without_a_compiler_gets_the_one_of_a_wheel_with_reason_and_size(start, steps,
                                                                                 capsys):
    steps.has_compiler = False
    start.set_up(["notebooks"], False)
    assert steps.done[-2:] == ["torch==2.13.0 -e .[notebooks]", "ziglang"]
    assert not os.path.exists(start.UNFINISHED)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "ziglang" in line]
    assert "no C++ compiler" in line and "chapters on kernels need one" in line
    assert "0.1 GB to download, 0.4 GB on disk" in line


def test_machine_with_a_compiler_that_the_emulator_takes_installs_none(start, steps, capsys):
    start.set_up(["notebooks"], False)
    assert "ziglang" not in steps.done and "compiler" not in capsys.readouterr().out


def test_whether_a_compiler_is_here_is_asked_of_the_emulator(start):
    """A g++ that is too old has a version, too."""
    code = start.FIND_COMPILER.replace("find_compiler()", "print(find_compiler.__module__)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "llama_from_scratch.kernels.emulator.build\n", done.stderr


def test_on_windows_only_the_kernels_need_wsl(start, steps, monkeypatch, capsys):
    steps.has_compiler = False
    monkeypatch.setattr(start, "os", SimpleNamespace(name="nt"))
    start.install_compiler()
    words = capsys.readouterr().out
    assert steps.done == [] and "chapters on kernels" in words
    assert "everything else does" in words and "wsl --install" in words


def test_wheel_that_cannot_be_had_stops_only_the_kernels(start, steps, monkeypatch, capsys):
    steps.has_compiler = False
    install = start.pip_install

    def pip(*arguments):
        if arguments == ("ziglang",):
            os.remove(start.UNFINISHED)  # as pip_install does where nothing was begun
            raise start.CannotStart("no network")
        install(*arguments)

    monkeypatch.setattr(start, "pip_install", pip)
    start.set_up(["notebooks"], False)
    assert os.path.exists(start.STAMP)
    assert "Everything but the chapters on kernels works without it" in capsys.readouterr().out


def test_program_that_is_missing_or_fails_does_not_work(start):
    assert start.works(sys.executable, "--version")
    assert not start.works("/no/such/compiler", "--version")
    assert not start.works(sys.executable, "-c", "raise SystemExit(1)")


# --- places and machines that set-up meets --------------------------------------------------------


@pytest.mark.parametrize("sign", ["$", "{", "}", "\n", "\x1b", '"', "`", "\\", os.pathsep])
def test_path_that_tools_trip_over_is_refused_before_anything_is_made(start, steps, monkeypatch,
                                                                      capsys, sign):
    place = Path(start.VENV).parent / f"a{sign}b"
    monkeypatch.setattr(start, "ROOT", str(place))
    with pytest.raises(start.CannotStart, match="Rename the folder") as refused:
        start.check_place(str(place))
    assert all(letter.isprintable() or letter == "\n" for letter in str(refused.value))
    assert repr(sign) in str(refused.value)


@pytest.mark.parametrize("name", ["with space", "it's", "a #1 (copy)", "Zoë", "日本語", "a&b;c"])
def test_other_odd_paths_are_fine(start, tmp_path, name):
    (tmp_path / name).mkdir()
    start.check_place(str(tmp_path / name))
    command = "printf %s " + start.shell(str(tmp_path / name))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.stdout == str(tmp_path / name)


def test_checkout_that_cannot_be_written_gets_the_commands_that_copy_it(start, steps, monkeypatch):
    monkeypatch.setattr(start.os, "access", lambda path, mode: False)
    with pytest.raises(start.CannotStart, match=r"cannot be written.*\n(?s:.)*cp -R .*\n.*python3"):
        start.set_up(["notebooks"], False)
    assert steps.done == []


def test_checkout_that_was_set_up_may_be_read_only_afterwards(start, steps, monkeypatch):
    start.set_up(["notebooks"], False)
    before = list(steps.done)
    monkeypatch.setattr(start.os, "access", lambda path, mode: False)
    start.set_up(["notebooks"], False)
    assert steps.done == before


def test_link_to_an_environment_that_is_gone_is_replaced(start, steps, capsys):
    os.symlink("/no/such/disk/venv", start.VENV)
    start.set_up(["notebooks"], False)
    assert steps.done[0] == "venv" and not os.path.islink(start.VENV)
    assert "leads to /no/such/disk/venv, where nothing is" in capsys.readouterr().out


def test_file_in_the_place_of_the_environment_is_refused_and_kept(start, steps):
    Path(start.VENV).write_text("/home/me/.virtualenvs/course")
    with pytest.raises(start.CannotStart, match="is a file, and the environment needs a folder"):
        start.set_up(["notebooks"], False)
    assert Path(start.VENV).read_text() and steps.done == []


def test_environment_whose_link_to_python_leads_nowhere_is_made_again(start, steps, monkeypatch):
    """As after an update that removed the Python it was made with."""
    python = Path(start.python())
    python.parent.mkdir(parents=True)
    python.symlink_to("/no/such/python3.10")
    start.set_up(["notebooks"], False)
    assert steps.done[0] == "venv" and not python.is_symlink()


@pytest.mark.parametrize(("words", "cure"), [
    ("Error: [Errno 28] No space left on device: '/x'", "The disk is full"),
    ("The virtual environment was not created successfully because ensurepip is not available.",
     "apt install python3-venv"),
    ("Traceback\nValueError: odd", "ValueError: odd\nStart with another Python"),
])
def test_environment_that_cannot_be_made_gets_the_last_words_and_a_cure(start, words, cure):
    assert cure in start.explain_venv(words)


def test_venv_that_fails_is_no_success(start, steps, monkeypatch):
    failed = lambda command, **_: SimpleNamespace(returncode=1, stdout=b"Errno 28")
    monkeypatch.setattr(start.subprocess, "run", failed)
    with pytest.raises(start.CannotStart, match="The disk is full"):
        start.set_up(["notebooks"], False)


@pytest.mark.parametrize(("number", "cure"), [
    (errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"),
    (errno.EACCES, "start again without sudo"), (errno.EROFS, "start again without sudo"),
    (errno.EIO, "Input/output error"),
])
def test_error_of_the_system_is_told_with_its_cure_and_no_traceback(start, monkeypatch, capsys,
                                                                    number, cure):
    def fail(*_):
        raise OSError(number, os.strerror(number), "/x\x1b]0;")

    monkeypatch.setattr(start, "set_up", fail)
    assert start.main([]) == 1
    words = capsys.readouterr().err
    assert words.startswith("\nCannot start: ") and cure in words and "\x1b" not in words


HOLDER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("start", sys.argv[1])
start = importlib.util.module_from_spec(spec)
spec.loader.exec_module(start)
with start.one_at_a_time(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_that_start_at_once_set_up_one_after_the_other(start, steps, tmp_path, capsys,
                                                           monkeypatch):
    """The second says that it waits, and does not install what the first has installed."""
    command = [sys.executable, "-c", HOLDER, str(ROOT / "start.py"), start.VENV + ".lock"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    naps = []

    def nap(_):
        """Lets the other one finish: the environment is made, and the lock is free."""
        if not naps:
            Path(start.python()).parent.mkdir(parents=True)
            Path(start.python()).touch()
            text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
            done = {**WANT, "digest": start.digest(text, sys.version_info, str(ROOT))}
            start.write_json(done, start.STAMP)
            other.communicate("")
        naps.append(1)

    monkeypatch.setattr(start.time, "sleep", nap)
    start.set_up(["notebooks"], False)
    assert naps and steps.done == []
    assert "Another start.py is setting up in this folder; waiting" in capsys.readouterr().out


def test_lock_of_a_killed_start_holds_nobody_up(start, tmp_path):
    command = [sys.executable, "-c", HOLDER, str(ROOT / "start.py"), str(tmp_path / "lock")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    other.kill()
    other.communicate()
    with start.one_at_a_time(str(tmp_path / "lock")):
        pass


# --- pip and the user's settings of it ------------------------------------------------------------


@pytest.fixture
def this_pip(start, monkeypatch, tmp_path):
    """pip of this very Python; a file of settings and variables may be given to it."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(start, "python", lambda: sys.executable)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    Path(tmp_path / "pip.conf").write_text("[global]\n")
    os.makedirs(start.VENV)
    Path(start.UNFINISHED).touch()
    return tmp_path / "pip.conf"


def test_settings_on_how_to_reach_packages_are_kept_and_others_left_out(start, this_pip,
                                                                        monkeypatch, capsys):
    this_pip.write_text("[global]\nindex-url = https://mirror.example/simple\nuser = true\n"
                        "find-links =\n    /a\n    /b\n[install]\nno-deps = yes\n"
                        "[freeze]\ntimeout = 3\n")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_PROXY", "http://proxy.example:8080")
    monkeypatch.setenv("PIP_DRY_RUN", "1")
    monkeypatch.setenv("PYTHONPATH", "/packages/of/another")
    variables = start.pip_environment()
    kept = {name: value for name, value in variables.items() if name.startswith("PIP_")}
    site = {"PIP_CERT", "PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL"}  # a machine's own
    assert {name: kept[name] for name in set(kept) - site} == {
        "PIP_INDEX_URL": "https://mirror.example/simple", "PIP_FIND_LINKS": "/a /b",
        "PIP_PROXY": "http://proxy.example:8080", "PIP_CONFIG_FILE": os.devnull}
    assert "PYTHONPATH" not in variables and "PATH" in variables
    assert "not about reaching packages: dry-run, no-deps, target, user" in capsys.readouterr().out


def test_settings_for_install_go_before_those_for_all(start):
    pairs = [("install.timeout", "4"), ("global.timeout", "3"), (":env:.timeout", "5"),
             ("freeze.user", "true"), ("global.find-links", "\n/a\n/b"), ("global.cert", "")]
    assert start.read_settings(pairs) == {"timeout": "4", "find-links": "/a /b"}


@pytest.mark.parametrize("name", ["PIP_USER", "PIP_TARGET", "PIP_REQUIREMENT", "PIP_PREFIX"])
def test_setting_that_would_break_the_set_up_does_not_reach_pip(start, this_pip, monkeypatch,
                                                                tmp_path, name):
    """With each of these pip of a virtual environment fails, or installs elsewhere."""
    monkeypatch.setenv(name, "1" if name == "PIP_USER" else str(tmp_path / "elsewhere"))
    start.pip_install("--quiet", "--no-index", "--dry-run", "pip")


def test_spoilt_file_of_settings_is_named_by_pips_own_words(start, this_pip):
    this_pip.write_text("user = true without a section\n")
    with pytest.raises(start.CannotStart, match=r"cannot read its settings.*\n(?s:.)*pip\.conf"):
        start.pip_environment()


def test_failure_ends_with_pips_own_words_and_no_word_of_the_network(start, this_pip):
    with pytest.raises(start.CannotStart) as failed:
        start.pip_install("--no-index", "no-such-package-at-all")
    assert not isinstance(failed.value, start.Unreachable)
    assert "No matching distribution found for no-such-package-at-all" in str(failed.value)
    assert "network" not in str(failed.value)


def test_cpu_index_is_blamed_only_where_it_was_not_reached(start, steps, monkeypatch):
    monkeypatch.setattr(start.sys, "platform", "linux")
    for kind, is_blamed in ((start.Unreachable, True), (start.CannotStart, False)):
        def fail(*_, kind=kind):
            raise kind("pip's words")

        monkeypatch.setattr(start, "pip_install", fail)
        with pytest.raises(start.CannotStart, match="pip's words") as failed:
            start.install_torch(True)
        assert ("Some networks do not let it through" in str(failed.value)) == is_blamed


def test_pip_that_was_killed_leaves_the_environment_marked_as_unfinished(start, this_pip,
                                                                         monkeypatch):
    killed = SimpleNamespace(stderr=[b"half"], wait=lambda: -9)
    monkeypatch.setattr(start, "pip_environment", dict)
    monkeypatch.setattr(start.subprocess, "Popen", lambda *_, **__: killed)
    with pytest.raises(start.CannotStart, match="pip was killed, as happens when memory runs out"):
        start.pip_install("torch")
    assert os.path.exists(start.UNFINISHED)


def test_pythonhome_of_another_python_does_not_make_the_environment_look_broken(start, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/no/such/place")
    assert start.runs(sys.executable)
    assert "PYTHONHOME" not in start.activated() | start.without_python_settings()


def test_diff_of_notebooks_works_without_the_environment(start, monkeypatch, tmp_path):
    """git would end with an error if the program that shows a notebook were missing."""
    place = tmp_path / "it's $HOME"
    place.mkdir()
    run = functools.partial(subprocess.run, cwd=place, check=True, capture_output=True, text=True)
    run(["git", "init", "-q"])
    (place / ".gitattributes").write_text("*.ipynb diff=ipynb\n")
    (place / "a.ipynb").write_text("old\n")
    run(["git", "add", "."])
    (place / "a.ipynb").write_text("new\n")
    monkeypatch.setattr(start, "ROOT", str(place))
    monkeypatch.setattr(start, "VENV", str(place / ".venv"))
    start.teach_git()
    assert "+new" in run(["git", "diff"]).stdout
    shows = place / ".venv" / "bin" / "python"
    shows.parent.mkdir(parents=True)
    shows.write_text("#!/bin/sh\necho as text\n")
    shows.chmod(0o755)
    (place / "b.ipynb").write_text("x")
    assert run(["git", "diff"]).stdout == ""  # both sides show the same


# --- the commands ---------------------------------------------------------------------------------


def test_lab_listens_to_this_machine_only_and_opens_the_tour(start):
    command = start.lab_command(True, False, start.LESSONS)
    assert "--ServerApp.ip=127.0.0.1" in command
    assert command[-1].endswith("/lab/tree/notebooks/00_tour.ipynb")
    assert not any("token" in word or "password" in word for word in command)
    assert start.lab_command(False, True, start.LESSONS)[-2:] == ["--no-browser", "--allow-root"]


@pytest.fixture
def course(start, monkeypatch, tmp_path):
    """Two small chapters, this very environment, and the command that would start JupyterLab."""
    (tmp_path / "notebooks").mkdir()
    for name in ("00_tour", "10_next"):
        solved = ["**Exercise 1 (★, 5 min).** Add.",
                  "def f(x):\n    ### BEGIN SOLUTION: add\n    return x + 1\n    ### END SOLUTION"]
        cells = [{"cell_type": "markdown", "id": "t-01", "metadata": {}, "source": solved[0]},
                 {"cell_type": "code", "id": "t-02", "metadata": {"tags": ["exercise"]},
                  "source": solved[1], "execution_count": 1, "outputs": []}]
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(
            json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    started = []

    def popen(command, **settings):
        started.append(command)
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(start, "ROOT", str(tmp_path))
    monkeypatch.setattr(start, "python", lambda: sys.executable)
    monkeypatch.setattr(start, "set_up", lambda extras, is_cpu: None)
    monkeypatch.setattr(start, "teach_git", lambda: None)
    monkeypatch.setattr(start, "subprocess", SimpleNamespace(
        run=subprocess.run, DEVNULL=subprocess.DEVNULL, PIPE=subprocess.PIPE,
        CalledProcessError=subprocess.CalledProcessError, Popen=popen))
    return SimpleNamespace(folder=tmp_path, started=started)


def test_own_copy_has_no_solutions_and_is_made_once(start, course, capsys):
    assert start.main(["--no-browser"]) == 0
    assert any(word.endswith("/lab/tree/runs/mine/00_tour.ipynb") for word in course.started[0])
    assert "Copying 2 of 2 chapters to runs/mine" in capsys.readouterr().out
    folder = course.folder / "runs" / "mine"
    mine, next_one = folder / "00_tour.ipynb", folder / "10_next.ipynb"
    assert "raise NotImplementedError" in mine.read_text()
    assert "return x + 1" not in mine.read_text()
    mine.write_text("what the learner wrote")
    next_one.unlink()
    assert start.main(["--no-browser"]) == 0
    assert mine.read_text() == "what the learner wrote" and next_one.exists()
    words = capsys.readouterr().out
    assert "Copying 1 of 2 chapters" in words
    assert "Your work in runs/mine is as you left it" in words


def change(path):
    """What an update of the course does to a chapter."""
    path.write_text(path.read_text().replace("Add.", "Add one."))


def test_an_update_never_touches_what_was_written_and_names_the_chapters_that_changed(
    start, course, capsys
):
    assert start.main(["--no-browser"]) == 0
    mine = course.folder / "runs" / "mine"
    (mine / "00_tour.ipynb").write_text("what the learner wrote")
    for name in ("00_tour", "10_next"):
        change(course.folder / "notebooks" / f"{name}.ipynb")
    capsys.readouterr()
    assert start.main(["--no-browser"]) == 0
    words = capsys.readouterr().out
    assert "These chapters changed since your copy was made" in words and ": 00_tour.\n" in words
    assert "Copying 1 of 2 chapters" in words
    assert (mine / "00_tour.ipynb").read_text() == "what the learner wrote"
    assert "Add one." in (mine / "10_next.ipynb").read_text(), "nothing was written into it"
    assert start.main(["--no-browser"]) == 0
    assert ": 00_tour.\n" in capsys.readouterr().out, "until the reader takes the new text"
    (mine / "00_tour.ipynb").rename(mine / "old.ipynb")
    assert start.main(["--no-browser"]) == 0
    assert "Add one." in (mine / "00_tour.ipynb").read_text()
    assert start.main(["--no-browser"]) == 0
    assert "Your work in runs/mine is as you left it" in capsys.readouterr().out.splitlines()[-2]


@pytest.mark.parametrize("record", [None, "{", "[]", '{"00_tour.ipynb": 3}'])
def test_without_a_record_every_copy_counts_as_work(start, course, capsys, record):
    assert start.main(["--no-browser"]) == 0
    mine = course.folder / "runs" / "mine"
    before = (mine / "00_tour.ipynb").read_bytes()
    (mine / ".copied.json").unlink()
    if record:
        (mine / ".copied.json").write_text(record)
    assert start.main(["--no-browser"]) == 0
    change(course.folder / "notebooks" / "00_tour.ipynb")
    assert start.main(["--no-browser"]) == 0
    assert ": 00_tour.\n" in capsys.readouterr().out
    assert (mine / "00_tour.ipynb").read_bytes() == before


def test_a_copy_has_the_language_that_the_kernel_would_write_on_opening(start, course):
    assert start.main(["--no-browser"]) == 0
    copy = json.loads((course.folder / "runs" / "mine" / "00_tour.ipynb").read_text())
    language = copy["metadata"]["language_info"]
    assert language["version"] == sys.version.split()[0] and language["file_extension"] == ".py"


def test_jupyter_reads_the_settings_of_the_course_before_those_of_the_machine(start):
    folder = start.with_settings({})["JUPYTER_CONFIG_PATH"]
    assert json.loads(Path(folder, "labconfig", "default_setting_overrides.json").read_text())[
        "@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    both = start.with_settings({"JUPYTER_CONFIG_PATH": "/etc/mine"})["JUPYTER_CONFIG_PATH"]
    assert both == folder + os.pathsep + "/etc/mine"


def test_with_the_option_the_solved_chapters_open_and_nothing_is_copied(start, course):
    assert start.main(["--originals", "--no-browser"]) == 0
    assert any(word.endswith("/lab/tree/notebooks/00_tour.ipynb") for word in course.started[0])
    assert not (course.folder / "runs").exists()


def test_a_copy_that_fails_is_reported_and_opens_nothing(start, course, capsys):
    (course.folder / "notebooks" / "00_tour.ipynb").write_text("{")
    assert start.main([]) == 1
    assert "this command failed" in capsys.readouterr().err and course.started == []


def test_the_tests_take_no_own_copy(start, capsys):
    with pytest.raises(SystemExit):
        start.parse(["test", "--originals"])
    assert "the tests always run the originals" in capsys.readouterr().err


def test_all_tests_run_unless_a_path_is_given(start):
    everything = start.test_command([])
    assert everything[3] == "tests" and "--no-loadscope-reorder" in everything
    assert "--nbval" in start.test_command([]) and "--nbval-lax" not in start.test_command([])
    chosen = start.test_command(["tests/test_start.py::test_x", "-x"])
    assert "notebooks" not in chosen and chosen[-2:] == ["tests/test_start.py::test_x", "-x"]


def test_processes_of_the_tests_keep_compiled_files_and_have_one_thread(start, monkeypatch):
    started = {}

    def popen(command, **settings):
        started.update(settings)
        return SimpleNamespace(wait=lambda: 7)

    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(start.subprocess, "Popen", popen)
    assert start.test([], is_quick=False) == 7
    assert "PYTHONDONTWRITEBYTECODE" not in started["env"]
    assert started["env"]["OMP_NUM_THREADS"] == "1"


def test_the_quick_tests_are_the_listed_files_without_their_slow_tests(
    start, monkeypatch, tmp_path
):
    monkeypatch.setattr(start, "QUICK", str(tmp_path / "quick.txt"))
    (tmp_path / "quick.txt").write_text("# about\ntests/test_a.py   # why\n\nnotebooks/b.ipynb\n")
    is_test, options, rest = start.parse(["test", "--quick", "-x"])
    assert is_test and options.quick and rest == ["-x"]
    command = start.test_command(rest, options.quick)
    assert command[3:7] == ["tests/test_a.py", "notebooks/b.ipynb", "-m", "not slow"]
    assert command[-1] == "-x" and "--nbval" in command and "tests" not in command
    assert "tests/test_a.py" not in start.test_command(rest, start.parse(["test"])[1].quick)


def test_the_quick_tests_take_no_paths_and_belong_to_test(start, capsys):
    with pytest.raises(start.CannotStart, match="Leave out the paths, or leave out --quick"):
        start.test_command(["tests/test_start.py"], is_quick=True)
    with pytest.raises(SystemExit):
        start.parse(["--quick"])
    assert "python3 start.py test --quick" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        start.parse(["--help"])
    assert "some tests of every part" in capsys.readouterr().out


def unquick(paths, parts):
    """A line for each part of which no test is quick, and for each path that is wrong."""
    covered = {"" if path.count("/") == 1 else path.split("/")[1] for path in paths
               if path.startswith("tests/")}
    found = [f"no test of {part or 'the whole'} is quick: add one to tests/quick.txt"
             for part in sorted({"", *parts} - covered)]
    if not any(path.startswith("notebooks/") for path in paths):
        found.append("no notebook is quick: add one to tests/quick.txt")
    found += [f"{path} does not exist" for path in paths if not (ROOT / path).is_file()]
    return found + [f"{path} is listed twice" for path in set(paths) if paths.count(path) > 1]


def test_the_quick_tests_touch_every_part_and_a_notebook(start):
    parts = {path.parent.name for path in (ROOT / "llama_from_scratch").glob("*/__init__.py")}
    assert len(parts) > 8
    assert unquick(start.quick_paths(), parts) == []


def test_a_part_without_a_quick_test_is_seen():
    paths = ["tests/test_start.py", "notebooks/11_norm.ipynb", "tests/model/test_norm.py"]
    assert unquick(paths, {"model"}) == []
    assert unquick(paths, {"model", "vision"}) == [
        "no test of vision is quick: add one to tests/quick.txt"]
    assert len(unquick(["tests/none.py", "tests/none.py"], {"model"})) == 5


def test_words_after_test_go_to_pytest_and_others_are_refused(start, capsys):
    is_test, options, rest = start.parse(["test", "--cpu", "-k", "rope", "-x"])
    assert is_test and options.cpu and rest == ["-k", "rope", "-x"]
    with pytest.raises(SystemExit):
        start.parse(["tset"])
    assert "unknown: tset" in capsys.readouterr().err


def test_exit_status_of_pytest_is_the_exit_status_of_the_script(start, monkeypatch):
    monkeypatch.setattr(start, "set_up", lambda extras, is_cpu: None)
    monkeypatch.setattr(start, "teach_git", lambda: None)
    exits = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(start, "test_command", lambda words, is_quick: exits)
    assert start.main(["test"]) == 3


def test_the_gpu_check_runs_with_this_python_and_installs_nothing(start, monkeypatch, tmp_path):
    seen, codes = [], iter((2, 0))

    def popen(command, **given):
        seen.append((command, given))
        return SimpleNamespace(wait=lambda: next(codes))

    monkeypatch.setattr(start, "set_up", lambda *_: pytest.fail("the gpu command must not install"))
    monkeypatch.setattr(start, "can_run_kernels", lambda interpreter: interpreter == sys.executable)
    monkeypatch.setattr(start.subprocess, "Popen", popen)
    assert start.main(["gpu", "--out", str(tmp_path)]) == 2
    for module, (command, given) in zip(("kernels.trial.gpu", "parallel.trial"), seen, strict=True):
        assert command == [sys.executable, "-m", f"llama_from_scratch.{module}", "--out",
                           str(tmp_path)]
        assert given["cwd"] == str(ROOT) == given["env"]["PYTHONPATH"]


def test_ctrl_c_during_the_first_gpu_check_does_not_start_the_second(start, monkeypatch):
    commands = []

    def popen(command, **given):
        commands.append(command)
        return SimpleNamespace(wait=lambda: 130)

    monkeypatch.setattr(start, "can_run_kernels", lambda interpreter: True)
    monkeypatch.setattr(start.subprocess, "Popen", popen)
    assert start.main(["gpu", "--out", "x"]) == 130 and len(commands) == 1


def test_a_python_without_pytorch_gets_the_list_of_what_it_lacks(start, monkeypatch, capsys):
    monkeypatch.setattr(start, "can_run_kernels", lambda interpreter: False)
    assert start.main(["gpu", "--out", "x"]) == 1
    assert "nor .venv has torch, numpy, regex, safetensors, jaxtyping" in capsys.readouterr().err


def test_a_module_that_is_missing_is_noticed(start, monkeypatch):
    assert start.can_run_kernels(sys.executable) and not start.can_run_kernels("/no/such/python")
    monkeypatch.setattr(start, "CORE_MODULES", ("torch", "no_such_module_at_all"))
    assert not start.can_run_kernels(sys.executable)


@pytest.mark.parametrize(("encoding", "expected"), [
    ("ascii", b"\\x1b]0;X\\x07\\r caf\\xe9 \\u25a0\n"),
    ("utf-8", "\\x1b]0;X\\x07\\r caf\u00e9 \u25a0\n".encode()),
])
def test_output_shows_what_the_terminal_can_and_the_rest_as_escapes(
    start, monkeypatch, encoding, expected
):
    data = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(data, encoding=encoding))
    start.say("\x1b]0;X\x07\r caf\u00e9 \u25a0")
    assert data.getvalue() == expected


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "| true", "2>&1 | true", "2>&-"])
def test_output_that_nobody_reads_stops_nothing(closed):
    script = ("import start, sys, time\n"
              "for _ in range(3): start.say('x' * 100000); start.write(sys.stderr, 'y' * 100000)\n"
              "sys.exit(7)")
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {closed}', sys.executable, script],
        cwd=ROOT, capture_output=True)
    assert done.returncode == 7 and b"Error" not in done.stderr
