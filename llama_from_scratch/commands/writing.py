"""What `llama generate` and `llama chat` share: sampling and printing the model's text."""

import argparse
import sys
from collections.abc import Sequence

from llama_from_scratch.commands import fusing, terminal
from llama_from_scratch.commands.loading import add_loading_arguments
from llama_from_scratch.commands.numbers import real, seed, whole


def add_writing_arguments(parser: argparse.ArgumentParser, *, usual_length: str) -> None:
    """Adds the model, the length and the sampling. `usual_length` is text for --help."""
    parser.add_argument("model", nargs="?", help="a checkpoint's folder or file, or an id on the "
                        "Hugging Face hub (default: the bundled mini model)")
    parser.add_argument("--tokenizer", metavar="PATH", help="the file with the tokenizer of the "
                        "model (default: the checkpoint's own)")
    parser.add_argument("--max-tokens", type=whole(most=2**63 - 1),
                        help=f"the most tokens of an answer (default {usual_length}, or fewer if "
                        "the model's context has less room)")
    parser.add_argument("--temperature", type=real, default=0.7,
                        help="0 always takes the most likely token (default 0.7)")
    parser.add_argument("--top-k", type=whole(), metavar="K",
                        help="sample only from the K most likely tokens (default: off)")
    parser.add_argument("--top-p", type=real, default=0.95, metavar="P",
                        help="sample only from the most likely tokens that together have "
                        "probability P (default 0.95; 1 is off)")
    parser.add_argument("--seed", type=seed(), default=0)
    fusing.add_arguments(parser, what="the model")
    add_loading_arguments(parser)


def sampling_of(args: argparse.Namespace):
    """Returns the `Sampling` that the arguments describe."""
    from llama_from_scratch.generate.sampling import Sampling

    return Sampling(temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)


def write(
    model, tokenizer, prompt: str, args: argparse.Namespace, *, seed: int, decoder=None,
    is_special: bool = False, images: Sequence[object] = (),
) -> None:
    """Prints the prompt and its continuation, each piece as soon as it is decoded.

    `decoder`: a `GreedyDecoder` to use instead of sampling. `is_special`: whether names of special
    tokens in the prompt are those tokens. Otherwise they are text, with a warning on stderr.
    `images`: shown by the prompt, at its beginning unless it has special tokens for them.
    """
    from llama_from_scratch.generate.checks import as_images, check_limits
    from llama_from_scratch.generate.generate import stream, text_of

    text_ids = prompt_ids(tokenizer, prompt, is_special=is_special)
    ids = with_images(model, tokenizer, text_ids, n_images=len(images))
    [ids], tiles = as_images(model, [ids], [images] if images else None)
    stop_ids = tokenizer.stop_ids
    room = model.config.max_seq_len - len(ids)
    max_tokens = min(200, max(room, 1)) if args.max_tokens is None else args.max_tokens
    check_limits(model, [ids], max_tokens)
    if decoder is None:
        tokens = stream(model, ids, images=tiles, max_tokens=max_tokens, sampling=sampling_of(args),
                        seed=seed, stop_ids=stop_ids)
    else:
        tokens = decoder.stream(ids, max_tokens=max_tokens, stop_ids=stop_ids)
    terminal.say(prompt)
    for piece in text_of(tokens, tokenizer, is_first=not tokenizer.decode_bytes(text_ids)):
        terminal.say(piece)
    print()


def prompt_ids(tokenizer, prompt: str, *, is_special: bool) -> list[int]:
    """Returns the ids of a prompt, with begin-of-text in front unless the prompt names it.

    A tokenizer that adds no begin-of-text has it only in front of an empty prompt.
    """
    warn_of_special(tokenizer, prompt, is_special=is_special)
    begins = is_special and tokenizer.bos is not None and prompt.startswith(tokenizer.bos)
    return tokenizer.encode(prompt, bos=not begins and (tokenizer.adds_bos or not prompt),
                            allowed_special="all" if is_special else frozenset())


def with_images(model, tokenizer, ids: list[int], *, n_images: int) -> list[int]:
    """Returns the ids of a prompt with an id for each image, after begin-of-text.

    Ids of images that a prompt has already stay where they are. Raises ValueError if there are
    images and the model reads only text.
    """
    from llama_from_scratch.generate.checks import check_sees

    if not n_images:
        return ids
    check_sees(model)
    image_id = model.config.image_id
    begin = ids[:1] if ids[:1] == [tokenizer.special_ids.get(tokenizer.bos)] else []
    return ids if image_id in ids else [*begin, *[image_id] * n_images, *ids[len(begin) :]]


def warn_of_special(tokenizer, text: str, *, is_special: bool) -> None:
    """Warns on stderr of names of special tokens in the text that are read as plain text."""
    from llama_from_scratch.tokenizer.special_tokens import one_of

    if is_special or not tokenizer.special_ids:
        return
    if names := dict.fromkeys(one_of(tokenizer.special_ids.keys()).findall(text)):
        them, they = ("it", "the token") if len(names) == 1 else ("them", "tokens")
        print(terminal.shown_line(f"llama: the prompt contains {', '.join(names)}, read as plain "
                                  f"text; --special makes {them} {they}"), file=sys.stderr)
