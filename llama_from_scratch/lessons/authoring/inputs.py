"""Finds out whether a second run of a cell could differ from its first run, without running it.

A program that reads the same does the same. So a long cell that changed nothing of what it reads
need not be run a second time: `watch` has the kernel pass over it. Everything that it reads is
compared by its content, before and after the first run: the variables, with everything that they
lead to; random generators; the state of this library, of PyTorch and of matplotlib; files. What
cannot be compared counts as changed, so in doubt a cell is run again.

The proof uses it. `authoring twice` runs every cell twice.
"""

import ast
import functools
import hashlib
import io
import itertools
import os
import random
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

LONG_S = 1.0
"""A cell that took less is always run again."""
NOT_SEEN = frozenset({"globals", "locals", "vars", "dir", "eval", "exec", "get_ipython", "input",
                      "_", "__", "___", "In", "Out"})
"""Names through which a cell can read variables that its text does not name."""
_CACHES = ("pymp-", "torchinductor_", "__pycache__")
"""Folders of the process that starts ranks, and of compilers."""
_HERE = "llama_from_scratch"


class CannotTell(Exception):
    """Raised for a value whose content cannot be compared."""


def watch(folder: str) -> "Watch":
    """Has this kernel pass over a long cell that comes a second time and would do the same.

    `folder`: an empty one, which becomes the place for temporary files and for remembered runs:
    other kernels write into the course's own store. For a notebook's kernel.
    """
    from IPython import get_ipython

    from llama_from_scratch.lessons.exercises.progress import PROGRESS

    os.environ["TMPDIR"] = tempfile.tempdir = folder
    os.environ["LLAMA_RUNS"] = os.path.join(folder, "runs")
    made = Watch(get_ipython(), folders=(Path(folder), Path.cwd(), PROGRESS.parent))
    made.start()
    return made


class Watch:
    """What was seen of the cells of a kernel.

    `notes`: for each long cell, its first line and why it is run again; "" if it is not.
    """

    def __init__(self, shell: Any, *, folders: tuple[Path, ...], long_s: float = LONG_S) -> None:
        self.shell, self.folders, self.long_s = shell, folders, long_s
        self.notes: list[tuple[str, str]] = []
        self._source: str | None = None
        self._is_same = self._passes_over = False
        self._before: CellInputs | CannotTell | None = None
        self._generator = _Generator()
        self._began_s = 0.0

    def start(self) -> None:
        self.shell.events.register("pre_run_cell", self._begin)
        self.shell.events.register("post_run_cell", self._end)
        self.shell.ast_transformers.append(self)

    def visit(self, tree: ast.Module) -> ast.Module:
        """Returns a cell as it will be run: empty, if that changes nothing."""
        return ast.Module(body=[], type_ignores=[]) if self._passes_over else tree

    def _begin(self, info: Any) -> None:
        self._passes_over = self._is_same and info.raw_cell == self._source
        self._is_same = False
        self._source, self._before = info.raw_cell, None
        if not self._passes_over:
            self._before = self._state(names_read(info.raw_cell), None)
            self._generator.begin()
        self._began_s = time.monotonic()

    def _end(self, result: Any) -> None:
        took_s = time.monotonic() - self._began_s
        passed, self._passes_over = self._passes_over, False
        if self._source is None or passed or not result.success or took_s < self.long_s:
            return
        why = self._change()
        self._is_same = not why
        self.notes.append((self._source.partition("\n")[0], why))

    def _change(self) -> str:
        """Returns the first thing that the cell reads and its run changed, or ""."""
        before = self._before
        if isinstance(before, CellInputs):
            before = before if not before.unknown else CannotTell(before.unknown)
        if not isinstance(before, CellInputs):
            return str(before)
        after = self._state(set(before.names), before)
        if not isinstance(after, CellInputs):
            return str(after)
        if after.unknown:
            return after.unknown
        if not self._generator.is_same():
            return "PyTorch's generator"
        return before.difference(after)

    def _state(
        self, names: set[str] | None, first: "CellInputs | None"
    ) -> "CellInputs | CannotTell":
        if names is None:
            return CannotTell("its text does not tell what it reads")
        try:
            return CellInputs(self.shell.user_ns, names, folders=self.folders,
                              modules=first and set(first.modules))
        except Exception as error:  # another thread may change what is being read
            return CannotTell(f"{type(error).__name__}: {error}")


class CellInputs:
    """Digests of what a cell reads; `unknown` says what could not be compared."""

    def __init__(self, values: Mapping[str, Any], names: set[str], *, folders: tuple[Path, ...],
                 modules: set[str] | None) -> None:
        self.unknown = ""
        self.names: dict[str, str] = {}
        for name in sorted(names & values.keys()):
            try:
                self.names[name] = digest_of(values[name])
            except CannotTell as why:
                self.unknown = self.unknown or f"{name}: {why}"
        self.modules = {name: state_of_module(module) for name, module in sys.modules.copy().items()
                        if name.partition(".")[0] == _HERE and (not modules or name in modules)}
        self.around = {name: digest_of(value) for name, value in around().items()}
        self.files = {str(path): mark for folder in folders for path, mark in files_in(folder)}

    def difference(self, other: "CellInputs") -> str:
        pairs = ((self.names, other.names), (self.modules, other.modules),
                 (self.around, other.around), (self.files, other.files))
        return next((name for mine, theirs in pairs for name in {**mine, **theirs}
                     if mine.get(name) != theirs.get(name)), "")


def names_read(source: str) -> set[str] | None:
    """Returns the names whose values a cell may read from before it, or None if no text tells.

    A name that the cell surely binds before it reads it is not among them.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a magic command
        return None
    found = _Reads()
    found.visit(tree)
    return None if found.read & NOT_SEEN else found.read


class _Reads(ast.NodeVisitor):
    """Collects names that are read before they are surely bound, in the order of execution."""

    def __init__(self, bound: set[str] = frozenset()) -> None:
        self.bound, self.read = set(bound), set()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bound.add(node.id)
        elif node.id not in self.bound:
            self.read.add(node.id)
        if isinstance(node.ctx, ast.Del):
            self.bound.discard(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._each([node.value, *node.targets])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._each([node.annotation, node.value])
        if node.value is not None:
            self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.visit(ast.Name(id=node.target.id, ctx=ast.Load()))
        self._each([node.value, node.target])

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._each([node.value, node.target])

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.bound |= {each.asname or each.name.partition(".")[0] for each in node.names}

    visit_ImportFrom = visit_Import

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self._perhaps([node.target, *node.body])
        self._perhaps(node.orelse)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        either = self._perhaps(node.body) & self._perhaps(node.orelse)
        self.bound |= either

    def visit_With(self, node: ast.With) -> None:
        self._each([part for item in node.items
                    for part in (item.context_expr, item.optional_vars)])
        self._perhaps(node.body)  # it may end early, by an error that is suppressed

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self._perhaps(node.body)
        self._perhaps(node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        self._perhaps([node.body])
        self._perhaps([node.orelse])

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        self._perhaps(node.values[1:])

    def visit_Try(self, node: ast.Try) -> None:
        for part in (node.body + node.orelse, *(each.body for each in node.handlers)):
            self._perhaps(part)
        self._each([each.type for each in node.handlers])
        self._each(node.finalbody)

    visit_TryStar = visit_Try

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        for case in node.cases:
            self._perhaps([case.pattern, case.guard, *case.body])

    def _comprehension(self, node: ast.AST) -> None:
        first = node.generators[0]
        self.visit(first.iter)
        rest = [part for each in node.generators
                for part in (*([] if each is first else [each.iter]), each.target, *each.ifs)]
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._perhaps([*rest, *parts])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._each([*node.decorator_list, node.returns])
        self._function(node, node.body)
        self.bound.add(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._each([*node.decorator_list, *node.bases, *node.keywords])
        for each in node.body:  # functions do not see what the class binds
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                self._perhaps([each])
        self._perhaps([each for each in node.body
                       if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)])
        self.bound.add(node.name)

    def _function(self, node: ast.FunctionDef | ast.Lambda, body: list[ast.AST]) -> None:
        """Counts what a function reads when it may be called, which is any time from here on."""
        taken = node.args
        arguments = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg]
        self._each([*taken.defaults, *taken.kw_defaults, *(each.annotation for each in arguments
                                                           if each)])
        inside = [part for each in body for part in ast.walk(each)]
        is_global = {name for part in inside if isinstance(part, ast.Global)
                     for name in part.names}
        own = {each.arg for each in arguments if each} | {
            part.id for part in _scope(body) if isinstance(part, ast.Name)
            and not isinstance(part.ctx, ast.Load)} | {
            part.name for part in _scope(body) if isinstance(part, _NAMED)}
        self.read |= is_global
        function = _Reads(self.bound | (own - is_global))
        function._each(body)
        self.read |= function.read

    def _each(self, nodes: list[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _perhaps(self, nodes: list[ast.AST | None]) -> set[str]:
        """Visits what may be left out, and returns what is bound after it."""
        before = set(self.bound)
        self._each(nodes)
        after, self.bound = self.bound, before
        return after


_NAMED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_COMPREHENSION = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def _scope(body: list[ast.AST]) -> Iterator[ast.AST]:
    """Yields the nodes of a function that are in no scope inside of it."""
    for node in body:
        yield node
        if not isinstance(node, _NAMED | ast.Lambda | _COMPREHENSION):
            yield from _scope([*ast.iter_child_nodes(node)])


def digest_of(value: Any) -> str:
    """Returns a digest of all that a value leads to; raises CannotTell."""
    file = io.BytesIO()
    try:
        _pickler()(file).dump(value)
    except CannotTell:
        raise
    except Exception as error:  # whatever a foreign object raises that is not made to be copied
        raise CannotTell(f"{type(error).__name__}: {error}") from error
    return hashlib.blake2b(file.getbuffer(), digest_size=16).hexdigest()


@functools.cache
def _pickler() -> type:
    import cloudpickle

    class Content(cloudpickle.CloudPickler):
        """Writes functions and classes of cells with all that they use, and tensors by content."""

        def reducer_override(self, value: Any) -> Any:
            torch = sys.modules.get("torch")
            if torch and isinstance(value, torch.Tensor):
                return _content(value)
            if torch and isinstance(value, torch.Generator):
                return str, (value.device.type, bytes(value.get_state().tolist()))
            if isinstance(value, functools._lru_cache_wrapper) and value.__module__ == "__main__":
                raise CannotTell("a function of a cell with a cache")
            if isinstance(value, itertools.count):
                return str, (repr(value),)
            return super().reducer_override(value)

    return Content


def _content(tensor: Any) -> tuple:
    """Returns what tells a tensor from others: numbers, layout, gradient."""
    import torch

    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.device.type != "cpu":
        raise CannotTell(f"a {type(tensor).__name__} on {tensor.device}")
    if tensor.grad_fn is not None:
        raise CannotTell("a tensor with a graph")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor._backward_hooks:
        raise CannotTell("a tensor of a kind of its own")
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous().flatten()
    data = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return str, (data, str(tensor.dtype), tuple(tensor.shape), tensor.stride(),
                 tensor.requires_grad, type(tensor).__name__, tensor.grad)


def state_of_module(module: types.ModuleType) -> str:
    """Returns a digest of a module's own values; those that cannot be compared, by their place."""
    parts = []
    for name, value in vars(module).copy().items():
        if name.startswith("__") or isinstance(value, types.ModuleType | type
                                               | types.FunctionType | types.BuiltinFunctionType):
            continue
        try:
            parts.append(f"{name} {digest_of(value)}")
        except CannotTell:
            parts.append(f"{name} {id(value)}")
    return " ".join(parts)


def around() -> dict[str, Any]:
    """Returns what a cell can read without naming it. Loads nothing."""
    look, numpy, torch = map(sys.modules.get, ("matplotlib", "numpy", "torch"))
    return {"the folder": os.getcwd(), "the environment": dict(os.environ),
            "random's generator": random.getstate(),
            "NumPy's generator": numpy and numpy.random.get_state(legacy=False),
            "matplotlib's settings": look and repr(dict(look.rcParams)),
            "PyTorch's settings": torch and (
                torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
                torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled()),
            "the number of threads": threading.active_count()}


def files_in(folder: Path) -> Iterator[tuple[Path, tuple]]:
    """Yields each file below a folder, with what tells whether it changed."""
    for place, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(_CACHES)]
        yield Path(place), ()
        for name in files:
            path = Path(place, name)
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            yield path, (found.st_size, found.st_mtime_ns)


class _Generator:
    """Whether a cell's numbers depend on what PyTorch's generator was before it.

    They do not if the cell seeds the generator before anything is drawn. It is not loaded here.
    """

    def __init__(self) -> None:
        self._first: bytes = b""
        self._state_now: Callable[[], Any] | None = None
        self._is_read = self._is_seeded_first = False

    def _listen(self, torch: types.ModuleType) -> None:
        self._state_now = state_now = torch.random.get_rng_state
        seed = torch.random.manual_seed

        @functools.wraps(seed)
        def manual_seed(*args: Any, **kwargs: Any) -> Any:
            if not self._is_read and not self._is_seeded_first:
                self._is_seeded_first = self._now() == self._first
                self._is_read = not self._is_seeded_first
            return seed(*args, **kwargs)

        @functools.wraps(state_now)
        def get_rng_state() -> Any:
            self._is_read = self._is_read or not self._is_seeded_first
            return state_now()

        torch.manual_seed = torch.random.manual_seed = manual_seed
        torch.get_rng_state = torch.random.get_rng_state = get_rng_state

    def begin(self) -> None:
        if self._state_now is None and "torch" in sys.modules:
            self._listen(sys.modules["torch"])
        self._first, self._is_read, self._is_seeded_first = self._now(), False, False

    def is_same(self) -> bool:
        return self._is_seeded_first or self._now() == self._first

    def _now(self) -> bytes:
        return self._state_now().numpy().tobytes() if self._state_now else b""


__all__ = ["CannotTell", "CellInputs", "Watch", "digest_of", "names_read", "watch"]
