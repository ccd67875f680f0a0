"""What a dialog with tools and dates looks like."""

from chat_dialogs import ROME, WEATHER, assistant, call, ipython, shown, system, user

from llama_from_scratch.tokenizer.chat_format import CODE, LLAMA_3, LLAMA_3_1, LLAMA_4


def test_llama_3_strips_content_and_llama_3_1_keeps_it():
    assert "\n\nHi<|eot_id|>" in shown(LLAMA_3.lay_out([user("\n Hi ")]))
    assert "\n\n\n Hi <|eot_id|>" in shown(LLAMA_3_1.lay_out([user("\n Hi ")]))


def test_a_message_that_waits_for_a_tool_ends_with_eom():
    asked = assistant("", call(CODE, code="print(1+1)"), ends_turn=False)
    dialog = [user("1+1?"), asked, ipython("2")]
    assert shown(LLAMA_3_1.lay_out(dialog)) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n1+1?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n<|python_tag|>print(1+1)<|eom_id|>"
        "<|start_header_id|>ipython<|end_header_id|>\n\n2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    code = "<|python_start|>print(1+1)<|python_end|><|eom|>"
    assert f"assistant<|header_end|>\n\n{code}" in shown(LLAMA_4.lay_out(dialog))


def test_built_in_tools_are_named_and_called_with_a_query():
    found = assistant("", call("brave_search", query="Llama"), ends_turn=False)
    dialog = [user("?"), found, ipython("An animal.")]
    text = shown(LLAMA_3_1.lay_out(dialog, builtin_tools=[CODE, "brave_search"]))
    lead = "Environment: ipython\nTools: brave_search\n\n"
    assert f"system<|end_header_id|>\n\n{lead}<|eot_id|>" in text
    assert '<|python_tag|>brave_search.call(query="Llama")<|eom_id|>' in text


def test_pythonic_calls_may_be_several_and_their_tools_are_in_the_systems_message():
    calls = ROME, call("now", zone=None, day="it's")
    dialog = [system("Be kind."), user("?"), assistant("", *calls), ipython("1"), ipython("2")]
    text = shown(LLAMA_4.lay_out(dialog, tools=[WEATHER], instructions="Call some."))
    assert "system<|header_end|>\n\nEnvironment: ipython\nCall some.\n\n[\n    {" in text
    assert "]\n\nBe kind.<|eot|>" in text
    assert """[weather(city='Rome'), now(zone=None, day="it's")]<|eot|>""" in text
