import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_experiments import tiny

from llama_from_scratch.config import Experts, LayerSpec, RopeScaling, TemperatureTuning
from llama_from_scratch.experiments.settings import (
    changed,
    difference,
    listed,
    parsed,
    settings,
)

SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_seq_len=16)


@pytest.fixture
def base(tmp_path):
    return tiny(tmp_path, **{"model.n_layers": 2})


# A value that each setting may have, other than the one of the experiment.
OTHER = {
    "model.dim": 32, "model.n_heads": 4, "model.n_kv_heads": 2, "model.ffn_dim": 48,
    "model.vocab_size": 300, "model.max_seq_len": 64, "model.norm_eps": 1e-6,
    "model.rope_theta": 5e5, "model.n_layers": 3, "model.layers.has_rope": False,
    "model.layers.chunk_size": 8, "model.layers.feed_forward": {"kind": "dense", "width": 24},
    "model.rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                           "original_max_seq_len": 16},
    "model.is_tied": False, "model.explicit_head_dim": 12, "model.has_qkv_bias": True,
    "model.has_wo_bias": True, "model.has_ffn_bias": True, "model.rope_linear_factor": 2.0,
    "train.n_steps": 9, "train.batch_size": 3, "train.seq_len": 8, "train.micro_batch_size": 1,
    "train.peak_lr": 3e-3, "train.n_warmup": 1, "train.final_lr_ratio": 0.5, "train.beta1": 0.8,
    "train.beta2": 0.99, "train.adam_eps": 1e-6, "train.weight_decay": 0.0,
    "train.max_grad_norm": 2.0, "train.is_bf16": True, "train.validate_every": 2,
    "train.checkpoint_every": 3, "data.path": "stories", "data.separator": None,
    "data.suffixes": [".txt", ".md"], "data.validation": 0.5, "data.max_documents": 3,
    "data.max_validation": 1, "tokenizer.path": "a folder", "tokenizer.max_documents": 2,
    "sample.prompt": 'it\'s "odd"\n\tünïcode 💡', "sample.n_tokens": 0, "sample.temperature": 0.0,
    "sample.top_p": None, "seed": 7,
}


def test_each_setting_has_an_example_here(base):
    assert set(OTHER) == set(settings(base)), "add a value for the new setting to OTHER"


@pytest.mark.parametrize("name", OTHER)
def test_each_setting_can_be_read_changed_and_comes_back(base, name):
    other = changed(base, {name: OTHER[name]})
    found = settings(other)
    assert json.loads(json.dumps(found)) == found, "ready for JSON"
    if name != "model.rope_scaling":  # it is read by its fields
        assert found[name] == OTHER[name]
    named = {n: v for n, v in found.items() if settings(base).get(n, "none") != v}
    assert all(n == name or n.startswith(f"{name}.") for n in named), "nothing else changed"
    assert changed(base, difference(other, base) | {"seed": other.seed}) == other
    assert changed(other, difference(base, other) | {"seed": base.seed}) == base, "and back"


@given(st.lists(st.sampled_from(sorted(OTHER)), unique=True))
def test_any_settings_together_come_back(tmp_path_factory, names):
    base = tiny(tmp_path_factory.getbasetemp())
    try:
        other = changed(base, {name: OTHER[name] for name in names})
    except ValueError as error:
        assert "must" in str(error)  # such as heads that do not divide the width
        return
    assert changed(base, difference(other, base) | {"seed": other.seed}) == other


def test_changes_that_fit_only_together_are_made_together(base):
    with pytest.raises(ValueError, match="n_heads must divide"):
        changed(base, {"model.n_heads": 3})
    other = changed(base, {"model.n_heads": 3, "model.dim": 12, "model.n_kv_heads": 3})
    assert (other.model.n_heads, other.model.head_dim) == (3, 4)
    longer = changed(base, {"train.seq_len": 64, "model.max_seq_len": 64})
    assert longer.train.seq_len == 64


@pytest.mark.parametrize(("name", "hint"), [
    ("train.peaklr", "train.peak_lr"), ("peak_lr", "train.peak_lr"), ("trian.peak_lr",
                                                                      "train.peak_lr"),
    ("model.n_kv_head", "model.n_kv_heads"), ("rope_theta", "model.rope_theta"),
    ("model.layers.hasrope", "model.layers.has_rope"), ("seeds", "seed"), ("train.seed", "seed"),
    ("model.rope_scaling.factr", "model.rope_scaling.factor"),
])
def test_a_wrong_name_is_refused_with_the_nearest(base, name, hint):
    with pytest.raises(ValueError, match=hint.replace(".", r"\.")) as caught:
        changed(base, {name: 1})
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "model", "model.", "model.layers", "model.layers.2",
                                  "name", "about", "train..peak_lr", "__class__", "zzzzzz",
                                  "model.layers.²", "data.path.x", "a\n\x1b[31m"])
def test_names_that_are_no_setting_are_refused(base, name):
    with pytest.raises(ValueError, match="no setting is called") as caught:
        changed(base, {name: 1})
    assert str(caught.value).isprintable()


def test_parts_are_no_settings(base):
    for name in ("parts", "parts.norm"):
        with pytest.raises(ValueError, match="replace="):
            changed(base, {name: 1})


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("train.n_steps", "9", "a whole number"), ("train.n_steps", 9.5, "a whole number"),
    ("train.n_steps", True, "a whole number"), ("train.n_steps", None, "a whole number"),
    ("train.peak_lr", "fast", "a number"), ("train.peak_lr", False, "a number"),
    ("train.peak_lr", 10**400, "a number"), ("model.is_tied", 1, "true or false"),
    ("train.micro_batch_size", "x", "a whole number or None"),
    ("data.path", 2024, "in quotes it is a text: '\"2024\"'"), ("data.path", None, "a text"),
    ("data.separator", 3, "a text or None"), ("data.suffixes", ".txt", "tuple"),
    ("data.suffixes", [1], "each item of data.suffixes must be a text"),
    ("sample.prompt", "half \ud800", "whole characters"),
    ("model.rope_scaling", 8, "RopeScaling or None"),
    ("model.rope_scaling", {"factr": 8}, "did you mean 'factor'"),
    ("model.rope_scaling", {"factor": "x"}, "model.rope_scaling.factor must be a number"),
    ("model.rope_scaling", {"factor": 8}, "RopeScaling needs low_freq_factor"),
    ("model.layers.feed_forward", {"kind": "tall", "width": 1}, "no feed-forward is called"),
    ("model.layers.feed_forward", {"kind": "dense"}, "Dense needs width"),
    ("model.layers.has_rope", "yes", "true or false"),
    ("model.layers.has_rope", [True], "one value per layer, 2; got 1"),
    ("model.n_layers", 0, "from 1 to 10,000"), ("model.n_layers", 10**9, "from 1 to 10,000"),
    ("model.layers.2.has_rope", False, "layers 0 to 1"),
    ("train.peak_lr", float("nan"), "above 0 and finite"),
    ("train.peak_lr", float("inf"), "above 0 and finite"), ("seed", -1, "from 0 to"),
])
def test_a_value_that_cannot_be_is_refused_with_what_is_expected(base, name, value, expected):
    with pytest.raises(ValueError) as caught:
        changed(base, {name: value})
    assert expected in str(caught.value) and len(str(caught.value)) < 500


def test_whole_numbers_and_numbers_fit_each_other(base):
    other = changed(base, {"train.n_steps": 9.0, "train.weight_decay": 1})
    assert (other.train.n_steps, other.train.weight_decay) == (9, 1.0)
    assert isinstance(other.train.n_steps, int) and isinstance(other.train.weight_decay, float)


def test_a_layer_is_an_exception_to_all_layers_in_any_order(base):
    values = {"model.layers.1.has_rope": True, "model.layers.has_rope": False}
    for order in (values, dict(reversed(values.items()))):
        assert [spec.has_rope for spec in changed(base, order).model.layers] == [False, True]


def test_layers_that_differ_are_a_list_and_come_back(base):
    other = changed(base, {"model.n_layers": 3, "model.layers.2.chunk_size": 8})
    assert settings(other)["model.layers.chunk_size"] == [None, None, 8]
    assert changed(base, difference(other, base)) == other
    with pytest.raises(ValueError, match="the layers of this experiment differ"):
        changed(other, {"model.n_layers": 4})
    assert changed(other, {"model.n_layers": 2}).model.layers == (LayerSpec(),) * 2


def test_a_scaling_can_be_added_changed_and_removed(base):
    model = dataclasses.replace(base.model, rope_scaling=SCALING)
    scaled = dataclasses.replace(base, model=model)
    assert changed(scaled, {"model.rope_scaling.factor": 4}).model.rope_scaling.factor == 4.0
    assert difference(base, scaled) == {"model.rope_scaling": None}
    assert changed(scaled, {"model.rope_scaling": None}) == base
    with pytest.raises(ValueError, match="set the same thing"):
        changed(scaled, {"model.rope_scaling": None, "model.rope_scaling.factor": 2.0})


def test_nothing_that_was_given_is_changed(base):
    given_values = {"model.rope_scaling": dict(OTHER["model.rope_scaling"]), "train.n_steps": 9}
    before = json.dumps(given_values)
    changed(base, given_values)
    assert json.dumps(given_values) == before


@pytest.mark.parametrize(("text", "value"), [
    ("3e-3", 3e-3), ("3", 3), ("-1", -1), ("true", True), ("True", True), ("FALSE", False),
    ("none", None), ("null", None), ("stories", "stories"), ('"2024"', "2024"), ("[1, 2]", [1, 2]),
    ('{"kind": "dense"}', {"kind": "dense"}), ("a b", "a b"), ("NaN", "NaN"),
    ("Infinity", "Infinity"), ("-Infinity", "-Infinity"), ("", ""), ("C:\\new", "C:\\new"),
    ("[" * 100_000, "[" * 100_000), ("9" * 5000, "9" * 5000)])
def test_typed_values(text, value):
    assert parsed(text) == value and type(parsed(text)) is type(value)


@pytest.mark.parametrize(("text", "values"), [
    ("1e-3,3e-3", [1e-3, 3e-3]), ("1", [1]), ("a, b", ["a", " b"]), ("[1,2],[3]", [[1, 2], [3]]),
    ('"a,b",c', ["a,b", "c"]), ('"a\\",b",c', ['a",b', "c"]), ('{"a": [1, 2]},none',
                                                               [{"a": [1, 2]}, None])])
def test_typed_lists(text, values):
    assert listed(text) == values


@pytest.mark.parametrize("text", ["", ",", "1,", ",1", "1,,2", " "])
def test_a_list_with_a_hole_is_refused(text):
    with pytest.raises(ValueError, match="on both sides of each comma"):
        listed(text)


@given(st.text(max_size=30))
def test_typed_garbage_is_a_value_or_refused_in_words(text):
    try:
        values = listed(text)
    except ValueError as error:
        assert "comma" in str(error)
    else:
        assert len(values) >= 1


EXPERTS = {"kind": "experts", "n_experts": 4, "n_active": 1, "width": 8, "shared_width": 8}
TUNING = {"floor": 8, "strength": 0.1}


def test_a_llama_4_is_made_by_settings_and_read_back(base):
    assert not {"model.layers.has_qk_norm", "model.layers.temperature"} & settings(base).keys()
    values = {"model.layers.feed_forward": EXPERTS, "model.layers.has_qk_norm": [True, False],
              "model.layers.1.temperature": TUNING, "model.layers.1.has_rope": False,
              "model.layers.0.chunk_size": 4}
    made = changed(base, values)
    first, second = made.model.layers
    assert first.feed_forward == second.feed_forward == Experts(
        n_experts=4, n_active=1, width=8, shared_width=8)
    assert (first.has_qk_norm, second.has_qk_norm) == (True, False)
    assert second.temperature == TemperatureTuning(floor=8, strength=0.1)
    plain = json.loads(json.dumps(settings(made)))
    assert plain["model.layers.temperature"] == [None, TUNING]
    assert changed(base, {name: value for name, value in difference(made, base).items()}) == made
    assert changed(made, difference(base, made)) == base, "and back, with what base leaves out"


def test_one_layer_may_have_experts(base):
    made = changed(base, {"model.layers.1.feed_forward": EXPERTS})
    assert made.model.layers[0] == base.model.layers[0]
    assert made.model.layers[1].feed_forward.n_experts == 4
    for wrong, words in (({"kind": "experts", "n_experts": 4}, "Experts needs n_active"),
                         (EXPERTS | {"n_active": 5}, "at most n_experts=4; got 5")):
        with pytest.raises(ValueError, match=words):
            changed(base, {"model.layers.1.feed_forward": wrong})
