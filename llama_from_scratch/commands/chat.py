"""`llama chat`: a conversation with a model, or stories written together with one."""

import argparse
import sys
from collections.abc import Callable

from llama_from_scratch.commands.loading import load_model
from llama_from_scratch.commands.writing import add_writing_arguments, sampling_of, write


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "chat", help="talk with a model, or write stories together",
        description="You write a line, the model answers, and all of it is remembered. A model "
        "that was not made for chats continues your openings of stories instead. An empty line "
        "ends it.")
    parser.set_defaults(run=run)
    parser.add_argument("--system", metavar="TEXT", help="what the model reads before all else")
    parser.add_argument("--chat-format", metavar="NAME", help="llama-2, llama-3, llama-3.1, "
                        "llama-3.2, llama-3.3, or none to write stories (default: that of the "
                        "model's tokenizer)")
    add_writing_arguments(parser, usual_length="500, of stories 200")


def run(args: argparse.Namespace) -> int:
    """Answers each line of the user, in the model's chat format; without one, continues it."""
    from llama_from_scratch.checkpoint.inspect import chat_format
    from llama_from_scratch.config import nearest
    from llama_from_scratch.tokenizer.chat_format import FORMATS

    if args.chat_format not in (None, "none", *FORMATS):
        raise ValueError(f"no chat format is called {args.chat_format!r}; "
                         f"{nearest(args.chat_format, (*FORMATS, 'none'))}")
    model, tokenizer = load_model(args.model, dtype=args.dtype, device=args.device)
    is_unasked = args.chat_format is None
    found = chat_format(model.config, tokenizer) if is_unasked else FORMATS.get(args.chat_format)
    if found is None and args.system is not None:
        raise ValueError("a system message needs a chat format, and this model has none. Leave "
                         "--system out, or name a format with --chat-format")
    if found is None:
        _continue_stories(model, tokenizer, args)
    else:
        _talk(model, tokenizer, args, format=found)
    return 0


def _continue_stories(model, tokenizer, args: argparse.Namespace) -> None:
    print("This model continues stories; it cannot answer. Give an opening, such as: Once there "
          "was a small fox who\nAn empty line ends it.")
    _converse("\nopening> ", lambda text, turn: write(model, tokenizer, text, args,
                                                      seed=args.seed + turn))


def _talk(model, tokenizer, args: argparse.Namespace, *, format) -> None:
    from llama_from_scratch.generate.chat import Chat

    chat = Chat(model, tokenizer, format=format, system=args.system)
    print(f"Chat in the format of {format.name}. An empty line ends it. /reset forgets what was "
          "said, /system TEXT says what the model\nreads before all else, Ctrl-C stops an answer.")
    _converse("\nyou> ", lambda text, turn: _say(chat, text, args, seed=args.seed + turn))


def _converse(prompt: str, answer: Callable[[str, int], object]) -> None:
    """Answers lines until an empty one; a line that is refused prints why, and the next may do."""
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
        print("(the model reads that from now on)" if chat.system
              else "(there is no system message from now on)")
    elif command.startswith("/"):
        print("(commands are /reset and /system TEXT; an empty line ends the chat)")
    else:
        _print_answer(chat, text, args, seed=seed)


def _print_answer(chat, text: str, args: argparse.Namespace, *, seed: int) -> None:
    n_before, max_tokens = chat.n_forgotten, 500 if args.max_tokens is None else args.max_tokens
    try:
        for piece in chat.say(text, max_tokens=max_tokens, sampling=sampling_of(args), seed=seed):
            print(piece, end="", flush=True)
        print("\n(cut here; say for example: go on)" if chat.is_cut else "")
    except KeyboardInterrupt:
        print("\n(stopped)")
    if chat.n_forgotten > n_before:
        print(f"(the context of {chat.context:,} tokens is full: the first {chat.n_forgotten} "
              "messages are forgotten)")
