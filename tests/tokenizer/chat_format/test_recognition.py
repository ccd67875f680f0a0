import chat_templates
import pytest
from tiny_checkpoints import chat_tokenizer_for

from llama_from_scratch.tokenizer.chat_format import (
    FORMATS,
    ChatTemplate,
    Message,
    Tool,
    format_of,
    template_of,
)
from llama_from_scratch.tokenizer.prompting import NOTHING_SAID, Prompting

OURS = tuple(FORMATS.values())
NAMES = ("llama-2", "llama-3", "llama-3.1", "llama-3.2", "llama-3.2-vision", "llama-3.3")


def said(source, **names):
    return Prompting(templates={"default": source}, token_names=names)


@pytest.mark.parametrize("name", NAMES)
def test_each_of_our_formats_is_recognized_by_its_own_template(name):
    tokenizer = chat_tokenizer_for(name)
    assert format_of(tokenizer.prompting, tokenizer, ours=[FORMATS[name], *OURS]) is FORMATS[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_template_of_a_format_writes_what_the_format_does(name):
    tokenizer, format = chat_tokenizer_for(name), FORMATS[name]
    template = ChatTemplate(name=name, templates={"default": template_of(format)}, token_names={})
    dialog = [Message(role=role, content=content) for role, content in (
        ("system", "Be short."), ("user", "the cat\n\nsat"), ("assistant", "on the mat"))]
    assert (template.encode(dialog, tokenizer, is_answered=True)
            == format.encode(dialog, tokenizer, is_answered=True))
    with pytest.raises(ValueError, match="no words for tools"):
        template.text(dialog, tools=[Tool(name="add", description="", properties={})])


@pytest.mark.parametrize(("name", "source"), [
    ("llama-2", chat_templates.INSTRUCTIONS_WITH_A_SYSTEM), ("llama-3", chat_templates.HEADERS)])
def test_published_templates_are_recognized_as_our_formats(name, source):
    tokenizer = chat_tokenizer_for(name)
    names = {"bos_token": tokenizer.prompting.token_names["bos_token"],
             "eos_token": tokenizer.prompting.token_names["eos_token"]}
    assert format_of(said(source, **names), tokenizer, ours=OURS) is FORMATS[name]


def test_a_template_that_adds_a_date_is_obeyed_and_read_as_its_kin():
    tokenizer = chat_tokenizer_for("llama-3.1")
    found = format_of(said(chat_templates.HEADERS_WITH_A_DATE, bos_token="<|begin_of_text|>"),
                      tokenizer, ours=OURS)
    assert isinstance(found, ChatTemplate) and found.kin is FORMATS["llama-3.1"]
    assert found.name == "Llama 3.1, by the template of its files"


@pytest.mark.parametrize("source", [
    chat_templates.CHATML, chat_templates.ZEPHYR, "broken {% if %}",
    template_of(FORMATS["llama-3"]).replace("user", "human").replace("\\n\\n", "\\n")])
def test_any_other_template_is_none_of_ours(source):
    tokenizer = chat_tokenizer_for("llama-3")
    found = format_of(said(source, eos_token="<|end_of_text|>"), tokenizer, ours=OURS)
    assert isinstance(found, ChatTemplate) and found.kin is None


def test_without_templates_there_is_no_format():
    assert format_of(NOTHING_SAID, chat_tokenizer_for("llama-3"), ours=OURS) is None


# --- images ---------------------------------------------------------------------------------------

VISION = FORMATS["llama-3.2-vision"]


def test_the_template_of_a_format_with_images_writes_them_as_the_format_does():
    tokenizer = chat_tokenizer_for("llama-3.2-vision")
    template = ChatTemplate(name="x", templates={"default": template_of(VISION)}, token_names={})
    dialog = [Message(role="user", content="the cat", images=("a.png", "b.png")),
              Message(role="assistant", content="sat"), Message(role="user", images=("c.png",))]
    assert template.encode(dialog, tokenizer) == VISION.encode(dialog, tokenizer)


def test_a_template_that_puts_images_elsewhere_is_not_our_format():
    tokenizer = chat_tokenizer_for("llama-3.2-vision")
    last = template_of(VISION).replace("in message['content'] %}", "in message['content'][::-1] %}")
    found = format_of(said(last), tokenizer, ours=[VISION])
    dialog = [Message(role="user", content="the cat", images=("a.png",))]
    assert isinstance(found, ChatTemplate)
    assert found.encode(dialog, tokenizer) != VISION.encode(dialog, tokenizer)


def test_the_released_vision_template_is_obeyed_and_read_as_its_kin():
    tokenizer = chat_tokenizer_for("llama-3.2-vision")
    names = {"bos_token": "<|begin_of_text|>"}
    found = format_of(said(chat_templates.HEADERS_WITH_IMAGES, **names), tokenizer,
                      ours=[VISION, *OURS])
    assert isinstance(found, ChatTemplate) and found.kin is VISION
