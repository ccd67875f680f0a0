import pytest
from relatives import RELATIVES

from llama_from_scratch import family
from llama_from_scratch.lessons import sizes

MODELS = sizes.published()


def figure_of(explorer):
    return explorer.draw(**{name: control.value for name, control in explorer.controls.items()})


@pytest.mark.parametrize("name", [*MODELS, *RELATIVES])
def test_parts_sum_to_the_models_parameters_and_work(name):
    config = ({**MODELS} | RELATIVES)[name]
    params = sizes.params_by_place(config)
    assert sum(params.values()) == config.n_params
    for place, count in config.param_counts.items():
        assert sum(n for (of, _), n in params.items() if of == place) == count
    assert sum(sizes.flops_by_place(config, context=5000).values()) == config.flops_per_token(5000)


def test_areas_are_proportional_to_parameters_and_tile_the_whole():
    figure = sizes.areas_frame(sizes.params_by_place(MODELS["llama-3.1-8b"]), title="")
    boxes = [patch for patch in figure.axes[0].patches if patch.get_fill()]
    amounts = sorted(sizes.params_by_place(MODELS["llama-3.1-8b"]).values())
    areas = sorted(box.get_width() * box.get_height() for box in boxes)
    assert [area / sum(areas) for area in areas] == pytest.approx([n / sum(amounts)
                                                                   for n in amounts])
    assert sum(areas) == pytest.approx(10.0 * 4.2)


@pytest.mark.parametrize("amounts", [[6, 6, 4, 3, 2, 2, 1], [1], [1000, 1, 1], [5] * 7])
def test_squares_never_overlap_nor_leave_the_whole(amounts):
    tiles = sizes.squarify(amounts, width=6, height=4)
    assert [w * h for _, _, w, h in tiles] == pytest.approx([24 * n / sum(amounts)
                                                             for n in amounts])
    for x, y, w, h in tiles:
        assert x >= 0 and y >= 0 and x + w <= 6 + 1e-9 and y + h <= 4 + 1e-9
    for k, (x, y, w, h) in enumerate(tiles):
        for X, Y, W, H in tiles[:k]:
            assert min(x + w, X + W) - max(x, X) < 1e-9 or min(y + h, Y + H) - max(y, Y) < 1e-9


def test_layout_is_that_of_the_papers_example():
    """Figure 4 of Bruls et al.: 6, 6, 4, 3, 2, 2, 1 in a rectangle of 6 by 4; the first column
    holds the two sixes.
    """
    tiles = sizes.squarify([6, 6, 4, 3, 2, 2, 1], width=6, height=4)
    assert tiles[:2] == [(0.0, 0.0, 3.0, 2.0), (0.0, 2.0, 3.0, 2.0)]
    # the paper's last aspect ratio
    assert max(max(w / h, h / w) for _, _, w, h in tiles) == pytest.approx(25 / 9)


def test_areas_widget_changes_with_model_and_with_what_is_shown():
    explorer = sizes.areas(start="llama-2-7b")
    assert "6.74 B parameters" in explorer.words.value
    explorer.controls["model"].value = "llama-3.2-1b"
    assert "1.24 B parameters" in explorer.words.value and "output" not in explorer.words.value
    explorer.controls["show"].value = "FLOPs per token"
    explorer.controls["context"].value = 1024
    told = sizes.quantity(MODELS["llama-3.2-1b"].flops_per_token(1024), "FLOP")
    assert f"{told} per token at context 1,024" in explorer.words.value


def test_own_config_stands_beside_the_published_ones():
    explorer = sizes.areas({"mine": family.tiny("llama-3"), **MODELS})
    assert explorer.controls["model"].value == "mine"
    assert sizes.quantity(family.tiny("llama-3").n_params) in explorer.words.value


@pytest.mark.parametrize(("value", "unit", "text"), [
    (8.03e9, "", "8.03 B"), (999, "", "999"), (999_600, "", "1 M"), (0, "B", "0 B"),
    (131_072, "B", "131 kB"),
    (1.5e13, "B", "15 TB"),
])
def test_quantities_have_three_digits_and_a_prefix(value, unit, text):
    assert sizes.quantity(value, unit) == text


# --- KV cache -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama-1-7b", "llama-2-70b", "llama-3.2-3b"])
def test_kv_bytes_are_those_of_the_config_and_grow_with_each_slider(name):
    config = MODELS[name]
    at = {"n_kv_heads": config.n_kv_heads, "context": 1000, "batch": 3, "bytes_per_value": 2}
    n_bytes = sizes.kv_bytes(config, **at)
    assert n_bytes == 3000 * config.kv_bytes_per_token(2)
    for key in at:
        assert sizes.kv_bytes(config, **at | {key: 2 * at[key]}) == 2 * n_bytes


def test_kv_bars_and_line_show_the_bytes_in_the_unit_of_the_axis():
    explorer = sizes.kv_cache(start="llama-3.1-8b")
    explorer.controls["context"].value = 131072
    left, right = figure_of(explorer).axes
    config = MODELS["llama-3.1-8b"]
    cache, unshared = (config.kv_bytes_per_token(2) * 131072 / 1e9,
                       4 * config.kv_bytes_per_token(2) * 131072 / 1e9)
    assert left.get_ylabel() == "memory (GB)"
    assert ([bar.get_height() for bar in right.patches]
            == pytest.approx([2 * config.n_params / 1e9, cache, unshared]))
    assert left.lines[1].get_ydata()[-1] == pytest.approx(cache)


def test_sharing_by_all_heads_leaves_one_and_a_group_that_does_not_fit_is_refused_in_words():
    explorer = sizes.kv_cache(start="llama-1-33b")  # 52 heads
    explorer.controls["heads_per_group"].value = "all (MQA)"
    assert "52" not in explorer.words.value and "1 key/value heads" in explorer.words.value
    before = explorer.picture.value
    explorer.controls["heads_per_group"].value = "8"
    assert "llama-1-33b has 52 heads, which cannot be divided by 8" in explorer.problem.value
    assert explorer.picture.value == before


def test_a_context_beyond_the_models_own_is_said_to_be():
    explorer = sizes.kv_cache(start="llama-1-7b")
    explorer.controls["context"].value = 65536
    assert "made for 2,048 tokens" in explorer.words.value
