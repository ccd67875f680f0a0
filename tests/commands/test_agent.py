import io
import json

import pytest
from agents import script, tokenizer_of

from llama_from_scratch import bundled
from llama_from_scratch.__main__ import main
from llama_from_scratch.commands import agent as module
from llama_from_scratch.tune.agents.trace import read_trace

TOOLS = '''
from pathlib import Path
from llama_from_scratch.tune.tools import tool

@tool(is_consequential=False)
def get(who: str) -> str:
    "Looks up."
    return f"{who} has \\x1b]0;7 coins"

def send(who: str, coins: int) -> str:
    "Sends coins."
    with open(Path(__file__).with_name("sent.txt"), "a") as file:
        print(who, coins, file=file)
    return "done"
'''
GET, SEND = "[get(who='Tom')]<|eom_id|>", "[send(who='Ravi', coins=4)]<|eom_id|>"
TASK = "Send 4 coins to Ravi."


@pytest.fixture
def scene(tmp_path, monkeypatch, capsys):
    """Runs the command with answers of a model and of a user; returns status, output and sent."""
    (tmp_path / "my_tools.py").write_text(TOOLS)

    def run(*flags, answers=(GET, SEND, " It is done."), user="", task=TASK):
        monkeypatch.setattr(module, "load_model", lambda *args, **settings: (
            script(*answers), tokenizer_of("llama-3.2")))
        monkeypatch.setattr(module.fusing, "fuse_for_writing", lambda model, wanted: None)
        monkeypatch.setattr("sys.stdin", io.StringIO(user))
        status = main(["agent", "any", "--tools", str(tmp_path / "my_tools.py"), "--task", task,
                       "--chat-format", "llama-3.2", *flags])
        sent = tmp_path / "sent.txt"
        lines = sent.read_text().splitlines() if sent.exists() else []
        sent.unlink(missing_ok=True)
        return status, capsys.readouterr(), lines

    return run


@pytest.mark.parametrize(("user", "is_sent"), [
    ("y\n", True), ("yes\n", True), ("Y\n", True), ("n\n", False), ("\n", False), ("", False),
    ("yes please\n", False), ("true\n", False)])
def test_a_call_with_consequences_is_asked_about_and_only_yes_is_a_yes(scene, user, is_sent):
    status, shown, sent = scene(user=user)
    assert status == 0 and sent == (["Ravi 4"] if is_sent else [])
    assert "Allow send(who='Ravi', coins=4)? [y/N]" in shown.out and "Allow get" not in shown.out
    assert "(answered: 3 steps, 2 calls, " in shown.out and shown.out.endswith("It is done.\n")


def test_results_are_shown_without_control_sequences(scene):
    _, shown, _ = scene()
    assert r"get(who='Tom') -> done: Tom has \x1b]0;7 coins" in shown.out
    assert "\x1b" not in shown.out


def test_what_the_task_names_needs_no_question_if_only_the_unnamed_is_asked(scene):
    _, shown, sent = scene("--ask", "unnamed")
    assert sent == ["Ravi 4"] and "Allow" not in shown.out
    _, shown, sent = scene("--ask", "unnamed", task="Look up Tom.", user="y\n")
    assert sent == ["Ravi 4"] and ("You did not name who, coins; this may come from a result of "
                                   "get.") in shown.out
    _, shown, sent = scene("--ask", "never", user="y\n")
    assert sent == [] and "Allow" not in shown.out and "-> refused" in shown.out


def test_a_dry_run_runs_nothing_and_asks_nothing(scene, tmp_path):
    status, shown, sent = scene("--dry-run", "--trace", str(tmp_path / "t.json"))
    assert status == 0 and sent == [] and "Allow" not in shown.out
    assert [call.status for call in read_trace(tmp_path / "t.json").calls] == ["dry", "dry"]


def test_the_trace_is_written_and_names_the_end(scene, tmp_path):
    path = tmp_path / "t.json"
    status, shown, _ = scene("--trace", str(path), "--max-steps", "1")
    assert status == 1 and "(steps: 1 steps, 1 calls" in shown.out
    trace = read_trace(path)
    assert trace.end == "steps" and trace.task == TASK and trace.budget.steps == 1
    assert json.loads(path.read_text())["steps"][0]["calls"][0]["call"]["name"] == "get"


def test_budgets_of_calls_and_tokens_are_passed_on(scene):
    assert "(calls: 2 steps" in scene("--max-calls", "1")[1].out
    assert "(tokens: 1 steps" in scene("--max-tokens", "5")[1].out


def test_results_that_the_model_does_not_read(scene):
    _, shown, _ = scene("--unread", answers=(GET, " It says $1"))
    assert "It says Tom has" in shown.out


def test_functions_are_described_to_the_model_unless_they_are_unlisted(scene, monkeypatch):
    from llama_from_scratch.tune import agent

    seen, run = [], agent.run
    monkeypatch.setattr(agent, "run", lambda *given, **settings: (
        seen.append(settings["lists_tools"]), run(*given, **settings))[1])
    scene()
    scene("--unlisted")
    assert seen == [True, False]


def test_descriptions_that_do_not_fit_are_named_with_a_cure(tmp_path, capsys):
    (tmp_path / "my_tools.py").write_text(TOOLS.replace("Looks up.", "Looks up a person. " * 200))
    given = ["agent", str(bundled.path("world/agent")), "--tools", str(tmp_path / "my_tools.py"),
             "--task", "Hello.", "--system", "Tools: get, calc, send."]
    assert main(given) == 1
    assert capsys.readouterr().out == (
        "(context: 0 steps, 0 calls, 0 tokens)\nThe task and the descriptions of the functions do "
        "not fit into the model's context. Shorten them, or leave the descriptions out with "
        "--unlisted.\n")
    assert main([*given, "--unlisted"]) == 0
    assert "(answered: 1 steps" in capsys.readouterr().out


def test_the_task_may_come_from_standard_input(scene, tmp_path):
    scene("--trace", str(tmp_path / "t.json"), task="-", user="Look up Tom.\n")
    assert read_trace(tmp_path / "t.json").task == "Look up Tom.\n"


def test_a_model_of_random_weights_ends_within_its_budget(talker, tmp_path, capsys):
    (tmp_path / "my_tools.py").write_text(TOOLS)
    status = main(["agent", talker, "--tools", str(tmp_path / "my_tools.py"), "--task", "the cat",
                   "--max-tokens", "20"])
    assert status in (0, 1) and " steps, " in capsys.readouterr().out


@pytest.mark.parametrize(("flags", "message"), [
    (["--tools", "nowhere.py"], "there is no file at nowhere.py"),
    (["--tools", "nowhere.py", "--chat-format", "llama-9"], "no chat format is called 'llama-9'"),
    (["--tools", "nowhere.py", "--trace", "nowhere/t.json"], "in a folder that exists"),
    (["--tools", "nowhere.py", "--call-seconds", "0"], "a budget of call_s must be a number above"),
])
def test_what_the_user_can_fix_is_one_line_and_status_2(flags, message, refused):
    refused(["agent", "{run}", "--task", "a", *flags], message)


def test_a_model_without_a_chat_format_is_refused(trained, tmp_path, capsys):
    (tmp_path / "my_tools.py").write_text(TOOLS)
    assert main(["agent", str(trained / "run"), "--tools", str(tmp_path / "my_tools.py"), "--task",
                 "a"]) == 2
    assert "an agent needs a chat format" in capsys.readouterr().err
