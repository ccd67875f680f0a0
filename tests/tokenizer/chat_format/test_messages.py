"""Messages, calls and tools that cannot be are refused."""

import pytest
from chat_dialogs import CITY, ROME, call, user

from llama_from_scratch.tokenizer.chat_format import CODE, Message, Tool


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Message(role="bot"), "a role must be one of.*'bot'"),
        (lambda: Message(role="tool"), "'ipython'"),
        (lambda: Message(role="user", contents="a"), "did you mean 'content'"),
        (lambda: user("a", tool_calls=(ROME,)), "assistant may call tools.*'weather' by 'user'"),
        (lambda: user("a", images=["a.png"]), r"a tuple; got list. .*images=\(image,\)"),
        (lambda: Message(role="assistant", images=(b"", b"")),
         "only a user may show images; got 2 in a message of 'assistant'"),
        (lambda: Message(role="system", images=(b"",)), "only a user may show images"),
        (lambda: call(""), "a tool's name.*Rename"),
        (lambda: call('f">'), "a tool's name"),
        (lambda: call("f", a=float("inf")), "JSON values.*inf"),
        (lambda: call("f", a=(1,)), r"JSON values.*\(1,\)"),
        (lambda: call("f", a={1: 2}), "JSON values"),
        (lambda: call(CODE, source="1"), "one argument, code"),
        (
            lambda: Tool(name="f", description="", properties=CITY, required=("cty",)),
            "'cty'.*did you mean 'city'",
        ),
    ],
)
def test_messages_that_nobody_can_say_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
