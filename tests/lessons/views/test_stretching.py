import matplotlib.pyplot as plt
import pytest
import torch
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views import stretching as module
from llama_from_scratch.train.recall import needle_map, trained


def test_each_way_changes_what_its_name_says():
    model = trained()
    config = model.config
    longer = {way: module.stretched_by(model, way, 8.0, trained=64, max_seq_len=256)
              for way in module.WAYS}
    freqs = [each.rope.freq_R for each in longer.values()]
    assert torch.allclose(freqs[0], model.rope.freq_R / 8)
    assert freqs[1][0] == freqs[2][0] == 1
    assert torch.allclose(freqs[1][-1], model.rope.freq_R[-1] / 8)
    assert torch.allclose(freqs[2][-1], model.rope.freq_R[-1] / 8)
    assert model.config == config and config.max_seq_len == 64
    with pytest.raises(ValueError, match="in one of divide all frequencies"):
        module.stretched_by(model, "pull", 8.0, trained=64, max_seq_len=256)


def test_the_frame_has_way_factor_and_shares(monkeypatch):
    styled(monkeypatch)
    figure = module.stretched_frame([[1.0, 0.5], [0.0, 0.25]], way=module.WAYS[2], factor=8,
                                    lengths=(64, 256), trained=64)
    assert faults(figure) == []
    assert figure.axes[0].get_title(loc="left") == "Llama 3.1's scaling, factor 8"
    plt.close("all")


def test_the_widget_shows_the_map_of_the_chosen_model():
    model = trained()
    widget = views.stretched(model, trained=64, lengths=(64, 128), factors=(1, 8), n_texts=5)
    widget.controls["way"].value = module.WAYS[1]
    longer = module.stretched_by(model, module.WAYS[1], 8.0, trained=64, max_seq_len=128)
    found = needle_map(longer, (64, 128), n_texts=5)
    assert f"{100 * sum(found[1]) / 4:.0f} %" in widget.words.value
    assert figure_of(widget) is not None
    widget.controls["factor"].value = 1
    found = needle_map(module.stretched_by(model, module.WAYS[1], 1.0, trained=64,
                                           max_seq_len=128), (64, 128), n_texts=5)
    assert f"{100 * sum(found[1]) / 4:.0f} %" in widget.words.value
    plt.close("all")
