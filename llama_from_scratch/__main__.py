"""The command `llama`: train on any text, write, chat, convert checkpoints. `llama COMMAND --help` says more.

Thin: each command reads its arguments, calls the library and prints. What the user can mend is said in one line.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 1 if `doctor` finds something wrong, 2 for what the user can mend."""
    args = _parser().parse_args(argv)
    try:
        return args.command(args)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"llama: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama", description="Build, train and run small Llamas.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train", help="train a tokenizer and a model on any text",
        description="Trains a tokenizer on the text, then a model, and saves both. The defaults make a model of about 1M "
        "parameters in about two minutes on one core of a laptop. Ctrl-C stops and keeps what was learnt.")
    train.set_defaults(command=_train)
    train.add_argument("--data", type=Path, help="a UTF-8 text file, or a folder of them (default: the bundled stories)")
    train.add_argument("--suffix", action="append", metavar=".EXT", help="of a folder, read only such files; may be repeated")
    train.add_argument("--blank-lines", action="store_true", help="blank lines stand between documents inside a file")
    train.add_argument("--skip-bad-files", action="store_true", help="leave out files that are not UTF-8, and name them")
    train.add_argument("--out", type=Path, help="the folder to save to (default: runs/NAME_OF_DATA)")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out; repeat its other arguments")
    train.add_argument("--steps", type=int, default=1200)
    train.add_argument("--batch", type=int, default=4, metavar="ROWS", help="windows per step (default 4)")
    train.add_argument("--seq-len", type=int, default=256, metavar="TOKENS", help="tokens per window (default 256)")
    train.add_argument("--lr", type=float, help="peak learning rate (default: that of TrainConfig)")
    train.add_argument("--vocab", type=int, default=1024, help="size of the vocabulary (default 1024)")
    train.add_argument("--dim", type=int, default=128, help="width of the model (default 128)")
    train.add_argument("--layers", type=int, default=4)
    train.add_argument("--heads", type=int, default=4)
    train.add_argument("--kv-heads", type=int, default=2)
    train.add_argument("--context", type=int, default=512, metavar="TOKENS", help="longest text the model takes (default 512)")
    train.add_argument("--validation", type=float, default=0.05, metavar="FRACTION",
                       help="kept apart to judge by (default 0.05)")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="cpu", help="cpu, cuda or mps (default cpu)")
    train.add_argument("--bf16", action="store_true", help="multiply matrices in bfloat16: faster on GPUs and some CPUs")

    generate = commands.add_parser("generate", help="continue a text")
    generate.set_defaults(command=_generate)
    generate.add_argument("--prompt", default="", help="the beginning (default: none)")
    chat = commands.add_parser(
        "chat", help="talk with a model, or write stories together",
        description="You write a line, the model answers, and all of it is remembered. A model that was not made for chats "
        "continues your openings of stories instead. An empty line ends it.")
    chat.set_defaults(command=_chat)
    chat.add_argument("--system", metavar="TEXT", help="what the model reads before all else")
    chat.add_argument("--chat-format", metavar="NAME", help="llama-2, llama-3, llama-3.1, llama-3.2, llama-3.3, or none to "
                      "write stories (default: that of the model's tokenizer)")
    for command, length in ((generate, "200"), (chat, "500, of stories 200")):
        command.add_argument("model", nargs="?", help="a checkpoint's folder or file, or an id on the Hugging Face hub "
                             "(default: the bundled mini model)")
        command.add_argument("--max-tokens", type=int, help=f"the most tokens of an answer (default {length})")
        command.add_argument("--temperature", type=float, default=0.7, help="0 takes the likeliest token (default 0.7)")
        command.add_argument("--top-k", type=int)
        command.add_argument("--top-p", type=float, default=0.95)
        command.add_argument("--seed", type=int, default=0)

    tokenize = commands.add_parser("tokenize", help="show how a text becomes tokens")
    tokenize.set_defaults(command=_tokenize)
    source = tokenize.add_mutually_exclusive_group(required=True)
    source.add_argument("text", nargs="?", help="the text itself")
    source.add_argument("--file", type=Path, help="or a UTF-8 file")
    tokenize.add_argument("--model", help="a checkpoint's folder or file, or an id on the Hugging Face hub "
                          "(default: the bundled mini model)")

    mini = commands.add_parser(
        "mini", help="write a small checkpoint with the files of a published one",
        description="Writes a checkpoint with the files, names and dtype of a published Llama, thousands of times smaller: it "
        "tells stories, and chats in its family's format. The first of a family is trained in two minutes, and kept.")
    mini.set_defaults(command=_mini)
    mini.add_argument("--family", default="llama-2",
                      help="llama-1, llama-2, llama-3, llama-3.1, llama-3.2 or llama-3.3 (default llama-2)")
    convert = commands.add_parser(
        "convert", help="write a checkpoint in another format",
        description="Reads a checkpoint of any format and writes it in another. Nothing is rounded unless --dtype asks for it.")
    convert.set_defaults(command=_convert)
    convert.add_argument("source", metavar="A", help="a checkpoint's folder or file, or an id on the Hugging Face hub")
    convert.add_argument("target", metavar="B", type=Path, help="a new folder, or for gguf a new file")
    mini.add_argument("--out", type=Path, required=True, metavar="B", help="a new folder, or for gguf a new file")
    formats = "hugging-face, meta, gguf, llama2c or native"
    mini.add_argument("--format", default="meta", help=f"{formats} (default meta)")
    convert.add_argument("--format", required=True, help=formats)
    for command, usual in ((mini, "as published"), (convert, "as it is")):
        command.add_argument("--dtype", help=f"float32, bfloat16, float16, and for gguf q8_0 (default: {usual})")
        command.add_argument("--shards", type=int, default=1, metavar="N",
                             help="how many weight files, in meta and hugging-face (default 1)")

    inspect = commands.add_parser(
        "inspect", help="show what a checkpoint is and what running it takes",
        description="Shows the format, family, sizes, memory and chat format of a checkpoint. No weights are read.")
    inspect.set_defaults(command=_inspect)
    inspect.add_argument("model", metavar="PATH", help="a checkpoint's folder or file, or an id on the Hugging Face hub")

    progress = commands.add_parser("progress", help="show which exercises are done")
    progress.set_defaults(command=_progress)
    progress.add_argument("--done", metavar="12.4", help="first tick off one that has no code to check")

    doctor = commands.add_parser("doctor", help="say what is missing or wrong on this machine, and the cure")
    doctor.set_defaults(command=_doctor)
    return parser


def _train(args: argparse.Namespace) -> int:
    import torch

    from llama_from_scratch import bundled
    from llama_from_scratch.checkpoint import native
    from llama_from_scratch.config import LayerSpec, LlamaConfig
    from llama_from_scratch.family import ffn_dim
    from llama_from_scratch.model.transformer import Llama
    from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
    from llama_from_scratch.train import Packed, TrainConfig, read_documents, split_validation, train
    from llama_from_scratch.train.progress import ProgressBar, duration

    path = bundled.path("stories.txt") if args.data is None else args.data
    out = Path("runs", path.stem) if args.out is None else args.out
    device = _device(args.device)
    every = max(args.steps // 6, 1)
    config = TrainConfig(
        n_steps=args.steps, batch_size=args.batch, seq_len=args.seq_len, n_warmup=args.steps // 12, seed=args.seed,
        is_bf16=args.bf16, validate_every=every, checkpoint_every=every, **({} if args.lr is None else {"peak_lr": args.lr}))
    if args.seq_len > args.context:
        raise ValueError(f"a window must fit into the model's context; got --seq-len {args.seq_len}, --context {args.context}")

    def skip(file: Path, reason: str) -> None:
        print(f"left out {file}: {reason}", file=sys.stderr)

    documents = read_documents(path, separator="\n\n" if args.blank_lines or args.data is None else None,
                               suffixes=args.suffix, on_skip=skip if args.skip_bad_files else None)
    texts, held_out = split_validation(documents, fraction=args.validation)
    if args.resume:
        tokenizer = native.load_tokenizer(out)
    else:
        print(f"training a tokenizer of {args.vocab} tokens on {path} ...", flush=True)
        tokenizer = Tokenizer.train(texts, args.vocab, special_tokens=BEGIN_AND_END)
    data, validation = Packed(texts, tokenizer), Packed(held_out, tokenizer)
    torch.manual_seed(args.seed)
    model = Llama(LlamaConfig(
        dim=args.dim, n_heads=args.heads, n_kv_heads=args.kv_heads, ffn_dim=ffn_dim(args.dim, multiple_of=32),
        vocab_size=args.vocab, max_seq_len=args.context, norm_eps=1e-5, rope_theta=1e4,
        layers=(LayerSpec(),) * args.layers, is_tied=True)).to(device)
    n_seen = config.n_steps * config.batch_size * config.seq_len
    print(f"{data.n_documents:,} documents, {data.n_bytes:,} bytes, {data.n_tokens:,} tokens; "
          f"a model of {model.config.n_params:,} parameters will read {n_seen:,} tokens", flush=True)
    show = ProgressBar(sys.stderr, n_steps=config.n_steps)

    def on_step(step):
        show(step)
        if step.validation is not None:
            print(f"  {_sample(model, tokenizer)!r}", flush=True)

    history = train(model, data, config=config, validation=validation, folder=out, is_resumed=args.resume, on_step=on_step)
    if not history.steps:
        print("stopped before the first step; nothing to save")
    else:
        took = duration(sum(step.time_s for step in history.steps))
        print(f"\nsaved in {out} after {len(history.steps)} steps and {took}. Write with it: llama generate {out}"
              + ("" if history.is_complete else "\nstopped early; the same command with --resume goes on"))
    return 0


def _sample(model, tokenizer) -> str:
    """The beginning of a text as the model writes it now, on one line."""
    from llama_from_scratch.generate.generate import stream_text
    from llama_from_scratch.generate.sampling import Sampling

    sampling = Sampling(temperature=0.7, top_p=0.95)
    max_tokens = min(40, model.config.max_seq_len - 1)
    return "".join(stream_text(model, tokenizer, prompt="", max_tokens=max_tokens, sampling=sampling))


def _generate(args: argparse.Namespace) -> int:
    model, tokenizer = _load(args.model)
    _write(model, tokenizer, args.prompt, args, seed=args.seed)
    return 0


def _chat(args: argparse.Namespace) -> int:
    from llama_from_scratch.checkpoint.inspect import chat_format
    from llama_from_scratch.config import nearest
    from llama_from_scratch.generate.chat import Chat
    from llama_from_scratch.tokenizer.chat_format import FORMATS

    if args.chat_format not in (None, "none", *FORMATS):
        raise ValueError(f"no chat format is called {args.chat_format!r}; {nearest(args.chat_format, (*FORMATS, 'none'))}")
    model, tokenizer = _load(args.model)
    found = chat_format(model.config, tokenizer) if args.chat_format is None else FORMATS.get(args.chat_format)
    if found is None and args.system is not None:
        raise ValueError("a system message needs a chat format, and this model has none. Leave --system out, or name a format "
                         "with --chat-format")
    if found is None:
        print("This model continues stories; it cannot answer. Give an opening, such as: Once there was a small fox who\n"
              "An empty line ends it.")
        _converse("\nopening> ", lambda text, turn: _write(model, tokenizer, text, args, seed=args.seed + turn))
        return 0
    chat = Chat(model, tokenizer, format=found, system=args.system)
    print(f"Chat in the format of {found.name}. An empty line ends it. /reset forgets what was said, /system TEXT says what "
          "the model\nreads before all else, Ctrl-C stops an answer.")
    _converse("\nyou> ", lambda text, turn: _say(chat, text, args, seed=args.seed + turn))
    return 0


def _converse(prompt: str, answer: Callable[[str, int], object]) -> None:
    """Lines until an empty one; what is wrong with a line is said, and the next one may be better."""
    for turn in range(sys.maxsize):
        try:
            text = input(prompt).strip()
        except EOFError:
            text = ""
        if not text:
            return
        try:
            answer(text, turn)
        except ValueError as error:
            print(f"llama: {error}", file=sys.stderr)


def _say(chat, text: str, args: argparse.Namespace, *, seed: int) -> None:
    command, _, rest = text.partition(" ")
    if command == "/reset":
        chat.reset()
        print("(all forgotten)")
    elif command == "/system":
        chat.system = rest.strip() or None
        print("(the model reads that from now on)" if chat.system else "(there is no system message from now on)")
    elif command.startswith("/"):
        print("(commands are /reset and /system TEXT; an empty line ends the chat)")
    else:
        n_before, max_tokens = chat.n_forgotten, 500 if args.max_tokens is None else args.max_tokens
        try:
            for piece in chat.say(text, max_tokens=max_tokens, sampling=_sampling(args), seed=seed):
                print(piece, end="", flush=True)
            print("\n(cut here; say for example: go on)" if chat.is_cut else "")
        except KeyboardInterrupt:
            print("\n(stopped)")
        if chat.n_forgotten > n_before:
            print(f"(the context of {chat.context:,} tokens is full: the first {chat.n_forgotten} messages are forgotten)")


def _write(model, tokenizer, prompt: str, args: argparse.Namespace, *, seed: int) -> None:
    from llama_from_scratch.generate.generate import stream_text

    print(prompt, end="", flush=True)
    max_tokens = 200 if args.max_tokens is None else args.max_tokens
    for piece in stream_text(model, tokenizer, prompt=prompt, max_tokens=max_tokens, sampling=_sampling(args), seed=seed):
        print(piece, end="", flush=True)
    print()


def _sampling(args: argparse.Namespace):
    from llama_from_scratch.generate.sampling import Sampling

    return Sampling(temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)


def _tokenize(args: argparse.Namespace) -> int:
    from llama_from_scratch import bundled
    from llama_from_scratch.checkpoint.load import open_checkpoint
    from llama_from_scratch.train.data import read_text

    tokenizer = open_checkpoint(bundled.path("mini") if args.model is None else args.model).tokenizer()
    text = args.text if args.file is None else read_text(args.file)
    ids = tokenizer.encode(text)
    for token in ids:
        piece = tokenizer.decode_bytes([token])
        try:
            print(f"{token:7}  {piece.decode()!r}")
        except UnicodeDecodeError:  # part of a character
            print(f"{token:7}  {piece!r}")
    n_bytes = len(text.encode(errors="replace"))
    print(f"{len(ids):,} tokens for {n_bytes:,} bytes: {n_bytes / max(len(ids), 1):.2f} bytes per token")
    return 0


def _mini(args: argparse.Namespace) -> int:
    from llama_from_scratch.train.mini import TRAINING, mini
    from llama_from_scratch.train.progress import ProgressBar

    show = ProgressBar(sys.stderr, n_steps=TRAINING.n_steps)
    mini(args.out, family=args.family, format=args.format, dtype=args.dtype, n_shards=args.shards, on_step=show)
    _tell_written(args.out)
    return 0


def _convert(args: argparse.Namespace) -> int:
    from llama_from_scratch.checkpoint.convert import convert

    convert(args.source, args.target, format=args.format, dtype=args.dtype, n_shards=args.shards, on_tensor=_show_loading)
    _tell_written(args.target)
    return 0


def _tell_written(path: Path) -> None:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        print(f"{file.stat().st_size:14,}  {file}")
    print(f"Look at it with: llama inspect {path}. Talk to it with: llama chat {path}")


def _inspect(args: argparse.Namespace) -> int:
    from llama_from_scratch.checkpoint.inspect import facts
    from llama_from_scratch.checkpoint.load import open_checkpoint

    rows = facts(open_checkpoint(args.model))
    for name, value in rows.items():
        print(f"{name:{max(map(len, rows))}}  {value}")
    return 0


def _progress(args: argparse.Namespace) -> int:
    from llama_from_scratch.lessons import exercises

    if args.done is not None:
        exercises.passed(args.done)
    print(exercises.progress_table())
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from llama_from_scratch import doctor

    findings = doctor.report()
    for finding in findings:
        print(f"{'ok     ' if finding.is_ok else 'PROBLEM'}  {finding.name}: {finding.found}")
        if finding.cure:
            print(f"         -> {finding.cure}")
    return 0 if all(finding.is_ok for finding in findings) else 1


def _load(model: str | None):
    import llama_from_scratch
    from llama_from_scratch import bundled

    return llama_from_scratch.load(bundled.path("mini") if model is None else model, on_tensor=_show_loading)


def _show_loading(n_bytes_done: int, n_bytes: int) -> None:
    """How much is read, on one line of a terminal, where it takes long enough to wonder."""
    if n_bytes > 100_000_000 and sys.stderr.isatty():
        end = "\n" if n_bytes_done == n_bytes else ""
        print(f"\rloading: {n_bytes_done / n_bytes:4.0%} of {n_bytes / 1e9:.1f} GB", end=end, file=sys.stderr, flush=True)


def _device(name: str) -> str:
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name.split(":")[0], False):
        usable = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise ValueError(f"PyTorch cannot use the device {name!r} here; it can use {usable}. `llama doctor` says more")
    return name


if __name__ == "__main__":
    sys.exit(main())
