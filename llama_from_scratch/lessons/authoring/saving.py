"""Removes the references to widgets from a notebook when JupyterLab saves it.

A saved widget is only the name of an object in a kernel. Without that kernel, JupyterLab shows an
error in its place. So the name is removed. What is kept is the widget's picture, which says that it
is not live, and its text. `lessons/jupyter_settings` makes JupyterLab call this.
"""

from typing import Any

from llama_from_scratch.lessons.authoring.form import WIDGET_VIEW


def keep_pictures(*, model: dict[str, Any], path: str, contents_manager: Any) -> None:
    """Removes the names of widgets from a notebook before it is saved.

    A notebook with the state of its widgets does not change, because JupyterLab can show them.
    Jupyter's `pre_save_hook` defines the arguments.
    """
    if model["type"] != "notebook" or "widgets" in model["content"]["metadata"]:
        return
    for cell in model["content"]["cells"]:
        for output in cell.get("outputs", ()):
            if "text/plain" in output.get("data", ()):
                output["data"].pop(WIDGET_VIEW, None)
