import copy
import json
from pathlib import Path

from llama_from_scratch import lessons
from llama_from_scratch.lessons.authoring.form import WIDGET_VIEW
from llama_from_scratch.lessons.authoring.saving import keep_pictures

SETTINGS = Path(lessons.__file__).parent / "jupyter_settings"


def notebook(*data, **metadata):
    outputs = [{"output_type": "display_data", "metadata": {}, "data": each} for each in data]
    outputs.append({"output_type": "stream", "name": "stdout", "text": "words"})
    cells = [{"cell_type": "markdown", "source": "# A title", "metadata": {}},
             {"cell_type": "code", "source": "1", "metadata": {}, "outputs": outputs}]
    return {"type": "notebook", "content": {"cells": cells, "metadata": metadata}}


def saved(model):
    model = copy.deepcopy(model)
    keep_pictures(model=model, path="a.ipynb", contents_manager=None)
    return model


def test_the_name_of_a_widget_is_left_out_and_its_picture_and_words_are_kept():
    view, still = {WIDGET_VIEW: {"model_id": "1"}}, {"image/png": "iVBO", "text/plain": "a title"}
    assert saved(notebook(view | still)) == notebook(still)


def test_a_widget_that_would_leave_nothing_a_state_and_other_files_stay_as_they_are():
    view = {WIDGET_VIEW: {"model_id": "1"}}
    with_state = notebook(view | {"text/plain": "a"}, widgets={"state": {}})
    for model in (notebook(view), with_state, {"type": "file", "content": "text"}):
        assert saved(model) == model


def test_jupyter_is_told_to_call_it_by_its_own_name():
    config = json.loads((SETTINGS / "jupyter_server_config.json").read_text())
    name = f"{keep_pictures.__module__}.{keep_pictures.__name__}"
    assert config["FileContentsManager"] == {"pre_save_hook": name}
