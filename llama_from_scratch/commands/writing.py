"""What `llama generate` and `llama chat` share: how the model's text is sampled and printed."""

import argparse

from llama_from_scratch.commands.loading import add_loading_arguments


def add_writing_arguments(parser: argparse.ArgumentParser, *, usual_length: str) -> None:
    """Adds which model writes, how much and how it samples; `usual_length` is text for --help."""
    parser.add_argument("model", nargs="?", help="a checkpoint's folder or file, or an id on the "
                        "Hugging Face hub (default: the bundled mini model)")
    parser.add_argument("--max-tokens", type=int,
                        help=f"the most tokens of an answer (default {usual_length})")
    parser.add_argument("--temperature", type=float, default=0.7,
                        help="0 takes the likeliest token (default 0.7)")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    add_loading_arguments(parser)


def sampling_of(args: argparse.Namespace):
    """The `Sampling` that the arguments describe."""
    from llama_from_scratch.generate.sampling import Sampling

    return Sampling(temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)


def write(
    model, tokenizer, prompt: str, args: argparse.Namespace, *, seed: int, decoder=None
) -> None:
    """Prints the prompt and its continuation, each piece as soon as it is decoded.

    `decoder`: a `GreedyDecoder` that writes instead of sampling.
    """
    from llama_from_scratch.generate.generate import stream_text, text_of

    print(prompt, end="", flush=True)
    max_tokens, sampling = 200 if args.max_tokens is None else args.max_tokens, sampling_of(args)
    if decoder is None:
        pieces = stream_text(model, tokenizer, prompt=prompt, max_tokens=max_tokens,
                             sampling=sampling, seed=seed)
    else:
        ids = tokenizer.encode(prompt, bos=True)
        pieces = text_of(decoder.stream(ids, max_tokens=max_tokens, stop_ids={tokenizer.eos_id}),
                         tokenizer)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
