import dataclasses

import matplotlib.pyplot as plt
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch import family
from llama_from_scratch.lessons.views import tensor_parallel as views
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import tensor_parallel
from llama_from_scratch.parallel.fake import pretended


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


def of_layer(name, n_ranks, *, n_tokens=64, is_cut=False):
    return views.layer_costs(family.config(name), n_ranks=n_ranks, n_tokens=n_tokens,
                             is_sequence_parallel=is_cut)


@pytest.mark.parametrize(("name", "n_ranks"), [("llama-3.1-8b", 1), ("llama-3.1-8b", 4),
                                               ("llama-3.1-8b", 16), ("llama-3.1-405b", 8)])
@pytest.mark.parametrize("is_cut", [False, True])
def test_weights_and_bytes_are_those_of_a_split_model(name, n_ranks, is_cut):
    config = family.config(name)
    small = dataclasses.replace(config, layers=config.layers[:1])
    with pretended(size=n_ranks) as world:
        model = unwritten(small).to("meta", torch.bfloat16)
        tensor_parallel.split(model, world, is_sequence_parallel=is_cut)
        x = torch.empty(1, 64, config.dim, device="meta", dtype=torch.bfloat16, requires_grad=True)
        model.run(x, model.prepare(x)).sum().backward()
        sent = sum(call.sent_bytes for call in world.log.calls if "stream" not in call.note)
    found = of_layer(name, n_ranks, is_cut=is_cut)
    assert found.sent_bytes == sent
    assert found.weight_bytes == 2 * sum(p.numel() for p in model.layers[0].parameters())


def test_405b_sends_1_88_gb_per_layer_in_a_twelfth_of_its_computing_time():
    found = of_layer("llama-3.1-405b", 8, n_tokens=8192)
    assert found.sent_bytes == 1_879_048_192
    assert found.time_s == pytest.approx(0.051, rel=0.05)
    assert float(found.sent_bytes) / 450e9 / found.time_s == pytest.approx(1 / 12, rel=0.05)


def test_only_sequence_parallel_divides_the_stream():
    config = family.config("llama-3.1-8b")
    whole, plain, cut = (of_layer("llama-3.1-8b", n, is_cut=is_cut).kept_bytes
                         for n, is_cut in ((1, False), (8, False), (8, True)))
    assert cut == whole / 8
    assert plain - cut == 64 * 2 * 4 * config.dim * 7 / 8


@pytest.mark.parametrize("name", views.MODELS.values())
@pytest.mark.parametrize("n_ranks", views.RANKS.values())
@pytest.mark.parametrize("is_cut", [False, True])
def test_the_bars_are_the_costs(name, n_ranks, is_cut):
    figure = views.tensor_parallel_costs_frame(name, n_ranks, 8192, is_cut)
    left, right = figure.axes
    found = of_layer(name, n_ranks, n_tokens=8192, is_cut=is_cut)
    assert [bar.get_height() for bar in left.patches] == pytest.approx(
        [float(found.weight_bytes) / 1e9, float(found.kept_bytes) / 1e9])
    assert [bar.get_width() for bar in right.patches] == pytest.approx(
        [1e3 * found.time_s, *(1e3 * float(found.sent_bytes) / speed
                               for speed in views.LINKS.values())])
    assert faults(figure) == []


def test_a_control_changes_the_picture_and_the_words():
    view = views.tensor_parallel_costs()
    before = view.picture.value
    assert "8 ranks: the weights of a layer take 0.797 GB" in view.words.value
    assert "A rank sends 1.88 GB" in view.words.value
    view.controls["n_ranks"].value = 16
    assert view.picture.value != before and "A rank sends 2.01 GB" in view.words.value
    assert "A machine has 8 GPUs" in view.words.value
