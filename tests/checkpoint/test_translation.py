"""The table of names, held against planted formats that need more than the real ones do yet."""

import dataclasses

import pytest
import torch
from hugging_face_twin import hugging_face_layout, hugging_face_name

from llama_from_scratch import family
from llama_from_scratch.checkpoint.names import HUGGING_FACE, Format, Row, Table, Theirs, shapes
from llama_from_scratch.checkpoint.translation import (
    Translation,
    to_halves,
    to_ours,
    to_pairs,
    to_theirs,
    translation,
    translation_of,
)

E, F, D, H, G, K = 3, 4, 6, 4, 2, 2
PLANTED = Format(name="planted", of_layer="model.{i}.")
HEADS = {"n_heads": H, "n_kv_heads": G}


def table(**columns):
    """A table of parameters of a layer, in this order; a column is given as the fields of
    `Theirs`."""
    heads = {"wq": "n_heads", "wk": "n_kv_heads", "wv": "n_kv_heads"}
    return Table(once=(), per_layer=tuple(
        Row(ours=ours, heads=heads.get(ours), theirs={PLANTED: Theirs(**column)})
        for ours, column in columns.items()))


def planted(params, **columns):
    """Weights of one layer by our name, and their translation; each number occurs once."""
    params = {f"layers.0.{name}": shape for name, shape in params.items()}
    n = 0
    weights = {}
    for name, shape in params.items():
        size = torch.Size(shape).numel()
        weights[name] = torch.arange(n, n + size).float().view(shape)
        n += size
    return weights, translation_of(params, PLANTED, heads=HEADS, n_layers=1, table=table(**columns))


def stored(how, weights):
    return {name: to_theirs(how, weights, name) for name in how.theirs}


class Reader:
    """Reads from a dict, and remembers what was asked for."""

    def __init__(self, tensors):
        self.tensors, self.asked, self.dtypes = tensors, [], []

    def __call__(self, name, *, dtype, is_kept):
        self.asked.append((name, is_kept))
        self.dtypes.append(dtype)
        return self.tensors[name] if dtype is None else self.tensors[name].to(dtype)


def back(how, tensors, *, dtype=None, names=None):
    reader = Reader(tensors)
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    return dict(to_ours(how, reader, dtypes=dtypes, dtype=dtype, names=names)), reader


def equal(found, wanted):
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], wanted[name]) and found[name].is_contiguous() for name in wanted)


QKV = {"wq": (H * K, D), "wk": (G * K, D), "wv": (G * K, D)}
FUSED_QKV = {name: dict(name="qkv.weight", along=0) for name in QKV}


def test_queries_keys_and_values_in_one_tensor_follow_one_another_in_the_order_of_the_table():
    weights, how = planted(QKV, **FUSED_QKV)
    assert how.theirs == {"model.0.qkv.weight": ((H + 2 * G) * K, D)}
    theirs = stored(how, weights)
    assert torch.equal(theirs["model.0.qkv.weight"],
                       torch.cat([weights[f"layers.0.{name}"] for name in QKV]))
    ours, reader = back(how, theirs)
    assert equal(ours, weights)
    whole = theirs["model.0.qkv.weight"]
    assert all(weight.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
               for weight in ours.values())
    assert all(is_kept for _, is_kept in reader.asked), "rows of a fused tensor are views of it"


def test_rows_in_halves_inside_a_fused_tensor_are_put_in_order_head_by_head():
    halves = {name: column | dict(has_halves=name != "wv") for name, column in FUSED_QKV.items()}
    # heads of 4 channels
    weights, how = planted(QKV | {"wq": (2 * H * K, D), "wk": (2 * G * K, D)}, **halves)
    theirs = stored(how, weights)["model.0.qkv.weight"]
    by_hand = [weights["layers.0.wq"][head * 4 + row] for head in range(H) for row in (0, 2, 1, 3)]
    by_hand += [weights["layers.0.wk"][head * 4 + row] for head in range(G) for row in (0, 2, 1, 3)]
    assert torch.equal(theirs, torch.cat([torch.stack(by_hand), weights["layers.0.wv"]]))
    assert equal(back(how, {"model.0.qkv.weight": theirs})[0], weights)


EXPERTS = {"w_gate": (E, F, D), "w_up": (E, F, D), "w_down": (E, D, F)}


def test_gate_and_up_of_all_experts_fused_and_transposed_as_in_llama_4():
    """`experts.gate_up_proj` is [E, D, 2F] there, `experts.down_proj` [E, F, D]."""
    weights, how = planted(
        EXPERTS, w_gate=dict(name="gate_up_proj", is_transposed=True, along=2),
        w_up=dict(name="gate_up_proj", is_transposed=True, along=2),
        w_down=dict(name="down_proj", is_transposed=True))
    assert how.theirs == {"model.0.gate_up_proj": (E, D, 2 * F), "model.0.down_proj": (E, F, D)}
    theirs = stored(how, weights)
    gate, up, down = (weights[f"layers.0.{name}"] for name in EXPERTS)
    for e in range(E):
        assert torch.equal(theirs["model.0.gate_up_proj"][e],
                           torch.cat([gate[e].T, up[e].T], dim=1))
        assert torch.equal(theirs["model.0.down_proj"][e], down[e].T)
    ours, reader = back(how, theirs)
    assert equal(ours, weights)
    assert not any(is_kept for name, is_kept in reader.asked[-1:]), "what is turned is copied"


def test_one_tensor_for_each_expert_is_stacked_by_us_and_read_one_at_a_time():
    columns = {name: dict(name="experts.{e}." + name, is_split=True) for name in EXPERTS}
    weights, how = planted(EXPERTS, **columns)
    theirs = stored(how, weights)
    assert list(theirs) == [f"model.0.experts.{e}.{name}" for name in EXPERTS for e in range(E)]
    assert all(torch.equal(theirs[f"model.0.experts.{e}.w_up"], weights["layers.0.w_up"][e])
               for e in range(E))
    reader = Reader(theirs)
    stream = to_ours(how, reader, dtypes={name: t.dtype for name, t in theirs.items()})
    name, gate = next(stream)
    assert name == "layers.0.w_gate" and torch.equal(gate, weights[name])
    assert [name for name, _ in reader.asked] == [f"model.0.experts.{e}.w_gate"
                                                  for e in range(E)], "no other is read yet"
    assert equal({name: gate} | dict(stream), weights)


def test_gate_and_up_of_each_expert_may_share_a_transposed_tensor():
    shared = dict(name="experts.{e}.gate_up", is_split=True, is_transposed=True, along=1)
    weights, how = planted({name: EXPERTS[name] for name in ("w_gate", "w_up")}, w_gate=shared,
                           w_up=shared)
    theirs = stored(how, weights)
    assert {tuple(tensor.shape) for tensor in theirs.values()} == {(D, 2 * F)} and len(theirs) == E
    assert torch.equal(theirs["model.0.experts.1.gate_up"][:, F:], weights["layers.0.w_up"][1].T)
    assert equal(back(how, theirs)[0], weights)


@pytest.mark.parametrize("broken", [dict(has_halves=False), dict(has_halves=True)])
def test_a_tensor_that_is_ours_in_another_order_is_no_view_and_one_in_our_order_is(broken):
    weights, how = planted({"wq": (4 * H, D)}, wq=dict(name="q", **broken))
    theirs = stored(how, weights)
    ours, _ = back(how, theirs)
    is_view = ours["layers.0.wq"].data_ptr() == theirs["model.0.q"].data_ptr()
    assert equal(ours, weights) and is_view == (not broken["has_halves"])


def test_a_tensor_that_is_one_of_ours_is_read_in_the_wanted_dtype_at_once():
    weights, how = planted({"wv": (4, D)}, wv=dict(name="v"))
    wide, reader = back(how, stored(how, weights), dtype=torch.float64)
    assert equal(wide, {name: weight.double() for name, weight in weights.items()})
    assert reader.dtypes == [torch.float64], "a packed tensor is never held in two dtypes"


def test_another_dtype_is_read_into_memory_of_its_own_and_several_need_a_decision():
    weights, how = planted(QKV, **FUSED_QKV)
    wide, reader = back(how, stored(how, weights), dtype=torch.float64)
    assert equal(wide, {name: weight.double() for name, weight in weights.items()})
    assert not any(is_kept for _, is_kept in reader.asked)
    weights, how = planted({"w_gate": (E, F, D)}, w_gate=dict(name="{e}", is_split=True))
    mixed = stored(how, weights)
    mixed["model.0.1"] = mixed["model.0.1"].double()
    with pytest.raises(ValueError, match=r"make up layers.0.w_gate must have one dtype; "
                                         r"they have torch.float32, torch.float64"):
        back(how, mixed)
    assert back(how, mixed, dtype=torch.float32)[0]["layers.0.w_gate"].dtype == torch.float32


def test_a_table_that_gives_two_parameters_one_name_is_a_bug_of_ours():
    with pytest.raises(AssertionError, match=r"makes model.0.same of several parameters"):
        planted({"wk": (4, D), "wv": (4, D)}, wk=dict(name="same"), wv=dict(name="same"))


def test_a_parameter_that_a_format_has_no_name_for_is_refused():
    other = Format(name="Other", of_layer="")
    with pytest.raises(ValueError, match=r"Other's layout has none for layers.0.wk. Use another"):
        translation_of({"layers.0.wk": (4, D)}, other, heads=HEADS, n_layers=1,
                       table=table(wk=dict(name="k")))


def test_the_hugging_face_names_and_rows_are_those_of_the_tests_own_twin():
    config = family.tiny("llama-3")
    how = translation(HUGGING_FACE, config)
    weights = {ours: torch.randn(shape) for ours, shape in shapes(config).items()}
    for ours, weight in weights.items():
        theirs = hugging_face_name(ours)
        assert [piece.theirs for piece in how.by_ours[ours]] == [theirs]
        assert torch.equal(to_theirs(how, weights, theirs),
                           hugging_face_layout(ours, weight, config.head_dim))


def test_names_are_kept_in_the_order_of_ours_and_what_files_may_repeat_is_known():
    config = family.tiny("llama-3")
    how = translation(HUGGING_FACE, config)
    assert isinstance(how, Translation) and list(how.theirs)[:3] == [
        "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"]
    assert how.names_for(["norm.weight", "layers.1.ffn_norm.weight", "norm.weight"]) == [
        "model.norm.weight", "model.layers.1.post_attention_layernorm.weight"]
    assert "model.layers.3.self_attn.rotary_emb.inv_freq" in how.ignored
    assert "model.layers.4.self_attn.rotary_emb.inv_freq" not in how.ignored
    tied = translation(HUGGING_FACE, dataclasses.replace(config, is_tied=True))
    assert "lm_head.weight" not in tied.theirs and len(how.theirs) == len(tied.theirs) + 1


def test_pairs_and_halves_undo_each_other_and_keep_heads_apart():
    rows = torch.arange(8.0)[:, None].expand(8, 3)
    assert to_halves(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(to_pairs(to_halves(rows, 2), 2), rows)
    assert not torch.equal(to_halves(rows, 1), to_halves(rows, 2)), "the number of heads matters"
