import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted
from tiny_checkpoints import TOKENIZER, tiny

from llama_from_scratch.generate import generate
from llama_from_scratch.lessons.figures import cache
from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.look import ORANGE


def test_new_and_kept_rows_are_those_of_the_cache_and_the_words_the_models(monkeypatch):
    made, model = noted(monkeypatch), tiny()
    prompt = "the cat"
    ids = TOKENIZER.encode(prompt)
    cache.grows(model, TOKENIZER, prompt=prompt)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    n = len(ids)
    names = [node.name for node in drawing.nodes]
    assert names.count(f"q{n}") == 1 and names.count("q0") == 1, "a query is used once"
    assert names.count("k0") == names.count("v0") == 3 and names.count(f"k{n + 1}") == 1
    new = [node.name for node in drawing.nodes if node.color == ORANGE and node.name]
    assert sorted(new) == sorted(f"{kind}{i}" for kind in "kv" for i in range(n + 2))
    (answer,) = generate(model, ids, max_tokens=3)
    notes = " ".join(note.text for note in drawing.notes)
    assert all(f'writes "{letters(TOKENIZER.decode_bytes([i]))}"' in notes for i in answer)
    plt.close("all")


def test_a_prompt_too_long_for_a_page_is_refused():
    with pytest.raises(ValueError, match="a prompt of 1 to 10 tokens"):
        cache.grows(tiny(), TOKENIZER, prompt="0123456789a")
