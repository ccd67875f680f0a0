import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted
from tiny_checkpoints import TOKENIZER

from llama_from_scratch.lessons.figures import packing
from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.train.data import IGNORE, Packed


@pytest.mark.parametrize("documents", [["the cat sat.", "a rat on the mat"],
                                       ["mat", "cat cat cat cat cat", "rat", "the mat the mat"]])
def test_inputs_targets_and_documents_are_those_of_the_batch(documents, monkeypatch):
    made, data = noted(monkeypatch), Packed(documents, TOKENIZER)
    packing.windows(data, seq_len=6)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    batch = next(data.in_order(batch_size=2, seq_len=6))
    names = {TOKENIZER.bos_id: "begin", TOKENIZER.eos_id: "end", IGNORE: "–"}
    cells = iter(drawing.nodes)
    starts = [0]
    for document in documents:
        starts.append(starts[-1] + len(TOKENIZER.encode(document)) + 2)
    for row in range(2):
        for values in (batch.ids[row], batch.targets[row]):
            for i, value in enumerate(values.tolist()):
                cell = next(cells)
                assert cell.name == (names.get(value) or letters(TOKENIZER.decode_bytes([value])))
                if value not in names:
                    number = sum(start <= 6 * row + i for start in starts) - 1
                    assert cell.color == TINTS[number]
    assert f"{batch.n_targets} of 12 inputs" in figure.get_label()
    plt.close("all")
