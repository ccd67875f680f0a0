import matplotlib.pyplot as plt
from drawings import faults, noted

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import generations
from llama_from_scratch.lessons.figures.look import TINTS


def test_what_is_colored_differs_from_the_config_to_its_left(monkeypatch):
    made = noted(monkeypatch)
    generations.parts()
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    n = len(generations.NAMES)
    cells = [node for node in drawing.nodes if node.name]
    assert len(cells) == n * len(generations.PARTS)
    colored = {(i // n, i % n) for i, cell in enumerate(cells) if cell.color == TINTS[1]}
    rows = {part: row for row, part in enumerate(generations.PARTS)}
    configs = [family.config(name) for name in generations.NAMES]
    for part, field in (("attention", "n_kv_heads"), ("norms", "norm_eps"), ("head", "is_tied"),
                        ("context", "max_seq_len"), ("feed-forward", "ffn_dim")):
        expected = {i for i in range(1, n)
                    if getattr(configs[i], field) != getattr(configs[i - 1], field)}
        assert {column for row, column in colored if row == rows[part]} == expected, part
    assert f"{len(colored)} entries change" in figure.get_label()
    rope = cells[n * rows["RoPE"] : n * (rows["RoPE"] + 1)]
    assert [len(cell.lines) for cell in rope] == [1, 1, 1, 2, 2], "scaled from 3.1 on"
    plt.close("all")


def test_other_models_can_be_compared(monkeypatch):
    made = noted(monkeypatch)
    generations.parts(("llama-1-65b", "llama-2-70b"))
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    assert "H = 64\nG = 8" in {"\n".join(node.lines) for node in drawing.nodes}
    plt.close("all")
