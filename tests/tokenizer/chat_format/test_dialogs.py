"""Dialogs that a generation cannot say are refused."""

import pytest
from chat_dialogs import ROME, WEATHER, assistant, call, ipython, system, user

from llama_from_scratch.tokenizer.chat_format import (
    CODE,
    LLAMA_2,
    LLAMA_3,
    LLAMA_3_1,
    LLAMA_3_2,
    LLAMA_3_2_VISION,
    LLAMA_4,
)


@pytest.mark.parametrize(
    "format, dialog, options, message",
    [
        (LLAMA_3_1, [], {}, r"in addition to the system's.*\[\].*add a user"),
        (LLAMA_3_1, [system("a")], {}, "in addition to the system's"),
        (LLAMA_3_1, [user("a"), system("b")], {}, "only one message.*'user', 'system'.*join"),
        (LLAMA_3_1, [system("a"), system("b"), user("c")], {}, "only one message, the first"),
        (LLAMA_3_1, [user("a"), assistant("b")], {}, "must end with the assist.*is_answered=True"),
        (LLAMA_3_1, [user("a")], {"is_answered": True}, "must end with the assis.*add the answer"),
        (LLAMA_3_1, [user("a"), ipython("b")], {}, "follow the assistant.*'user', 'ipython'"),
        (LLAMA_3_1, [ipython("b")], {}, "follow the assistant"),
        (LLAMA_3_1, [user("a"), assistant("b", ends_turn=False), user("c")], {},
         "must follow an assistant.*ends_turn=True"),
        (LLAMA_3_1, [user("a", ends_turn=False)], {}, "for assistant; got 'user'.*ends_turn=True"),
        (LLAMA_3, [user("a"), assistant("b", ends_turn=False)], {"is_answered": True},
         "for no role.*ends_turn=True"),
        (LLAMA_3_1, [user("a"), assistant("", ROME, ROME), ipython("b")], {},
         "call only one tool.*give each"),
        (LLAMA_3_1, [user("a"), assistant("Hm", ROME), ipython("b")], {},
         "with calls may have no content.*'Hm'"),
        (LLAMA_3_2, [user("a"), assistant("", ROME, call(CODE, code="1")), ipython("b")], {},
         "built-in tool may have no other"),
        (LLAMA_3_2, [user("a"), assistant("", call("get-it")), ipython("b")], {},
         "Python.*'get-it'.*Rename"),
        (LLAMA_3_2, [user("a"), assistant("", call("f", **{"in": 1})), ipython("b")], {},
         "Python.*'in'"),
        (LLAMA_3, [user("a"), assistant("", ROME), user("b")], {}, "no tool calls.*'weather'"),
        (LLAMA_2, [user("a"), assistant("", ROME), user("b")], {}, "no tool calls.*'weather'"),
        *[(format, [user("a", images=("a.png", "b.png"))], {},
           "messages are only text; got '2 images'; leave .* or use Llama 3.2 Vision's format")
          for format in (LLAMA_2, LLAMA_3, LLAMA_3_1, LLAMA_3_2)],
        (LLAMA_3_2_VISION, [user("a", images=("a.png",))], {"tools": [WEATHER]},
         r"with images has no tools; got \['weather'\]"),
        (LLAMA_3_2_VISION, [user("a", images=("a.png",))], {"builtin_tools": ["brave_search"]},
         r"with images has no tools; got \['brave_search'\]"),
        (LLAMA_3, [user("a")], {"tools": [WEATHER]}, "no tool calls.*'weather'"),
        (LLAMA_2, [user("a")], {"tools": [WEATHER]}, "no tool calls.*'weather'"),
        (LLAMA_3, [user("a"), assistant("b"), ipython("c")], {},
         "must be one of system, user, assistant; got 'ipython'"),
        (LLAMA_2, [user("a"), assistant("b"), ipython("c")], {},
         "must be one of system, user, assistant; got 'ipython'"),
        (LLAMA_2, [user("a"), user("b")], {}, "take turns.*'user', 'user'.*join"),
        (LLAMA_2, [assistant("a"), user("b")], {}, "take turns"),
        (LLAMA_2, [user("a"), assistant("b")], {}, "must end with the assistant"),
        *[(LLAMA_2, [user(f"a {mark} b")], {}, r"mark the turns.*remove it")
          for mark in LLAMA_2.frame.marks],
        (LLAMA_2, [system("[INST]"), user("a")], {}, "mark the turns"),
        (LLAMA_4, [user("a")], {"today": "26 Jul 2024"}, "no date.*26 Jul"),
        (LLAMA_4, [user("a")], {"builtin_tools": ["brave_search"]},
         "built-in tools are code_interpreter; got 'brave_search'"),
        (LLAMA_3_1, [user("a")], {"instructions": "Call."}, "introduce tools.*'Call.'"),
        (LLAMA_3_1, [system("a"), assistant("b")], {"tools": [WEATHER], "is_answered": True},
         "first message of the user"),
    ],
)  # fmt: skip
def test_dialogs_that_the_format_cannot_say_are_refused(format, dialog, options, message):
    with pytest.raises(ValueError, match=message):
        format.lay_out(dialog, **options)
