"""The widgets show the model's own routing, and parameters that the config counts."""

import dataclasses

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb
from moved_widgets import TEXT, ends, figure_of, ids_of
from pictures import faults, styled

from llama_from_scratch import family
from llama_from_scratch.config import Dense, Experts, LayerSpec, LlamaConfig
from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.figures.experts import color_of
from llama_from_scratch.lessons.views import experts as module
from llama_from_scratch.model.moe import routings_of
from llama_from_scratch.model.transformer import Llama


def config_of(vocab_size, *, n_active=1, step=1, n_layers=4):
    spec = Experts(n_experts=8, n_active=n_active, width=24, shared_width=16)
    layers = tuple(LayerSpec(feed_forward=spec if (i + 1) % step == 0 else Dense(width=48))
                   for i in range(n_layers))
    return LlamaConfig(dim=32, n_heads=4, n_kv_heads=2, ffn_dim=48, vocab_size=vocab_size,
                       max_seq_len=64, norm_eps=1e-5, rope_theta=1e4, layers=layers)


@pytest.fixture(scope="module", params=[(1, 1), (2, 2)], ids=["top-1", "top-2, every second"])
def mixture(request, tokenizer):
    n_active, step = request.param
    torch.manual_seed(0)
    return Llama(config_of(tokenizer.vocab_size, n_active=n_active, step=step))


def test_each_cell_has_the_color_and_the_number_of_the_models_own_expert(mixture, tokenizer):
    explorer = views.token_experts(mixture, tokenizer, text=TEXT)
    with torch.no_grad(), routings_of(mixture) as found:
        mixture(ids_of(tokenizer)[None])
    top, below = figure_of(explorer).axes
    colors = torch.tensor(top.images[0].get_array())
    numbers = [text.get_text() for text in top.texts]
    n_tokens = len(ids_of(tokenizer))
    assert colors.shape[:2] == (len(found), n_tokens)
    for row, passes in enumerate(found.values()):
        for t, chosen in enumerate(passes[0].experts.tolist()):
            assert colors[row, t].tolist() == pytest.approx(to_rgb(color_of(chosen[0])))
            assert numbers[row * n_tokens + t] == " ".join(map(str, chosen))
    first = next(iter(found.values()))[0]
    assert [bar.get_height() for bar in below.patches] == pytest.approx(
        first.logits[-1].sigmoid().tolist())
    plt.close("all")


def test_rows_have_the_numbers_of_their_layers(mixture, tokenizer):
    top, _ = figure_of(views.token_experts(mixture, tokenizer, text=TEXT)).axes
    expected = [f"layer {i}" for i, spec in enumerate(mixture.config.layers)
                if isinstance(spec.feed_forward, Experts)]
    assert [label.get_text() for label in top.get_yticklabels()] == expected
    plt.close("all")


def test_the_words_follow_the_layer_and_the_token(mixture, tokenizer):
    explorer = views.token_experts(mixture, tokenizer, text=TEXT)
    last = explorer.controls["layer"].max
    explorer.controls["layer"].value = last
    explorer.controls["token"].value = 1
    with torch.no_grad(), routings_of(mixture) as found:
        mixture(ids_of(tokenizer)[None])
    routing = [*found.values()][last][0]
    expert, score = int(routing.experts[1, 0]), float(routing.scores[1, 0])
    assert f"goes to expert {expert} with the score {score:.2f}" in explorer.words.value
    assert explorer.problem.value == ""


def test_a_new_text_is_read_and_too_long_ones_are_refused(mixture, tokenizer):
    explorer = views.token_experts(mixture, tokenizer, text=TEXT)
    before = explorer.picture.value
    explorer.controls["text"].value = "a red hat"
    assert explorer.picture.value != before and explorer.problem.value == ""
    assert explorer.controls["token"].max == len(ids_of(tokenizer, "a red hat")) - 1
    explorer.controls["text"].value = "the little dog " * 20
    assert "there is room for 32 tokens" in explorer.problem.value


def test_the_pointer_names_layer_token_and_expert(mixture, tokenizer):
    figure = figure_of(views.token_experts(mixture, tokenizer, text=TEXT))
    with torch.no_grad(), routings_of(mixture) as found:
        mixture(ids_of(tokenizer)[None])
    number, passes = int(next(iter(found)).split(".")[1]), next(iter(found.values()))
    chosen = ", ".join(map(str, passes[0].experts[2].tolist()))
    words = figure.axes[0].format_coord(2.2, 0.1)
    assert words.startswith(f"layer {number}, 2 “") and words.endswith(f"expert {chosen}")
    plt.close("all")


def test_a_dense_model_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="only a model with experts has routings"):
        views.token_experts(model, tokenizer, text=TEXT)


# --- what it costs --------------------------------------------------------------------------------

MODELS = {"every layer": config_of(300), "every second": config_of(300, step=2),
          "two of eight": config_of(300, n_active=2), "dense": family.tiny("llama-3")}


@pytest.mark.parametrize("name", MODELS)
def test_the_places_sum_to_the_configs_own_numbers(name):
    stored, active = module.params_in_places(MODELS[name])
    assert sum(stored.values()) == MODELS[name].n_params
    assert sum(active.values()) == MODELS[name].n_active_params
    model = Llama(MODELS[name])
    routed = [weight for path, weight in model.named_parameters() if ".experts." in path]
    assert stored["routed experts"] == sum(weight.numel() for weight in routed)


@pytest.mark.parametrize("name", MODELS)
def test_the_curve_has_the_parameters_of_models_with_other_numbers_of_experts(name):
    config = MODELS[name]
    numbers, totals = module._by_number(config)
    for n, total in zip(numbers.tolist(), totals, strict=True):
        other = config if name == "dense" else views.with_experts(config, n_experts=n)
        assert total == other.n_params


@pytest.mark.parametrize("name", MODELS)
def test_nothing_given_changes_nothing(name):
    assert views.with_experts(MODELS[name]) is MODELS[name]


def test_each_size_reaches_the_layers_with_experts():
    sizes = {"n_experts": 5, "n_active": 3, "width": 7, "shared_width": 9}
    changed = views.with_experts(MODELS["every second"], **sizes)
    assert [spec.feed_forward for spec in changed.layers] == 2 * [Dense(width=48), Experts(**sizes)]
    assert views.with_experts(MODELS["every second"], step=4).layers[1].feed_forward == Dense(
        width=48)
    assert views.with_experts(MODELS["every second"], step=1) == dataclasses.replace(
        MODELS["every layer"])


def test_a_dense_model_gets_experts_of_half_its_width():
    dense = MODELS["dense"]
    changed = views.with_experts(dense, n_experts=4)
    half = dense.ffn_dim // 2
    assert {spec.feed_forward for spec in changed.layers} == {
        Experts(n_experts=4, n_active=1, width=half, shared_width=half)}
    router = dense.n_layers * dense.dim * 4
    assert changed.n_active_params == dense.n_params + router, "as many, and the router"


def test_the_widget_says_what_the_config_counts_and_refuses_impossible_sizes():
    explorer = views.experts_costs(MODELS, start="every second")
    for name, value in (("n_experts", 16), ("n_active", 2), ("step", 4), ("width", 512),
                        ("shared_width", 1024)):
        explorer.controls[name].value = value
        assert explorer.problem.value == ""
    config = views.with_experts(MODELS["every second"], n_experts=16, n_active=2, step=4,
                                width=512, shared_width=1024)
    assert (f"every second, changed: {config.n_params:,} parameters are stored, and "
            f"{config.n_active_params:,} of them are used") in explorer.words.value
    left, _ = figure_of(explorer).axes
    stored, active = module.params_in_places(config)
    for container, place in zip(left.containers, stored, strict=True):
        assert [bar.get_width() * 1e3 for bar in container] == pytest.approx(
            [stored[place], active[place]])
    before = explorer.picture.value
    explorer.controls["n_active"].value = 8
    explorer.controls["n_experts"].value = 4
    assert "Experts.n_active must be at most n_experts=4; got 8" in explorer.problem.value
    assert explorer.picture.value != before, "the last good picture has 8 of 16 experts"
    plt.close("all")


def test_no_words_are_small_cut_or_covered(mixture, tokenizer, monkeypatch):
    styled(monkeypatch)
    for explorer in (views.token_experts(mixture, tokenizer, text=TEXT),
                     views.experts_costs(MODELS)):
        assert explorer._repr_mimebundle_()["image/png"]
        values = explorer._values()
        for name, control in explorer.controls.items():
            for value in ends(control):
                figure = explorer.draw(**values | {name: value})
                assert faults(figure) == [], (explorer.title, name, value)
                plt.close(figure)
