"""All pictures of the machine: told in words, small, and in colors that differ in brightness."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from traced_kernels import copied, turned

from llama_from_scratch.lessons import figures, gpu
from llama_from_scratch.lessons.views.gpu import accesses, stepping


def test_every_picture_is_told_in_words_and_no_figure_stays_open(program, summed, barriers):
    for figure in (gpu.step_frame(summed.steps[0], "part"), gpu.source_frame(summed),
                   barriers.draw(line_7=False, line_10=True),
                   gpu.sectors_frame(copied(program, 2, 0), "y[", "x"),
                   gpu.banks_frame(turned(program, 33), "y[row", "tile")):
        assert len(figure.get_label()) > 6
        assert len(figures.png(figure)) < 100_000
    assert plt.get_fignums() == []


def test_colors_differ_in_brightness():
    def brightness(color):
        return np.dot(to_rgb(color), (0.3, 0.59, 0.11))

    for palette in ((stepping.WRITTEN, stepping.READ, stepping.IDLE),
                    (accesses.ASKED, accesses.MOVED, accesses.UNTOUCHED)):
        values = sorted(map(brightness, palette))
        assert min(np.diff(values)) > 0.08
