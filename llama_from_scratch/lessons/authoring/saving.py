"""What happens to a notebook when JupyterLab saves it.

A saved widget is only the name of an object in a kernel. When the kernel is gone, JupyterLab shows
an error in its place. So only what a widget stores beside that name is kept: its picture, which
says that it is not live, and its words. `lessons/jupyter_settings` has JupyterLab call this.
"""

from typing import Any

from llama_from_scratch.lessons.authoring.form import WIDGET_VIEW


def keep_pictures(*, model: dict[str, Any], path: str, contents_manager: Any) -> None:
    """Takes the names of widgets out of what is about to be saved.

    A notebook that holds the state of its widgets stays as it is: JupyterLab can show those. The
    arguments are those of Jupyter's `pre_save_hook`.
    """
    if model["type"] != "notebook" or "widgets" in model["content"]["metadata"]:
        return
    for cell in model["content"]["cells"]:
        for output in cell.get("outputs", ()):
            if "text/plain" in output.get("data", ()):
                output["data"].pop(WIDGET_VIEW, None)
