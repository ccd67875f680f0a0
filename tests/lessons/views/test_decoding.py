import matplotlib.pyplot as plt
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch import family
from llama_from_scratch.kernels.decode import splits_for
from llama_from_scratch.lessons.views import decoding as views
from llama_from_scratch.model.quantized import Int4Linear, Int8Linear
from llama_from_scratch.model.transformer import Llama


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


def of_8b(bits, *, context=8192, n_readers=1, **settings):
    return views.step_bytes(family.config("llama-3.1-8b"), bits=bits, context=context,
                            n_readers=n_readers, **settings)


@pytest.mark.parametrize(("bits", "n_bytes"), [(16, 15.01e9), (8, 7.51e9), (4.125, 3.87e9)])
def test_weights_of_llama_3_8b_without_its_embedding(bits, n_bytes):
    assert of_8b(bits).weights == pytest.approx(n_bytes, rel=1e-3)


def test_readers_share_the_weights_and_have_a_cache_each():
    one, many = of_8b(16), of_8b(16, n_readers=16)
    assert many.cache == 16 * one.cache == 16 * 8192 * 131072
    assert many.weights - one.weights == 15 * 2 * 4096
    assert of_8b(16, cache_bits=8).cache == one.cache / 2
    assert many.read == many.weights + many.cache


@pytest.mark.parametrize("generation", ["llama-1", "llama-3.2"])
@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_held_is_what_a_quantized_model_has(generation, bits):
    config = family.tiny(generation)
    model = Llama(config).bfloat16()
    tied = model.output.weight is model.tok_embeddings.weight
    n_bytes = sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())
    scales = 0
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and not (tied and module is model.output):
            new = (Int8Linear.from_linear(module) if bits == 8
                   else Int4Linear.from_linear(module, group=32))
            stored = new.numbers if bits == 8 else new.words
            n_bytes += stored.nbytes - module.weight.nbytes
            scales += new.scale.nbytes
    found = views.step_bytes(config, bits=bits, context=0, n_readers=1)
    assert found.held == n_bytes
    assert scales < n_bytes / 5   # they belong to the bits of WEIGHTS


@pytest.mark.parametrize(("model", "machine"),
                         [("llama-3.2-1b", "laptop, 16 GB"), ("llama-3.1-8b", "RTX 4090, 24 GB"),
                          ("llama-3.1-70b", "H100, 80 GB"), ("llama-3.1-70b", "H200, 141 GB")])
def test_lines_are_bandwidth_over_bytes_and_end_where_memory_is_full(model, machine):
    config, where = family.config(model), views.MACHINES[machine]
    for n_readers, is_int8 in ((1, False), (256, True)):
        figure = views.decoding_bound_frame(model, machine, n_readers, is_int8)
        for line, bits in zip((each for each in figure.axes[0].lines if each.get_marker() != "X"),
                              views.WEIGHTS.values(), strict=True):
            for context, rate in list(zip(*line.get_data(), strict=True))[::16]:
                step = views.step_bytes(config, bits=bits, context=context, n_readers=n_readers,
                                        cache_bits=8 if is_int8 else 16)
                assert rate == pytest.approx(where.bytes_per_s / step.read)
                assert step.held <= where.memory_bytes
        assert faults(figure) == []
        plt.close(figure)


def test_a_model_that_does_not_fit_is_said_to():
    figure = views.decoding_bound_frame("llama-3.1-70b", "RTX 4090, 24 GB", 1, False)
    assert "bf16 does not fit" in figure.get_label()


@pytest.mark.parametrize(("n_texts", "context", "n_splits"),
                         [(1, 8192, 1), (1, 8192, 32), (4, 131072, 8), (64, 8192, 1),
                          (256, 512, 128)])
def test_blocks_of_all_waves_are_those_of_the_grid(n_texts, context, n_splits):
    figure = views.decoding_splits_frame(n_texts, context, n_splits)
    left, right = figure.axes
    n_blocks, n_places = 8 * n_texts * n_splits, 264
    waves = -(-n_blocks // n_places)
    assert left.images[0].get_array().sum() == n_blocks - (waves - 1) * n_places
    shown = right.lines[1]
    assert shown.get_data() == ([n_splits], [pytest.approx(100 * n_blocks / waves / n_places)])
    assert right.lines[2].get_xdata()[0] == splits_for(n_blocks=8 * n_texts, n_keys=context,
                                                       n_places=n_places)
    assert faults(figure) == []


@pytest.mark.parametrize(("make", "control", "value"),
                         [(views.decoding_bound, "n_readers", 64),
                          (views.decoding_splits, "n_splits", 32)])
def test_a_control_changes_the_picture_and_the_words(make, control, value):
    view = make()
    before = view.picture.value, view.words.value
    view.controls[control].value = value
    assert view.picture.value != before[0] and view.words.value != before[1]
