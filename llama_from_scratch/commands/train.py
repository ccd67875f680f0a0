"""`llama train`: a tokenizer and a model from any text."""

import argparse
import sys
from pathlib import Path

from llama_from_scratch.commands.device import usable_device
from llama_from_scratch.commands.numbers import real, seed, whole
from llama_from_scratch.commands.terminal import shown_line


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "train", help="train a tokenizer and a model on any text",
        description="Trains a tokenizer on the text, then a model, and saves both. The defaults "
        "make a model of about 1M parameters in about two minutes on one core of a laptop. Ctrl-C "
        "stops and keeps what was learnt.")
    parser.set_defaults(run=run, is_lasting=True)
    _add_data_arguments(parser)
    parser.add_argument("--out", type=Path,
                        help="the folder to save to (default: runs/NAME_OF_DATA)")
    parser.add_argument("--resume", action="store_true",
                        help="go on with the run in --out; repeat its other arguments")
    parser.add_argument("--steps", type=whole(), default=1200)
    parser.add_argument("--batch", type=whole(), default=4, metavar="ROWS",
                        help="windows per step (default 4)")
    parser.add_argument("--seq-len", type=whole(), metavar="TOKENS",
                        help="tokens per window (default 256, or the context if that is less)")
    parser.add_argument("--lr", type=real,
                        help="peak learning rate (default: that of TrainConfig)")
    _add_model_arguments(parser)
    parser.add_argument("--validation", type=real, default=0.05, metavar="FRACTION",
                        help="kept apart to judge by (default 0.05)")
    parser.add_argument("--seed", type=seed(), default=0)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default cpu)")
    parser.add_argument("--bf16", action="store_true",
                        help="multiply matrices in bfloat16: faster on GPUs and some CPUs")


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="a UTF-8 text file, or a folder of them "
                        "(default: the bundled stories)")
    parser.add_argument("--suffix", action="append", metavar=".EXT",
                        help="of a folder, read only such files; may be repeated")
    parser.add_argument("--blank-lines", action="store_true",
                        help="blank lines stand between documents inside a file")
    parser.add_argument("--skip-bad-files", action="store_true",
                        help="leave out files that are not UTF-8, and name them")


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vocab", type=whole(), default=1024,
                        help="size of the vocabulary (default 1024)")
    parser.add_argument("--dim", type=whole(), default=128, help="width of the model (default 128)")
    parser.add_argument("--layers", type=whole(), default=4)
    parser.add_argument("--heads", type=whole(), default=4)
    parser.add_argument("--kv-heads", type=whole(),
                        help="key/value heads (default 2, or 1 if --heads is odd)")
    parser.add_argument("--context", type=whole(), default=512, metavar="TOKENS",
                        help="longest text the model takes (default 512)")


def run(args: argparse.Namespace) -> int:
    """Trains and saves; prints a sample of the model's text after each validation."""
    import torch

    from llama_from_scratch import bundled
    from llama_from_scratch.checkpoint import native
    from llama_from_scratch.model.transformer import Llama
    from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
    from llama_from_scratch.train import Packed, split_validation, train
    from llama_from_scratch.train.progress import ProgressBar

    path = bundled.path("stories.txt") if args.data is None else args.data
    out = Path("runs", path.stem) if args.out is None else args.out
    device = usable_device(args.device)
    if args.seq_len is None:
        args.seq_len = min(256, args.context)
    if args.kv_heads is None:
        args.kv_heads = 1 if args.heads % 2 else 2
    config = _train_config(args)
    if args.seq_len > args.context:
        raise ValueError("a window must fit into the model's context; "
                         f"got --seq-len {args.seq_len}, --context {args.context}")

    texts, held_out = split_validation(_documents(path, args), fraction=args.validation)
    if args.resume:
        tokenizer = native.load_tokenizer(out)
    else:
        print(f"training a tokenizer of {args.vocab} tokens on {path} ...", flush=True)
        tokenizer = Tokenizer.train(texts, args.vocab, special_tokens=BEGIN_AND_END)
    data, validation = Packed(texts, tokenizer), Packed(held_out, tokenizer)
    torch.manual_seed(args.seed)
    model = Llama(_model_config(args)).to(device)
    n_seen = config.n_steps * config.batch_size * config.seq_len
    print(f"{data.n_documents:,} documents, {data.n_bytes:,} bytes, {data.n_tokens:,} tokens; "
          f"a model of {model.config.n_params:,} parameters will read {n_seen:,} tokens",
          flush=True)
    show = ProgressBar(sys.stderr, n_steps=config.n_steps)

    def on_step(step):
        show(step)
        if step.validation is not None:
            print(f"  {_sample(model, tokenizer)!r}", flush=True)

    history = train(model, data, config=config, validation=validation, folder=out,
                    is_resumed=args.resume, on_step=on_step)
    _print_end(history, out)
    return 0


def _train_config(args: argparse.Namespace):
    from llama_from_scratch.train import TrainConfig

    every = max(args.steps // 6, 1)
    return TrainConfig(
        n_steps=args.steps, batch_size=args.batch, seq_len=args.seq_len,
        n_warmup=args.steps // 12, seed=args.seed, is_bf16=args.bf16, validate_every=every,
        checkpoint_every=every, **({} if args.lr is None else {"peak_lr": args.lr}))


def _model_config(args: argparse.Namespace):
    from llama_from_scratch.config import LayerSpec, LlamaConfig
    from llama_from_scratch.family import ffn_dim

    return LlamaConfig(
        dim=args.dim, n_heads=args.heads, n_kv_heads=args.kv_heads,
        ffn_dim=ffn_dim(args.dim, multiple_of=32), vocab_size=args.vocab,
        max_seq_len=args.context, norm_eps=1e-5, rope_theta=1e4,
        layers=(LayerSpec(),) * args.layers, is_tied=True)


def _documents(path: Path, args: argparse.Namespace):
    from llama_from_scratch.train import read_documents

    def skip(file: Path, reason: str) -> None:
        print(shown_line(f"left out {file}: {reason}"), file=sys.stderr)

    separator = "\n\n" if args.blank_lines or args.data is None else None
    return read_documents(path, separator=separator, suffixes=args.suffix,
                          on_skip=skip if args.skip_bad_files else None)


def _print_end(history, out: Path) -> None:
    from llama_from_scratch.train.progress import duration

    if not history.steps:
        print("stopped before the first step; nothing to save")
        return
    took = duration(sum(step.time_s for step in history.steps))
    print(f"\nsaved in {out} after {len(history.steps)} steps and {took}. "
          f"Write with it: llama generate {out}")
    if not history.is_complete:
        print("stopped early; the same command with --resume goes on")


def _sample(model, tokenizer) -> str:
    """The beginning of a text as the model writes it now, on one line."""
    from llama_from_scratch.generate.generate import stream_text
    from llama_from_scratch.generate.sampling import Sampling

    sampling = Sampling(temperature=0.7, top_p=0.95)
    max_tokens = min(40, model.config.max_seq_len - 1)
    return "".join(stream_text(model, tokenizer, prompt="", max_tokens=max_tokens,
                               sampling=sampling))
