"""The process of a sandbox: takes programs line by line, runs each, and answers in JSON.

It runs without site packages and imports nothing of this project. Before the first program it
gives up what it can: new files, new processes, memory beyond a limit. Answers go to a pipe of their
own, so what a program prints is never taken for an answer. Programs see few functions, of few
modules, and each program finds these as the one before it did.

Notebook 58. Run by `sandbox`.
"""

import bisect
import builtins
import collections
import functools
import gc
import heapq
import itertools
import json
import math
import operator
import os
import re
import signal
import string
import sys

MODULES = {each.__name__: each for each in (
    bisect, collections, functools, heapq, itertools, math, operator, re, string)}
"""What a program may import."""
NAMES = (
    "abs", "all", "any", "ascii", "bin", "bool", "bytearray", "bytes", "callable", "chr",
    "classmethod", "complex", "dict", "divmod", "enumerate", "filter", "float", "format",
    "frozenset", "getattr", "hasattr", "hash", "hex", "id", "int", "isinstance", "issubclass",
    "iter", "len", "list", "map", "max", "min", "next", "object", "oct", "ord", "pow", "property",
    "range", "repr", "reversed", "round", "set", "setattr", "slice", "sorted", "staticmethod",
    "str", "sum", "super", "tuple", "type", "zip", "__build_class__", "Ellipsis",
    "NotImplemented")
"""The built-in names that a program has, with the errors, `print` and `__import__`."""
ERRORS = {each for each in vars(builtins).values()
          if isinstance(each, type) and issubclass(each, BaseException)}
MAX_NODES, MAX_DEPTH, MAX_BITS, MAX_CHARS = 10_000, 50, 10_000, 100_000
_name_of = vars(type)["__name__"].__get__


class ClockRang(BaseException):
    pass


class TooMuch(BaseException):
    pass


class Unplain(Exception):
    pass


class Clock:
    """Interrupts a program after its CPU time, again and again until it stops."""

    is_armed = False

    def ring(self, *_):
        if self.is_armed:
            raise ClockRang

    def arm(self, cpu_s):
        self.is_armed = True
        if "setitimer" in vars(signal):
            signal.signal(signal.SIGPROF, self.ring)
            signal.setitimer(signal.ITIMER_PROF, cpu_s, 0.05)

    def disarm(self):
        self.is_armed = False
        if "setitimer" in vars(signal):
            signal.setitimer(signal.ITIMER_PROF, 0)


class Printed:
    """Keeps what a program prints, up to a limit."""

    def __init__(self, max_chars):
        self.pieces, self.left, self.is_full = [], max_chars, False

    def say(self, *values, sep=" ", end="\n", file=None, flush=False):
        text = (" " if sep is None else sep).join(map(str, values))
        text += "\n" if end is None else end
        self.pieces.append(text[: self.left])
        self.left -= len(text)
        if self.left < 0:
            self.left, self.is_full = 0, True
            raise TooMuch


def plain(value, depth=0, seen=None):
    """A value as JSON with its kind; only exact built-in types, so that no method of it runs."""
    seen = [0] if seen is None else seen
    seen[0] += 1
    if depth > MAX_DEPTH or seen[0] > MAX_NODES:
        raise Unplain("the value is too large")
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return ["v", value]
    if kind is int:
        if value.bit_length() > MAX_BITS:
            raise Unplain("the value is too large")
        return ["i", hex(value)]
    if kind is str or kind is bytes:
        if len(value) > MAX_CHARS:
            raise Unplain("the value is too large")
        return ["v", value] if kind is str else ["b", value.hex()]
    for letter, each in (("l", list), ("t", tuple), ("s", set), ("f", frozenset)):
        if kind is each:
            return [letter, [plain(part, depth + 1, seen) for part in value]]
    if kind is dict:
        return ["d", [[plain(key, depth + 1, seen), plain(part, depth + 1, seen)]
                      for key, part in value.items()]]
    raise Unplain(f"a value of type {_name_of(kind):.80} is not plain data")


def made(coded):
    """The value that `plain` coded."""
    kind, value = coded
    if kind == "i":
        return int(value, 16)
    if kind == "b":
        return bytes.fromhex(value)
    if kind == "d":
        return {made(key): made(part) for key, part in value}
    several = {"l": list, "t": tuple, "s": set, "f": frozenset}
    return value if kind == "v" else several[kind](map(made, value))


def allowed_import(name, globals=None, locals=None, fromlist=(), level=0):
    if level or name not in MODULES:
        raise ImportError(f"a program may import {', '.join(MODULES)}; not {name:.80}")
    return MODULES[name]


def words_about(error):
    """An error as text. Making it may run code of the program, so the clock still runs."""
    name = _name_of(type(error))
    if type(error) not in ERRORS:
        return name[:100]
    try:
        words = " ".join(str(error).split())
    except ClockRang:
        raise
    except BaseException:
        words = ""
    return f"{name}: {words[:200]}" if words else name


def verdict_of(error, printed):
    if printed.is_full or type(error) is TooMuch:
        return "output", "it prints too much"
    if type(error) is ClockRang:
        return "timeout", "its CPU time is over"
    if type(error) is MemoryError:
        return "memory", "it needs too much memory"
    if type(error) is SystemExit:
        return "exit", "it ends the process"
    return "error", words_about(error)


def run(job, clock, printed):
    """The verdict about a program, words about it, and one (verdict, value or words) per call."""
    names = {name: vars(builtins)[name] for name in NAMES if name in vars(builtins)}
    names |= {each.__name__: each for each in ERRORS}
    names |= {"print": printed.say, "__import__": allowed_import}
    space = {"__builtins__": names, "__name__": "program"}
    calls = []
    clock.arm(job["cpu_s"])
    try:
        try:
            code = compile(job["code"], "program", "exec", dont_inherit=True)
        except ClockRang:
            raise
        except BaseException as error:
            return "syntax", words_about(error), calls
        try:
            exec(code, space)
        except ClockRang:
            raise
        except BaseException as error:
            return *verdict_of(error, printed), calls
        if printed.is_full:
            return "output", "it prints too much", calls
        if job["function"] is not None and not callable(space.get(job["function"])):
            return "missing", f"it defines no function {job['function']}", calls
        for arguments in job["calls"]:
            try:
                value = space[job["function"]](*made(arguments))
                calls.append(("ok", plain(value)))
                if printed.is_full:
                    return "output", "it prints too much", calls[:-1]
            except ClockRang:
                raise
            except Unplain as error:
                calls.append(("error", str(error)))
            except BaseException as error:
                verdict, words = verdict_of(error, printed)
                if verdict in ("memory", "output"):
                    return verdict, words, calls
                calls.append((verdict, words))
        return "ok", "", calls
    except ClockRang:
        return *verdict_of(ClockRang(), printed), calls


def guarded(job, clock, printed):
    """What `run` returns, with the clock off, also if it rings between two lines of ours."""
    try:
        try:
            found = run(job, clock, printed)
        finally:
            clock.disarm()
    except ClockRang:
        clock.disarm()
        found = "timeout", "its CPU time is over", []
    clock.disarm()
    return found


def limit(limits):
    """Sets the limits of this process, and returns the names of those that cannot be set here."""
    if "setitimer" not in vars(signal):
        missing = ["CPU time of a program"]
    else:
        missing = []
    try:
        import resource
    except ImportError:
        return [*missing, "memory", "CPU time of the process", "file size", "new files",
                "new processes"], None
    if not leave_administrator():
        missing.append("new processes")
    n_open = max(each for each in range(64) if is_open(each)) + 1
    wanted = (("memory", "RLIMIT_AS", limits["memory_bytes"]), ("file size", "RLIMIT_FSIZE", 0),
              ("new files", "RLIMIT_NOFILE", n_open), ("new processes", "RLIMIT_NPROC", 0),
              ("core", "RLIMIT_CORE", 0))
    for name, which, most in wanted:
        try:
            resource.setrlimit(getattr(resource, which), (most, most))
        except (AttributeError, ValueError, OSError):
            missing.append(name)
    return missing, resource


def leave_administrator():
    """Becomes a user without rights, because the system limits no processes of its administrator.

    Returns whether that is done, or was not needed.
    """
    if "geteuid" in vars(os) and os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        except OSError:
            return False
    return True


def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def limit_cpu(resource, cpu_s):
    """Lets the system end this process if a program's clock cannot interrupt it."""
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime + cpu_s) + 1
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        if hard == resource.RLIM_INFINITY or soft < hard:
            resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def main():
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)
    missing, resource = limit(json.loads(orders.readline()))
    answers.write(json.dumps({"missing": missing}).encode() + b"\n")
    clock = Clock()
    before = {name: dict(vars(each)) for name, each in MODULES.items()}
    gc.collect()
    gc.freeze()
    while line := orders.readline():
        job = json.loads(line)
        limit_cpu(resource, job["cpu_s"])
        printed = Printed(job["max_printed"])
        verdict, words, calls = guarded(job, clock, printed)
        answer = {"verdict": verdict, "words": words, "calls": calls,
                  "printed": "".join(printed.pieces)}
        del job, calls
        for name, names in before.items():
            vars(MODULES[name]).clear()
            vars(MODULES[name]).update(names)
        gc.collect()
        answers.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    sys.setrecursionlimit(1000)
    main()
