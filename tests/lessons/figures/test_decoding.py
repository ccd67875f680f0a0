import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted
from pictures import faults as plot_faults
from pictures import styled

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import decoding

LLAMA_3 = family.config("llama-3.1-8b")


def test_a_row_makes_about_one_operation_per_byte_and_half_the_bytes_make_two():
    assert decoding.intensity(LLAMA_3, n_rows=1) == pytest.approx(1, rel=1e-3)
    assert decoding.intensity(LLAMA_3, n_rows=1, bytes_per_weight=1) == pytest.approx(2, rel=2e-3)
    assert decoding.intensity(LLAMA_3, n_rows=10**9) == pytest.approx(4096 * 14336 / (4096 + 14336),
                                                                      rel=1e-3)


def test_points_of_the_roofline_are_on_the_roof(monkeypatch):
    styled(monkeypatch)
    figure = decoding.roofline(LLAMA_3)
    roof, *points = figure.axes[0].lines[:4]
    assert max(roof.get_ydata()) == 989
    for point, n in zip(points, (1, 8, 256), strict=True):
        (x,), (y,) = point.get_xdata(), point.get_ydata()
        assert x == decoding.intensity(LLAMA_3, n_rows=n)
        assert y == pytest.approx(min(4.8 * x, 989))
    assert figure.get_label().endswith("1 row: 0.5 %; 8 rows: 3.9 %; 256 rows: 100 %.")
    assert plot_faults(figure) == []
    plt.close(figure)


@pytest.mark.parametrize("pair", [0, 1, 3])
def test_bits_of_the_drawing_are_numbers_that_bf16_reads(pair, monkeypatch):
    made = noted(monkeypatch)
    numbers = [3, 12, 5, 9, 0, 15, 8, 7]
    decoding.unpacking(numbers, pair=pair)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    bits = "".join(node.name for node in drawing.nodes if node.kind == "cell")
    word, masked, made_bits = (int(bits[begin:begin + 32][::-1], 2) for begin in (0, 32, 64))
    assert f"0x{word:08x}" in drawing.notes[0].text
    low, high = numbers[2 * pair:2 * pair + 2]
    assert masked == high << 16 | low
    assert made_bits == masked | 0x43004300
    assert f"make {128 + low} and {128 + high}." in figure.get_label()
    plt.close(figure)


@pytest.mark.parametrize(("numbers", "pair"), [([1] * 7, 0), ([16] * 8, 0), ([1] * 8, 4)])
def test_other_than_eight_small_numbers_are_refused(numbers, pair):
    with pytest.raises(ValueError, match="eight numbers from 0 to 15, in pairs 0 to 3"):
        decoding.unpacking(numbers, pair=pair)


def test_a_split_cache_has_a_block_for_each_head_and_split(monkeypatch):
    made = noted(monkeypatch)
    decoding.splits(LLAMA_3, n_splits=16)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    assert sum(node.kind == "cell" for node in drawing.nodes) == 8 + 8 * 16
    assert [note.text.partition(":")[0] for note in drawing.notes] == [
        "a block per key/value head", "split 16 ways"]
    assert "8 of 132 processors read. Split 16 ways, 128 do" in figure.get_label()
    plt.close(figure)
