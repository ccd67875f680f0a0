import time

import pytest
import torch

from llama_from_scratch.generate.generate import generate
from llama_from_scratch.generate.sampling import GREEDY, Sampling
from llama_from_scratch.lessons.chat import Chat


@pytest.fixture
def chat(model, tokenizer):
    return Chat(model, tokenizer, opening="", max_tokens=8)


def press_enter(chat, text):
    chat.field.value = text
    chat.field._handle_custom_msg({"event": "submit"}, [])
    chat.thread.join()


def test_enter_sends_and_the_answer_is_what_generate_gives(chat, model, tokenizer):
    chat.temperature.value = 0.0
    press_enter(chat, "the dog")
    prompt = tokenizer.encode("the dog", bos=True)
    (answer,) = generate(model, [prompt], max_tokens=8, sampling=GREEDY, stop_ids={tokenizer.eos_id})
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
    import llama_from_scratch.lessons.chat as module

    def slow(*args, **settings):
        for _ in range(1000):
            time.sleep(0.01)
            yield 100

    monkeypatch.setattr(module, "stream", slow)
    chat = Chat(model, tokenizer, opening="")
    chat.send("the dog")
    assert chat.thread.is_alive() and chat.send_button.disabled and not chat.stop_button.disabled
    chat.send("again")
    assert "still writing" in chat.problem.value
    chat.stop_button.click()
    chat.thread.join(timeout=5)
    assert not chat.thread.is_alive() and not chat.send_button.disabled and len(chat.turns) == 2


def test_answer_appears_while_it_is_written(model, tokenizer, monkeypatch):
    import llama_from_scratch.lessons.chat as module

    pages = []

    def watched(*args, **settings):
        for token in b"abc":
            yield token
            pages.append(chat.page.value)
            time.sleep(2 * module._SHOW_EVERY_S)

    monkeypatch.setattr(module, "stream", watched)
    chat = Chat(model, tokenizer, opening="")
    press_enter(chat, "the dog")
    assert [page.count("</b> " + text + "</div>") for page, text in zip(pages, ("a", "ab", "abc"))] == [1, 1, 1]


@pytest.mark.parametrize(("text", "words"), [("", "type a few words"), ("word " * 20_000, "room for 63 tokens; got far more")],
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
    assert "context holds 64 tokens" in chat.problem.value and "begin anew" in chat.problem.value
    chat.new_button.click()
    assert chat.turns == [] and "<b>" not in chat.page.value
    press_enter(chat, "the dog")
    assert len(chat.turns) == 2 and chat.problem.value == ""


def test_what_is_written_is_shown_as_text_and_not_as_a_page(chat):
    press_enter(chat, "<b>bold</b> & <script>")
    assert "&lt;script&gt;" in chat.page.value and "<script>" not in chat.page.value


def test_still_is_a_picture_of_the_opening_and_nothing_of_the_conversation_is_stored(model, tokenizer):
    chat = Chat(model, tokenizer, opening="the $dog$", max_tokens=8)
    bundle = chat._repr_mimebundle_()
    assert chat.turns[0] == ("you", "the $dog$") and bundle["image/png"]
    press_enter(chat, "secret")
    assert chat._repr_mimebundle_()["image/png"] == bundle["image/png"]
    assert bundle["text/plain"] == "Write with your model (a conversation: run the cell to write to it)"
    assert "image/png" not in Chat(model, tokenizer, opening="")._repr_mimebundle_()


def test_enter_waits_for_words_that_the_browser_sends_a_moment_later(model, tokenizer):
    chat = Chat(model, tokenizer, opening="", max_tokens=4)
    chat.field._handle_custom_msg({"event": "submit"}, [])
    assert chat.turns == [], "an empty field sends nothing"
    chat.field.value = "and then"
    chat.thread.join()
    assert chat.turns[0] == ("you", "and then")


def test_words_without_enter_wait_in_the_field(model, tokenizer):
    chat = Chat(model, tokenizer, opening="", max_tokens=4)
    chat.field.value = "not yet"
    assert chat.turns == [] and chat.field.value == "not yet"
