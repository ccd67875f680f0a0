"""Runs the Jinja templates of files, which are programs written by others, where they do no harm.

A template sees only the values that it is given, cannot change them, and has a time limit. It has
the functions and filters that chat templates expect.

Notebook 19. Sources: transformers, utils/chat_template_utils.py (which functions there are); Jinja,
chapter "Sandbox".
"""

import datetime
import functools
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sized
from types import FrameType
from typing import Any

MAX_SOURCE = 1_000_000
"""The largest number of characters of a template."""
_MAX_WRITTEN = 20_000_000
_MAX_SECONDS = 5.0
_MAX_REPEATED = 1_000_000
_OLDEST_JINJA = (3, 1, 6)
"""Earlier versions have known ways out of the sandbox."""


def render(source: str, values: Mapping[str, Any], *, today: str | None = None) -> str:
    """Returns the text that a template writes for these values.

    `today`, such as "26 Jul 2024": the date that the template gets, by default the real one.
    Raises ValueError if the template is not valid Jinja, refuses the values, fails on them, uses
    something that the sandbox forbids, or does not end in time.
    """
    import jinja2

    context = dict(values) | {"strftime_now": functools.partial(_date, today)}
    if today is not None:
        context["date_string"] = today
    try:
        template = _compiled(source)
        return "".join(_bounded(template.generate(context)))
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"a chat template must be valid Jinja, and line {error.lineno} of this "
                         f"one is not: {error.message!r:.300}. Correct it, or download the file "
                         "again") from error
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError,
            AttributeError, RecursionError, MemoryError) as error:
        raise ValueError("the chat template of the files refuses this dialog or fails on it: "
                         f"{str(error) or type(error).__name__!r:.300}. Change the dialog, or "
                         "choose a format of tokenizer.chat_format.FORMATS") from error


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    """Returns the template, compiled in the environment that transformers' templates expect."""
    import jinja2

    if len(source) > MAX_SOURCE:
        raise ValueError(f"a template may have at most {MAX_SOURCE:,} characters; got "
                         f"{len(source):,}")
    version = tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdigit())
    if version < _OLDEST_JINJA:
        raise ValueError(f"chat templates need Jinja {'.'.join(map(str, _OLDEST_JINJA))} or later; "
                         f"got {jinja2.__version__}. Run pip install -U jinja2")
    return _environment().from_string(source)


@functools.cache
def _environment() -> Any:
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block `generation`, which marks a model's text; here its content is only written."""

        tags = frozenset({"generation"})

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    class Bounded(ImmutableSandboxedEnvironment):
        """An environment in which multiplication and powers cannot fill the memory."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            sizes = [len(side) if isinstance(side, Sized) else abs(side) for side in (left, right)
                     if isinstance(side, Sized | int | float)]
            is_repeated = isinstance(left, Sized) or isinstance(right, Sized)
            if operator == "**" and max(sizes, default=0) > 1000:
                raise jinja2.exceptions.SecurityError("a power of large numbers")
            if is_repeated and math.prod(sizes) > _MAX_REPEATED:
                raise jinja2.exceptions.SecurityError("a text repeated too often")
            return super().call_binop(context, operator, left, right)

    made = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = _json
    made.globals["raise_exception"] = _refuse
    return made


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    """Yields the pieces. Raises ValueError if they are too long or the template runs too long.

    A trace function checks the time at each line of the template's code, because a loop that writes
    nothing yields no piece.
    """
    until, n_chars = time.monotonic() + _MAX_SECONDS, 0

    def at_a_line(frame: FrameType, event: str, value: Any) -> Any:
        if time.monotonic() > until:
            raise ValueError(f"it runs for more than {_MAX_SECONDS:.0f} seconds")
        return at_a_line

    def at_a_call(frame: FrameType, event: str, value: Any) -> Any:
        return at_a_line if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(at_a_call)
    try:
        for piece in pieces:
            n_chars += len(piece)
            if n_chars > _MAX_WRITTEN:
                raise ValueError(f"it writes more than {_MAX_WRITTEN:,} characters")
            yield piece
    finally:
        sys.settrace(before)


def _date(today: str | None, layout: str) -> str:
    return datetime.datetime.now().strftime(layout) if today is None else today


def _json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None,
    separators: tuple[str, str] | None = None, sort_keys: bool = False,
) -> str:
    """Returns plain JSON. Jinja's own filter would write "<" as an escape for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def _refuse(said: object) -> str:
    import jinja2

    raise jinja2.TemplateError(str(said))
