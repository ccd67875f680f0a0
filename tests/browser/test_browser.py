"""JupyterLab starts, notebooks run, each widget answers to the keyboard and its picture changes:
seen in a real browser.
"""

import ast
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llama_from_scratch.lessons.authoring.copies import student
from llama_from_scratch.lessons.authoring.lab import open_notebook
from llama_from_scratch.lessons.authoring.parts import ASKED, COMPARED
from llama_from_scratch.lessons.widgets.parts import NOT_LIVE

pytestmark = pytest.mark.browser

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SCREENSHOTS = Path(__file__).parent / "screenshots"

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
CONTROLS = ".noUi-handle, .widget-toggle-buttons, select, input[type=text], input[type=checkbox]"

SLIDER = """\
import base64, struct, zlib
import ipywidgets

def png(grey):
    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
    rows = (b"\\x00" + bytes([grey]) * 64) * 64
    header = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\\x89PNG\\r\\n\\x1a\\n" + b"".join(chunks)

slider = ipywidgets.IntSlider(value=3, max=9)
picture = ipywidgets.Image(value=png(30 * slider.value), format="png")
slider.observe(lambda change: setattr(picture, "value", png(30 * change.new)), "value")
ipywidgets.VBox([slider, picture])"""


def write_notebook(path, *sources):
    cells = [
        {"cell_type": "code", "id": f"x-{k}", "metadata": {}, "execution_count": None,
         "outputs": [], "source": source}
        for k, source in enumerate(sources)
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4,
                                "nbformat_minor": 5}))


def output(page, text=None):
    """The outputs of the page, or the one that shows `text`; the sources show the same words and
    are left out.
    """
    outputs = page.locator(".jp-OutputArea-output")
    return outputs.filter(has_text=text) if text else outputs


def bytes_of(picture):
    """What an <img> shows; ipywidgets gives each new picture an address of its own."""
    code = ("async img => { await img.decode(); const b = await (await "
            "fetch(img.src)).arrayBuffer();")
    return bytes(picture.evaluate(code + " return Array.from(new Uint8Array(b)) }"))


def expect_another(page, picture, before):
    page.wait_for_function("([img, src]) => img.src !== src && img.complete",
                           arg=[picture.element_handle(), before])


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


def expected_widgets(page):
    """How many outputs of the notebook are widgets, by its own record.

    Neither questions nor bars that show progress are counted.
    """
    return page.evaluate("""kind =>
        jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells.flatMap(
        cell => (cell.outputs ?? []).filter(out => out.data?.[kind]
            && !/^Your guess: |\\ba bar shows/.test([out.data["text/plain"]].flat().join(""))
        )).length""", WIDGET_MIME)


def move_first_control(widget):
    """One step with the keyboard: the first control, whatever its kind, takes another value."""
    control = widget.locator(CONTROLS).first
    kind = control.evaluate("node => node.matches('.noUi-handle') "
                            "? 'slider' : node.type ?? 'buttons'")
    if kind == "slider":
        is_at_end = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
        control.press("ArrowLeft" if is_at_end else "ArrowRight")
    elif kind == "buttons":
        control.locator("button:not(.mod-active)").first.press("Enter")
    # JupyterLab takes the arrow keys for itself as long as the menu is closed
    elif kind == "select-one":
        for key in ("Space", "ArrowDown", "Enter"):
            control.press(key)
    elif kind == "text":
        control.press("End")
        control.press_sequentially(" and the")
        control.press("Enter")
    else:
        control.press("Space")


def words_under(page, cell):
    """What the page shows beside a cell of the picture while the pointer is in its middle."""
    box = cell.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    found = page.evaluate("() => "
                          "getComputedStyle([...document.querySelectorAll('i:hover')].at(-1), "
                          "'::after').content")
    return found.strip('"')


def check_hover(page, widget, *, head, name):
    """The pointer over two cells of a head's picture, where it is bright and where nothing may be
    seen.
    """
    picture, cells = widget.locator("img").bounding_box(), widget.locator(".llama-hover-cells")
    covered = cells.bounding_box()
    assert all(abs(covered[side] - picture[side]) < 1 for side in picture), (
        "the cells cover the picture")
    row = cells.locator(".grid").nth(head).locator(".row").nth(10)
    row.scroll_into_view_if_needed()
    told = words_under(page, row.locator("i").nth(3))
    assert re.fullmatch(r"layer \d, head \d, key/value \d: query “.+” \(10\) "
                        r"looks at key “.+” \(3\) with weight [\d.]+%", told)
    widget.screenshot(path=SCREENSHOTS / f"{name}.png")
    told = words_under(page, row.locator("i").nth(11))
    assert re.fullmatch(r"layer \d, head \d, key/value \d: hidden. Query “.+” \(10\) cannot see "
                        r"later tokens \(causal mask\)", told)
    page.mouse.move(0, 0)
    assert page.locator("i:hover").count() == 0


def check_widget(page, widget, *, name):
    """It shows a picture; the keyboard changes it; nothing is refused. The screenshot shows it
    afterwards.
    """
    widget.scroll_into_view_if_needed()
    if widget.locator("[role=log]").count():
        return check_chat(widget, name=name)
    picture = widget.locator("img")
    before, address = bytes_of(picture), picture.get_attribute("src")
    if widget.locator(CONTROLS).count():
        move_first_control(widget)
        expect_another(page, picture, address)
        assert bytes_of(picture) != before
    problems = widget.locator("[role=alert]")
    assert [problems.nth(k).inner_text() for k in range(problems.count())] == []
    SCREENSHOTS.mkdir(exist_ok=True)
    widget.screenshot(path=SCREENSHOTS / f"{name}.png")


def check_chat(widget, *, name):
    """It has answered its opening, and answers what is typed, without a refusal."""
    turns = widget.locator("[role=log] > div")
    assert turns.count() == 2
    move_first_control(widget)
    # A chat in a chat format, which has a field for the system's message, ends its answers itself;
    # stories go on.
    is_brief = widget.get_by_placeholder("what the model reads before all other messages").count()
    turns.nth(3).filter(has_text=re.compile(r"\w+\W+\w+\W+\w+" if is_brief else ".{20}")).wait_for()
    assert turns.nth(2).inner_text().split() == ["you", "and", "the"], (
        "all words are sent, however fast Enter follows them")
    assert widget.locator("[role=alert]").count() == 0
    SCREENSHOTS.mkdir(exist_ok=True)
    widget.screenshot(path=SCREENSHOTS / f"{name}.png")


def check_widgets(page, *, name):
    widgets = output(page).filter(has_not_text="Your guess:").locator(".widget-vbox")
    assert widgets.count() == expected_widgets(page) > 0
    for k in range(widgets.count()):
        if widgets.nth(k).is_visible():  # a live plot may hide when its run has ended
            check_widget(page, widgets.nth(k), name=f"{name}-widget-{k + 1}")


@pytest.fixture
def complaints(page):
    """What the page writes to the browser's console as an error, and every exception in it."""
    found = []
    listeners = {
        "console": lambda message: found.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: found.append(str(error)),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    yield found
    for event, listener in listeners.items():
        page.remove_listener(event, listener)


DEF = ast.FunctionDef | ast.ClassDef
WHOLE = "12_rope.ipynb"


def has_widget(cell):
    """By its stored output: the words shown for a widget where no kernel is alive."""
    texts = ["".join(out.get("data", {}).get("text/plain", "")) for out in cell.get("outputs", [])]
    return any("run the cell" in text and not text.startswith("Your guess: ") for text in texts)


def needed_by_widgets(path):
    """The sources of the cells with widgets and, backwards from them, of all that bind a name that
    these use, or ask a question that these compare. Questions themselves are not counted: they have
    no picture, and `test_reader` answers them.
    """
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    kept, wanted = [], set()
    for cell in reversed(cells):
        names = [node for node in ast.walk(ast.parse("".join(cell["source"])))
                 if isinstance(node, ast.Name | ast.alias | DEF)]
        used = {node.id
                for node in names if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        bound = {node.id for node in names if isinstance(node, ast.Name)
                 and isinstance(node.ctx, ast.Store)}
        bound |= {node.asname or node.name.partition(".")[0]
                  for node in names if isinstance(node, ast.alias)}
        bound |= {node.name for node in names if isinstance(node, DEF)}
        bound |= {*ASKED.findall("".join(cell["source"]))}
        used |= {*COMPARED.findall("".join(cell["source"]))}
        if has_widget(cell) or bound & wanted:
            kept.append("".join(cell["source"]))
            wanted |= used
    return kept[::-1], sum(map(has_widget, cells))


CHAPTERS = {path.name: needed_by_widgets(path) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, n_widgets) in CHAPTERS.items() if n_widgets])
def test_every_widget_of_the_notebook_answers_to_the_keyboard(
    lab, page, run_notebook, complaints, name
):
    sources, n_widgets = CHAPTERS[name]
    write_notebook(lab.folder / name, *sources)
    assert run_notebook(page, name) == []
    assert expected_widgets(page) >= n_widgets
    check_widgets(page, name=name.removesuffix(".ipynb"))
    assert complaints == []


@pytest.mark.slow
def test_a_whole_chapter_runs_from_its_first_cell_to_its_last(lab, page, run_notebook, complaints):
    whole = "whole_" + WHOLE
    shutil.copy(NOTEBOOKS / WHOLE, lab.folder / whole)
    assert run_notebook(page, whole) == []
    assert complaints == []


def test_a_picture_of_12_megabytes_can_be_uploaded_and_no_picture_shows_its_error(
    lab, page, run_notebook, complaints, tmp_path
):
    """A server without the course's settings closes the connection at 10 MB."""
    write_notebook(lab.folder / "upload.ipynb",
                   "import numpy as np\nfrom llama_from_scratch.lessons import views\n"
                   "views.tiles_of_picture(np.zeros((20, 30, 3), np.uint8))")
    assert run_notebook(page, "upload.ipynb") == []
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png", compress_level=0)
    (tmp_path / "fake.png").write_bytes(b"<svg/>")
    assert (tmp_path / "large.png").stat().st_size > 12_000_000
    widget = output(page).locator(".llama-widget")
    for name, words in (("large.png", "An image of 2,000 × 2,000 pixels"),
                        ("fake.png", "this is an SVG")):
        with page.expect_file_chooser() as chooser:
            widget.get_by_role("button", name="choose a picture").click()
        chooser.value.set_files(tmp_path / name)
        widget.get_by_text(words).wait_for()
    assert complaints == []


SETUP = """\
import math, time
import torch
from llama_from_scratch import bundled, load
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.lessons import ChatWindow, figures, gpu, sizes, views
from llama_from_scratch.train import History, Step

figures.style()
torch.set_num_threads(1)
model, tokenizer = load(bundled.path("mini"))
text = "Once upon a time, a little girl found an old garden. She was not afraid."

block_sum = gpu.program('''
extern "C" __global__ void block_sum(const float* x, float* sum) {
    __shared__ float part[64];
    part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    for (int half = 32; half; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) sum[0] = part[0];
}
''')

def sum_args():
    return [torch.arange(64.0), torch.zeros(1)]

def run(rate):
    losses = [2 + 5 * math.exp(-step * rate * 15) for step in range(100)]
    steps = (Step(step=k, loss=loss, lr=rate, grad_norm=1.0, n_tokens=1000, time_s=0.1)
             for k, loss in enumerate(losses))
    return History(steps=tuple(steps), is_complete=True)"""

GALLERY = {
    "attention": "views.attention(model, tokenizer, text=text)",
    "attention head": "views.attention(model, tokenizer, text=text, layer=2, head=1)",
    "residual stream": "views.residual_stream(model, tokenizer, text=text)",
    "rope": "views.rope(model.config)",
    "sampling": "views.sampling(model, tokenizer, text='The dog')",
    "learning rates": "views.learning_rates({rate: run(rate) for rate in (1e-4, 1e-3, 1e-2)})",
    "merges": "views.merges(tokenizer, text=text)",
    "gpu steps": "gpu.steps(trace(block_sum, 'block_sum', sum_args(), grid=1, block=64))",
    "gpu barriers": "gpu.barriers(block_sum, 'block_sum', sum_args, grid=1, block=64)",
    "areas": "sizes.areas({'mine': model.config, **sizes.published()})",
    "kv cache": "sizes.kv_cache({'mine': model.config, **sizes.published()})",
}


def test_every_widget_of_the_library_answers_to_pointer_and_keyboard_and_refuses_in_words(
    lab, page, run_notebook, complaints
):
    write_notebook(lab.folder / "gallery.ipynb", SETUP, *GALLERY.values())
    assert run_notebook(page, "gallery.ipynb") == []
    widgets = output(page).locator(".widget-vbox")
    check_hover(page, widgets.nth(0), head=2, name="gallery-hover-1")
    check_hover(page, widgets.nth(1), head=0, name="gallery-hover-2")
    check_widgets(page, name="gallery")
    for k, name in enumerate(GALLERY):
        field = widgets.nth(k).locator("input[type=text]")
        if field.count():
            for words in ("", "word " * 20_000):
                address = widgets.nth(k).locator("img").get_attribute("src")
                field.fill(words)
                field.press("Enter")
                widgets.nth(k).locator("[role=alert]").get_by_text("room for" if words
                                                                   else "words").wait_for()
                assert widgets.nth(k).locator("img").get_attribute("src") == address, name
            field.fill("@")
            field.press("Enter")
            widgets.nth(k).locator("[role=alert]").wait_for(state="detached")
    assert complaints == []


SLOW_CHAT = """\
model.norm.register_forward_hook(lambda *_: time.sleep(0.02))
ChatWindow(model, tokenizer, opening="The dog", max_tokens=400)"""


def test_chat_answers_while_other_controls_stay_alive_and_stops(
    lab, page, run_notebook, complaints
):
    write_notebook(lab.folder / "chat.ipynb", SETUP, GALLERY["rope"], SLOW_CHAT)
    assert run_notebook(page, "chat.ipynb") == []
    rope, chat = (output(page).locator(".widget-vbox").nth(k) for k in range(2))
    field, stop = chat.locator("input[type=text]"), chat.get_by_role("button", name="Stop")
    turns = chat.locator("[role=log] > div")
    assert turns.count() == 2 and stop.is_disabled()
    field.fill("Then a girl")
    field.press("Enter")
    turns.nth(3).filter(has_text=re.compile(".{20}")).wait_for()
    check_widget(page, rope, name="chat-rope")
    assert stop.is_enabled(), "the slider must be answered before the chat has ended"
    stop.press("Enter")
    chat.get_by_role("button", name="Send").and_(chat.locator(":enabled")).wait_for()
    told = turns.nth(3).inner_text()
    assert field.input_value() == "" and 20 < len(told)
    field.fill("word " * 20_000)
    field.press("Enter")
    chat.locator("[role=alert]").get_by_text("far more").wait_for()
    assert turns.count() == 4 and turns.nth(3).inner_text() == told
    chat.screenshot(path=SCREENSHOTS / "chat-widget.png")
    assert complaints == []


SEEING_CHAT = """\
import torch
from llama_from_scratch import family
from llama_from_scratch.config import VisionConfig
from llama_from_scratch.generate import Chat
from llama_from_scratch.lessons import Conversation
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import Tokenizer, released
from llama_from_scratch.tokenizer.chat_format import LLAMA_3_2_VISION
from llama_from_scratch.vision import attach
torch.manual_seed(0)
torch.set_num_threads(1)
tokenizer = Tokenizer.train("the cat and the rat " * 9, 513,
                            special_tokens=released.LLAMA_3_2_VISION)
config = family.tiny("llama-3.2")
vision = VisionConfig(dim=16, n_heads=2, ffn_dim=16, n_local_layers=2, n_global_layers=1,
                      intermediate_layers=(1,), tile_px=12, patch_px=4, max_tiles=1,
                      aspect_ratios=((1, 1),), norm_eps=1e-5, output_dim=config.dim)
model = attach(Llama(config), vision)
Conversation(Chat(model, tokenizer, format=LLAMA_3_2_VISION), max_tokens=4)"""


def test_an_image_is_uploaded_and_stays_in_the_conversation(
    lab, page, run_notebook, complaints, tmp_path
):
    Image.new("L", (64, 64), 90).save(tmp_path / "grey.png")
    (tmp_path / "words.png").write_text("no picture")
    write_notebook(lab.folder / "seeing.ipynb", SEEING_CHAT)
    assert run_notebook(page, "seeing.ipynb") == []
    chat = output(page).locator(".widget-vbox").first
    with page.expect_file_chooser() as asked:
        chat.get_by_role("button", name="Show an image").click()
    asked.value.set_files([str(tmp_path / "grey.png"), str(tmp_path / "words.png")])
    chat.locator("[role=alert]").get_by_text("this is text, 'no picture'").wait_for()
    chat.locator("img").wait_for()  # exactly one, and it may come after the words
    field = chat.get_by_placeholder("your words, then Enter")
    field.fill("What is it?")
    field.press("Enter")
    picture = chat.locator("[role=log] > div").first.locator("img")
    picture.wait_for()
    chat.get_by_role("button", name="Send").and_(chat.locator(":enabled")).wait_for()
    assert chat.locator("img").count() == 1 and picture.bounding_box()["height"] > 40
    chat.screenshot(path=SCREENSHOTS / "seeing-chat.png")
    assert complaints == []


# How wide a widget's picture, its own size and its place on the page are; and each control.
WIDTHS = """widget => {
    const page = widget.closest('.jp-OutputArea-output').clientWidth;
    const image = widget.querySelector('img');
    const sides = [...widget.children].map(child => child.getBoundingClientRect());
    return {page, right: Math.max(...sides.map(side => side.right)) -
                         widget.getBoundingClientRect().left,
            image: image && [image.width, image.height],
            own: image && [image.naturalWidth, image.naturalHeight]};
}"""


def test_pictures_keep_their_shape_and_controls_their_place_at_every_width(
    lab, page, run_notebook
):
    write_notebook(lab.folder / "widths.ipynb", SETUP, *GALLERY.values(), LIVE)
    assert run_notebook(page, "widths.ipynb") == []
    widgets = output(page).locator(".llama-widget")
    assert widgets.count() == len(GALLERY) + 1
    pages = set()
    for width in (900, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(500)  # JupyterLab moves its panels
        for k, name in enumerate([*GALLERY, "live plot"]):
            found = widgets.nth(k).evaluate(WIDTHS)
            (shown, height), (own, own_height) = found["image"], found["own"]
            assert shown == own or found["page"] - 8 <= shown < own or shown == round(own / 2), name
            assert abs(height - own_height * shown / own) <= 1, name
            assert found["right"] <= found["page"] + 1, name
            pages.add(found["page"])
    assert len(pages) == 3


LIVE = """\
from llama_from_scratch.lessons import LivePlot

live = LivePlot(n_steps=3)
display(live)
for k in range(3):
    live(Step(step=k, loss=4.0 - k, lr=1e-3, grad_norm=1.0, n_tokens=1000, time_s=0.1))"""


def test_the_tab_key_reaches_every_control_and_a_frame_shows_where_it_is(lab, page, run_notebook):
    write_notebook(lab.folder / "keys.ipynb", SETUP, GALLERY["sampling"], GALLERY["areas"])
    assert run_notebook(page, "keys.ipynb") == []
    for widget in output(page).locator(".llama-widget").all():
        controls = widget.locator(".noUi-handle, button, select, input")
        controls.first.focus()
        for k in range(controls.count()):
            focused = page.locator(":focus")
            assert controls.nth(k).evaluate("node => node === document.activeElement")
            assert focused.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
            page.keyboard.press("Tab")
            if focused.evaluate("node => node.matches('.widget-readout')"):
                page.keyboard.press("Tab")


MODEL = "jupyterapp.shell.currentWidget.content.model"


def test_a_copy_that_was_only_opened_is_not_changed_and_nothing_asks_for_news(lab, page):
    # start.py writes the kernel's language into each copy
    from ipykernel.ipkernel import IPythonKernel

    path = student(NOTEBOOKS / WHOLE, lab.folder / "mine")
    notebook = json.loads(path.read_text())
    notebook["metadata"]["language_info"] = IPythonKernel.language_info
    path.write_text(json.dumps(notebook))
    open_notebook(page, lab, f"mine/{WHOLE}")
    page.wait_for_function(f"() => {MODEL}.sharedModel.metadata.language_info?.version")
    page.wait_for_timeout(1000)
    assert page.evaluate(f"() => {MODEL}.dirty") is False
    assert page.locator(".Toastify__toast").count() == 0


def test_a_widget_says_that_it_is_not_live_when_its_kernel_is_gone_and_when_it_was_stored(
    lab, page, run_notebook
):
    write_notebook(lab.folder / "gone.ipynb", SETUP, GALLERY["rope"])
    assert run_notebook(page, "gone.ipynb") == []
    words = page.get_by_text(NOT_LIVE)
    assert words.count() == 1 and not words.is_visible()
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    words.wait_for(state="visible")
    open_notebook(page, lab, "gone.ipynb")
    stored = output(page).locator("img")
    stored.wait_for()
    assert output(page).locator(".llama-widget").count() == 0
    assert page.get_by_text("Error displaying widget").count() == 0
    stored.screenshot(path=SCREENSHOTS / "stored-widget.png")


def test_a_loop_that_takes_long_shows_that_it_moves(lab, page, run_notebook):
    write_notebook(lab.folder / "moving.ipynb", """\
import time
from llama_from_scratch.lessons import begin, moving

begin()
for k in moving(range(4), what="training four models"):
    time.sleep(0.3)""")
    assert run_notebook(page, "moving.ipynb") == []
    bar = output(page).locator(".llama-widget")
    assert bar.inner_text() == "training four models: 4 of 4, done"
    assert bar.locator(".progress-bar").evaluate("node => node.style.width") == "100%"
