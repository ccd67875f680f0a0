"""Each widget is moved, and the numbers behind its picture are computed a second time."""

import math

import matplotlib.pyplot as plt
import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.lessons import figures, views
from llama_from_scratch.lessons.views.inspect_model import trace
from llama_from_scratch.lessons.widgets import Explorer
from llama_from_scratch.model.rope import rope_frequencies
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train import History, Step

TEXT = "the little dog"


def figure_of(explorer):
    return explorer.draw(**{name: control.value for name, control in explorer.controls.items()})


def ids_of(tokenizer, text=TEXT):
    return torch.tensor(tokenizer.encode(text, bos=True))


def history(rate, end=2.0, n=150):
    steps = (Step(step=i, loss=end + 5 * math.exp(-i / 5), lr=rate, grad_norm=1.0, n_tokens=100, time_s=0.1) for i in range(n))
    return History(steps=tuple(steps), is_complete=True)


RUNS = {1e-2: history(1e-2, 1.5), 1e-4: history(1e-4, 4.0), 1e-3: history(1e-3, 2.5)}


# --- all of them -----------------------------------------------------------------------------------------------------


READING = {"attention": views.attention, "residual": views.residual_stream, "sampling": views.sampling}


@pytest.fixture(params=READING)
def reading(request, model, tokenizer):
    return READING[request.param](model, tokenizer, text=TEXT)


@pytest.mark.parametrize(("text", "words"), [
    ("", "type a few words"), ("word " * 20_000, "room for 64 tokens; got far more in 100,000 letters. Shorten"),
    ("?!" * 40, "room for 64 tokens; got 81 in 80 letters"),
], ids=["empty", "huge", "too many tokens"])
def test_a_text_that_cannot_be_shown_is_refused_in_words(reading, text, words):
    before = reading.picture.value
    reading.controls["text"].value = text
    assert words in reading.problem.value and reading.picture.value == before
    reading.controls["text"].value = "the garden"
    assert reading.problem.value == "" and reading.picture.value != before


def test_what_is_seen_is_told_in_words(reading):
    assert len(reading.words.value) > 60
    assert plt.get_fignums() == []


def test_a_token_beyond_a_shorter_text_moves_to_its_end(model, tokenizer):
    explorer = views.attention(model, tokenizer, text=TEXT)
    n_long = len(ids_of(tokenizer))
    assert explorer.controls["token"].max == explorer.controls["token"].value == n_long - 1
    explorer.controls["text"].value = "the"
    n_short = len(ids_of(tokenizer, "the"))
    assert explorer.controls["token"].max == explorer.controls["token"].value == n_short - 1 < n_long - 1
    assert explorer.problem.value == "" and f"token {n_short - 1}," in explorer.words.value


def test_widget_shows_the_weights_as_they_are_now(model, tokenizer):
    explorer = views.sampling(model, tokenizer, text=TEXT)
    before = explorer.picture.value
    with torch.no_grad():
        model.output.weight.mul_(0)
    explorer.redraw()
    assert explorer.picture.value != before


def test_tokenizer_of_another_model_is_named_as_the_likely_cause(model, tokenizer):
    small = type(model)(type(model.config)(**{**vars(model.config), "vocab_size": 100}))
    with pytest.raises(ValueError, match="knows the ids 0 to 99, and this text holds 288"):
        views.encode(small, tokenizer, text="the")


def test_a_vocabulary_without_a_beginning_is_read_as_it_is(model, tokenizer):
    plain = Tokenizer(tokenizer.ranks)
    assert views.encode(model, plain, text=TEXT) == plain.encode(TEXT)


def test_a_dollar_in_a_text_starts_no_formula(model, tokenizer, recwarn):
    for make in READING.values():
        assert make(model, tokenizer, text="$\\frac$ $x$").problem.value == ""
    assert not recwarn


# --- attention -------------------------------------------------------------------------------------------------------


def test_attention_shows_the_chosen_layer_and_head_and_grey_above_the_diagonal(model, tokenizer):
    explorer = views.attention(model, tokenizer, text=TEXT, head=1)
    explorer.controls["layer"].value = 2
    shown = figure_of(explorer).axes[0].images[0].get_array()
    weights_TS = trace(model, ids_of(tokenizer)).weights[2, 1]
    torch.testing.assert_close(torch.tensor(shown.filled(0.0)), weights_TS)
    assert (shown.mask == torch.ones_like(weights_TS).triu(1).bool().numpy()).all()


def test_attention_tells_what_the_chosen_token_looks_at_most(model, tokenizer):
    explorer = views.attention(model, tokenizer, text=TEXT, head=3)
    explorer.controls["token"].value = 2
    figure = figure_of(explorer)
    row_S = trace(model, ids_of(tokenizer)).weights[0, 3, 2]
    assert [bar.get_width() for bar in figure.axes[1].patches] == pytest.approx(sorted(row_S[:3].tolist(), reverse=True))
    assert f"({int(row_S.argmax())}) {row_S.max():.0%}" in explorer.words.value.split("looks at")[1].split(",")[0]


def test_overview_has_every_head_and_one_colour_per_group(model, tokenizer):
    figure = figure_of(views.attention(model, tokenizer, text=TEXT))
    weights_HTS = trace(model, ids_of(tokenizer)).weights[0]
    assert len(figure.axes) == 4
    for ax, weights_TS in zip(figure.axes, weights_HTS):
        torch.testing.assert_close(torch.tensor(ax.images[0].get_array().filled(0.0)), weights_TS)
    colours = [ax.spines["left"].get_edgecolor() for ax in figure.axes]
    assert colours[0] == colours[1] != colours[2] == colours[3]


# --- residual stream -------------------------------------------------------------------------------------------------


def test_residual_bars_are_the_sizes_of_what_was_added(model, tokenizer):
    explorer = views.residual_stream(model, tokenizer, text=TEXT)
    explorer.controls["token"].value = 1
    left, _ = figure_of(explorer).axes
    passed = trace(model, ids_of(tokenizer))
    size = lambda x_LD: [math.sqrt(sum(value**2 for value in row) / len(row)) for row in x_LD.tolist()]
    assert [bar.get_width() for bar in left.patches] == pytest.approx(
        size(passed.attention[:, 1]) + size(passed.feed_forward[:, 1]), rel=1e-4)
    assert list(left.lines[0].get_xdata()) == pytest.approx(size(passed.stream[:, 1]), rel=1e-4)


def test_last_guess_is_what_the_model_itself_says_next(model, tokenizer):
    _, right = figure_of(views.residual_stream(model, tokenizer, text=TEXT)).axes
    probs_V = model(ids_of(tokenizer)[None])[0, -1].softmax(-1)
    assert right.patches[-1].get_width() == pytest.approx(probs_V.max().item(), abs=1e-5)
    assert len(right.patches) == model.config.n_layers + 1
    assert right.texts[-1].get_text().endswith(f"{probs_V.max():.0%}")


def test_deep_models_are_shown_every_few_layers_first_and_last_included():
    passed = views.Trace(weights=torch.zeros(80, 1, 2, 2), attention=torch.ones(80, 2, 4), feed_forward=torch.ones(80, 2, 4),
                         stream=torch.ones(81, 2, 4))
    left, _ = views.residual_frame(passed, [("x", 0.5)] * 81, token=1, name="y").axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert len(names) == 17 and names[0] == "embedding" and names[-1] == "layer 79"


# --- RoPE ------------------------------------------------------------------------------------------------------------


def test_rope_hands_stand_at_position_times_frequency():
    config = family.tiny("llama-2")
    explorer = views.rope(config)
    explorer.controls["position"].value = 8
    left = figure_of(explorer).axes[0]
    hands = left.lines[2::4]  # grey hand, its end, coloured hand, its end
    for hand, freq in zip(hands, rope_frequencies(config.head_dim, theta=1e4).tolist()):
        x, y = hand.get_xdata()[1], hand.get_ydata()[1]
        assert (x, y) == pytest.approx((math.hypot(x, y) * math.cos(8 * freq), math.hypot(x, y) * math.sin(8 * freq)), abs=1e-5)


@pytest.mark.parametrize(("scaling", "factor"), [("×8 (Llama 3.1)", 8), ("×32 (Llama 3.2)", 32)])
def test_rope_scaling_slows_the_last_pairs_by_its_factor_and_keeps_the_first(scaling, factor):
    explorer = views.rope(family.config("llama-3.1-8b"))
    explorer.controls["scaling"].value = scaling
    right = figure_of(explorer).axes[1]
    plain, scaled = (torch.tensor(line.get_ydata()) for line in right.lines[:2])
    assert scaled[0] == plain[0] and (scaled / plain)[-1] == pytest.approx(factor)
    assert scaled.shape == (64,)


def test_rope_theta_of_the_config_comes_first_and_another_changes_the_picture():
    explorer = views.rope(family.config("llama-3-8b"))
    assert explorer.controls["theta"].value == "500,000"
    before = explorer.picture.value
    explorer.controls["theta"].value = "100"
    assert explorer.picture.value != before and explorer.problem.value == ""


def test_rope_starts_where_the_chapter_wants_it():
    explorer = views.rope(family.config("llama-3-8b"), start={"position": 64, "scaling": "×8 (Llama 3.1)"})
    assert "At position 64 " in explorer.words.value and explorer.controls["scaling"].value == "×8 (Llama 3.1)"
    assert views.rope(family.config("llama-3-8b")).controls["position"].value == 3
    with pytest.raises(ValueError, match="start names the controls position, theta, scaling; got 'pos'"):
        views.rope(family.config("llama-3-8b"), start={"pos": 3})


# --- sampling --------------------------------------------------------------------------------------------------------


def test_sampling_bars_follow_the_dials(model, tokenizer):
    explorer = views.sampling(model, tokenizer, text=TEXT)
    explorer.controls["temperature"].value = 0.5
    explorer.controls["top_k"].value = 3
    bars = [bar.get_height() for bar in figure_of(explorer).axes[0].patches]
    logits_V = model(ids_of(tokenizer)[None])[0, -1].detach()
    top = sorted(logits_V.tolist(), reverse=True)[:14]
    total = sum(math.exp(logit) for logit in logits_V.tolist())
    assert bars[:14] == pytest.approx([math.exp(logit) / total for logit in top], rel=1e-3)
    kept = [math.exp(logit / 0.5) for logit in top[:3]]
    assert bars[14:] == pytest.approx([k / sum(kept) for k in kept] + [0.0] * 11, rel=1e-3)
    assert "3 of 290 tokens can be drawn" in explorer.words.value


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.0), ("top_p", 0.05), ("min_p", 0.5), ("top_k", 1)])
def test_each_dial_turned_to_its_end_leaves_fewer_tokens_or_one(model, tokenizer, name, value):
    explorer = views.sampling(model, tokenizer, text=TEXT)
    assert "290 of 290" in explorer.words.value
    explorer.controls[name].value = value
    assert int(explorer.words.value.split(">")[1].split(" of 290")[0]) < 290 and explorer.problem.value == ""


def test_sampling_frame_of_an_even_distribution_has_its_entropy():
    figure = views.sampling_frame(torch.zeros(8), Sampling(), names=list("abcd"), after="x")
    assert "8 of 8 tokens can be drawn, entropy 3.0 bits" in figure.get_label()


# --- learning rates --------------------------------------------------------------------------------------------------


def test_learning_rates_are_in_order_and_the_slider_colours_its_run():
    explorer = views.learning_rates(RUNS)
    assert [value for _, value in explorer.controls["peak_lr"].options] == [1e-4, 1e-3, 1e-2]
    explorer.controls["peak_lr"].value = 1e-3
    left, right = figure_of(explorer).axes
    coloured = [k for k, line in enumerate(left.lines) if line.get_color() == views.BLUE]
    assert coloured == [1]
    assert list(right.lines[0].get_xdata()) == [1e-4, 1e-3, 1e-2]
    assert list(right.lines[0].get_ydata()) == pytest.approx([4.0, 2.5, 1.5], abs=0.02)
    assert "the lowest, 1.50, has 0.01" in explorer.words.value


def test_a_diverged_run_is_marked_and_never_the_best():
    bad = history(1.0)
    bad = History(steps=(*bad.steps, Step(step=150, loss=math.nan, lr=1.0, grad_norm=1.0, n_tokens=1, time_s=0.1)),
                  is_complete=False)
    assert views.final_loss(bad) == math.inf
    explorer = views.learning_rates({**RUNS, 1.0: bad})
    explorer.controls["peak_lr"].value = 1.0
    assert "1 diverges; the lowest, 1.50, has 0.01" in explorer.words.value and explorer.problem.value == ""


def test_a_sweep_of_one_run_is_refused():
    with pytest.raises(ValueError, match="at least two runs.*got 1"):
        views.learning_rates({1e-3: RUNS[1e-3]})


# --- merges ----------------------------------------------------------------------------------------------------------


def test_merges_used_are_those_that_plain_merging_makes(tokenizer):
    """Replays byte-pair encoding word by word and notes each product."""
    text = "the garden, and the girl"
    made = set()
    for pretoken in tokenizer._split(text):
        parts = [bytes([value]) for value in pretoken.encode()]
        while pairs := [pair for pair in zip(parts, parts[1:]) if b"".join(pair) in tokenizer.ranks]:
            best = min(pairs, key=lambda pair: tokenizer.ranks[b"".join(pair)])
            i = list(zip(parts, parts[1:])).index(best)
            parts[i : i + 2] = [b"".join(best)]
            made.add(parts[i])
    assert views.merges_used(tokenizer, text) == sorted(made, key=tokenizer.ranks.get) and len(made) > 5


def test_first_step_of_merges_is_bytes_and_the_last_the_tokenizers_own(tokenizer, monkeypatch):
    drawn, draw = [], figures.tokens
    monkeypatch.setattr(figures, "tokens", lambda pieces, **settings: drawn.append(pieces) or draw(pieces, **settings))
    explorer = views.merges(tokenizer, text=TEXT)
    explorer.controls["step"].value = 0
    assert drawn[-1] == [bytes([value]) for value in TEXT.encode()] and "single bytes" in explorer.words.value
    explorer.controls["step"].value = explorer.controls["step"].max
    assert drawn[-1] == [tokenizer.decode_bytes([i]) for i in tokenizer.encode(TEXT)]


def test_merges_of_a_long_text_are_drawn_in_few_artists_and_so_at_once(tokenizer):
    """Not a time, which depends on the machine: 600 texts and boxes of their own took twenty times as long as one path."""
    explorer = views.merges(tokenizer, text=(TEXT + " ") * 30)
    explorer.controls["step"].value = 0
    assert explorer.problem.value == "" and len(figure_of(explorer).findobj()) < 200


def test_merges_of_a_text_without_any_are_shown_as_bytes(tokenizer):
    explorer = views.merges(tokenizer, text=TEXT)
    explorer.controls["text"].value = "@"
    assert explorer.problem.value == "" and "1 byte is 1 token." in explorer.words.value


@pytest.mark.parametrize(("text", "words"), [("", "Type a few words"), ("word " * 20_000, "got 100,000. Shorten the text"),
                                             ("?" + "!?" * 400, "room for 600 tokens; got 801")],
                         ids=["empty", "huge", "too many tokens"])
def test_merges_refuse_in_words_what_they_cannot_show(tokenizer, text, words):
    explorer = views.merges(tokenizer, text=TEXT)
    explorer.controls["step"].value = 0
    before = explorer.picture.value
    explorer.controls["text"].value = text
    assert words in explorer.problem.value and explorer.picture.value == before


def test_every_widget_is_an_explorer_with_a_still(model, tokenizer):
    for explorer in (views.attention(model, tokenizer, text=TEXT), views.rope(model.config), views.learning_rates(RUNS)):
        assert isinstance(explorer, Explorer) and explorer._repr_mimebundle_()["image/png"]
