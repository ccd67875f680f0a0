import base64
import dataclasses
import datetime
import io
import re
import time

import numpy as np
import pytest
import torch
from PIL import Image
from seeing_twin import TEXT, loud
from tiny_checkpoints import chat_tokenizer_for, tiny

from llama_from_scratch.generate.chat import Chat as SpokenChat
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import GREEDY, Sampling
from llama_from_scratch.lessons.views.chat import ChatWindow, Conversation


@pytest.fixture
def chat(model, tokenizer):
    return ChatWindow(model, tokenizer, opening="", max_tokens=8)


def press_enter(chat, text):
    chat.field.value = text
    chat.field._handle_custom_msg({"event": "submit"}, [])
    chat.thread.join()


def test_enter_sends_and_the_answer_is_what_generate_gives(chat, model, tokenizer):
    chat.temperature.value = 0.0
    press_enter(chat, "the dog")
    prompt = tokenizer.encode("the dog", bos=True)
    (answer,) = generate(model, [prompt], max_tokens=8, sampling=GREEDY,
                         stop_ids={tokenizer.eos_id})
    assert chat.turns == [("you", "the dog"), ("model", tokenizer.decode(answer).rstrip("\ufffd"))]
    assert chat.field.value == "" and not chat.send_button.disabled and chat.stop_button.disabled


def test_each_answer_reads_all_that_was_said_and_has_a_seed_of_its_own(chat, model, tokenizer):
    chat.temperature.value = 1.5
    press_enter(chat, "the dog")
    before = list(chat._ids)
    assert len(before) == len(tokenizer.encode("the dog", bos=True)) + 8
    chat.field.value = "and"
    chat.send_button.click()
    chat.thread.join()
    prompt = before + tokenizer.encode(" and")
    (answer,) = generate(model, [prompt], max_tokens=8, sampling=Sampling(temperature=1.5), seed=1,
                         stop_ids={tokenizer.eos_id})
    assert chat._ids == prompt + answer


def test_after_a_text_the_model_ended_itself_the_next_begins_anew(chat, model, tokenizer):
    with torch.no_grad():  # a head that says only the end
        model.output.weight.zero_()
        model.norm.weight.fill_(1.0)
        model.output.weight[tokenizer.eos_id] = 1.0
        model.tok_embeddings.weight.abs_().add_(3.0)
    chat.temperature.value = 0.0
    press_enter(chat, "the dog")
    assert chat.turns[-1] == ("model", "")
    press_enter(chat, "the girl")
    assert chat._ids == tokenizer.encode("the girl", bos=True)


def test_stop_ends_a_long_answer(model, tokenizer, monkeypatch):
    import llama_from_scratch.lessons.views.chat as module

    def slow(*args, **settings):
        for _ in range(1000):
            time.sleep(0.01)
            yield 100

    monkeypatch.setattr(module, "stream", slow)
    chat = ChatWindow(model, tokenizer, opening="")
    chat.send("the dog")
    assert chat.thread.is_alive() and chat.send_button.disabled and not chat.stop_button.disabled
    chat.send("again")
    assert "still writing" in chat.problem.value
    chat.stop_button.click()
    chat.thread.join(timeout=60)
    assert not chat.thread.is_alive() and not chat.send_button.disabled and len(chat.turns) == 2


def test_answer_appears_while_it_is_written(model, tokenizer, monkeypatch):
    import llama_from_scratch.lessons.views.chat as module

    pages = []

    def watched(*args, **settings):
        for token in b"abc":
            yield token
            pages.append(chat.page.value)
            time.sleep(2 * module._SHOW_EVERY_S)

    monkeypatch.setattr(module, "stream", watched)
    chat = ChatWindow(model, tokenizer, opening="")
    press_enter(chat, "the dog")
    assert len(pages) >= 3
    for page, text in zip(pages[:3], ("a", "ab", "abc"), strict=True):
        assert page.count(f"</b> {text}</div>") == 1


@pytest.mark.parametrize(("text", "words"), [
    ("", "type a few words"), ("word " * 20_000, "room for 63 tokens; got far more")],
                         ids=["empty", "huge"])
def test_what_cannot_be_read_is_refused_in_words_and_nothing_is_lost(chat, text, words):
    press_enter(chat, "the dog")
    turns = list(chat.turns)
    chat.send(text)
    assert words in chat.problem.value and chat.turns == turns
    press_enter(chat, "and")
    assert chat.problem.value.find(words) < 0 and len(chat.turns) == 4


def test_a_full_context_is_told_with_its_cure_and_a_new_beginning_helps(chat):
    for _ in range(20):
        press_enter(chat, "the little dog")
    assert "context has room for 64 tokens" in chat.problem.value
    assert "start over" in chat.problem.value
    chat.new_button.click()
    assert chat.turns == [] and "<b>" not in chat.page.value
    press_enter(chat, "the dog")
    assert len(chat.turns) == 2 and chat.problem.value == ""


def test_what_is_written_is_shown_as_text_and_not_as_a_page(chat):
    press_enter(chat, "<b>bold</b> & <script>")
    assert "&lt;script&gt;" in chat.page.value and "<script>" not in chat.page.value


def test_still_is_a_picture_of_the_opening_and_nothing_of_the_conversation_is_stored(
    model, tokenizer
):
    chat = ChatWindow(model, tokenizer, opening="the $dog$", max_tokens=8)
    bundle = chat._repr_mimebundle_()
    assert chat.turns[0] == ("you", "the $dog$") and bundle["image/png"]
    press_enter(chat, "secret")
    assert chat._repr_mimebundle_()["image/png"] == bundle["image/png"]
    assert (bundle["text/plain"] == "Write with your model (a conversation: "
                                    "run the cell to write to it)")
    assert "image/png" not in ChatWindow(model, tokenizer, opening="")._repr_mimebundle_()


def test_enter_waits_for_words_that_the_browser_sends_a_moment_later(model, tokenizer):
    chat = ChatWindow(model, tokenizer, opening="", max_tokens=4)
    chat.field._handle_custom_msg({"event": "submit"}, [])
    assert chat.turns == [], "an empty field sends nothing"
    chat.field.value = "and then"
    chat.thread.join()
    assert chat.turns[0] == ("you", "and then")


def test_words_without_enter_wait_in_the_field(model, tokenizer):
    chat = ChatWindow(model, tokenizer, opening="", max_tokens=4)
    chat.field.value = "not yet"
    assert chat.turns == [] and chat.field.value == "not yet"


# --- in turns, with a chat format -----------------------------------------------------------------


@pytest.fixture
def spoken():
    return SpokenChat(tiny("llama-3.1"), chat_tokenizer_for("llama-3.1"), system="Be short.",
                      context=96)


@pytest.fixture
def conversation(spoken):
    return Conversation(spoken, max_tokens=8)


def test_enter_says_it_in_the_chat_and_the_answer_is_the_chats(conversation, spoken):
    conversation.temperature.value = 0.0
    press_enter(conversation, "the dog")
    other = SpokenChat(spoken.model, spoken.tokenizer, system="Be short.")
    assert conversation.turns == [("you", "the dog"),
                                  ("model", "".join(other.say("the dog", max_tokens=8)))]
    assert [m.content for m in spoken.messages] == [text for _, text in conversation.turns]
    assert conversation.field.value == "" and not conversation.send_button.disabled
    assert conversation.stop_button.disabled


def test_each_turn_has_a_seed_of_its_own_and_the_temperature_of_the_slider(conversation, spoken):
    conversation.temperature.value = 1.5
    for text in ("the dog", "and"):
        press_enter(conversation, text)
    other = SpokenChat(spoken.model, spoken.tokenizer, system="Be short.")
    said = ["".join(other.say(text, max_tokens=8, sampling=Sampling(temperature=1.5), seed=seed))
            for seed, text in enumerate(("the dog", "and"))]
    assert [text for who, text in conversation.turns if who == "model"] == said


def test_what_a_chat_said_before_is_shown(spoken):
    list(spoken.say("the dog", max_tokens=4))
    conversation = Conversation(spoken)
    assert [who for who, _ in conversation.turns] == ["you", "model"]
    assert "the dog" in conversation.page.value


def test_the_system_message_is_shown_and_may_be_changed(conversation, spoken):
    assert conversation.system.value == "Be short."
    conversation.system.value = "Be long."
    assert spoken.system == "Be long." and "from now on" in conversation.problem.value
    conversation.system.value = " "
    assert spoken.system is None and "no system message" in conversation.problem.value


def test_stop_ends_a_long_answer_and_what_was_read_is_remembered(conversation, spoken, monkeypatch):
    def slow(*args, **settings):
        for _ in range(1000):
            time.sleep(0.01)
            yield 100

    monkeypatch.setattr("llama_from_scratch.generate.chat.stream", slow)
    conversation.send("the dog")
    assert conversation.thread.is_alive() and conversation.send_button.disabled
    assert not conversation.stop_button.disabled
    conversation.send("again")
    assert "still writing" in conversation.problem.value
    time.sleep(0.2)
    conversation.stop_button.click()
    conversation.thread.join(timeout=60)
    assert not conversation.thread.is_alive() and not conversation.send_button.disabled
    assert len(conversation.turns) == 2 and len(spoken.messages[1].content) > 0


def test_an_answer_in_turns_appears_while_it_is_written(conversation, monkeypatch):
    import llama_from_scratch.lessons.views.chat as module

    pages = []

    def watched(*args, **settings):
        for token in b"abc":
            yield token
            pages.append(conversation.page.value)
            time.sleep(2 * module._SHOW_EVERY_S)

    monkeypatch.setattr("llama_from_scratch.generate.chat.stream", watched)
    press_enter(conversation, "the dog")
    assert len(pages) >= 3
    for page, text in zip(pages[:3], ("a", "ab", "abc"), strict=True):
        assert page.count(f"</b> {text}</div>") == 1


@pytest.mark.parametrize(("text", "words"), [("  ", "a message needs words"),
                                             ("word " * 20_000, "context holds 96 tokens")],
                         ids=["blank", "huge"])
def test_what_cannot_be_said_is_told_and_nothing_is_lost(text, words, conversation):
    press_enter(conversation, "the dog")
    turns = list(conversation.turns)
    conversation.send(text)
    assert words in conversation.problem.value and conversation.turns == turns
    press_enter(conversation, "and")
    assert words not in conversation.problem.value and len(conversation.turns) == 4


def test_an_answer_that_fails_is_told_and_its_question_forgotten(conversation, spoken):
    with torch.no_grad():
        spoken.model.norm.weight[0] = float("nan")
    press_enter(conversation, "the dog")
    assert "NaN" in conversation.problem.value and conversation.turns == []
    assert not conversation.send_button.disabled


def test_forgotten_turns_are_pale_and_told_and_a_new_beginning_helps(conversation, spoken):
    while not spoken.n_forgotten:
        press_enter(conversation, "the cat sat on the mat")
    assert "context of 96 tokens is full: the first 2 messages" in conversation.problem.value
    assert conversation.page.value.count("opacity: 0.5") == 2
    conversation.new_button.click()
    assert conversation.turns == [] == spoken.messages and "<b>" not in conversation.page.value
    assert spoken.system == "Be short." and conversation.problem.value == ""


def test_still_of_a_conversation_is_its_opening_with_the_system_message(spoken, monkeypatch):
    import llama_from_scratch.lessons.views.chat as module

    drawn = []
    frame = module.chat_frame

    def noted(turns, *, title):
        drawn.append(list(turns))
        return frame(turns, title=title)

    monkeypatch.setattr(module, "chat_frame", noted)
    conversation = Conversation(spoken, opening="the $dog$", max_tokens=8)
    bundle = conversation._repr_mimebundle_()
    assert drawn == [[("system", "Be short."), *conversation.turns]]
    assert conversation.turns[0] == ("you", "the $dog$")
    assert bundle["image/png"] and bundle["text/plain"].startswith("Talk with your model "
                                                                   "(a conversation")
    press_enter(conversation, "secret")
    assert conversation._repr_mimebundle_()["image/png"] == bundle["image/png"]
    spoken.reset()
    assert "image/png" not in Conversation(spoken)._repr_mimebundle_()


def test_what_is_said_is_shown_as_text_and_not_as_a_page(conversation):
    press_enter(conversation, "<b>bold</b> & <script>")
    assert "&lt;script&gt;" in conversation.page.value and "<script>" not in conversation.page.value


# --- images ---------------------------------------------------------------------------------------


def photo(seed, size=(20, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def file_of(image, name="cat.png"):
    """What the browser sends for an uploaded file."""
    if not isinstance(image, bytes):
        data = io.BytesIO()
        image.save(data, "PNG")
        image = data.getvalue()
    return {"name": name, "type": "image/png", "size": len(image), "content": memoryview(image),
            "last_modified": datetime.datetime.now(datetime.UTC)}


@pytest.fixture(scope="module")
def seeing():
    return loud(dataclasses.replace(TEXT, vocab_size=519, max_seq_len=256)).double()


@pytest.fixture
def looking(seeing):
    return Conversation(SpokenChat(seeing, chat_tokenizer_for("llama-3.2-vision")), max_tokens=8)


def pictures_in(page):
    """The images in a page: what their alternative text says, and their size."""
    found = re.findall('<img alt="([^"]*)".*?base64,([^"]*)"', page)
    return [(words, Image.open(io.BytesIO(base64.b64decode(data))).size) for words, data in found]


def test_an_uploaded_image_is_shown_with_the_next_message_and_in_the_conversation(looking):
    looking.temperature.value = 0.0
    looking.upload.value = (file_of(photo(1)), file_of(photo(2, (200, 400)), "dog.png"))
    expected = [("an image of 30 x 20 pixels", (90, 60)),
                ("an image of 400 x 200 pixels", (96, 48))]
    assert pictures_in(looking.shelf.value) == expected and looking.upload.value == ()
    press_enter(looking, "the cat")
    press_enter(looking, "and")
    asked = looking.chat.messages[0]
    assert [np.array_equal(shown, photo(*which)) for shown, which in
            zip(asked.images, ((1,), (2, (200, 400))), strict=True)] == [True, True]
    assert pictures_in(looking.page.value) == expected
    assert looking.shelf.value == "" and looking.waiting == []
    other = SpokenChat(looking.chat.model, looking.chat.tokenizer)
    said = ["".join(other.say("the cat", images=asked.images, max_tokens=8)),
            "".join(other.say("and", max_tokens=8))]
    assert [text for who, text in looking.turns if who == "model"] == said


def test_pictures_are_in_the_page_while_the_answer_is_written(looking, monkeypatch):
    pages = []

    def watched(*args, **settings):
        for token in b"abc":
            yield token
            pages.append(looking.page.value)
            time.sleep(0.2)

    monkeypatch.setattr("llama_from_scratch.generate.chat.stream", watched)
    looking.upload.value = (file_of(photo(1)),)
    press_enter(looking, "the cat")
    assert [len(pictures_in(page)) for page in pages] == [1, 1, 1]


def test_a_file_that_is_no_image_is_told_and_nothing_is_lost(looking):
    press_enter(looking, "hi")
    looking.upload.value = (file_of(photo(1)), file_of(b"<svg></svg>", "drawing.svg"))
    assert "drawing.svg" in looking.problem.value and "SVG" in looking.problem.value
    assert len(looking.waiting) == 1 and len(looking.turns) == 2
    looking.send("x " * 4000)
    assert "the context holds" in looking.problem.value and len(looking.waiting) == 1
    press_enter(looking, "the cat")
    assert len(looking.chat.messages[2].images) == 1 and looking.problem.value == ""


def test_an_answer_that_fails_gives_the_images_back(looking, monkeypatch):
    def failing(*args, **settings):
        raise ValueError("no numbers")
        yield

    monkeypatch.setattr("llama_from_scratch.generate.chat.stream", failing)
    looking.upload.value = (file_of(photo(1)),)
    press_enter(looking, "the cat")
    assert "no numbers" in looking.problem.value and looking.turns == []
    assert len(looking.waiting) == 1 and len(pictures_in(looking.shelf.value)) == 1
    looking.start_over()
    assert looking.waiting == [] and looking.shelf.value == ""


def test_a_model_of_text_has_no_upload_button(conversation, looking):
    def kinds(widget):
        return [type(widget).__name__, *(kind for child in getattr(widget, "children", ())
                                         for kind in kinds(child))]

    assert conversation.upload is None and "FileUpload" not in kinds(conversation)
    assert "FileUpload" in kinds(looking)


def test_images_without_an_opening_wait_for_the_first_message(seeing, spoken):
    chat = SpokenChat(seeing, chat_tokenizer_for("llama-3.2-vision"))
    window = Conversation(chat, images=[np.asarray(photo(1))], max_tokens=3)
    assert len(pictures_in(window.shelf.value)) == 1
    press_enter(window, "what is it?")
    assert len(chat.messages[0].images) == 1
    with pytest.raises(ValueError, match="Load one that sees"):
        Conversation(spoken, images=[photo(1)])


def test_an_opening_may_show_images_and_its_still_names_them(seeing, monkeypatch):
    import llama_from_scratch.lessons.views.chat as module

    drawn, frame = [], module.chat_frame
    monkeypatch.setattr(module, "chat_frame",
                        lambda turns, *, title: drawn.append(turns) or frame(turns, title=title))
    chat = SpokenChat(seeing, chat_tokenizer_for("llama-3.2-vision"))
    window = Conversation(chat, opening="what is it?", images=[np.asarray(photo(1))], max_tokens=3)
    assert drawn[0][0] == ("you", "[an image of 30 x 20 pixels] what is it?")
    assert window.turns[0] == ("you", "what is it?")
    assert pictures_in(window.page.value) == [("an image of 30 x 20 pixels", (90, 60))]
    again = Conversation(chat)
    assert len(pictures_in(again.page.value)) == 1, "what a chat showed before is shown"
