"""`llama chat`: a conversation with a model, or stories written together with one."""

import argparse
import itertools
import sys
from collections.abc import Callable, Mapping

from llama_from_scratch.commands import fusing, pictures, terminal, typed
from llama_from_scratch.commands.loading import load_model
from llama_from_scratch.commands.writing import add_writing_arguments, sampling_of, write


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "chat", help="talk with a model, or write stories together",
        description="You write a message, the model answers, and the conversation is remembered. "
        "A model that was not made for chats continues your openings of stories instead. A pasted "
        "text is one message. /help lists the commands. Ctrl-D or /exit ends the chat. If standard "
        "input is a file or a pipe, each of its lines is a message.")
    parser.set_defaults(run=run)
    parser.add_argument("--system", metavar="TEXT",
                        help="the system message, which the model reads before all other messages")
    parser.add_argument("--chat-format", metavar="NAME", help="llama-2, llama-3, llama-3.1, "
                        "llama-3.2, llama-3.2-vision, llama-3.3, llama-4, or none to write stories "
                        "(default: the format that the model's files name)")
    parser.add_argument("--image", metavar="PATH", action="append", default=[],
                        help="an image that your first message shows, for a model that sees; may "
                        "be given several times. Inside the chat: /image PATH")
    add_writing_arguments(parser, usual_length="500, or 200 for stories")


def run(args: argparse.Namespace) -> int:
    """Answers each message in the model's chat format. Without a format, continues it."""
    from llama_from_scratch.checkpoint.inspect import chat_format, marked_format
    from llama_from_scratch.config import nearest
    from llama_from_scratch.tokenizer.chat_format import FORMATS

    if args.chat_format not in (None, "none", *FORMATS):
        raise ValueError(f"no chat format is called {args.chat_format!r}; "
                         f"{nearest(args.chat_format, (*FORMATS, 'none'))}")
    sampling_of(args)  # refuses bad settings before a large model is read
    shown = pictures.read(args.image)
    model, tokenizer = load_model(args.model, tokenizer=args.tokenizer, dtype=args.dtype,
                                  device=args.device)
    fusing.fuse_for_writing(model, args.fused)
    is_unasked = args.chat_format is None
    found = chat_format(model.config, tokenizer) if is_unasked else FORMATS.get(args.chat_format)
    if found is None and args.system is not None:
        raise ValueError("a system message needs a chat format, and this model has none. Leave "
                         "--system out, or name a format with --chat-format")
    if found is None and args.image:
        raise ValueError("--image needs a chat format, and this model has none. Show images with "
                         "llama generate --image, or name a format with --chat-format")
    marks = marked_format(model.config, tokenizer) if is_unasked and found is None else None
    if marks is not None:
        name = next(name for name, format in FORMATS.items() if format is marks)
        print("Nothing in the files of this model says that it was made for chats. If it was, add "
              f"--chat-format {name}.", file=sys.stderr)
    if found is None:
        _continue_stories(model, tokenizer, args)
    else:
        _talk(model, tokenizer, args, format=found, shown=shown)
    return 0


def _continue_stories(model, tokenizer, args: argparse.Namespace) -> None:
    print("This model continues stories; it cannot answer. Give an opening, such as: Once there "
          f"was a small fox who\n{_HOW_TO_END}")
    _converse("opening> ", lambda text, turn: write(model, tokenizer, text, args,
                                                    seed=args.seed + turn))


def _talk(model, tokenizer, args: argparse.Namespace, *, format, shown: list) -> None:
    """Answers messages. `shown`: the images that wait for the next message."""
    from llama_from_scratch.generate.chat import Chat

    chat = Chat(model, tokenizer, format=format, system=args.system)
    if shown:
        chat.check_sees()
    seeing = " /image PATH shows an image." if chat.sees else ""
    print(f"Chat in the format of {format.name}.{seeing} {_HOW_TO_END}")

    def answer(text: str, turn: int) -> None:
        _print_answer(chat, text, args, shown=shown, seed=args.seed + turn)

    _converse("you> ", answer, {
        "/image": ("shows the image file PATH with your next message; without PATH, takes back "
                   "those that wait", lambda rest: _show(chat, rest, shown)),
        "/reset": ("forgets the conversation so far", lambda rest: _reset(chat)),
        "/system": ("makes TEXT the system message; without TEXT, removes it",
                    lambda rest: _set_system(chat, rest)),
    })


_HOW_TO_END = "/help lists the commands. Ctrl-D or /exit ends it, and Ctrl-C stops an answer."

Commands = Mapping[str, tuple[str, Callable[[str], str]]]
"""Commands of a conversation by name: the line that /help shows, and a function.

The function takes the text after the command and returns a reply for the user."""


def _converse(
    prompt: str, answer: Callable[[str, int], object], commands: Commands | None = None
) -> None:
    """Answers messages until the input ends. A refused message only prints the reason."""
    turns = itertools.count()
    with typed.reader() as read:
        while (text := _next(read, prompt)) is not None:
            if text.split() == ["/exit"]:
                return
            try:
                if command := _command(text):
                    print(_obey(*command, commands or {}))
                elif text:
                    answer(_without_slash(text), next(turns))
            except KeyboardInterrupt:
                print("\n(stopped)")
            except ValueError as error:
                print(f"llama: {terminal.shown_line(str(error))}", file=sys.stderr)
    print()  # so that the shell's prompt begins a new line


def _next(read: typed.Read, prompt: str) -> str | None:
    """Returns the next message, or None at the end. A first Ctrl-C only discards the line."""
    print()
    try:
        text = read(prompt)
    except KeyboardInterrupt:
        print("\n(Ctrl-D or /exit ends this, and so does a second Ctrl-C)\n")
        text = read(prompt)
    except ValueError as error:
        print(f"llama: {error}", file=sys.stderr)
        text = ""
    return None if text is None else text.strip("\n").rstrip()


def _command(text: str) -> tuple[str, str] | None:
    """Returns the command in a message and the text after it, or None if there is no command."""
    if not text.startswith("/") or text.startswith("//") or "\n" in text:
        return None
    name, _, rest = text.partition(" ")
    return name, rest.strip()


def _without_slash(text: str) -> str:
    is_escaped = text.startswith("//") and "\n" not in text
    return text[1:] if is_escaped else text.strip()


def _obey(name: str, rest: str, commands: Commands) -> str:
    if name in commands:
        return commands[name][1](rest)
    if "/image" in commands and pictures.is_file(line := f"{name} {rest}".strip()):
        return f"To show this file to the model, write: /image {line}"
    rows = {name: does for name, (does, _) in commands.items()}
    rows |= {"/exit": "ends the chat, as Ctrl-D does", "/help": "shows this list"}
    listed = "\n".join(f"{name:8} {does}" for name, does in rows.items())
    unknown = "" if name == "/help" else f"There is no command {name}. The commands are:\n"
    return (f"{unknown}{listed}\nTo send a line that begins with /, begin it with // or a space. A "
            "pasted text is one message, even if it has empty lines.")


def _reset(chat) -> str:
    chat.reset()
    return "(the conversation is forgotten)"


def _set_system(chat, text: str) -> str:
    chat.system = text or None
    return ("(the model reads this system message from now on)" if text
            else "(there is no system message from now on)")


def _show(chat, text: str, shown: list) -> str:
    """Reads the images that `text` names, for the next message; without text, forgets them."""
    chat.check_sees()
    if not text:
        n_waiting = len(shown)
        shown.clear()
        return f"({n_waiting} image{'' if n_waiting == 1 else 's'} taken back)"
    new = pictures.read(pictures.paths_in(text))
    shown += new
    sizes = ", ".join(f"{image.width} x {image.height} pixels" for image in new)
    return f"(your next message shows this: {sizes})"


def _print_answer(chat, text: str, args: argparse.Namespace, *, shown: list, seed: int) -> None:
    n_before, max_tokens = chat.n_forgotten, 500 if args.max_tokens is None else args.max_tokens
    try:
        for piece in chat.say(text, images=list(shown), max_tokens=max_tokens,
                              sampling=sampling_of(args), seed=seed):
            terminal.say(piece)
        print("\n(cut off here; to continue, write for example: go on)" if chat.is_cut else "")
    except KeyboardInterrupt:
        print("\n(stopped)")
    shown.clear()
    if chat.n_forgotten > n_before:
        print(f"(the context of {chat.context:,} tokens is full: the first {chat.n_forgotten} "
              "messages are forgotten)")
