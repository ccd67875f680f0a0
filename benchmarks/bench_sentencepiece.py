"""How fast the tokenizer of Llama 1 and 2 encodes and decodes, beside SentencePiece itself and Hugging Face tokenizers.

A vocabulary of 8,192 pieces is learned from stories and Python sources. All run on one thread and take turns, the clock
counts the processor's seconds, and a ratio is the median over rounds. Cold is a tokenizer that has just been loaded.

    python benchmarks/bench_sentencepiece.py        # prints the table, writes benchmarks/results/sentencepiece.json
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # before tokenizers starts its threads

import sentencepiece
import tokenizers
from bench_tokenizer import ROOT, standard_library, up_to
from measure import race, ratio, write

from llama_from_scratch.bundled import path
from llama_from_scratch.tokenizer import hugging_face
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


def vocabulary(texts: list[str]) -> Path:
    file = ROOT / "build" / "bench-8192.sentencepiece"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        SentencePiece.train(texts, 8192).save(file)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    sources = up_to(3_000_000, standard_library())
    stories = path("stories.txt").read_text("utf-8")
    documents = {
        "English stories": [stories[i : i + 20_000] for i in range(0, 2_000_000, 20_000)],
        "Python sources": up_to(1_000_000, sources[::-1]),
        # the worst case: nothing comes twice, and all of it becomes bytes
        "40,000 unknown characters": ["".join(map(chr, range(begin, begin + 5000))) for begin in range(0xA0, 0xA000, 5000)] * 3,
    }
    file = vocabulary([stories[:2_000_000], *sources])
    ours, theirs = SentencePiece.load(file), sentencepiece.SentencePieceProcessor(model_file=str(file))
    with tempfile.TemporaryDirectory() as folder:
        hugging_face.write(Path(folder) / "tokenizer.json", ours)
        written = (Path(folder) / "tokenizer.json").read_text("utf-8")
    rows = []
    for what, texts in documents.items():
        n_chars = sum(map(len, texts))
        ids = [ours.encode(text) for text in texts]
        assert ids == [theirs.encode(text) for text in texts]

        warm = tokenizers.Tokenizer.from_str(written)
        assert ids == [warm.encode(text, add_special_tokens=False).ids for text in texts]
        assert [ours.decode(each) for each in ids] == [theirs.decode(each) for each in ids]
        cold = [SentencePiece(ours.pieces) for _ in range(args.rounds + 1)]
        times = race({
            "cold": lambda texts=texts, cold=cold: [*map(cold.pop().encode, texts)],
            "warm": lambda texts=texts: [*map(ours.encode, texts)],
            "sentencepiece": lambda texts=texts: [*map(theirs.encode, texts)],
            "tokenizers": lambda texts=texts, warm=warm: [warm.encode(text, add_special_tokens=False).ids for text in texts],
        }, n_rounds=args.rounds, clock=time.process_time)
        for state in ("cold", "warm"):
            rows.append(row(f"encode, {what}, {state}", times, state, ["sentencepiece", "tokenizers"], n_chars))
        times = race({
            "ours": lambda ids=ids: [*map(ours.decode, ids)],
            "sentencepiece": lambda ids=ids: [*map(theirs.decode, ids)],
            "tokenizers": lambda ids=ids, warm=warm: [*map(warm.decode, ids)],
        }, n_rounds=args.rounds, clock=time.process_time)
        rows.append(row(f"decode, {what}", times, "ours", ["sentencepiece", "tokenizers"], n_chars))
    write("sentencepiece", {"n_threads": 1, "rows": rows}, packages=("sentencepiece", "tokenizers"))
    for line in rows:
        ratios = (f"{times:6.2f} x {name}" for name, times in line["speed_over"].items())
        print(f"{line['what']:<40} {line['mchars_per_s']:7.2f} Mchar/s", *ratios)


def row(what: str, times: dict[str, list[float]], ours: str, others: list[str], n_chars: int) -> dict:
    """A ratio above 1 says how many times faster than the other we are."""
    return {
        "what": what,
        "n_chars": n_chars,
        "rounds": len(times[ours]),
        "mchars_per_s": round(n_chars / 1e6 / statistics.median(times[ours]), 2),
        "speed_over": {name: round(ratio(times, name, ours), 2) for name in others},
    }


if __name__ == "__main__":
    main()
