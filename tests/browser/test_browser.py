"""JupyterLab starts, notebooks run, a slider moves and the picture changes: seen in a real browser."""

import json

import pytest

pytestmark = pytest.mark.browser

SLIDER = """\
import base64, struct, zlib
import ipywidgets

def png(grey):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\\x00" + bytes([grey]) * 64) * 64
    header = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

slider = ipywidgets.IntSlider(value=3, max=9)
picture = ipywidgets.Image(value=png(30 * slider.value), format="png")
slider.observe(lambda change: setattr(picture, "value", png(30 * change.new)), "value")
ipywidgets.VBox([slider, picture])"""


def write_notebook(path, *sources):
    cells = [
        {"cell_type": "code", "id": f"x-{k}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for k, source in enumerate(sources)
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


def output(page, text=None):
    """The outputs of the page, or the one that shows `text`; the sources show the same words and are left out."""
    outputs = page.locator(".jp-OutputArea-output")
    return outputs.filter(has_text=text) if text else outputs


def bytes_of(picture):
    """What an <img> shows; ipywidgets gives each new picture an address of its own."""
    code = "async img => { await img.decode(); const b = await (await fetch(img.src)).arrayBuffer();"
    return bytes(picture.evaluate(code + " return Array.from(new Uint8Array(b)) }"))


def expect_another(page, picture, before):
    page.wait_for_function("([img, src]) => img.src !== src && img.complete", arg=[picture.element_handle(), before])


def test_slider_of_a_tiny_notebook_changes_its_picture(lab, page, run_notebook):
    write_notebook(lab.folder / "tiny.ipynb", SLIDER)
    assert run_notebook(page, "tiny.ipynb") == []
    picture = output(page).locator("img")
    before, address = bytes_of(picture), picture.get_attribute("src")
    output(page).locator(".noUi-handle").press("ArrowRight")
    expect_another(page, picture, address)
    assert bytes_of(picture) != before
    assert output(page).locator(".widget-readout").inner_text() == "4"


def test_error_in_a_cell_is_reported(lab, page, run_notebook):
    write_notebook(lab.folder / "broken.ipynb", "1 + 1", "1 / 0")
    assert run_notebook(page, "broken.ipynb") == ["ZeroDivisionError: division by zero"]


def test_rope_notebook_runs_and_its_hands_turn_with_the_slider(page, run_notebook):
    assert run_notebook(page, "12_rope.ipynb") == []
    explorer = output(page, "RoPE in motion")
    picture = explorer.locator("img")
    picture.scroll_into_view_if_needed()
    before, address = bytes_of(picture), picture.get_attribute("src")
    assert explorer.locator(".widget-readout").inner_text() == "3"
    explorer.locator(".noUi-handle").press("ArrowRight")
    expect_another(page, picture, address)
    assert explorer.locator(".widget-readout").inner_text() == "4"
    assert bytes_of(picture) != before
