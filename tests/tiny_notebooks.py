"""Notebooks so small, without torch and matplotlib, that a kernel is ready in half a second."""

import json

PLAIN = """\
import random
random.seed(0)
print("one"); print("two")
print(f"loss {random.random():.4f}")
assert random"""
PICTURE = """\
from PIL import Image, ImageDraw
from IPython.display import display
picture = Image.new("RGB", (40, 30), "white")
ImageDraw.Draw(picture).line((0, 0, 39, 29), fill="navy")
class Figure:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": picture._repr_png_(), "text/plain": "<Figure size 40x30 with 1 Axes>"}
display(Figure())"""
SLIDER = """\
from ipywidgets import IntSlider, interact
interact(lambda k: print("k =", k), k=IntSlider(value=2, max=4))
_ = None"""
# Like the library's own widgets: live in JupyterLab, and a picture everywhere else.
EXPLORER = """\
from ipywidgets import VBox, IntSlider
class Explorer(VBox):
    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "image/png": picture._repr_png_(), "text/plain": "explorer: one line"}
Explorer([IntSlider()])"""
RAISES = "raise ValueError('head_dim must be even; got 7')"


def cell(source, *, tags=(), **more):
    kind = "markdown" if source.startswith("# ") else "code"
    code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {"tags": [*tags]} if tags else {}, "source": source,
            **code, **more}


def write(path, *cells):
    content = {"cells": [*cells], "metadata": {"widgets": {"x": 1}}, "nbformat": 4,
               "nbformat_minor": 5}
    path.write_text(json.dumps(content))
    return path


def edit(path, change):
    """Makes a careless change to the stored notebook, and leaves it in canonical form otherwise.
    """
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def outputs(path, number):
    return json.loads(path.read_text())["cells"][number]["outputs"]


def write_tiny(folder):
    return write(folder / "12_tiny.ipynb", cell("# Tiny"), cell(PLAIN), cell(PICTURE), cell(SLIDER),
                 cell(EXPLORER),
                 cell(RAISES, tags=["raises-exception"]))


def remove_picture(content):
    del content["cells"][2]["outputs"][0]["data"]["image/png"]
