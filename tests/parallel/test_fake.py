import dataclasses
import math

import pytest
import torch
import torch.distributed as dist

from llama_from_scratch import family
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import tensor_parallel
from llama_from_scratch.parallel.fake import pretended
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.sharded import Sharded

LARGEST = family.config("llama-3.1-405b")
OF_LAYER = {
    "attention_norm": (16384,), "attention.wq": (2048, 16384), "attention.wk": (128, 16384),
    "attention.wv": (128, 16384), "attention.wo": (16384, 2048), "ffn_norm": (16384,),
    "feed_forward.w_gate": (6656, 16384), "feed_forward.w_up": (6656, 16384),
    "feed_forward.w_down": (16384, 6656),
}
"""The shapes on each of 8 ranks: 16 of 128 heads, 1 of 8 key/value heads, an eighth of 53,248."""


def test_shapes_of_405b_on_16384_ranks():
    with pretended(size=16384, rank=16383) as world:
        axes = Mesh(tp=8, dp=128, replicate=16).on(world)
        model = unwritten(LARGEST)
        tp = tensor_parallel.split(model, axes.tp)
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        sharded = Sharded(model, axes.dp, stage=3, replicate=axes.replicate)
    assert axes.tp.ranks == tuple(range(16376, 16384))
    assert axes.dp.ranks == tuple(range(15367, 16384, 8))
    assert shapes == {"tok_embeddings.weight": (16032, 16384), "norm.weight": (16384,),
                      "output.weight": (16032, 16384)} | {
        f"layers.{i}.{name}.weight": shape for i in range(126) for name, shape in OF_LAYER.items()}
    n_norm, n_mine = (2 * 126 + 1) * 16384, sum(map(math.prod, shapes.values()))
    assert 8 * (n_mine - n_norm) + n_norm == LARGEST.n_params == 405_853_388_800
    assert sum(p.numel() for p in sharded.params.values()) == n_mine / 128 == 396_369_536
    assert all(p.is_meta for p in sharded.params.values())
    for name, part in shapes.items():
        assert tp.slices[name].n_parts * tp.slices[name].n_copies == 8
        assert tp.slices[name].part == (0 if "norm" in name else 7)
        assert tp.slices[name].whole_shape(part) == tuple(
            8 * n if axis == tp.slices[name].axis and "norm" not in name else n
            for axis, n in enumerate(part))


def test_sixteen_ranks_share_the_eight_key_value_heads_of_405b():
    with pretended(size=16, rank=5) as world:
        model = unwritten(LARGEST)
        slices = tensor_parallel.split(model, world).slices
    wk = slices["layers.0.attention.wk.weight"]
    assert (wk.part, wk.n_parts, wk.n_copies, wk.is_partial) == (2, 8, 2, True)
    assert model.layers[0].attention.wk.weight.shape == (128, 16384)
    assert model.layers[0].attention.wq.weight.shape == (1024, 16384)


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_layer_of_405b_sends_1_88_gb_per_micro_batch_of_8192_tokens(is_cut):
    with pretended(size=8) as world:
        model = unwritten(dataclasses.replace(LARGEST, layers=LARGEST.layers[:2]))
        model = model.to("meta", torch.bfloat16)
        tensor_parallel.split(model, world, is_sequence_parallel=is_cut)
        x = torch.empty(1, 8192, 16384, device="meta", dtype=torch.bfloat16, requires_grad=True)
        model.run(x, model.prepare(x)).sum().backward()
        sent = [call.sent_bytes for call in world.log.calls if "stream" not in call.note]
    assert sum(sent) == 2 * 4 * 2 * 7 * (2 * 8192 * 16384) // 8 == 2 * 1_879_048_192
    assert len(sent) == 2 * (8 if is_cut else 4)


def test_collectives_of_a_world_that_does_not_exist_are_logged():
    with pretended(size=8) as world:
        world.all_reduce(torch.zeros(6, device="meta"), note="nothing")
        (call,) = world.log.calls
    assert (call.op, call.n_bytes, call.sent_bytes) == ("all_reduce", 24, 42)
    assert not dist.is_initialized()


def test_a_process_is_in_one_world_at_a_time():
    with (pretended(size=2), pytest.raises(ValueError, match="in one world at a time"),
          pretended(size=4)):
        pass
