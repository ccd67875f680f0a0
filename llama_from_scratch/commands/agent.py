"""`llama agent`: a model works on a task with functions from a Python file."""

import argparse
import sys
from pathlib import Path

from llama_from_scratch.commands import fusing, terminal
from llama_from_scratch.commands.loading import load_model
from llama_from_scratch.commands.numbers import real, whole
from llama_from_scratch.commands.writing import add_writing_arguments, sampling_of


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the subcommand and its arguments."""
    parser = commands.add_parser(
        "agent", help="let a model use functions of a Python file",
        description="The model calls functions of a file, reads what they return, and answers. "
        "Each public function of the file that has types and a docstring is a tool. A function "
        "runs only after you say yes, unless it is marked with "
        "@tool(is_consequential=False) from llama_from_scratch.tune.tools, which means that it "
        "only reads. The file itself is run as a Python program.")
    parser.set_defaults(run=run)
    parser.add_argument("--task", required=True, metavar="TEXT",
                        help="what the model is asked to do; - reads it from standard input")
    parser.add_argument("--tools", required=True, metavar="FILE",
                        help="a Python file with functions")
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    parser.add_argument("--chat-format", metavar="NAME", help="llama-3.1, llama-3.2, llama-3.3, "
                        "llama-4 (default: the format that the model's files name)")
    asking = parser.add_mutually_exclusive_group()
    asking.add_argument("--ask", choices=("each", "unnamed", "never"), default="each",
                        help="when to ask you about a call that is not only reading: each time; "
                        "only if your task does not name each of its arguments; or never, which "
                        "refuses them all (default each)")
    asking.add_argument("--dry-run", action="store_true",
                        help="run no function at all; show what would be called")
    parser.add_argument("--unread", action="store_true",
                        help="the model never reads a result, only its name, such as $1")
    parser.add_argument("--unlisted", action="store_true",
                        help="do not describe the functions to the model, for one that learned "
                        "them, or for a --system message that names them")
    parser.add_argument("--trace", metavar="FILE", help="write what happened to a JSON file")
    parser.add_argument("--max-steps", type=whole(), default=8, metavar="N",
                        help="the most answers of the model (default 8)")
    parser.add_argument("--max-calls", type=whole(), default=16, metavar="N",
                        help="the most calls (default 16)")
    parser.add_argument("--max-seconds", type=real, default=600.0, metavar="S",
                        help="the time for everything, with the time until you answer "
                        "(default 600)")
    parser.add_argument("--call-seconds", type=real, default=30.0, metavar="S",
                        help="the time for one call (default 30)")
    add_writing_arguments(parser, usual_length="2048 in all steps together")


def run(args: argparse.Namespace) -> int:
    """Prints each step and the answer. The status is 1 if the run ended without an answer."""
    from llama_from_scratch.config import nearest
    from llama_from_scratch.tokenizer.chat_format import FORMATS
    from llama_from_scratch.tune import agent
    from llama_from_scratch.tune.agents.tool_file import tools_in
    from llama_from_scratch.tune.agents.trace import AgentBudget

    if args.chat_format not in (None, *FORMATS):
        raise ValueError(f"no chat format is called {args.chat_format!r}; "
                         f"{nearest(args.chat_format, FORMATS)}")
    sampling = sampling_of(args)
    budget = AgentBudget(steps=args.max_steps, calls=args.max_calls, time_s=args.max_seconds,
                         call_s=args.call_seconds,
                         tokens=2048 if args.max_tokens is None else args.max_tokens)
    if args.trace is not None and not Path(args.trace).absolute().parent.is_dir():
        raise ValueError(f"--trace is a file in a folder that exists; got {args.trace}. Create the "
                         "folder first")
    task = sys.stdin.read() if args.task == "-" else args.task
    tools = tools_in(args.tools)
    model, tokenizer = load_model(args.model, tokenizer=args.tokenizer, dtype=args.dtype,
                                  device=args.device)
    fusing.fuse_for_writing(model, args.fused)
    trace = agent.run(
        model, tokenizer, task=task, tools=tools, system=args.system, budget=budget,
        format=None if args.chat_format is None else FORMATS[args.chat_format], sampling=sampling,
        seed=args.seed, is_dry=args.dry_run, has_variables=args.unread,
        lists_tools=not args.unlisted, gate=_gate(args), on_step=_show)
    if args.trace is not None:
        trace.save(args.trace)
    print(f"({trace.end}: {len(trace.steps)} steps, {len(trace.calls)} calls, "
          f"{trace.n_tokens} tokens)")
    if trace.end == "context" and not trace.steps:
        print("The task and the descriptions of the functions do not fit into the model's context. "
              "Shorten them, or leave the descriptions out with --unlisted.")
    if trace.end == "answered":
        terminal.say(f"{trace.answer}\n")
    return 0 if trace.end == "answered" else 1


def _gate(args: argparse.Namespace):
    """Returns the gate that the arguments describe. A dry run asks nothing, and runs nothing."""
    from llama_from_scratch.tune.agents import guards

    if args.dry_run:
        return guards.allow
    ask = guards.refuse if args.ask == "never" else guards.Ask(answer=_answer)
    return guards.Capabilities(otherwise=ask) if args.ask == "unnamed" else ask


def _answer(words: str) -> bool:
    """Asks on the terminal. Only y or yes is a yes, and the end of the input is a no."""
    print(f"{terminal.shown_line(words)} [y/N] ", end="", flush=True)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        print()
    return line.strip().lower() in ("y", "yes")


def _show(step) -> None:
    """Prints the calls of a step and what became of them."""
    for each in step.calls:
        arguments = ", ".join(f"{name}={value!r:.100}" for name, value in each.arguments.items())
        print(terminal.shown_line(f"{each.call.name}({arguments}) -> {each.status}: "
                                  f"{each.result:.300}"))
    if step.problem is not None:
        print(terminal.shown_line(f"(not a call: {step.problem:.300})"))
