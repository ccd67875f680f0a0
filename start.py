"""Sets up the course in `.venv` and opens it, or runs every test. Needs only Python and pip.

    python3 start.py                     open JupyterLab at the tour, in your own copy of the course
                                         (runs/mine, without the solutions)
    python3 start.py --originals         for authors: open the chapters themselves
    python3 start.py test [pytest ...]   run every test, all notebooks included
    python3 start.py test --quick        run some tests of every part, in two minutes
    python3 start.py gpu --out FOLDER    check and time the kernels and training on this machine's
                                         GPUs; installs nothing
    python3 start.py --help

The first run installs. Later ones see that nothing changed and add a second or less. This file
keeps to a syntax that any Python 3 can read, so that an old one prints its version and the cure
instead of a syntax error.
"""

import argparse
import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import webbrowser

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "llama-set-up.json")
UNFINISHED = os.path.join(VENV, "llama-unfinished")

OLDEST_PYTHON = (3, 11)
TORCH = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LAB_EXTRAS = ("notebooks",)
TEST_EXTRAS = ("notebooks", "test")
WHEEL_COMPILER = "ziglang"
FIND_COMPILER = ("from llama_from_scratch.kernels.emulator.build import find_compiler; "
                 "find_compiler()")
STOPPED_CODE = 130  # of a program that Ctrl-C ended
CORE_MODULES = ("torch", "numpy", "regex", "safetensors", "jaxtyping")

GB = 10**9
COMPILER_NEED = GB  # the wheel takes 0.4 GB unpacked
PLAIN_NEED = 3 * GB  # a finished environment takes 1.7 GB; pip needs room to unpack
CUDA_NEED = 10 * GB
CUDA_DOWNLOAD = "2.7 GB"  # the sum of the wheels that PyTorch 2.13.0 asks for on Linux

LESSONS, MINE = "notebooks", "runs/mine"
COPIED = ".copied.json"
JUPYTER_SETTINGS = os.path.join(ROOT, "llama_from_scratch", "lessons", "jupyter_settings")
# What JupyterLab writes into a notebook as soon as its kernel has started.
ASK_KERNEL = """
import json
from ipykernel.ipkernel import IPythonKernel
print(json.dumps(IPythonKernel.language_info))
"""

CELL_TIMEOUT_S = 300
QUICK = os.path.join(ROOT, "tests", "quick.txt")

# How pip reaches packages and what it prints. Any other setting of the user may send packages
# somewhere else than .venv (user, target, prefix), or leave some out (no-deps, dry-run).
KEPT_PIP_SETTINGS = {
    "index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "cert",
    "client-cert", "keyring-provider", "timeout", "default-timeout", "retries", "resume-retries",
    "cache-dir", "no-cache-dir", "constraint", "prefer-binary", "use-feature", "use-deprecated",
    "progress-bar", "no-color", "log", "verbose", "quiet", "root-user-action",
    "disable-pip-version-check", "no-python-version-warning", "no-input", "require-virtualenv",
    "break-system-packages",
}
# Not `pip config list`: it mistakes `user = true` in a file for its own option of that name.
ASK_PIP = """
import json
from pip._internal.configuration import Configuration
settings, pairs = Configuration(isolated=False), []
settings.load()
for key, value in settings.items():
    pairs += value.items() if isinstance(value, dict) else [(key, value)]  # by file in newer pips
print(json.dumps(pairs))
"""
UNREACHED = ("NewConnectionError", "ConnectTimeout", "Read timed out", "ReadTimeoutError",
             "name resolution", "ProxyError", "SSLError", "ConnectionResetError",
             "Connection aborted", "IncompleteRead", "ProtocolError")


class CannotStart(Exception):
    """What is missing on this machine, and its cure."""


class Unreachable(CannotStart):
    """pip could not reach its package index."""


def say(text):
    write(sys.stdout, text + "\n")


def write(stream, text):
    """Writes the text, with escapes for what `stream` cannot show. A closed stream is no error."""
    if stream is None:
        return
    shown = "".join(sign if sign in "\n\t" else printable(sign) for sign in text)
    encoding = getattr(stream, "encoding", None) or "ascii"
    try:
        stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError:
        # Otherwise Python would try to write the rest again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# --- what this machine has ------------------------------------------------------------------------


def check_python(version):
    if tuple(version[:2]) < OLDEST_PYTHON:
        raise CannotStart(
            f"This needs Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer, "
            f"this is {version[0]}.{version[1]}.\n"
            "Install a newer one (https://www.python.org/downloads, or your system's packages) "
            "and start with it, for example: python3.12 start.py"
        )


def check_modules(find):
    for name in ("venv", "ensurepip"):
        if not find(name):
            raise CannotStart(missing_module(name))


def missing_module(name):
    return (
        f"This Python has no module {name!r}, which makes environments.\n"
        "On Debian and Ubuntu: sudo apt install python3-venv "
        f"(or python3.{sys.version_info[1]}-venv). "
        "Elsewhere: install Python from https://www.python.org/downloads."
    )


def has_module(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def check_disk(free, need):
    if free < need:
        other = f"Or leave CUDA out, which needs {PLAIN_NEED / GB:.0f} GB: python3 start.py --cpu"
        raise CannotStart(
            f"The setup needs {need / GB:.0f} GB of free disk space in {ROOT}, "
            f"there are {free / GB:.1f} GB.\n"
            "Make room, or move this folder to a larger disk. "
            + (other if need > PLAIN_NEED else "")
        )


def check_place(folder):
    """Refuses a folder that cannot be written, or whose path breaks the tools used below."""
    # distutils reads $ and {} as its variables, PATH and .pth files have their separators, and the
    # scripts that pip writes, such as `llama`, do not escape quotes.
    signs = "${}" + os.pathsep + ('"`\\' if os.name != "nt" else "")
    odd = [sign for sign in folder if sign in signs or not sign.isprintable()]
    if odd:
        raise CannotStart(
            f"The path of this folder must not contain {odd[0]!r}, which pip and other tools do "
            f"not understand: {printable(folder)}\n"
            "Rename the folder, or move it to another place, and start again there."
        )
    if not os.access(folder, os.W_OK):
        raise CannotStart(
            f"This folder cannot be written: {folder}\n"
            "The course stores its environment, your notebooks and what you train in it. Copy it "
            "to a folder of your own and start there:\n"
            f"    cp -R {shell(folder)} ~/llama_from_scratch\n"
            "    python3 ~/llama_from_scratch/start.py"
        )


def printable(text):
    """The text with control characters spelled out; none may reach the terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def shell(word):
    """The word as a shell reads it back."""
    is_plain = all(sign.isalnum() or sign in "/._-+," for sign in word)
    return word if is_plain else "'" + word.replace("'", "'\\''") + "'"


def explain_os(problem):
    """What an error of the system means for the reader, and the cure."""
    words = printable(str(problem))
    if problem.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"the disk is full ({words}). Make room and start again."
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (f"a file cannot be written ({words}).\n"
                "If an earlier start ran with sudo or as another user, its files belong to that "
                f"user: remove {VENV} as that user, and start again without sudo.")
    return words


def is_unreachable(words):
    """True if pip failed because of the network.

    pip retries by itself. If it got through in the end, its error has another reason.
    """
    lines = [line for line in words.splitlines() if line.strip()]
    if not any(sign in words for sign in UNREACHED):
        return False
    errors = [line for line in lines if line.startswith("ERROR")] + lines[-1:]
    if any(sign in line for line in errors for sign in UNREACHED):
        return True
    reached = [line for line in errors if "No matching distribution" not in line
               and ("Could not find a version" not in line or "from versions: none" not in line)]
    return not reached


def explain_pip(words, version):
    """What pip's error output means for the reader, and the cure."""
    if is_unreachable(words):
        return (
            "pip could not reach its package index: no network, or a proxy in between.\n"
            "Connect and start again; what was downloaded is kept. "
            "Behind a proxy: set HTTPS_PROXY (and PIP_CERT)."
        )
    if "No space left on device" in words or "Errno 28" in words or "Errno 122" in words:
        return (
            "The disk is full. Make room (the temporary folder counts too: set TMPDIR elsewhere) "
            "and start again."
        )
    if "Errno 13" in words or "WinError 5]" in words:
        return (
            "pip cannot write a file. If an earlier start ran with sudo, the files there belong "
            f"to another user.\nRemove {VENV} as that user, and start again without sudo."
        )
    if "No matching distribution found for torch=" in words:
        if "from versions: none" in words:
            return (
                f"The package index in pip's settings has no PyTorch for Python "
                f"{version[0]}.{version[1]} on {platform.system()} {platform.machine()}.\n"
                "`python3 -m pip config list` shows the settings (index-url, no-index). "
                "Or start with another Python, for example: python3.12 start.py"
            )
        return (
            f"PyTorch {TORCH} has no package for Python {version[0]}.{version[1]} "
            f"on {platform.system()} {platform.machine()}. A Python can be too new for it.\n"
            "Start with another one, for example: python3.12 start.py"
        )
    return "pip failed. Start again when that is fixed."


def last_words(words):
    """The lines in which pip says what went wrong: its errors, or else the last ones."""
    lines = [printable(line.strip())[:300] for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    return "\n".join("    " + line for line in errors[-3:])


# --- the environment ------------------------------------------------------------------------------


def venv_python(folder, system):
    names = ("Scripts", "python.exe") if system == "nt" else ("bin", "python")
    return os.path.join(folder, *names)


def python():
    return venv_python(VENV, os.name)


def digest(pyproject_text, version, place):
    """Changes when the environment must be brought up to date.

    That is, with the requirements, the version of Python, the version of PyTorch, and the place of
    the course, which the environment knows by its path.
    """
    parts = (pyproject_text, f"{version[0]}.{version[1]}", TORCH, place)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def read_stamp(path):
    try:
        with open(path, encoding="utf-8") as file:
            stamp = json.load(file)
        return {"digest": str(stamp["digest"]), "extras": list(stamp["extras"]),
                "is_cpu": bool(stamp["is_cpu"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"digest": "", "extras": [], "is_cpu": False}


def is_up_to_date(stamp, want):
    has_torch = stamp["is_cpu"] or not want["is_cpu"]
    has_extras = set(want["extras"]) <= set(stamp["extras"])
    return stamp["digest"] == want["digest"] and has_extras and has_torch


def merge(stamp, want):
    """What to install so that neither JupyterLab nor the tests lose a package that they need."""
    extras = sorted(set(stamp["extras"]) | set(want["extras"]))
    return {"digest": want["digest"], "extras": extras, "is_cpu": stamp["is_cpu"] or want["is_cpu"]}


def write_json(value, path):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


def runs(program):
    """True if the environment's interpreter starts, has pip, and has the version of this one."""
    code = ("import sys, importlib.util as u; "
            "print(*sys.version_info[:2], u.find_spec('pip') is not None)")
    try:
        done = subprocess.run([program, "-I", "-c", code], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    expected = f"{sys.version_info[0]} {sys.version_info[1]} True"
    return done.stdout.split() == expected.encode().split()


def empty(folder, keep):
    """Removes all of `folder` except the file `keep`, also if this process is killed halfway."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if path == keep:
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)


def make_venv():
    """Makes a working `.venv`, again if an earlier setup was killed or its Python cannot run."""
    clear_the_place()
    is_broken = os.path.exists(VENV) and (os.path.exists(UNFINISHED) or not runs(python()))
    if is_broken and os.path.realpath(sys.prefix) == os.path.realpath(VENV):
        raise CannotStart("The environment in .venv is broken and in use. "
                          "Leave it (deactivate) and start again.")
    os.makedirs(VENV, exist_ok=True)
    with open(UNFINISHED, "w"):
        pass
    if is_broken:
        say("The environment in .venv is unfinished or broken; making it again.")
        empty(VENV, keep=UNFINISHED)
    if not os.path.exists(python()):
        say("Making the environment .venv")
        done = subprocess.run([sys.executable, "-m", "venv", VENV], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        words = done.stdout.decode("utf-8", "replace")
        if done.returncode or not runs(python()):
            raise CannotStart(explain_venv(words))


def clear_the_place():
    """Removes a `.venv` that is a link to nowhere; refuses one that is a file."""
    if os.path.islink(VENV) and not os.path.exists(VENV):
        say(f"The link .venv leads to {printable(os.readlink(VENV))}, where nothing is; "
            "removing the link.")
        os.remove(VENV)
    elif os.path.exists(VENV) and not os.path.isdir(VENV):
        raise CannotStart(f"{VENV} is a file, and the environment needs a folder of that name. "
                          "Move the file away and start again.")


def explain_venv(words):
    if "No space left on device" in words or "Errno 28" in words:
        return explain_pip(words, sys.version_info)
    if "ensurepip" in words:
        return missing_module("ensurepip")
    return (f"{sys.executable} could not make the environment {VENV}. Its last words:\n"
            f"{last_words(words)}\nStart with another Python, for example: python3.12 start.py")


@contextlib.contextmanager
def one_at_a_time(path):
    """Holds a lock file, which the system releases even if this process is killed."""
    with open(path, "a+b") as file:
        is_held = try_lock(file)
        if not is_held:
            say("Another start.py is setting up in this folder; waiting for it.")
        while not is_held:
            time.sleep(0.5)
            is_held = try_lock(file)
        yield


def try_lock(file):
    """False if another process holds the file; true also if the disk has no locks."""
    busy = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        return problem.errno not in busy
    return True


def without_python_settings():
    """The environment variables without the ones that add another Python's packages."""
    return {name: value for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "PYTHONHOME")}


@functools.lru_cache(maxsize=1)
def pip_environment():
    """The environment variables for pip: the user's settings on how to reach packages, no others.

    Files of settings are read here and hidden from pip, which cannot ignore single settings.
    """
    plain = {name: value for name, value in without_python_settings().items()
             if not name.upper().startswith("PIP_")}
    ask = dict(plain)
    if "PIP_CONFIG_FILE" in os.environ:
        ask["PIP_CONFIG_FILE"] = os.environ["PIP_CONFIG_FILE"]
    done = subprocess.run([python(), "-c", ASK_PIP], env=ask, capture_output=True)
    if done.returncode:
        raise CannotStart("pip cannot read its settings. Its last words:\n"
                          + last_words(done.stderr.decode("utf-8", "replace")))
    settings = read_settings(json.loads(done.stdout.decode("utf-8")))
    settings.update((name[4:].lower().replace("_", "-"), value)
                    for name, value in os.environ.items()
                    if name.startswith("PIP_") and name != "PIP_CONFIG_FILE" and value)
    left_out = sorted(set(settings) - KEPT_PIP_SETTINGS)
    if left_out:
        say("The setup ignores your pip settings that are not about reaching packages: "
            + printable(", ".join(left_out)))
    kept = {"PIP_" + name.upper().replace("-", "_"): value for name, value in settings.items()
            if name in KEPT_PIP_SETTINGS}
    return dict(plain, PIP_CONFIG_FILE=os.devnull, **kept)


def read_settings(pairs):
    """The settings for `pip install` by name, from pairs such as ("global.timeout", "3")."""
    by_section = {"global": {}, "install": {}}
    for key, value in pairs:
        section, _, name = key.partition(".")
        by_section.get(section, {})[name] = " ".join(str(value).split())
    return {name: value for each in ("global", "install")
            for name, value in by_section[each].items() if value}


def pip_install(*arguments):
    """Runs pip; its progress and errors go to the terminal, and a failure is explained."""
    command = [python(), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    pip = subprocess.Popen(command + list(arguments), cwd=ROOT, stdin=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, env=pip_environment())
    words = []

    def echo():
        for line in pip.stderr:
            words.append(line.decode("utf-8", "replace"))
            write(sys.stderr, words[-1])

    reader = threading.Thread(target=echo)
    reader.start()
    status = pip.wait()
    reader.join()
    if status < 0:
        raise CannotStart("pip was killed, as happens when memory runs out. Close other programs "
                          "and start again.")
    if status:
        # pip resolves and downloads everything before it touches the environment, so only a
        # later failure can leave it half made.
        text = "".join(words)
        if "OSError" not in text:
            os.remove(UNFINISHED)
        kind = Unreachable if is_unreachable(text) else CannotStart
        raise kind(f"{explain_pip(text, sys.version_info)}\nThe last words of pip:\n"
                   f"{last_words(text)}")


def torch_brings():
    """The packages that pip would now install for PyTorch.

    PyTorch's plain wheels for Linux require NVIDIA's libraries.
    """
    report = os.path.join(VENV, "llama-report.json")
    pip_install("--quiet", "--dry-run", "--report", report, "torch==" + TORCH)
    with open(report, encoding="utf-8") as file:
        names = [item["metadata"]["name"] for item in json.load(file)["install"]]
    os.remove(report)
    return names


def torch_build():
    """The build of PyTorch in the environment: "" without one, else "cpu" or "cuda"."""
    code = "import torch; print('cuda' if torch.version.cuda else 'cpu')"
    done = subprocess.run([python(), "-I", "-c", code], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL)
    return done.stdout.decode().strip()


def install_torch(is_cpu):
    """Installs PyTorch alone and first.

    It is the one large download, and its pinned version decides what the rest may be.
    """
    free = shutil.disk_usage(ROOT).free
    if is_cpu and sys.platform.startswith("linux"):
        if torch_build() == "cpu":
            return
        check_disk(free, PLAIN_NEED)
        say(f"Downloading PyTorch {TORCH} for the CPU (about 0.2 GB) from {CPU_INDEX}")
        try:
            # The plain version would be satisfied by a CUDA build that is already here.
            pip_install(f"torch=={TORCH}+cpu", "--no-deps", "--index-url", CPU_INDEX)
        except Unreachable as problem:
            other = ("Some networks do not let it through; without --cpu the larger build comes "
                     "from pip's usual index.")
            raise CannotStart(f"{problem}\nThe index was {CPU_INDEX}. {other}") from problem
        return
    packages = torch_brings()
    if not packages:
        return
    if any(name.startswith("nvidia-") for name in packages):
        check_disk(free, CUDA_NEED)
        say(
            f"Downloading PyTorch {TORCH} with NVIDIA's CUDA libraries: {CUDA_DOWNLOAD}, "
            "and more than twice that on disk.\n"
            "Without an NVIDIA GPU: stop with Ctrl-C and run `python3 start.py --cpu`, "
            "which takes 0.2 GB."
        )
    else:
        check_disk(free, PLAIN_NEED)
        say("Installing PyTorch " + TORCH + " (about 0.2 GB)")
    pip_install("torch==" + TORCH)


def set_up(extras, is_cpu):
    with open(os.path.join(ROOT, "pyproject.toml"), encoding="utf-8") as file:
        want = {"digest": digest(file.read(), sys.version_info, ROOT), "extras": list(extras),
                "is_cpu": is_cpu}
    if is_set_up(want):
        return
    check_modules(has_module)
    check_place(ROOT)
    with one_at_a_time(VENV + ".lock"):
        if is_set_up(want):  # by the one that this one waited for
            return
        make_venv()
        want = merge(read_stamp(STAMP), want)
        install_torch(is_cpu)
        say("Installing the course and what it needs (about 0.3 GB)")
        pip_install("torch==" + TORCH, "-e", ".[{}]".format(",".join(want["extras"])))
        install_compiler()
        write_json(want, STAMP)
        if os.path.exists(UNFINISHED):
            os.remove(UNFINISHED)


def is_set_up(want):
    return (is_up_to_date(read_stamp(STAMP), want) and not os.path.exists(UNFINISHED)
            and runs(python()))


def install_compiler():
    """Installs a compiler as a Python package if this machine has none.

    The chapters on kernels compile CUDA source for this processor.
    """
    if os.name == "nt":
        say("The chapters on kernels (30 and later) do not run on Windows itself; everything else "
            "does. For those chapters, run `wsl --install` and set the course up once more inside "
            "WSL.")
        return
    if works(python(), "-c", FIND_COMPILER):  # finds the wheel's compiler, too
        return
    check_disk(shutil.disk_usage(ROOT).free, COMPILER_NEED)
    say("There is no C++ compiler here for C++20 (such as g++ from version 11 on), and the "
        "chapters on kernels need one. Installing the "
        f"Python package {WHEEL_COMPILER}, which contains one, into .venv (0.1 GB to download, "
        "0.4 GB on disk).")
    try:
        pip_install(WHEEL_COMPILER)
    except CannotStart as problem:
        if os.path.exists(UNFINISHED):  # pip stopped halfway
            raise
        say(f"{problem}\nEverything but the chapters on kernels works without it. Later: "
            f"{python()} -m pip install {WHEEL_COMPILER}, or install g++.")


def works(*command):
    """True if the command starts and ends with status 0."""
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def teach_git():
    """Lets `git diff` show notebooks as text; the course's .gitattributes names the driver."""
    if not os.path.exists(os.path.join(ROOT, ".git")) or not shutil.which("git"):
        return
    program = shell(os.path.relpath(python(), ROOT).replace(os.sep, "/"))
    # This command imports only the standard library, because a diff runs it for each notebook.
    # Without the environment, or in another working tree, it prints the file as it is, because git
    # would stop at an error.
    command = (f'show() {{ if [ -x {program} ]; then {program} '
               '-m llama_from_scratch.lessons.authoring show "$1"; else cat "$1"; fi; }; show')
    subprocess.run(["git", "config", "diff.ipynb.textconv", command], cwd=ROOT,
                   stderr=subprocess.DEVNULL)


def activated():
    """This process's environment variables with `.venv` first, for terminals in JupyterLab."""
    path = os.pathsep.join((os.path.dirname(python()), os.environ.get("PATH", "")))
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    return dict(variables, VIRTUAL_ENV=VENV, PATH=path)


# --- the two commands -----------------------------------------------------------------------------


def has_browser():
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def copy_lessons():
    """Copies each chapter into the reader's folder, without its solutions, and never over work.

    A chapter that is missing is copied, and so is one that changed since its copy was made if
    nothing was written into the copy. Of the others that changed, the names are printed.
    """
    folder, record = os.path.join(ROOT, MINE), os.path.join(ROOT, MINE, COPIED)
    names = sorted(os.listdir(os.path.join(ROOT, LESSONS)))
    chapters = [name for name in names if name.endswith(".ipynb")]
    originals = {name: digest_of(os.path.join(ROOT, LESSONS, name)) for name in chapters}
    there = {name: digest_of(os.path.join(folder, name))
             for name in chapters if os.path.exists(os.path.join(folder, name))}
    copied = read_copied(record)
    before = dict(copied)
    for name in set(there) - set(copied):
        # a copy that is older than the record: from now on changes are noticed
        copied[name] = {"original": originals[name], "copy": ""}
    changed = [name for name in there if copied[name]["original"] != originals[name]]
    renewed = [name for name in changed if copied[name]["copy"] == there[name]]
    missing = [name for name in chapters if name not in there] + renewed
    if missing:
        check_place(ROOT)
        say(f"Copying {len(missing)} of {len(chapters)} chapters to {MINE}, without the solutions")
        for name in renewed:
            os.remove(os.path.join(folder, name))
        command = [python(), "-m", "llama_from_scratch.lessons.authoring", "student", folder]
        command += [os.path.join(ROOT, LESSONS, name) for name in missing]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        language = ask_kernel()
        for name in missing:
            copy = os.path.join(folder, name)
            write_language(copy, language)
            copied[name] = {"original": originals[name], "copy": digest_of(copy)}
    if copied != before:
        write_json(copied, record)
    kept = [name[:-len(".ipynb")] for name in changed if name not in renewed]
    if kept:
        say("These chapters changed since your copy was made, and your copy has your work in it, "
            "so it stays as it is: " + ", ".join(kept) + ".\nTo read the new text: rename "
            f"your copy in {MINE} and start again.")
    elif len(missing) < len(chapters):
        say(f"Your work in {MINE} is as you left it. "
            "To begin a chapter again, rename or delete your copy.")


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def read_copied(path):
    """From which original each copy was made: name -> digests of both, {} where nothing is known.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return {name: {"original": str(pair["original"]), "copy": str(pair["copy"])}
                    for name, pair in json.load(file).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def ask_kernel():
    """What the kernel says of its language when it starts."""
    done = subprocess.run([python(), "-c", ASK_KERNEL], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.decode("utf-8"))


def write_language(path, language):
    """Puts the kernel's language into a notebook.

    JupyterLab would write it on opening, and then ask whether to save a notebook that was not
    changed.
    """
    with open(path, encoding="utf-8") as file:
        notebook = json.load(file)
    notebook["metadata"]["language_info"] = language
    with open(path + ".new", "w", encoding="utf-8", newline="\n") as file:
        json.dump(notebook, file, indent=1, ensure_ascii=False, sort_keys=True)
        file.write("\n")
    os.replace(path + ".new", path)


def lab_command(has_browser, is_root, folder):
    command = [python(), "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1",
               "--ServerApp.root_dir=" + ROOT]
    command.append("--LabApp.default_url=/lab/tree/" + folder + "/00_tour.ipynb")
    return command + ["--no-browser"] * (not has_browser) + ["--allow-root"] * is_root


def lab(is_quiet, folder):
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if is_quiet or not has_browser():
        say("JupyterLab starts. Open the address with `token=` below in a browser; "
            "stop with Ctrl-C.")
    else:
        say("JupyterLab starts and opens in your browser. Stop with Ctrl-C.")
    command = lab_command(not is_quiet and has_browser(), is_root, folder)
    return wait_for(subprocess.Popen(command, cwd=ROOT, env=with_settings(activated())))


def with_settings(variables):
    """The environment variables with the course's settings of Jupyter before all others.

    They answer the question about news, and have saved widgets keep their picture. What the reader
    sets in JupyterLab comes before them.
    """
    others = [path for path in [variables.get("JUPYTER_CONFIG_PATH")] if path]
    return dict(variables, JUPYTER_CONFIG_PATH=os.pathsep.join([JUPYTER_SETTINGS, *others]))


def test_command(arguments, is_quick=False):
    """The command that runs pytest over all tests, notebooks included.

    Among the tests, test_proof.py runs every notebook and compares what it shows with what is
    stored. A notebook whose path is among `arguments` is run by nbval, with the same comparison and
    one result per cell. A path among `arguments` replaces all tests. `is_quick`: only the files
    that tests/quick.txt lists, without their slow tests.
    """
    paths = [os.path.join(ROOT, word.split("::")[0]) for word in arguments]
    is_chosen = any(os.path.exists(path) for path in paths)
    if is_quick and is_chosen:
        raise CannotStart("--quick runs the tests that tests/quick.txt lists. Leave out the paths, "
                          "or leave out --quick.")
    everything = [*quick_paths(), "-m", "not slow"] if is_quick else ["tests"]
    command = [python(), "-m", "pytest"] + ([] if is_chosen else everything)
    command += ["--nbval", "--nbval-current-env", f"--nbval-cell-timeout={CELL_TIMEOUT_S}"]
    # A notebook's cells share a kernel, so a file stays with one worker: see tests/conftest.py.
    return [*command, "-n", str(n_workers(os.cpu_count() or 1)), "--dist", "loadfile",
            "--no-loadscope-reorder", *arguments]


def quick_paths():
    """The test files of `test --quick`: one per line of tests/quick.txt, without the comments."""
    with open(QUICK, encoding="utf-8") as file:
        lines = [line.partition("#")[0].strip() for line in file]
    return [line for line in lines if line]


def n_workers(n_cores):
    return min(4, max(2, n_cores // 2))


def test(arguments, is_quick):
    # Workers that each start a thread per core slow each other down. The tests start hundreds of
    # processes, kernels of notebooks among them. Without compiled files, each would compile the
    # library again, which takes nearly as long as loading PyTorch.
    environment = dict(activated(), OMP_NUM_THREADS="1")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = test_command(arguments, is_quick)
    return wait_for(subprocess.Popen(command, cwd=ROOT, env=environment))


def gpu(arguments):
    """Checks and times the kernels and training on many GPUs, with a Python that can run them.

    That is the Python that runs this file if it has it, as on a cluster, and otherwise the one in
    `.venv`.
    """
    interpreter = next((each for each in (sys.executable, python()) if can_run_kernels(each)), None)
    if interpreter is None:
        raise CannotStart(
            f"Neither {sys.executable} nor .venv has {', '.join(CORE_MODULES)}, "
            "which the kernels need.\n"
            "Start with a Python that has PyTorch for CUDA and these packages, "
            "or set up here first: python3 start.py"
        )
    codes = []
    for module in ("kernels.trial.gpu", "parallel.trial"):
        command = [interpreter, "-m", "llama_from_scratch." + module, *arguments]
        environment = dict(os.environ, PYTHONPATH=ROOT)
        codes.append(wait_for(subprocess.Popen(command, cwd=ROOT, env=environment)))
        if codes[-1] == STOPPED_CODE:
            break
    return max(codes)


def can_run_kernels(interpreter):
    if not os.path.exists(interpreter):
        return False
    find = "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
    return subprocess.run([interpreter, "-c", find, *CORE_MODULES]).returncode == 0


def wait_for(process):
    """The child's exit status; Ctrl-C reaches the child as well, which then ends in its own way."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def parse(argv):
    usage = ("python3 start.py [--originals] [--cpu] [--no-browser]\n"
             "       python3 start.py test [--quick] [--cpu] [pytest arguments]\n"
             "       python3 start.py gpu --out FOLDER [--only PART[,PART]] [--minutes M]")
    parser = argparse.ArgumentParser(usage=usage, description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true",
                        help="on Linux, take PyTorch's CPU build (smaller by 2.5 GB)")
    parser.add_argument("--no-browser", action="store_true",
                        help="print the address instead of opening it")
    parser.add_argument("--originals", action="store_true",
                        help="for authors: open the chapters themselves, not your own copy")
    parser.add_argument("--quick", action="store_true",
                        help="with test: some tests of every part, in two minutes on two cores")
    is_test = argv[:1] == ["test"]
    options, rest = parser.parse_known_args(argv[1:] if is_test else argv)
    if rest and not is_test:
        parser.error(f"unknown: {' '.join(rest)}; the commands are test and gpu")
    if is_test and options.originals:
        parser.error("--originals opens the chapters; the tests always run the originals")
    if options.quick and not is_test:
        parser.error("--quick belongs to test: python3 start.py test --quick")
    return is_test, options, rest


def main(argv):
    try:
        check_python(sys.version_info)
        if argv[:1] == ["gpu"]:
            return gpu(argv[1:])
        is_test, options, rest = parse(argv)
        set_up(TEST_EXTRAS if is_test else LAB_EXTRAS, options.cpu)
        teach_git()
        if is_test:
            return test(rest, options.quick)
        if not options.originals:
            copy_lessons()
        return lab(options.no_browser, LESSONS if options.originals else MINE)
    except CannotStart as problem:
        write(sys.stderr, f"\nCannot start: {problem}\n")
    except OSError as problem:
        write(sys.stderr, f"\nCannot start: {explain_os(problem)}\n")
    except subprocess.CalledProcessError as problem:
        write(sys.stderr, f"\nCannot start: this command failed: {' '.join(problem.cmd)}\n")
    except KeyboardInterrupt:
        write(sys.stderr, "\nStopped. Start again to continue.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
