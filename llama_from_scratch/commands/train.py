"""`llama train`: trains a tokenizer and a model on any text."""

import argparse
import sys
from pathlib import Path

from llama_from_scratch.commands import fusing, on_mesh
from llama_from_scratch.commands.numbers import real, seed, whole
from llama_from_scratch.commands.terminal import shown_line


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "train", help="train a tokenizer and a model on any text",
        description="Trains a tokenizer on the text, then a model, and saves both. The defaults "
        "make a model of about 1M parameters in about two minutes on one core of a laptop. Ctrl-C "
        "stops the training and saves the model.")
    parser.set_defaults(run=run, is_lasting=True)
    _add_data_arguments(parser)
    parser.add_argument("--out", type=Path,
                        help="the folder to save to (default: runs/NAME_OF_DATA)")
    parser.add_argument("--resume", action="store_true",
                        help="continue the run in --out, with the arguments saved there; with more "
                        "--steps, the learning rate follows a schedule of that length")
    parser.add_argument("--resume-if-saved", action="store_true",
                        help="continue the run in --out if there is one, and begin it otherwise: "
                        "for a command that is started again after a failure, as by torchrun "
                        "--max-restarts")
    parser.add_argument("--from", dest="origin", metavar="MODEL",
                        help="start a new run from the weights of a run or any other checkpoint, "
                        "with its sizes and tokenizer and a fresh optimizer")
    parser.add_argument("--steps", type=whole(), help="(default 1200)")
    parser.add_argument("--batch", type=whole(), metavar="ROWS",
                        help="windows per step (default 4)")
    parser.add_argument("--micro-batch", type=whole(), metavar="ROWS",
                        help="windows that go through the model at once (default: all of a "
                        "process's windows); fewer need less memory")
    parser.add_argument("--seq-len", type=whole(), metavar="TOKENS",
                        help="tokens per window (default 256, or the context if that is less)")
    parser.add_argument("--lr", type=real,
                        help="peak learning rate (default: as in TrainConfig)")
    parser.add_argument("--every", type=whole(), metavar="STEPS",
                        help="validate and save every STEPS steps (default: a sixth of the run)")
    _add_model_arguments(parser)
    parser.add_argument("--validation", type=real, metavar="FRACTION",
                        help="the part of the text kept for validation (default 0.05)")
    parser.add_argument("--seed", type=seed(), help="(default 0)")
    parser.add_argument("--device", help="cpu, cuda or mps (default cpu)")
    parser.add_argument("--bf16", action="store_true", default=None,
                        help="multiply matrices in bfloat16: faster on GPUs and some CPUs")
    fusing.add_arguments(parser, what="the model, the loss and the optimizer")
    on_mesh.add_arguments(parser)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="a UTF-8 text file, or a folder of them "
                        "(default: the bundled stories)")
    parser.add_argument("--suffix", action="append", metavar=".EXT",
                        help="in a folder, read only files with this suffix; may be repeated")
    parser.add_argument("--blank-lines", action="store_true", default=None,
                        help="blank lines separate the documents in a file")
    parser.add_argument("--skip-bad-files", action="store_true", default=None,
                        help="leave out files that are not UTF-8, and name them")


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vocab", type=whole(), help="size of the vocabulary (default 1024)")
    parser.add_argument("--dim", type=whole(), help="width of the model (default 128)")
    parser.add_argument("--layers", type=whole(), help="(default 4)")
    parser.add_argument("--heads", type=whole(), help="(default 4)")
    parser.add_argument("--kv-heads", type=whole(),
                        help="key/value heads (default 2, or 1 if --heads is odd)")
    parser.add_argument("--context", type=whole(), metavar="TOKENS",
                        help="longest text the model takes (default 512)")


_DEFAULTS = dict(steps=1200, batch=4, seq_len=256, vocab=1024, dim=128, layers=4, heads=4,
                 kv_heads=2, context=512, seed=0, bf16=False)
_SOURCE = dict(data=None, suffix=None, blank_lines=False, skip_bad_files=False, validation=0.05,
               device="cpu", fused=None)
"""What a run saves in addition to its settings, so that --resume needs no other argument."""
_OF_TRAINING = dict(steps="n_steps", batch="batch_size", micro_batch="micro_batch_size",
                    seq_len="seq_len", lr="peak_lr", seed="seed", bf16="is_bf16")
_OF_MODEL = dict(vocab="vocab_size", dim="dim", layers="n_layers", heads="n_heads",
                 kv_heads="n_kv_heads", context="max_seq_len")


def run(args: argparse.Namespace) -> int:
    """Trains and saves; prints a sample of the model's text after each validation."""
    if args.resume and args.resume_if_saved:
        raise ValueError("--resume needs a saved run, and --resume-if-saved begins one without; "
                         "got both. Choose one")
    if args.resume and args.origin is not None:
        raise ValueError("--resume continues a run, and --from starts a new one from the weights of"
                         " another; got both. Choose one")
    from llama_from_scratch.checkpoint.folders import find

    out = Path("runs", _data_path(args.data).stem) if args.out is None else args.out
    begin = _resumed if args.resume else _new if args.origin is None else _continued
    with on_mesh.processes(args) as process, process.hold(out) as place:
        if args.resume_if_saved and process.once(lambda: find(place)) is not None:
            args.resume, begin = True, _resumed
        return begin(args, out, place, process)


def _new(args: argparse.Namespace, out: Path, place: Path, process: on_mesh.OneProcess) -> int:
    """Trains a new model with a new tokenizer."""
    import torch

    from llama_from_scratch.model.transformer import Llama
    from llama_from_scratch.parallel.fresh import fresh_weights
    from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
    from llama_from_scratch.train import resume

    resume.refuse_taken(place)
    context = args.context or _DEFAULTS["context"]
    args = _filled(args, _DEFAULTS | _SOURCE | {
        "seq_len": min(_DEFAULTS["seq_len"], context),
        "kv_heads": 1 if (args.heads or _DEFAULTS["heads"]) % 2 else _DEFAULTS["kv_heads"]})
    device, config = process.device(args.device), _train_config(args)
    is_fused = fusing.is_fused(args.fused, device=device, process=process)
    if args.seq_len > args.context:
        raise ValueError("a window must fit into the model's context; "
                         f"got --seq-len {args.seq_len}, --context {args.context}. "
                         "Choose a smaller --seq-len or a larger --context")
    # The embedding first, because even counting a model of absurd sizes takes memory.
    for count in (_n_params_of_embedding, _n_params):
        _refuse_what_does_not_fit(process.n_own(count(args)), args.vocab, config, device=device,
                                  place=place, holds_logits=not is_fused)
    sizes = _model_config(args, n_layers=args.layers)
    process.refuse_unfit(sizes, config)
    texts, held_out = _texts(args)
    process.say(f"training a tokenizer of {args.vocab} tokens on {_data_path(args.data)} ...")
    tokenizer = process.once(lambda: Tokenizer.train(texts, args.vocab,
                                                     special_tokens=BEGIN_AND_END))
    torch.manual_seed(args.seed)
    model, parts = process.model(sizes, plain=lambda: Llama(sizes).to(device),
                                 weights=lambda: fresh_weights(sizes, seed=args.seed))
    return _train(model, tokenizer, texts, held_out, config=config, args=args, out=out,
                  parts=parts, process=process, is_fused=is_fused)


def _resumed(args: argparse.Namespace, out: Path, place: Path, process: on_mesh.OneProcess) -> int:
    """Continues the run in the folder, with its own settings, data and tokenizer."""
    import dataclasses

    from llama_from_scratch.checkpoint import native
    from llama_from_scratch.model.transformer import Llama
    from llama_from_scratch.parallel.training import weights_to_resume
    from llama_from_scratch.train import learning_rate, resume

    saved = resume.read(place)
    sizes = native.load_config(place)
    _refuse_other_sizes(args, sizes, where=out)
    given = {theirs: getattr(args, ours) for ours, theirs in _OF_TRAINING.items()
             if getattr(args, ours) is not None}
    if args.every is not None:
        given |= dict(validate_every=args.every, checkpoint_every=args.every)
    config, n_taken = dataclasses.replace(saved.config, **given), len(saved.steps)
    if n_taken == config.n_steps and config == saved.config and args.data is None:
        process.say(f"the run in {out} is complete after {n_taken} steps; to continue it, give a "
                    "larger --steps")
        return 0
    args = _filled(args, _SOURCE | (saved.source or {}))
    path, device = _data_path(args.data), process.device(args.device)
    is_fused = fusing.is_fused(args.fused, device=device, process=process)
    if not path.exists():
        raise ValueError(f"a resumed run needs its data; the run in {out} was trained on {path}, "
                         "which no longer exists. Restore it, or give its new path with --data")
    _refuse_what_does_not_fit(process.n_own(sizes.n_params), sizes.vocab_size, config,
                              device=device, place=place, holds_logits=not is_fused)
    process.refuse_unfit(sizes, config)
    texts, held_out = _texts(args)
    if config.n_steps != saved.config.n_steps and config.n_steps > n_taken:
        rate = [learning_rate(step, n_steps=config.n_steps, peak=config.peak_lr,
                              n_warmup=config.n_warmup, final_ratio=config.final_lr_ratio)
                for step in (n_taken, config.n_steps - 1)]
        before = f"{saved.steps[-1].lr:.3g} at its last step, " if saved.steps else ""
        process.say(f"the run of {saved.config.n_steps} steps continues to {config.n_steps}; from "
                    f"step {n_taken} on, its learning rate is as in a run of {config.n_steps} "
                    f"steps ({before}{rate[0]:.3g} now, {rate[1]:.3g} at the end)")
    model, parts = process.model(sizes, plain=lambda: Llama(sizes).to(device),
                                 weights=lambda: weights_to_resume(place))
    return _train(model, native.load_tokenizer(place), texts, held_out, config=config, args=args,
                  out=out, parts=parts, process=process, is_fused=is_fused)


def _continued(
    args: argparse.Namespace, out: Path, place: Path, process: on_mesh.OneProcess
) -> int:
    """Trains a new run from the weights of a checkpoint."""
    import torch

    from llama_from_scratch.checkpoint.load import open_checkpoint
    from llama_from_scratch.checkpoint.opened import build
    from llama_from_scratch.train import resume

    resume.refuse_taken(place)
    opened = open_checkpoint(args.origin)
    sizes = opened.config
    _refuse_other_sizes(args, sizes, where=args.origin)
    args = _filled(args, _source_of(args))
    seq_len = min(_DEFAULTS["seq_len"], sizes.max_seq_len)
    args = _filled(args, _DEFAULTS | dict(seq_len=seq_len, context=sizes.max_seq_len))
    if args.seq_len > sizes.max_seq_len:
        raise ValueError("a window must fit into the model's context; got "
                         f"--seq-len {args.seq_len}, and the context of {args.origin} is "
                         f"{sizes.max_seq_len}. Choose a smaller --seq-len")
    config, device = _train_config(args), process.device(args.device)
    is_fused = fusing.is_fused(args.fused, device=device, process=process)
    _refuse_what_does_not_fit(process.n_own(sizes.n_params), sizes.vocab_size, config,
                              device=device, place=place, holds_logits=not is_fused)
    process.refuse_unfit(sizes, config)
    texts, held_out = _texts(args)
    model, parts = process.model(
        sizes, plain=lambda: build(opened, dtype=torch.float32, device=device),
        weights=lambda: opened.tensors(torch.float32))
    process.say(f"a new run from the weights of {args.origin}, in float32")
    return _train(model, opened.tokenizer(), texts, held_out, config=config, args=args, out=out,
                  parts=parts, process=process, is_fused=is_fused)


def _train(
    model, tokenizer, texts, held_out, *, config, args: argparse.Namespace, out: Path, parts,
    process: on_mesh.OneProcess, is_fused: bool,
) -> int:
    from llama_from_scratch.train import Packed, train
    from llama_from_scratch.train.progress import TerminalLine, TrainingProgress

    data, validation = Packed(texts, tokenizer), Packed(held_out, tokenizer)
    n_seen = config.n_steps * config.batch_size * config.seq_len
    process.say(f"{data.n_documents:,} documents, {data.n_bytes:,} bytes, {data.n_tokens:,} "
                f"tokens; a model of {model.config.n_params:,} parameters will read {n_seen:,} "
                "tokens")
    if is_fused:
        parts = fusing.parts_with_kernels(model, process)
    # All processes write the sample, because they share the model; only the first shows it.
    sample = (lambda: _sample(model, tokenizer)) if process.can_write_text else None
    show = TrainingProgress(n_steps=config.n_steps, sample=sample,
                            show=TerminalLine(sys.stderr) if process.is_first else lambda _: None)
    source = {name: getattr(args, name) for name in _SOURCE}
    if args.data is not None:
        source["data"] = str(args.data.absolute())
    history = train(model, data, config=config, validation=validation, folder=out,
                    is_resumed=args.resume, on_step=show, source=source, parts=parts)
    if process.is_first:
        print_end(history, out, use=f"To write with it: llama generate {out}",
                  resume=f"llama train --out {out} --resume")
    return 0


def _filled(args: argparse.Namespace, known: dict) -> argparse.Namespace:
    """Returns the arguments, with the values of `known` where the user gave none.

    `data` becomes a Path.
    """
    given = {name: value for name, value in vars(args).items() if value is not None}
    filled = vars(args) | known | given
    data = filled.get("data")
    return argparse.Namespace(**filled | {"data": None if data is None else Path(data)})


def _source_of(args: argparse.Namespace) -> dict:
    """Returns where the data of a new run comes from: --data, or the run that it starts from."""
    from llama_from_scratch.checkpoint.folders import find
    from llama_from_scratch.train import resume

    if args.data is not None:
        return _SOURCE
    found = find(args.origin)
    source = (resume.read(found).source if found is not None
              and (found / "training.json").is_file() else None)
    if source is None:
        raise ValueError(f"a new run needs text, and {args.origin} does not record the text it was "
                         "trained on. Give a text with --data")
    return _SOURCE | source | {name: _SOURCE[name] for name in ("device", "fused")}


def _refuse_other_sizes(args: argparse.Namespace, config, *, where: object) -> None:
    differing = [f"--{flag.replace('_', '-')} is {getattr(config, name)} there and "
                 f"{getattr(args, flag)} here" for flag, name in _OF_MODEL.items()
                 if getattr(args, flag) not in (None, getattr(config, name))]
    if differing:
        raise ValueError(f"the model keeps its sizes from {where}; {'; '.join(differing)}. "
                         "Leave these arguments out, or train a new model, without --resume and "
                         "--from")


def _refuse_what_does_not_fit(
    n_params: int, vocab_size: int, config, *, device: str, place: Path, holds_logits: bool
) -> None:
    """Raises ValueError if the run does not fit into memory or onto the disk.

    Called before the data is read and a tokenizer is trained, which may take minutes.
    """
    from llama_from_scratch.train.space import refuse_full_disk, refuse_too_little_memory

    n_logits = config.batch_size * config.seq_len * vocab_size if holds_logits else 0
    refuse_too_little_memory(n_params, device=device, is_built=False, n_logits=n_logits)
    refuse_full_disk(place, n_bytes=12 * n_params, n_copies=1)


def _n_params_of_embedding(args: argparse.Namespace) -> int:
    return args.vocab * args.dim


def _n_params(args: argparse.Namespace) -> int:
    """Returns the number of the model's parameters. Raises ValueError if PyTorch cannot count them.

    It follows from the counts with one layer and with two, because a million layers would take
    long.
    """
    try:
        _model_config(args, n_layers=min(args.layers, 1))  # refuses a model without layers
        one, two = (_model_config(args, n_layers=n).n_params for n in (1, 2))
    except (RuntimeError, OverflowError) as error:
        raise ValueError("a model must fit into memory, and no machine holds one of these sizes "
                         f"({str(error).splitlines()[0]:.120}); got --dim {args.dim}, --vocab "
                         f"{args.vocab}. Choose smaller ones") from error
    return one + (args.layers - 1) * (two - one)


def _train_config(args: argparse.Namespace):
    from llama_from_scratch.train import TrainConfig

    every = max(args.steps // 6, 1) if args.every is None else args.every
    return TrainConfig(
        n_steps=args.steps, batch_size=args.batch, seq_len=args.seq_len,
        n_warmup=args.steps // 12, seed=args.seed, is_bf16=args.bf16, validate_every=every,
        checkpoint_every=every, micro_batch_size=args.micro_batch,
        **({} if args.lr is None else {"peak_lr": args.lr}))


def _model_config(args: argparse.Namespace, *, n_layers: int):
    from llama_from_scratch.config import LayerSpec, LlamaConfig
    from llama_from_scratch.family import ffn_dim

    return LlamaConfig(
        dim=args.dim, n_heads=args.heads, n_kv_heads=args.kv_heads,
        ffn_dim=ffn_dim(args.dim, multiple_of=32), vocab_size=args.vocab,
        max_seq_len=args.context, norm_eps=1e-5, rope_theta=1e4,
        layers=(LayerSpec(),) * n_layers, is_tied=True)


def _data_path(given: Path | None) -> Path:
    from llama_from_scratch import bundled

    return bundled.path("stories.txt") if given is None else given


def _texts(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Returns the documents for training and those for validation."""
    from llama_from_scratch.train import read_documents, split_validation

    def skip(file: Path, reason: str) -> None:
        print(shown_line(f"left out {file}: {reason}"), file=sys.stderr)

    separator = "\n\n" if args.blank_lines or args.data is None else None
    documents = read_documents(_data_path(args.data), separator=separator, suffixes=args.suffix,
                               on_skip=skip if args.skip_bad_files else None)
    return split_validation(documents, fraction=args.validation)


def print_end(history, out: Path, *, use: str, resume: str) -> None:
    """Prints where the model is, how to `use` it, and how to `resume` a run that was stopped."""
    from llama_from_scratch.train.progress import duration

    if not history.steps:
        print("stopped before the first step; nothing to save")
        return
    took = duration(sum(step.time_s for step in history.steps))
    print(f"\nsaved in {out} after {len(history.steps)} steps and {took}. {use}")
    if not history.is_complete:
        print(f"stopped early; to continue: {resume}")


def _sample(model, tokenizer) -> str:
    """Returns the beginning of a text that the model writes now."""
    from llama_from_scratch.generate.generate import stream_text
    from llama_from_scratch.generate.sampling import Sampling

    sampling = Sampling(temperature=0.7, top_p=0.95)
    max_tokens = min(40, model.config.max_seq_len - 1)
    return "".join(stream_text(model, tokenizer, prompt="", max_tokens=max_tokens,
                               sampling=sampling))
