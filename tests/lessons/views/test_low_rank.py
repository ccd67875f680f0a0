import copy
import dataclasses

import matplotlib.pyplot as plt
import pytest
import torch
from chat_dialogs import SMALL
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch import family
from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views import low_rank as module
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune.adapters.bases import linear_layers

TOKENIZER = SMALL["llama-3.1"]


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    base = Llama(dataclasses.replace(family.tiny("llama-3.2"), vocab_size=TOKENIZER.vocab_size))
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        for p in tuned.parameters():
            p += 0.05 * torch.randn_like(p)
    return base, tuned


def test_no_direction_is_the_base_and_all_are_the_tuned_model(models):
    base, tuned = models
    truncated, names = module.Truncated(base, tuned), [
        name for name in linear_layers(base) if name.startswith("layers.")]
    for rank, expected, share in ((0, base, 0.0), (96, tuned, 1.0)):
        model, kept = truncated.at(rank)
        assert kept == pytest.approx(share)
        for name in names:
            assert torch.allclose(linear_layers(model)[name].weight,
                                  linear_layers(expected)[name].weight, atol=1e-5)
    assert torch.equal(model.norm.weight, tuned.norm.weight)


def test_a_few_directions_are_the_best_of_their_rank(models):
    base, tuned = models
    model, share = module.Truncated(base, tuned).at(2)
    name = "layers.0.attention.wq"
    before, after, now = (linear_layers(each)[name].weight.detach()
                          for each in (base, tuned, model))
    assert torch.linalg.matrix_rank(now - before, atol=1e-4) == 2
    left = torch.linalg.svdvals(after - before)[2:].norm()
    assert (after - now).norm() == pytest.approx(left.item(), rel=1e-3) and 0 < share < 1


@pytest.mark.parametrize(("rank", "words"), [(1, "1 direction of each"), (8, "8 directions of")])
def test_the_frame_has_request_answer_and_share(monkeypatch, rank, words):
    styled(monkeypatch)
    figure = module.kept_directions_frame(" Where is Tom? " * 9, "here " * 30, rank=rank,
                                          share=0.25)
    assert faults(figure) == []
    assert words in figure.get_label() and "25%" in figure.axes[0].get_title(loc="left")
    assert figure.axes[0].patches[1].get_width() == 0.25
    empty = module.kept_directions_frame("Hi", "", rank=rank, share=1.0)
    assert "(nothing)" in [text.get_text() for text in empty.axes[1].texts]
    plt.close("all")


def test_the_widget_answers_with_the_chosen_rank(models):
    widget = views.kept_directions(*models, TOKENIZER, FORMATS["llama-3.2"],
                                   requests=["Rome", "city"], ranks=(0, 1, 96))
    assert "With 1 direction of each change" in widget.words.value
    widget.controls["rank"].value = 96
    widget.controls["request"].value = "city"
    assert "96 directions of each change (100% of it)" in widget.words.value
    assert "“city”" in widget.words.value and figure_of(widget) is not None
    plt.close("all")
