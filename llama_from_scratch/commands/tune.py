"""`llama tune`: teaches a model with dialogs, preferences or rewards, and merges adapters."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from llama_from_scratch.commands.numbers import real, seed, whole
from llama_from_scratch.commands.train import print_end


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "tune", help="teach a model with dialogs, preferences or rewards",
        description="Teaches a model, and saves it as a new checkpoint.")
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    sft = methods.add_parser(
        "sft", help="to answer as the assistants of given dialogs do",
        description="Supervised fine-tuning. The data is a file of JSON lines: messages as OpenAI "
        "writes them, ShareGPT's conversations, prompts with completions, or Alpaca's "
        "instructions. Only what the assistant says is learned. Ctrl-C stops and saves.")
    sft.set_defaults(run=run_sft, is_lasting=True)
    add_arguments(sft)
    sft.add_argument("--packed", action="store_true",
                     help="put several dialogs into a row, which do not see each other")
    sft.add_argument("--replay", type=Path, metavar="FILE",
                     help="texts of the earlier training, separated by blank lines, so that it is "
                     "not forgotten; 15 %% of the rows are theirs")
    sft.add_argument("--validation", type=real, metavar="FRACTION", default=0.05,
                     help="the part of the data kept for validation (default 0.05)")
    sft.add_argument("--cut", action="store_true",
                     help="cut dialogs that do not fit into a row after their last answer that "
                     "fits, instead of refusing them")
    sft.add_argument("--lora", type=whole(), metavar="RANK",
                     help="train only adapters of this rank, and save only them, in PEFT's layout")
    dpo = methods.add_parser(
        "dpo", help="to prefer the better of two answers",
        description="Direct preference optimization. The data is a file of JSON lines with a "
        "prompt, a chosen and a rejected answer, or with two dialogs. Ctrl-C stops and saves.")
    dpo.set_defaults(run=run_dpo, is_lasting=True)
    add_arguments(dpo)
    dpo.add_argument("--beta", type=real, default=0.1,
                     help="how strongly the model is held to the one it began as (default 0.1)")
    dpo.add_argument("--nll", type=real, default=0.2,
                     help="the factor of the usual loss on chosen answers (default 0.2); without "
                     "it, answers become longer and longer")
    _add_grpo(methods)
    merge = methods.add_parser(
        "merge", help="adapters into the model that they were trained on",
        description="Adds the adapters of a folder in PEFT's layout to the weights of their model, "
        "and saves it as a checkpoint of its own.")
    merge.set_defaults(run=run_merge, is_lasting=True)
    merge.add_argument("model", help="the path of a checkpoint, or its id on the hub")
    merge.add_argument("adapters", type=Path, help="a folder in PEFT's layout")
    merge.add_argument("--out", type=Path, required=True, help="the folder to save to")


def _add_grpo(methods: argparse._SubParsersAction) -> None:
    grpo = methods.add_parser(
        "grpo", help="to earn what a function of yours pays",
        description="Learning by reward. The data is a file of JSON lines with a prompt or a "
        "question, or with dialogs, whose last answer is left out. Your function is called as "
        "reward(entry, text, is_finished), with the entry of the prompt's line, and returns a "
        "number. Its file is run as a Python program. Ctrl-C stops and saves.")
    grpo.set_defaults(run=run_grpo, is_lasting=True)
    add_common_arguments(grpo, n_steps=40)
    grpo.add_argument("--reward", required=True, metavar="FILE.py:FUNCTION",
                      help="what pays an answer")
    grpo.add_argument("--method", choices=("reinforce", "rloo", "grpo", "dr-grpo", "dapo"),
                      default="grpo", help="whose terms the loss has (default grpo)")
    grpo.add_argument("--prompts", type=whole(), default=16, help="prompts per step (default 16)")
    grpo.add_argument("--answers", type=whole(), default=8,
                      help="answers to each prompt (default 8)")
    grpo.add_argument("--max-tokens", type=whole(), default=64,
                      help="the longest answer (default 64); one that is cut off earns at most 0")
    grpo.add_argument("--temperature", type=real, default=1.0,
                      help="of drawing answers (default 1)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of methods that learn from rows."""
    add_common_arguments(parser, n_steps=200)
    parser.add_argument("--batch", type=whole(), default=16, metavar="ROWS",
                        help="rows per step (default 16)")
    parser.add_argument("--micro-batch", type=whole(), metavar="ROWS",
                        help="rows that go through the model at once (default: all)")
    parser.add_argument("--seq-len", type=whole(), metavar="TOKENS",
                        help="the longest row (default: the model's context, at most 512)")
    parser.add_argument("--bf16", action="store_true", help="multiply matrices in bfloat16")


def add_common_arguments(parser: argparse.ArgumentParser, *, n_steps: int) -> None:
    """Adds the arguments that every method has, with `n_steps` steps by default."""
    parser.add_argument("model", help="the path of a checkpoint, or its id on the hub")
    parser.add_argument("--data", type=Path, required=True, help="a file of JSON lines")
    parser.add_argument("--out", type=Path, required=True, help="the folder to save to")
    parser.add_argument("--resume", action="store_true",
                        help="continue the run in --out; give all other arguments again")
    parser.add_argument("--format", metavar="NAME", help="the chat format, such as llama-3.2 "
                        "(default: as the model's files say)")
    parser.add_argument("--steps", type=whole(), default=n_steps, help=f"(default {n_steps})")
    parser.add_argument("--lr", type=real, default=1e-4,
                        help="peak learning rate (default 1e-4; a model of 1M parameters takes "
                        "1e-3, one of many billions 1e-5)")
    parser.add_argument("--seed", type=seed(), default=0, help="(default 0)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default cpu)")


def run_sft(args: argparse.Namespace) -> int:
    """Tunes and saves; prints an answer after each validation."""
    from llama_from_scratch.train import read_documents, resume
    from llama_from_scratch.tune import lora, sft
    from llama_from_scratch.tune.dialogs import read_dialogs

    if not args.resume:
        resume.refuse_taken(args.out)
    dialogs, held_out = split(read_dialogs(args.data), args.validation)
    replay = () if args.replay is None else read_documents(args.replay, separator="\n\n")
    model, tokenizer, format = load(args)
    config = train_config(args, model)
    parts = None
    if args.lora is not None:
        lora.add(model, rank=args.lora)
        parts = lora.parts(base=args.model)
    n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{len(dialogs):,} dialogs to learn from, {len(held_out):,} to validate on; a model of "
          f"{model.config.n_params:,} parameters in the format of {format.name}; {n_trained:,} "
          "parameters are trained")
    requests = [dialog.messages[: dialog.learned[0]] for dialog in held_out if dialog.learned]
    history = sft.fit(
        model, dialogs, tokenizer, config=config, format=format, replay=replay,
        is_packed=args.packed, is_cut=args.cut, validation=held_out, parts=parts, folder=args.out,
        is_resumed=args.resume, on_step=progress(model, tokenizer, format, config, requests))
    _print_end(history, args, f"llama chat {args.out}" if args.lora is None else
               f"llama tune merge {args.model} {args.out} --out FOLDER; llama chat FOLDER")
    return 0


def run_dpo(args: argparse.Namespace) -> int:
    """Tunes and saves."""
    from llama_from_scratch.train import resume
    from llama_from_scratch.tune import dpo
    from llama_from_scratch.tune.pairs.preferences import read_pairs

    if not args.resume:
        resume.refuse_taken(args.out)
    pairs = read_pairs(args.data)
    model, tokenizer, format = load(args)
    config = train_config(args, model)
    print(f"{len(pairs):,} pairs to learn from; a model of {model.config.n_params:,} parameters in "
          f"the format of {format.name}")
    history = dpo.fit(
        model, pairs, tokenizer, beta=args.beta, nll=args.nll, config=config, format=format,
        folder=args.out, is_resumed=args.resume,
        on_step=progress(model, tokenizer, format, config, ()))
    _print_end(history, args, f"llama chat {args.out}")
    return 0


def run_grpo(args: argparse.Namespace) -> int:
    """Teaches by reward, and saves; prints a line with the mean reward after each step."""
    from llama_from_scratch.train import resume
    from llama_from_scratch.train.progress import duration
    from llama_from_scratch.tune import reinforce
    from llama_from_scratch.tune.policy.prompts import read_prompts, reward_in

    if not args.resume:
        resume.refuse_taken(args.out)
    prompts, reward = read_prompts(args.data), reward_in(args.reward)
    config = _reward_config(args)
    model, tokenizer, format = load(args)
    print(f"{len(prompts):,} prompts to learn from; a model of {model.config.n_params:,} "
          f"parameters in the format of {format.name}")

    earned: set[float] = set()

    def noted(prompt, text: str, is_finished: bool) -> float:
        found = reward(prompt, text, is_finished)
        if isinstance(found, int | float):
            earned.add(found)
        return found

    def show(step) -> None:
        print(f"{step.step + 1}/{config.n_steps}, mean reward {step.reward:.3f}, "
              f"{step.n_tokens:.0f} tokens per answer, {step.share_cut:.0%} cut off, "
              f"{step.share_equal:.0%} of the groups equal", file=sys.stderr)
        if step.step + 1 == config.patience and len(earned) == 1:
            raise ValueError(f"a reward tells answers apart; {args.reward} returned {earned.pop()} "
                             f"for every answer of the first {config.patience} steps. Give a "
                             "reward with grades, or easier prompts, and another --out")

    history = reinforce.fit(
        model, prompts, tokenizer, reward=noted, ask=lambda prompt: prompt.asked, config=config,
        format=format, folder=args.out, is_resumed=args.resume, on_step=show)
    if not history.steps:
        print("stopped before the first step; nothing to save")
        return 0
    took = duration(sum(step.sampling_s + step.update_s for step in history.steps))
    print(f"\nsaved in {args.out} after {len(history.steps)} steps and {took}. The mean reward was "
          f"{history.rewards[0]:.3f} at the first step and {history.rewards[-1]:.3f} at the last. "
          f"To talk to it: llama chat {args.out}")
    if not history.is_complete:
        print("stopped early; to continue: give the same command with --resume")
    return 0


def _reward_config(args: argparse.Namespace):
    """Returns the settings of a method, with the sizes of the command line."""
    import dataclasses

    from llama_from_scratch.tune.policy.records import METHODS

    method = METHODS[args.method]
    return dataclasses.replace(
        method, n_steps=args.steps, n_prompts=args.prompts, n_answers=args.answers,
        max_tokens=args.max_tokens, temperature=args.temperature, peak_lr=args.lr,
        n_warmup=args.steps // 10, soft_tokens=min(method.soft_tokens, args.max_tokens),
        patience=min(method.patience, args.steps), seed=args.seed,
        checkpoint_every=max(args.steps // 4, 1))


def run_merge(args: argparse.Namespace) -> int:
    """Merges and saves in our own format, with the tokenizer and the chat format of the model."""
    from llama_from_scratch.checkpoint import native
    from llama_from_scratch.checkpoint.folders import held
    from llama_from_scratch.checkpoint.load import load as load_checkpoint
    from llama_from_scratch.commands.loading import show_loading
    from llama_from_scratch.train import resume
    from llama_from_scratch.tune import lora

    resume.refuse_taken(args.out)
    with held(args.out):
        model, tokenizer = load_checkpoint(args.model, on_tensor=show_loading)
        n_layers = len(lora.load(model, args.adapters))
        lora.merge(model)
        native.save(args.out, model, tokenizer)
    print(f"merged the adapters of {n_layers} layers; saved in {args.out}. To talk to it: llama "
          f"chat {args.out}")
    return 0


def load(args: argparse.Namespace):
    """Returns the model in float32 on its device, its tokenizer and the chat format.

    A format from the command line is written into the saved files, so that they chat in it.
    """
    import torch

    from llama_from_scratch.checkpoint.inspect import chat_format
    from llama_from_scratch.checkpoint.load import load as load_checkpoint
    from llama_from_scratch.commands.loading import place_of, show_loading
    from llama_from_scratch.config import nearest
    from llama_from_scratch.tokenizer.chat_format import FORMATS, prompting_for

    if args.format is not None and args.format not in FORMATS:
        raise ValueError(f"--format is one of {', '.join(FORMATS)}; got {args.format}; "
                         f"{nearest(args.format, FORMATS)}")
    model, tokenizer = load_checkpoint(place_of(args.model), dtype=torch.float32,
                                       device=args.device, on_tensor=show_loading)
    if args.format is not None:
        tokenizer.prompting = prompting_for(FORMATS[args.format], tokenizer)
        return model, tokenizer, FORMATS[args.format]
    if (found := chat_format(model.config, tokenizer)) is None:
        raise ValueError(f"tuning on dialogs needs a chat format, and nothing in {args.model} "
                         f"names one. Give one with --format: {', '.join(FORMATS)}; the vocabulary "
                         f"has the special tokens {', '.join(list(tokenizer.special_ids)[:8])}")
    return model, tokenizer, found


def split(data: Sequence, fraction: float) -> tuple[Sequence, Sequence]:
    """Returns what is learned and what is validated on: the last `fraction`, at least one.

    Of a single entry nothing is kept.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"--validation is at least 0 and below 1; got {fraction}")
    n_kept = min(max(round(len(data) * fraction), 1), len(data) - 1) if fraction else 0
    return data[: len(data) - n_kept], data[len(data) - n_kept :]


def train_config(args: argparse.Namespace, model):
    """Returns the settings of a run. Raises ValueError if a row does not fit into the context."""
    from llama_from_scratch.train import TrainConfig

    context = model.config.max_seq_len
    if args.seq_len is not None and args.seq_len > context:
        raise ValueError(f"a row must fit into the model's context of {context}; got --seq-len "
                         f"{args.seq_len}")
    every = max(args.steps // 4, 1)
    return TrainConfig(
        n_steps=args.steps, batch_size=args.batch, seq_len=args.seq_len or min(context, 512),
        micro_batch_size=args.micro_batch, peak_lr=args.lr, n_warmup=args.steps // 10,
        weight_decay=0.1, seed=args.seed, is_bf16=args.bf16, validate_every=every,
        checkpoint_every=every)


def progress(model, tokenizer, format, config, requests: Sequence):
    """Returns what shows a run on the terminal, with the answer to the first of `requests`."""
    from llama_from_scratch.generate import generate
    from llama_from_scratch.train.progress import TerminalLine, TrainingProgress

    def answer() -> str:
        prompt = format.encode(requests[0], tokenizer)
        room = min(60, model.config.max_seq_len - len(prompt))
        if room < 1:
            return ""
        [ids] = generate(model, [prompt], max_tokens=room, stop_ids=format.stop_ids(tokenizer))
        return f"{requests[0][-1].content.strip()} -> {tokenizer.decode(ids).strip()}"

    return TrainingProgress(n_steps=config.n_steps, sample=answer if requests else None,
                            show=TerminalLine(sys.stderr))


def _print_end(history, args: argparse.Namespace, next_command: str) -> None:
    print_end(history, args.out, use=f"To talk to it: {next_command}",
              resume="give the same command with --resume")
