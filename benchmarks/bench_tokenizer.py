"""How fast the byte-level BPE tokenizer trains and encodes, beside tiktoken and Hugging Face tokenizers, on one thread.

All texts are the sources of Python's standard library, which every machine has. Contestants take turns inside each
round and a ratio is the median over rounds, so that other load on the machine falls on all alike.

    python benchmarks/bench_tokenizer.py        # prints the table, writes benchmarks/results/tokenizer.json
"""

import argparse
import os
import platform
import random
import re
import statistics
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # before tokenizers starts its threads

import tiktoken
import tokenizers
from measure import write
from tokenizers import models, pre_tokenizers, trainers

from llama_from_scratch.tokenizer import Tokenizer
from llama_from_scratch.tokenizer.byte_bpe import merge_word
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, Splitter

ROOT = Path(__file__).parent.parent


def standard_library() -> list[str]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts = []
    for path in sorted(folder.rglob("*.py")):
        if "site-packages" not in path.parts:
            try:
                texts.append(path.read_text("utf-8"))
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
    """Docstrings and comments: the prose among the sources."""
    prose = (found[1] or found[2] for text in texts for found in re.finditer(r'"""([\s\S]*?)"""|# ([A-Z].*)', text))
    return "\n".join(part for part in prose if part)


def recount_train(text: str, n_merges: int, *, is_unique: bool) -> list[tuple[bytes, bytes]]:
    """What a first notebook shows: before each merge, count every pair in every word again."""
    pretokens = Splitter(LLAMA3_PATTERN)(text)
    counted = Counter(pretokens).items() if is_unique else [(pretoken, 1) for pretoken in pretokens]
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


def hugging_face_pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def hugging_face_train(texts: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = hugging_face_pre_tokenizer()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    return theirs


def hugging_face_from(tok: Tokenizer) -> tokenizers.Tokenizer:
    """Their tokenizer with our ranks: each token is written in their alphabet of 256 printable symbols."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbol = {value: chr(value) for value in printable}
    symbol |= {value: chr(256 + i) for i, value in enumerate(sorted(set(range(256)) - set(printable)))}
    written = {rank: "".join(symbol[value] for value in token) for token, rank in tok.ranks.items()}
    earlier, merges = {}, []
    for token, rank in sorted(tok.ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = merge_word(token, earlier)
            merges.append((written[left], written[right]))
        earlier[token] = rank
    theirs = tokenizers.Tokenizer(models.BPE({name: rank for rank, name in written.items()}, merges, ignore_merges=True))
    theirs.pre_tokenizer = hugging_face_pre_tokenizer()
    return theirs


def large_vocabulary(texts: list[str]) -> Tokenizer:
    path = ROOT / "build" / f"stdlib-{platform.python_version()}-32768.model"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        Tokenizer.train(texts, 32_768).save(path)
    return Tokenizer.load(path)


def timed(work: Callable, *args, **options) -> tuple[float, object]:
    start = time.perf_counter()
    result = work(*args, **options)
    return time.perf_counter() - start, result


def encode_all(encode: Callable[[str], object], documents: list[str]) -> list:
    return [encode(document) for document in documents]


def row(what: str, ours_s: list[float], others: dict[str, list[float]], n_chars: int) -> dict:
    """Medians over rounds; a ratio above 1 says how many times faster than the other we are."""
    return {
        "what": what,
        "n_chars": n_chars,
        "rounds": len(ours_s),
        "ours_s": round(statistics.median(ours_s), 4),
        "ours_mchars_per_s": round(n_chars / 1e6 / statistics.median(ours_s), 2),
        "others_s": {name: round(statistics.median(times), 4) for name, times in others.items()},
        "speed_over": {
            name: round(statistics.median(theirs / ours for theirs, ours in zip(times, ours_s)), 3)
            for name, times in others.items()
        },
    }


def training_rows(texts: list[str], rounds: int) -> list[dict]:
    small = "".join(texts)[:185_000]
    ours, every, unique = [], [], []
    for _ in range(rounds):
        merges: list[tuple] = []
        ours.append(timed(Tokenizer.train, small, 512, on_merge=lambda *merge, to=merges: to.append(merge[1:3]))[0])
        for times, is_unique in ((every, False), (unique, True)):
            time_s, naive = timed(recount_train, small, 256, is_unique=is_unique)
            times.append(time_s)
            assert naive == merges
    others = {"recount of every word": every, "recount of every different word": unique}
    rows = [row("train, 185 kB of code, 256 merges", ours, others, len(small))]

    for what, documents, vocab_size in (
        ("train, 5 MB of code, 4096 ids", up_to(5_000_000, texts), 4096),
        ("train, 4 MB of English, 1024 ids", [english(texts)[:4_000_000]], 1024),
    ):
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(timed(Tokenizer.train, documents, vocab_size)[0])
            theirs.append(timed(hugging_face_train, documents, vocab_size)[0])
        rows.append(row(what, ours, {"tokenizers": theirs}, sum(map(len, documents))))
    return rows


def encoding_rows(texts: list[str], rounds: int) -> list[dict]:
    table = large_vocabulary(texts)
    tiktok = tiktoken.Encoding("trained here", pat_str=LLAMA3_PATTERN, mergeable_ranks=table.ranks, special_tokens={})
    hugging_face = hugging_face_from(table).to_str()
    # Meta cuts what is longer than 400,000 characters; the others do not, and their ids differ at the cut.
    short = [text for text in texts if len(text) < 400_000]
    random.Random(0).shuffle(short)
    first = up_to(4_000_000, short)
    second = up_to(4_000_000, short[len(first) :])

    passes = {"cold": first, "warm, the same text again": first, "warm, other text": second}
    ours = {name: [] for name in passes}
    others = {name: {"tiktoken": [], "tokenizers": []} for name in passes}
    for _ in range(rounds):
        tok, theirs = Tokenizer(table.ranks), tokenizers.Tokenizer.from_str(hugging_face)  # both remember nothing yet
        for name, documents in passes.items():
            time_s, ids = timed(encode_all, tok.encode, documents)
            ours[name].append(time_s)
            time_s, expected = timed(encode_all, tiktok.encode_ordinary, documents)
            others[name]["tiktoken"].append(time_s)
            assert ids == expected
            time_s, encodings = timed(encode_all, theirs.encode, documents)
            others[name]["tokenizers"].append(time_s)
            assert ids == [encoding.ids for encoding in encodings]
    return [
        row(f"encode, 32768 ids, code, {name}", ours[name], others[name], sum(map(len, documents)))
        for name, documents in passes.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    texts = standard_library()
    rows = training_rows(texts, min(args.rounds, 3)) + encoding_rows(texts, args.rounds)
    write("tokenizer", {"n_threads": 1, "rows": rows}, packages=("regex", "tiktoken", "tokenizers"))
    for line in rows:
        print(f"{line['what']:<52} {line['ours_s']:8.3f} s  {line['ours_mchars_per_s']:7.2f} Mchar/s")
        for name, ratio in line["speed_over"].items():
            print(f"    {name:<48} {line['others_s'][name]:8.3f} s  we are {ratio:.2f} x as fast")


if __name__ == "__main__":
    main()
