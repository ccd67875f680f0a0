"""Dialogs that a generation cannot say are refused."""

import pytest
from chat_dialogs import ROME, WEATHER, assistant, call, ipython, system, user

from llama_from_scratch.tokenizer.chat_format import (
    CODE,
    LLAMA_2,
    LLAMA_3,
    LLAMA_3_1,
    LLAMA_3_2,
    LLAMA_4,
)


@pytest.mark.parametrize(
    "format, dialog, options, message",
    [
        (LLAMA_3_1, [], {}, r"beside the system's.*\[\].*add a user"),
        (LLAMA_3_1, [system("a")], {}, "beside the system's"),
        (LLAMA_3_1, [user("a"), system("b")], {}, "first and only.*'user', 'system'.*join"),
        (LLAMA_3_1, [system("a"), system("b"), user("c")], {}, "first and only"),
        (LLAMA_3_1, [user("a"), assistant("b")], {}, "comes last.*is_answered=True"),
        (LLAMA_3_1, [user("a")], {"is_answered": True}, "comes last.*add the answer"),
        (LLAMA_3_1, [user("a"), ipython("b")], {}, "follows the assistant.*'user', 'ipython'"),
        (LLAMA_3_1, [ipython("b")], {}, "follows the assistant"),
        (LLAMA_3_1, [user("a"), assistant("b", ends_turn=False), user("c")], {},
         "waits for a tool.*ends_turn=True"),
        (LLAMA_3_1, [user("a", ends_turn=False)], {}, "by assistant; got 'user'.*ends_turn=True"),
        (LLAMA_3, [user("a"), assistant("b", ends_turn=False)], {"is_answered": True},
         "by nobody.*ends_turn=True"),
        (LLAMA_3_1, [user("a"), assistant("", ROME, ROME), ipython("b")], {},
         "calls one tool.*give each"),
        (LLAMA_3_1, [user("a"), assistant("Hm", ROME), ipython("b")], {},
         "calls stand alone.*'Hm'"),
        (LLAMA_3_2, [user("a"), assistant("", ROME, call(CODE, code="1")), ipython("b")], {},
         "built-in tool stands alone"),
        (LLAMA_3_2, [user("a"), assistant("", call("get-it")), ipython("b")], {},
         "Python.*'get-it'.*rename"),
        (LLAMA_3_2, [user("a"), assistant("", call("f", **{"in": 1})), ipython("b")], {},
         "Python.*'in'"),
        (LLAMA_3, [user("a"), assistant("", ROME), user("b")], {}, "no tool calls.*'weather'"),
        (LLAMA_2, [user("a"), assistant("", ROME), user("b")], {}, "no tool calls.*'weather'"),
        (LLAMA_3, [user("a")], {"tools": [WEATHER]}, "no tool calls.*'weather'"),
        (LLAMA_2, [user("a")], {"tools": [WEATHER]}, "no tool calls.*'weather'"),
        (LLAMA_3, [user("a"), assistant("b"), ipython("c")], {},
         "roles are system, user, assistant; got 'ipython'"),
        (LLAMA_2, [user("a"), assistant("b"), ipython("c")], {},
         "roles are system, user, assistant; got 'ipython'"),
        (LLAMA_2, [user("a"), user("b")], {}, "take turns.*'user', 'user'.*join"),
        (LLAMA_2, [assistant("a"), user("b")], {}, "take turns"),
        (LLAMA_2, [user("a"), assistant("b")], {}, "comes last"),
        *[(LLAMA_2, [user(f"a {mark} b")], {}, r"mark the turns.*take it out")
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
