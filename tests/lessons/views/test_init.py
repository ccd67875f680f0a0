"""The package gives every view by its name, and loads it when it is used."""

import pytest
from lazy_packages import promised
from moved_widgets import TEXT

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.widgets import Explorer


def test_every_widget_is_an_explorer_with_a_still(model, tokenizer):
    for explorer in (views.attention(model, tokenizer, text=TEXT), views.rope(model.config),
                     views.merges(tokenizer, text=TEXT)):
        assert isinstance(explorer, Explorer) and explorer._repr_mimebundle_()["image/png"]


def test_what_is_promised_to_readers_is_what_is_given():
    assert promised(views) == views._HOMES
    for name, home in views._HOMES.items():
        assert getattr(views, name).__module__ == f"{views.__name__}.{home}"


def test_an_unknown_view_is_refused_as_by_any_module():
    with pytest.raises(AttributeError, match="has no attribute 'atention'"):
        views.atention  # noqa: B018
