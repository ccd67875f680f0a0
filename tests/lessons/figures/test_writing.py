import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, links, noted

from llama_from_scratch import bundled, load
from llama_from_scratch.generate import generate
from llama_from_scratch.generate.sampling import Sampling, distribution
from llama_from_scratch.lessons.figures import writing
from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.look import TINTS

SAMPLING = Sampling(temperature=0.7, top_k=20, top_p=0.8)


@pytest.fixture(scope="module")
def mini():
    return load(bundled.path("mini"))


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


def test_the_loop_counts_what_the_filters_really_leave(made, mini):
    model, tokenizer = mini
    writing.loop(model, tokenizer, prompt="the cat", sampling=SAMPLING, max_tokens=7)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    lines = {node.name: node.lines for node in drawing.nodes}
    ids = tokenizer.encode("the cat", bos=True)
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[:, -1].float()
    n_left = int((distribution(logits, SAMPLING) > 0).sum())
    assert lines["top-k"][1:] == ("k = 20:", "20 of 1,024 left")
    assert lines["top-p"][1:] == ("p = 0.8:", f"{n_left} left") and n_left < 20
    assert letters(tokenizer.decode_bytes([int(logits.argmax())])) in lines["draw one"][2]
    assert lines["ids"][2] == f"1 × {len(ids)}" and lines["logits"][2] == "1 × 1,024"
    assert links(drawing) == [
        ("ids", "Llama"), ("Llama", "KV cache"), ("KV cache", "Llama"), ("Llama", "logits"),
        ("logits", "÷ temperature"), ("÷ temperature", "top-k"), ("top-k", "top-p"),
        ("top-p", "draw one"), ("draw one", "stop?"), ("stop?", "ids")]
    words = " ".join(note.text for note in drawing.notes)
    names = {i: name for name, i in tokenizer.special_ids.items()}
    assert all(names[i] in words for i in tokenizer.stop_ids) and "max_tokens = 7" in words


def test_a_sampling_without_a_filter_is_refused(mini):
    with pytest.raises(ValueError, match="all must be set"):
        writing.loop(*mini, prompt="a", sampling=Sampling(top_k=3))


def test_each_pass_feeds_what_is_new_and_the_words_are_the_models(made, mini):
    model, tokenizer = mini
    ids = tokenizer.encode("the cat")
    writing.prefill_and_decode(model, tokenizer, prompt="the cat")
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    (answer,) = generate(model, ids, max_tokens=3)
    fed = [node.name for node in drawing.nodes if node.color == TINTS[1] and node.name]
    assert fed == [letters(tokenizer.decode_bytes([i])) for i in (*ids, *answer)]
    notes = [note.text for note in drawing.notes if note.text.startswith("reads")]
    assert notes[0] == f"reads {model.config.n_params:,} weights\nfor {len(ids)} tokens"
    assert notes[1:] == 3 * [f"reads {model.config.n_params:,} weights\nfor 1 token"]


def test_a_prompt_too_long_for_a_page_is_refused(mini):
    with pytest.raises(ValueError, match="a prompt of 1 to 6 tokens"):
        writing.prefill_and_decode(*mini, prompt="0123456")
