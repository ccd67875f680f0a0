"""Measures how fast the tokenizers train, encode and decode.

They are compared with tiktoken, sentencepiece and Hugging Face tokenizers on three kinds of text.
The first are the project's stories, the second the sources of Python's standard library. The third
are the names of languages, countries, currencies, units and time zones in 36 languages, from
Unicode's CLDR in the package babel, which JupyterLab needs. These are words and phrases of many
scripts, not prose. The vocabularies are learned from one half of each text; the other half is
encoded.

Contestants take turns within each round, and a ratio is the median over rounds. Everything except
the batch runs on one thread and is measured in processor seconds, which other load on the machine
hardly changes. A cold tokenizer is new; a warm one has encoded the same text, or another of its
kind.

    python benchmarks/bench_tokenizer.py

It prints the table and writes benchmarks/results/tokenizer.json.
"""

import argparse
import os
import platform
import random
import re
import statistics
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # until the batch

import sentencepiece
import tiktoken
import tokenizers
from babel import localedata
from measure import race, ratio, write
from tokenizers import models, pre_tokenizers, trainers

from llama_from_scratch.bundled import path
from llama_from_scratch.tokenizer import Tokenizer, hugging_face
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN, Splitter

ROOT = Path(__file__).parent.parent
PATTERNS = {"Llama 3": LLAMA3_PATTERN, "Llama 4": LLAMA4_PATTERN}
LANGUAGES = [
    "am", "ar", "bn", "cs", "de", "el", "es", "fa", "fr", "gu", "he", "hi", "hy", "it", "ja", "ka",
    "km", "ko", "lo", "ml", "my", "nl", "pl", "pt", "ru", "si", "sw", "ta", "te", "th", "tr", "uk",
    "ur", "vi", "zh", "zh_Hant",
]  # fmt: skip
NAMED = [
    "languages", "territories", "scripts", "variants", "time_zones", "meta_zones",
    "currency_names", "unit_display_names", "date_fields",
]  # fmt: skip

Race = Mapping[str, list[float]]
Kinds = dict[str, tuple[list[str], list[str]]]


# --- texts ----------------------------------------------------------------------------------------


def standard_library() -> list[str]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts = []
    for file in sorted(folder.rglob("*.py")):
        if "site-packages" not in file.parts:
            try:
                texts.append(file.read_text("utf-8"))
            except UnicodeDecodeError:
                continue  # a few test files are in other encodings on purpose
    return texts


def up_to(n_chars: int, texts: list[str]) -> list[str]:
    kept = []
    for text in texts:
        if sum(map(len, kept)) >= n_chars:
            break
        kept.append(text)
    return kept


def english(texts: list[str]) -> str:
    """Returns the docstrings and comments of the sources, which are prose."""
    pattern = re.compile(r'"""([\s\S]*?)"""|# ([A-Z].*)')
    prose = (found[1] or found[2] for text in texts for found in pattern.finditer(text))
    return "\n".join(part for part in prose if part)


def names_in(language: str) -> str:
    names = localedata.load(language)
    return ", ".join(text for part in NAMED for text in strings(names[part]))


def strings(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, Mapping):
        for value in entry.values():
            yield from strings(value)


def parts_of(text: str, n_chars: int) -> list[str]:
    return [text[i : i + n_chars] for i in range(0, len(text), n_chars)]


def quarters(text: str) -> list[str]:
    return [text[i * len(text) // 4 : (i + 1) * len(text) // 4] for i in range(4)]


def texts_of_each_kind(sources: list[str]) -> tuple[list[str], Kinds]:
    """Returns texts to learn a vocabulary from, and for each kind two lists of other texts.

    Each of these lists has about a million characters.
    """
    stories = path("stories.txt").read_text("utf-8")
    # Meta's code cuts texts after 400,000 characters. The others do not, so their ids differ at the
    # cut.
    others = [text for text in sources[1::2] if len(text) < 400_000]
    random.Random(0).shuffle(others)
    first = up_to(1_000_000, others)
    names = [quarters(names_in(language)) for language in LANGUAGES]
    learned = [stories[:2_000_000], *sources[::2], *(a + b for a, b, _, _ in names)]
    return learned, {
        "English stories": (parts_of(stories[2_000_000:3_000_000], 20_000),
                            parts_of(stories[3_000_000:4_000_000], 20_000)),
        "Python sources": (first, up_to(1_000_000, others[len(first) :])),
        "names in 36 languages": ([c for _, _, c, _ in names], [d for _, _, _, d in names]),
    }


# --- training -------------------------------------------------------------------------------------


def recount_train(text: str, n_merges: int, *, is_unique: bool) -> list[tuple[bytes, bytes]]:
    """Returns merges found the simplest way: count every pair in every word before each merge."""
    pretokens = Splitter(LLAMA3_PATTERN)(text)
    each_once = [(pretoken, 1) for pretoken in pretokens]
    counted = Counter(pretokens).items() if is_unique else each_once
    words = [(list(pretoken.encode()), n) for pretoken, n in counted]
    tokens, merges = [bytes([value]) for value in range(256)], []
    for _ in range(n_merges):
        pairs = Counter()
        for ids, n in words:
            for pair in pairwise(ids):
                pairs[pair] += n
        left, right = best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        for ids, _ in words:
            i = 0
            while i < len(ids) - 1:
                if (ids[i], ids[i + 1]) == best:
                    ids[i : i + 2] = [len(tokens)]
                i += 1
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    return merges


def hugging_face_train(texts: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    theirs = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False))
    return theirs


def training_rows(sources: list[str], rounds: int) -> list[dict]:
    small = "".join(sources)[:185_000]
    merges: list[tuple] = []
    Tokenizer.train(small, 512, on_merge=lambda *merge: merges.append(merge[1:3]))
    assert recount_train(small, 256, is_unique=True) == merges
    every, different = "recount of every word", "recount of every different word"
    times = race({
        "ours": partial(Tokenizer.train, small, 512),
        every: partial(recount_train, small, 256, is_unique=False),
        different: partial(recount_train, small, 256, is_unique=True),
    }, n_rounds=rounds, n_warmup=0, clock=time.process_time)
    rows = [row("train, 185 kB of code, 256 merges", times, "ours", [every, different], len(small))]
    for what, documents, vocab_size in (
        ("train, 5 MB of code, 4096 ids", up_to(5_000_000, sources), 4096),
        ("train, 4 MB of English, 1024 ids", [english(sources)[:4_000_000]], 1024),
    ):
        times = race({
            "ours": partial(Tokenizer.train, documents, vocab_size),
            "tokenizers": partial(hugging_face_train, documents, vocab_size),
        }, n_rounds=rounds, n_warmup=0, clock=time.process_time)
        rows.append(row(what, times, "ours", ["tokenizers"], sum(map(len, documents))))
    return rows


# --- encoding and decoding ------------------------------------------------------------------------


def byte_vocabulary(name: str, learned: list[str]) -> Tokenizer:
    file = f"bench-{name}-{platform.python_version()}-65536.model".replace(" ", "-")
    file = ROOT / "build" / file
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        Tokenizer.train(learned, 65_536, pattern=PATTERNS[name]).save(file)
    return Tokenizer.load(file, pattern=PATTERNS[name])


def piece_vocabulary(learned: list[str]) -> Path:
    file = ROOT / "build" / f"bench-{platform.python_version()}-32000.sentencepiece"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        SentencePiece.train(learned, 32_000).save(file)
    return file


def tiktoken_of(tok: Tokenizer) -> tiktoken.Encoding:
    return tiktoken.Encoding("trained here", pat_str=tok.pattern, mergeable_ranks=tok.ranks,
                             special_tokens={})


def hugging_face_of(tok: Tokenizer | SentencePiece) -> tokenizers.Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        hugging_face.write(Path(folder) / "tokenizer.json", tok)
        return tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def encoding_rows(learned: list[str], kinds: Kinds, rounds: int) -> list[dict]:
    rows = []
    for name, pattern in PATTERNS.items():
        tok = byte_vocabulary(name, learned)
        theirs = tiktoken_of(tok)
        make = partial(Tokenizer, tok.ranks, pattern=pattern)
        for kind, texts in kinds.items():
            codec = {"tiktoken": (theirs.encode_ordinary, theirs.decode)}
            rows += rows_of(f"{name}, {kind}", make, codec, texts, rounds)
    file = piece_vocabulary(learned)
    tok = SentencePiece.load(file)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(file))
    # Chinese and Korean characters, of which few are pieces: none occurs twice, and most become
    # bytes.
    unknown = ["".join(map(chr, range(begin, begin + 5000)))
               for begin in range(0x3400, 0xD000, 5000)]
    for kind, texts in (kinds | {"characters of no piece": (unknown, unknown[::-1])}).items():
        codec = {"sentencepiece": (theirs.encode, theirs.decode)}
        make = partial(SentencePiece, tok.pieces)
        rows += rows_of(f"Llama 2, {kind}", make, codec, texts, rounds)
    return rows


def rows_of(what: str, make, codecs: dict, texts: tuple[list[str], list[str]],
            rounds: int) -> list[dict]:
    """Returns rows for encoding the first texts, and one row for decoding them.

    The tokenizer is new, or has encoded the second texts before, or the first.
    """
    first, second = texts
    n_chars = sum(map(len, first))
    warm, theirs = make(), hugging_face_of(make())

    def encode_theirs(text: str) -> list[int]:
        return theirs.encode(text, add_special_tokens=False).ids

    codecs = codecs | {"tokenizers": (encode_theirs, theirs.decode)}
    ids = [warm.encode(text) for text in first]
    for encode, decode in codecs.values():
        assert [encode(text) for text in first] == ids
        assert [decode(each) for each in ids] == [warm.decode(each) for each in ids]
    cold, others = ([make() for _ in range(rounds + 1)] for _ in range(2))
    for tok in others:
        encode_all(tok.encode, second)
    times = race({
        "cold": lambda: encode_all(cold.pop().encode, first),
        "warm, other text": lambda: encode_all(others.pop().encode, first),
        "warm": lambda: encode_all(warm.encode, first),
        **{name: partial(encode_all, encode, first) for name, (encode, _) in codecs.items()},
    }, n_rounds=rounds, clock=time.process_time)
    rows = [row(f"encode, {what}, {state}", times, state, [*codecs], n_chars)
            for state in ("cold", "warm, other text", "warm")]
    times = race({
        "ours": partial(encode_all, warm.decode, ids),
        **{name: partial(encode_all, decode, ids) for name, (_, decode) in codecs.items()},
    }, n_rounds=rounds, clock=time.process_time)
    return [*rows, row(f"decode, {what}", times, "ours", [*codecs], n_chars)]


def encode_all(encode, texts: list) -> list:
    return [encode(text) for text in texts]


def row(what: str, times: Race, ours: str, others: list[str], n_chars: int) -> dict:
    """Returns a row of the table. `speed_over`: how many times faster than the others we are."""
    return {
        "what": what,
        "n_chars": n_chars,
        "rounds": len(times[ours]),
        "ours_s": round(statistics.median(times[ours]), 4),
        "mchars_per_s": round(n_chars / 1e6 / statistics.median(times[ours]), 2),
        "speed_over": {name: round(ratio(times, name, ours), 2) for name in others},
    }


# --- a batch on all cores -------------------------------------------------------------------------


def batch_rows(learned: list[str], kinds: Kinds, rounds: int) -> list[dict]:
    """Returns a row in wall-clock seconds, which grow with other load on the machine."""
    n = os.cpu_count() or 1
    texts = [text for first, second in kinds.values() for text in first + second] * 2
    n_chars = sum(map(len, texts))
    tok = byte_vocabulary("Llama 3", learned)
    theirs, hugging = tiktoken_of(tok), hugging_face_of(tok)
    expected = tok.encode_batch(texts, n_workers=1)
    assert tok.encode_batch(texts, n_workers=n) == expected == theirs.encode_ordinary_batch(texts)

    def tokenizers_batch(is_parallel: bool) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = str(is_parallel).lower()
        hugging.encode_batch(texts)

    times = race({
        "ours, 1": partial(tok.encode_batch, texts, n_workers=1),
        "ours": partial(tok.encode_batch, texts, n_workers=n),
        "tiktoken, 1": partial(theirs.encode_ordinary_batch, texts, num_threads=1),
        "tiktoken": partial(theirs.encode_ordinary_batch, texts, num_threads=n),
        "tokenizers, 1": partial(tokenizers_batch, False),
        "tokenizers": partial(tokenizers_batch, True),
    }, n_rounds=rounds)
    alone, busiest = [], []
    for _ in range(rounds):
        alone.append(processor_seconds(partial(tok.encode_batch, texts, n_workers=1))[0])
        here, elsewhere = processor_seconds(partial(tok.encode_batch, texts, n_workers=n))
        busiest.append(max(here, elsewhere / max(n - 1, 1)))
    line = row(f"encode_batch on {n} cores, all three kinds, warm", times, "ours",
               ["tiktoken", "tokenizers"], n_chars)
    scaling = {name: round(ratio(times, f"{name}, 1", name), 2)
               for name in ("ours", "tiktoken", "tokenizers")}
    # The speedup on an idle machine: one process's processor seconds, divided by the seconds of the
    # busiest of several processes.
    free = round(statistics.median(a / b for a, b in zip(alone, busiest, strict=True)), 2)
    return [line | {"speed_over_one_core": scaling, "ours_by_processor_time": free,
                    "load": os.getloadavg()[0]}]


def processor_seconds(work) -> tuple[float, float]:
    """Returns the processor seconds of `work` in this process, and in the processes it started."""
    before = os.times()
    work()
    spent = [after - start for after, start in zip(os.times(), before, strict=True)]
    return spent[0] + spent[1], spent[2] + spent[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    sources = standard_library()
    learned, kinds = texts_of_each_kind(sources)
    rows = []
    for some in (
        training_rows(sources, min(args.rounds, 3)),
        encoding_rows(learned, kinds, args.rounds),
        batch_rows(learned, kinds, min(args.rounds, 3)),
    ):
        for line in some:
            ratios = (f"{times:6.2f} x {name}" for name, times in line["speed_over"].items())
            print(f"{line['what']:<58} {line['ours_s']:8.4f} s "
                  f"{line['mchars_per_s']:7.2f} Mchar/s", *ratios, flush=True)
        rows += some
    print("over one core:", rows[-1]["speed_over_one_core"],
          "ours by processor time:", rows[-1]["ours_by_processor_time"])
    write("tokenizer", {"rows": rows},
          packages=("babel", "regex", "sentencepiece", "tiktoken", "tokenizers"))


if __name__ == "__main__":
    main()
