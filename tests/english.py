"""The words of the project, and those among them that make a reader stumble.

    python tests/english.py                                 # every file of the project
    python tests/english.py llama_from_scratch/model notebooks/12_rope.ipynb README.md

prints each phrase that the table below knows, with its file, its line and what to write instead.
The status is 1 if there is a finding. With `--spelling`, codespell reads the same words as well.

Words are the prose of Markdown files; the docstrings, comments and messages of Python files; the
comments of CUDA files; and the Markdown cells, comments and strings of notebooks. Names in
backticks, addresses and fenced code do not count.
"""

import argparse
import ast
import fnmatch
import io
import json
import re
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PROSE = (
    "*.md", "pyproject.toml", "environment.yml", "Makefile", ".ci/run", "data/*.md", "start.py",
    "llama_from_scratch/**/*.py", "llama_from_scratch/**/*.cu", "llama_from_scratch/**/*.cuh",
    "llama_from_scratch/**/*.h", "benchmarks/*.py", "notebooks/*.ipynb",
)


class Passage(NamedTuple):
    """Words that belong together; `cell` is the number of a notebook's cell, from 0."""

    path: str
    cell: int | None
    line: int
    text: str

    def where(self, offset: int) -> str:
        """`path:line`, or `path cell n:line`, of a place in the text."""
        cell = "" if self.cell is None else f" cell {self.cell}"
        return f"{self.path}{cell}:{self.line + self.text.count(chr(10), 0, offset)}"


class Finding(NamedTuple):
    """A phrase, its place and its neighbors, and what to write instead."""

    where: str
    phrase: str
    context: str
    advice: str

    def __str__(self) -> str:
        return f'{self.where}: "{self.phrase}": {self.advice}\n    {self.context}'


class Allowed(NamedTuple):
    """A phrase that is right in the files whose path fits the pattern, and why."""

    path: str
    phrase: str
    reason: str


# --- the table ------------------------------------------------------------------------------------

HIDDEN = "·"  # in place of what is not read
BE = r"(?:is|are|was|were|be)"
STATE = r"(?:is|are|has|have|can|cannot|could|may|must|would|will|needs?)"

# A regular expression, in which case does not matter and a space is any white space, and what to
# write instead.
PATTERNS: dict[str, str] = {
    # words that are no longer used, or not in this sense
    r"\banew\b": "again",
    r"\bafresh\b": "again",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bbesides\b": "also, in addition to, apart from",
    r"\bbeside\b": "next to, in addition to, compared with",
    r"\bdearly\b": "at a high cost",
    rf"\b(?:{BE}|too|so|as|more|very) dear(?:er)?\b": "expensive",
    r"\bwhoever\b": "anyone who, a model that, a reader who",
    r"\bwhosoever|whomever|whichsoever|whatsoever\b": "any",
    r"\bnobody\b": "no one; for code: no other part, nothing",
    r"\beverybody\b": "everyone; for code: every other part",
    r"\bso (?:many|much)\b(?! (?:that|as|smaller|larger|faster|better|more|less))": "this many",
    r"\bin small\b(?! \w)": "small, on a small scale",
    r"\bshall\b": "will, must",
    r"\b(?:(?:where|there)(?:of|upon|from|unto|withal)|wherefore|hereof|hereupon|whereas)\b":
        "of which, on which, why",
    r"\b(?:whence|hence|thence|whither|hither|thither|henceforth|thenceforth)\b": "from where; so",
    r"\b(?:wherein|whereby|therein|thereby|hereby|herein|hitherto|heretofore)\b": "in which; by it",
    r"\b(?:amid|amidst|unto|lest|albeit|nay|oft|yonder|thrice|naught|nought|ere|ought)\b":
        "a word in use today",
    r"\b(?!once\b)\w+ upon\b": "on",
    r"\blikewise\b": "also, in the same way",
    r"\bforthwith\b": "at once",
    r"\bhalf way\b": "halfway",
    r"\bblanks? in front\b|\b(?:leading|trailing|last|real|white|after a) blanks?\b": "a space",
    r"\bset-ups?\b": "setup (the noun), set up (the verb)",
    # calques: right word by word, and not how it is said
    r"\b(?:stands?|stood|standing)\b(?!-| for\b| out\b| up\b| by\b| in(?: for\b|[,;:.]))":
        "is, comes, appears, or the verb that says what it does",
    r"\b(?:lies|lying)\b|\b(?:may|must|can|will|would|should|to) lie\b": "is, is stored",
    rf"(?:\b(?!there\b)\w+|{HIDDEN}) {BE} (?-i:none)\b": "is not one; no ... is",
    r"\bthose of\b": "name the thing again, or write 's",
    r"\b(?:than|is|are|with|from|and|or|as|like|equals?|by|to) that of\b":
        "name the thing again, or write 's",
    r"\b(?:one|ones) that (?:is|are|has|have) (?:none|no)\b": "without",
    rf", for (?:it|they|he|she|there|we|you|nobody|nothing|no one|whoever|otherwise) "
    rf"(?:\w+ )?{STATE}\b": "because",
    r", for (?:nobody|no one|nothing|whoever|otherwise|there|then)\b": "because",
    rf", for (?:a|an|the|this|these|those|its|their|each|every) (?:(?!that\b)\w+ ){{1,2}}{STATE}\b":
        "because",
    rf", as (?!it is\b)(?:it|they|there|he|she|we|no|none|nothing|nobody|otherwise|then) "
    rf"(?:\w+ )?{STATE}\b": "because",
    rf", as (?:a|an|the|this|these|those|its|their|each|every) (?:(?!that\b)\w+ ){{1,2}}{STATE}\b":
        "because",
    r"\bas (?:right angles|the rules?) wants?\b": "as the rule predicts",
    r"\btrained so\b": "trained this way",
    r"\ball but\b": "all except; almost",
    r"\bnone but\b": "only",
    r"\bbut for\b": "except for",
    r"\bmay not\b": "must not, cannot or might not: it can mean each of them",
    rf"\b{BE} of (?!(?:course|the same|equal|use|interest|no|any|great|little)\b)":
        "is one, has one, belongs to",
    r"\bin turns\b": "alternately, in turn",
    r"\bheld against\b": "compared with, checked against",
    r"\bis to be had\b|\bto be had\b": "is available",
    r"\bas yet\b": "yet, so far",
    r"\basked of (?:a|an|the|it|them|each|every|all)\b": "is read from, is computed by",
    # things that speak, hear and know
    r"\bhears? of\b|\bheard of\b": "is called with, receives",
    r"\btells? of\b|\btold of\b": "shows, reports, describes",
    r"\bknows? of\b": "knows, has",
    rf"(?:\b(?!what\b)\w+|{HIDDEN}) {BE} (?:also |then |not )?(?:said|told)\b(?! to\b)":
        "names, reports, prints; distinguishes",
    r"\b(?:refus\w+|said|says?|saying|answers?|answered|told|tells?|explain\w*|named?) "
    r"(?:\w+ )?in words\b": "with a message that says ...",
    r"\b(?:said|says|saying) (?:\w+ )?aloud\b": "reported, printed",
    r"\b(?:it|that|which|model|kernel|code|file|format|layer|block|rule|angles?) wants?\b":
        "needs, expects, requires",
    r"\bask(?:s|ed)? (?:itself|themselves)\b": "checks",
    # one word, one spelling
    r"\blearnt\b": "learned",
    r"\b(?:burnt|spelt|dreamt|leapt|misspelt|unlearnt|smelt|spoilt)\b": "the form in -ed",
    r"\b(?:whilst|amongst)\b": "while, among",
    r"\btowards\b": "toward",
    r"\b(?:dis)?(?:colo|favo|behavio|neighbo|hono|humo|labo|rumo|vapo|harbo|flavo|savo|armo|"
    r"endeavo|rigo|vigo|odo)ur(?:s|ed|ing|ful|less|hood|able|ably|ite|ites)?\b": "-or",
    r"\b\w*(?:normal|optim|initial|recogn|organ|memor|general|real|quant|token|factor|serial|"
    r"parallel|random|minim|maxim|summar|visual|special|final|synchron|character|emphas|util|"
    r"vector|standard|central|local|global|equal|material|formal|categor)is(?:e[drs]?|ing|ations?)"
    r"\b": "-ize, -ization",
    r"\b(?:analyse|paralyse|catalyse)[ds]?\b": "-yze",
    r"\b(?:licence|defence|offence|pretence)s?\b": "-ense",
    r"\b(?:centre|metre|litre|fibre|theatre)[sd]?\b": "-er",
    r"\bgrey\w*\b": "gray",
    r"\b(?:catalogue|analogue)\b": "-og",
    r"\b\w*(?:label|model|travel|cancel|signal|level|total|channel|fuel)l(?:ed|ing|er|ers)\b":
        "one l",
    r"\b(?:artefact|judgement|acknowledgement|programme|sceptic\w*|cheque|draught|tyre|plough)s?\b":
        "the American spelling",
}
COMPILED = {re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE): advice
            for pattern, advice in PATTERNS.items()}

ALLOWED: tuple[Allowed, ...] = (
    Allowed("notebooks/19_chat_format.ipynb", "Shall I tell a story?",
            "a turn of the dialogs from which the model learned"),
)


# --- the words of a file --------------------------------------------------------------------------

FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
ADDRESS = re.compile(r"https?://[^\s)>\"']+|(?<=\]\()[^)\s]+(?=\))|\$\$.+?\$\$|\$[^$\n]+\$",
                     re.DOTALL)
C_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def hide(match: re.Match) -> str:
    """As many dots as the match has characters, so that no other text moves."""
    return re.sub(r"[^\n]", HIDDEN, match[0])


def comments_only(match: re.Match) -> str:
    """A fenced block with all hidden except what follows a `#`."""
    return "\n".join(hide(re.match(r".*", line)) if "# " not in line
                     else HIDDEN * line.index("# ") + line[line.index("# "):]
                     for line in match[0].split("\n"))


def of_markdown(text: str) -> str:
    """The text with its code and addresses hidden."""
    return ADDRESS.sub(hide, CODE.sub(hide, FENCE.sub(comments_only, text)))


def of_string(node: ast.expr) -> str:
    """The words of a string or f-string, with a dot in place of values."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else HIDDEN
                       for part in node.values)
    return node.value


def strings(tree: ast.AST) -> Iterator[ast.expr]:
    """Every string of more than one word; an f-string is one, whatever its values hold."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.JoinedStr):
            yield child
            for part in child.values:
                if isinstance(part, ast.FormattedValue):
                    yield from strings(part.value)
                    if isinstance(part.value, ast.Constant | ast.JoinedStr):
                        yield from strings(ast.Expr(part.value))
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child
        else:
            yield from strings(child)


def of_python(path: str, source: str, cell: int | None = None) -> Iterator[Passage]:
    """The comments of Python source, neighbors together, and its strings."""
    block: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, is_own = token.start[0], not token.line[: token.start[1]].strip()
        if block and not (is_own and line == block[-1][0] + 1):
            yield joined(path, cell, block)
            block = []
        block.append((line, token.string))
    if block:
        yield joined(path, cell, block)
    for node in strings(ast.parse(source)):
        words = of_string(node)
        if re.search(r"\w\s+\w", words):
            yield Passage(path, cell, node.lineno, of_markdown(words))


def joined(path: str, cell: int | None, block: list[tuple[int, str]]) -> Passage:
    return Passage(path, cell, block[0][0],
                   of_markdown("\n".join(text.lstrip("#") for _, text in block)))


def of_notebook(path: str, text: str) -> Iterator[Passage]:
    """The words of every cell."""
    for number, cell in enumerate(json.loads(text)["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield Passage(path, number, 1, of_markdown(source))
        elif cell["cell_type"] == "code" and not source.startswith("%%"):
            plain = re.sub(r"^[%!].*$", "pass", source, flags=re.MULTILINE)
            yield from of_python(path, plain, number)


def of_comments(path: str, text: str) -> Iterator[Passage]:
    """The comments of a file whose comments begin with `#`."""
    shown = "\n".join(line[line.index("# ") + 2 :] if "# " in line else ""
                      for line in text.split("\n"))
    yield Passage(path, None, 1, of_markdown(shown))


def passages(path: Path) -> Iterator[Passage]:
    """The words of a file, by its kind."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield Passage(name, None, 1, of_markdown(text))
    elif path.suffix == ".py":
        yield from of_python(name, text)
    elif path.suffix == ".ipynb":
        yield from of_notebook(name, text)
    elif path.suffix in (".cu", ".cuh", ".h"):
        for match in C_COMMENT.finditer(text):
            yield Passage(name, None, text.count("\n", 0, match.start()) + 1, match[0])
    else:
        yield from of_comments(name, text)


# --- what is found --------------------------------------------------------------------------------


def findings(passage: Passage, allowed: tuple[Allowed, ...] = ALLOWED) -> Iterator[Finding]:
    """Each phrase of the table in a passage that is not inside an allowed one."""
    spans = [span for each in allowed for span in allowances(passage, each)]
    for pattern, advice in COMPILED.items():
        for match in pattern.finditer(passage.text):
            if not any(start <= match.start() and match.end() <= end for start, end in spans):
                near = passage.text[max(0, match.start() - 45) : match.end() + 45]
                yield Finding(passage.where(match.start()), " ".join(match[0].split()),
                              " ".join(near.split()), advice)


def allowances(passage: Passage, allowed: Allowed) -> list[tuple[int, int]]:
    """Where in the text the allowed phrase begins and ends, if the path is one of its paths."""
    if not fnmatch.fnmatch(passage.path, allowed.path):
        return []
    phrase = r"\s+".join(map(re.escape, allowed.phrase.split()))
    return [match.span() for match in re.finditer(phrase, passage.text, re.IGNORECASE)]


def misspellings(all_passages: list[Passage]) -> list[str]:
    """A line for each word that codespell takes for misspelled or British.

    Its settings are in pyproject.toml, so `codespell README.md` finds the same.
    """
    places, lines = [], []
    for passage in all_passages:
        for number, line in enumerate(passage.text.split("\n")):
            cell = "" if passage.cell is None else f" cell {passage.cell}"
            places.append(f"{passage.path}{cell}:{passage.line + number}")
            lines.append(line)
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "words.txt"
        words.write_text("\n".join(lines), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "codespell_lib", "--toml", "pyproject.toml", str(words)],
            capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
    if done.returncode not in (0, 65) or done.stderr.strip():
        raise RuntimeError(f"codespell failed: {done.stderr}")
    found = re.findall(r"words\.txt:(\d+): (.*)", done.stdout)
    return [f"{places[int(number) - 1]}: {words}" for number, words in found]


def files(paths: list[Path]) -> list[Path]:
    """The files with words among the paths and in the folders; without paths, of the project."""
    every = sorted({path for pattern in PROSE for path in ROOT.glob(pattern)})
    if not paths:
        return every
    chosen = [path.resolve() for path in paths]
    inside = [path for path in every if any(path.is_relative_to(each) for each in chosen)]
    return sorted({*inside, *(path for path in chosen if path.is_file())})


def main() -> int:
    """Prints what is found. The status is 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders (default: all)")
    parser.add_argument("--spelling", action="store_true", help="ask codespell, too")
    parser.add_argument("--count", action="store_true", help="only how many there are in each file")
    args = parser.parse_args()
    all_passages = [each for path in files(args.paths) for each in passages(path)]
    found = [str(each) for passage in all_passages for each in findings(passage)]
    if args.spelling:
        found += misspellings(all_passages)
    counts: dict[str, int] = {}
    for line in found:
        path = re.split(r"[: ]", line, maxsplit=1)[0]
        counts[path] = counts.get(path, 0) + 1
    print("\n".join([f"{n:5} {path}" for path, n in counts.items()] if args.count else found))
    print(f"{len(found)} findings", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
