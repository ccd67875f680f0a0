import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, links, noted
from tiny_checkpoints import TEXT, TOKENIZER, tiny

from llama_from_scratch.lessons.figures import learning
from llama_from_scratch.train.data import Packed
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.records import TrainConfig

CONFIG = TrainConfig(n_steps=4, batch_size=2, seq_len=16, n_warmup=2)


def test_the_numbers_of_the_drawing_are_those_of_a_real_step(monkeypatch):
    made = noted(monkeypatch)
    model, data = tiny(), Packed([TEXT], TOKENIZER)
    before = [p.clone() for p in model.parameters()]
    learning.training_step(model, data, CONFIG)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    ((drawing, drawn),) = made
    step = train(model, data, config=CONFIG).steps[0]
    lines = {node.name: node.lines for node in drawing.nodes}
    assert lines["cross-entropy"][1] == f"loss {step.loss:.2f}"
    assert lines["backward"][2] == f"together of length {step.grad_norm:.2f}"
    assert lines["AdamW"][1] == f"learning rate {step.lr:.1e}"
    assert lines["logits"][2] == "2 × 16 × 520"
    (note,) = (text for text, *_ in drawing.notes if text.startswith("the weights change"))
    assert float(note.split()[4]) == pytest.approx(step.lr, rel=1.0), "as long as the rate, first"
    assert faults(drawn, drawing) == []
    assert links(drawing) == [
        ("inputs", "Llama"), ("Llama", "logits"), ("logits", "cross-entropy"),
        ("targets", "cross-entropy"), ("cross-entropy", "backward"), ("backward", "clip"),
        ("clip", "AdamW"), ("AdamW", "Llama")]
    plt.close("all")
