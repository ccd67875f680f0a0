"""The package gives every view by its name, and loads it when it is used."""

import matplotlib.pyplot as plt
import pytest
from lazy_packages import promised
from moved_widgets import TEXT, ends
from pictures import faults, styled

from llama_from_scratch.lessons import sizes, views
from llama_from_scratch.lessons.widgets import Explorer


def test_every_widget_is_an_explorer_with_a_still(model, tokenizer):
    for explorer in (views.attention(model, tokenizer, text=TEXT), views.rope(model.config),
                     views.merges(tokenizer, text=TEXT)):
        assert isinstance(explorer, Explorer) and explorer._repr_mimebundle_()["image/png"]


def test_no_picture_has_words_that_are_small_cut_or_covered(model, tokenizer, monkeypatch):
    styled(monkeypatch)
    for explorer in (views.attention(model, tokenizer, text=TEXT), views.rope(model.config),
                     views.merges(tokenizer, text=TEXT),
                     views.sampling(model, tokenizer, text=TEXT),
                     views.residual_stream(model, tokenizer, text=TEXT),
                     sizes.areas(sizes.published()), sizes.kv_cache(sizes.published())):
        values = explorer._values()
        for name, control in explorer.controls.items():
            for value in ends(control):
                figure = explorer.draw(**values | {name: value})
                assert faults(figure) == [], (explorer.title, name, value)
                plt.close(figure)


def test_what_is_promised_to_readers_is_what_is_given():
    assert promised(views) == views._HOMES
    for name, home in views._HOMES.items():
        assert getattr(views, name).__module__ == f"{views.__name__}.{home}"


def test_an_unknown_view_is_refused_as_by_any_module():
    with pytest.raises(AttributeError, match="has no attribute 'atention'"):
        views.atention  # noqa: B018
