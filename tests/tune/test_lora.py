import copy

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.kernels.fuse import fuse, unfuse
from llama_from_scratch.kernels.training import fused_parts
from llama_from_scratch.model.moe import upcycle
from llama_from_scratch.model.quantized import Int8Linear
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.parallel import divisible
from llama_from_scratch.train.data import Batch
from llama_from_scratch.tune import lora

GENERATIONS = ("llama-3", "llama-3.2", "llama-3.2-vision", "llama-4-vision")
IDS = torch.tensor([[5, 17, 3, 40, 22, 8, 31], [9, 9, 60, 2, 71, 14, 33]])


def fresh(generation="llama-3", seed=0):
    torch.manual_seed(seed)
    return family.tiny(generation).new_model()


def trained(model, *, seed=0, **options):
    """Adds adapters that do something, as after training; large enough to change every logit."""
    lora.add(model, **dict(rank=3) | options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in lora.weights(model):
            p.normal_(std=0.2, generator=generator)
    return model


@torch.no_grad()
def logits(model):
    return model(IDS)


def state(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def are_equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_new_adapters_change_no_bit_of_any_generation(generation):
    model = fresh(generation)
    before = logits(model)
    lora.add(model, rank=2)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_merged_adapters_compute_the_same_and_the_base_comes_back_bit_for_bit(generation):
    model = fresh(generation)
    base, plain = state(model), logits(model)
    adapted = logits(trained(model))
    assert (adapted - plain).abs().max() > 0.1
    with lora.merged(model):
        assert not lora.adapters(model)
        merged = logits(model)
    assert torch.equal(logits(model), adapted)
    with lora.without(model):
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), adapted)
    other = copy.deepcopy(model)
    lora.merge(other)
    assert torch.equal(logits(other), merged)
    # fp32 sums in another order; the logits are about 2.
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=3e-5)
    lora.remove(model)
    assert are_equal(state(model), base) and torch.equal(logits(model), plain)


def test_a_merged_model_is_plain_and_trainable_and_the_base_of_another_is_left_alone():
    model = fresh()
    shared = copy.deepcopy(model)
    for name, p in model.named_parameters():  # two models with the same tensors
        parent, _, child = name.rpartition(".")
        setattr(shared.get_submodule(parent), child, p)
    before = logits(shared)
    lora.merge(trained(model))
    assert torch.equal(logits(shared), before)
    assert type(model.layers[0].attention.wq) is torch.nn.Linear
    assert all(p.requires_grad for p in model.parameters())
    assert are_equal(state(shared), state(fresh()))


def test_only_adapters_are_trainable_and_their_number_is_the_formula():
    model = fresh()
    base = state(model)
    c = model.config
    made = lora.add(model, rank=2)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(map(id, trainable.values())) == {id(p) for _, p in lora.weights(model)}
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    per_layer = 2 * (2 * (c.dim + q) + 2 * (c.dim + kv) + 3 * (c.dim + c.ffn_dim))
    assert sum(p.numel() for p in trainable.values()) == per_layer * c.n_layers
    assert len(made) == 7 * c.n_layers == len(lora.adapters(model))
    model(IDS).sum().backward()
    assert all(p.grad is None for name, p in model.named_parameters() if name not in trainable)
    assert all(p.grad is not None for p in trainable.values())
    lora.remove(model)
    assert are_equal(state(model), base)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("targets", "names"), [
    (["wq"], ["layers.0.attention.wq", "layers.1.attention.wq"]),
    (["layers.1.attention.wo", "feed_forward.w_up"],
     ["layers.0.feed_forward.w_up", "layers.1.attention.wo", "layers.1.feed_forward.w_up"]),
    (("output",), ["output"]),
])
def test_targets_are_names_or_the_ends_of_names(targets, names):
    made = lora.add(fresh(), rank=2, targets=targets)
    assert [name for name in sorted(made) if name < "layers.2"
            or name == "output"] == names


def test_the_encoder_has_adapters_only_if_it_is_asked_for():
    model = fresh("llama-3.2-vision")
    assert not any(name.startswith("vision.") for name in lora.add(model, rank=2))
    lora.remove(model)
    made = lora.add(model, rank=2, targets=["vision.wq", "vision.projector", "cross.attention.wq"])
    kinds = {(name.startswith("vision."), name.rpartition(".")[2]) for name in made}
    assert kinds == {(True, "wq"), (True, "projector"), (False, "wq")}
    assert all(".cross." in name for name in made if not name.startswith("vision."))


def test_a_tied_head_has_an_adapter_only_if_it_is_asked_for_and_the_embedding_is_left_alone():
    model = fresh("llama-3.2")
    assert model.config.is_tied and "output" not in lora.add(model, rank=2)
    lora.remove(model)
    with pytest.raises(ValueError, match="the head of this model is tied.*is_tied_head=True"):
        lora.add(model, rank=2, targets=["wq", "output"])
    assert not lora.adapters(model) and all(p.requires_grad for p in model.parameters())
    embedded = model.embed(IDS)
    trained(model, targets=["output"], is_tied_head=True)
    assert torch.equal(model.embed(IDS), embedded)
    stream = model.hidden(IDS)
    expected = stream @ (model.tok_embeddings.weight + lora.adapters(model)["output"].delta()).T
    torch.testing.assert_close(logits(model), expected.detach(), rtol=1e-5, atol=1e-5)
    for verb in (lora.merge, lambda model: lora.merged(model).__enter__()):
        with pytest.raises(ValueError, match="tied head's matrix is also the embedding"):
            verb(model)
    assert list(lora.adapters(model)) == ["output"]


@pytest.mark.parametrize(("generation", "targets", "message"), [
    ("llama-3", ["output"], "whose head is not tied. Leave it out"),
    ("llama-3.2", ["wq"], "whose head is tied. Add 'output'"),
])
def test_is_tied_head_without_a_tied_head_among_the_targets_is_refused(
    generation, targets, message
):
    with pytest.raises(ValueError, match=message):
        lora.add(fresh(generation), rank=2, targets=targets, is_tied_head=True)


def test_two_sets_of_adapters_do_not_mix(tmp_path):
    model = fresh()
    plain = logits(model)
    found = {}
    for name, seed in (("a", 1), ("b", 2)):
        trained(model, seed=seed, rank=seed + 1)
        found[name] = logits(model)
        lora.save(tmp_path / name, model)
        lora.remove(model)
    assert (found["a"] - found["b"]).abs().max() > 0.1
    for name in ("b", "a"):
        lora.load(model, tmp_path / name)
        assert torch.equal(logits(model), found[name])
        with pytest.raises(ValueError, match="one set of adapters at a time.*lora.remove"):
            lora.load(model, tmp_path / "a")
        with pytest.raises(ValueError, match="one set of adapters at a time"):
            lora.add(model, rank=2)
        lora.remove(model)
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_saved_adapters_come_back_bit_for_bit_without_the_model(generation, tmp_path):
    options = dict(alpha=5.5, is_rank_stabilized=True)
    if generation == "llama-3.2":
        options |= dict(targets=["output", "wk", "layers.1.feed_forward.w_up"], is_tied_head=True)
    model = trained(fresh(generation), **options)
    lora.save(tmp_path / "adapter", model)
    n_bytes = sum(p.nbytes for _, p in lora.weights(model))
    assert n_bytes < (tmp_path / "adapter/adapter_model.safetensors").stat().st_size \
        < n_bytes + 300 * len(lora.adapters(model)) + 500, "only adapters are saved"
    loaded = fresh(generation)
    made = lora.load(loaded, tmp_path / "adapter")
    assert are_equal(dict(lora.weights(loaded)), dict(lora.weights(model)))
    assert {each.how for each in made.values()} == {
        lora.LowRank(rank=3, alpha=5.5, is_rank_stabilized=True)}
    assert torch.equal(logits(loaded), logits(model))
    assert {name for name, p in loaded.named_parameters() if p.requires_grad} == {
        name for name, p in model.named_parameters() if p.requires_grad}


def test_adapters_of_another_base_are_refused_and_can_be_asked_for(tmp_path):
    model = trained(fresh())
    lora.save(tmp_path / "adapter", model)
    other = fresh(seed=1)
    with pytest.raises(ValueError, match="belongs to the weights that it was trained on.*digest"):
        lora.load(other, tmp_path / "adapter")
    assert not lora.adapters(other) and all(p.requires_grad for p in other.parameters())
    half = fresh().to(torch.bfloat16)
    with pytest.raises(ValueError, match="is_other_base=True"):
        lora.load(half, tmp_path / "adapter")
    lora.load(half, tmp_path / "adapter", is_other_base=True)
    assert are_equal(dict(lora.weights(half)), dict(lora.weights(model)))
    assert logits(half).isfinite().all()


def test_what_is_saved_after_training_on_a_base_in_16_bits_fits_it_in_32(tmp_path):
    model = trained(fresh().to(torch.bfloat16))
    lora.save(tmp_path / "adapter", model)
    lora.load(fresh().to(torch.bfloat16).float(), tmp_path / "adapter")


def test_saving_replaces_an_adapter_and_nothing_else(tmp_path):
    model = trained(fresh())
    lora.save(tmp_path / "adapter", model)
    lora.save(tmp_path / "adapter", model, base="owner/name")
    assert '"owner/name"' in (tmp_path / "adapter/adapter_config.json").read_text()
    (tmp_path / "adapter" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="must hold only an adapter; .* also holds notes.txt"):
        lora.save(tmp_path / "adapter", model)


# --- with the rest of the library -----------------------------------------------------------------


def test_generated_text_is_the_merged_model_s_with_and_without_a_cache():
    model = trained(fresh())
    prompts = [[5, 17, 3], [9, 60, 2, 71, 14]]
    found = generate(model, prompts, max_tokens=12)
    slow = []
    with torch.no_grad():
        for prompt in prompts:
            ids = list(prompt)
            for _ in range(12):
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            slow.append(ids[len(prompt):])
    assert [list(ids) for ids in found] == slow
    with lora.merged(model):
        assert [list(ids) for ids in generate(model, prompts, max_tokens=12)] == slow
    with lora.without(model):
        assert [list(ids) for ids in generate(model, prompts, max_tokens=12)] != slow


def test_a_fused_model_keeps_its_adapters_and_a_model_with_adapters_can_be_fused():
    model = trained(fresh().to(torch.bfloat16))
    before = logits(model)
    report = fuse(model, emulate=True)
    assert report.n_fused and not any("Adapted" in change.plain for change in report.changes)
    assert len(lora.adapters(model)) == 7 * len(model.layers)
    unfuse(model)
    assert torch.equal(logits(model), before)
    lora.remove(model)
    fuse(model, emulate=True)
    lora.add(model, rank=2)
    unfuse(model)
    assert torch.equal(logits(model), logits(fresh().to(torch.bfloat16)))


def test_adapters_next_to_a_quantized_layer_are_loaded_and_saved_and_not_merged(tmp_path):
    def quantized():
        model = fresh()
        for block in model.layers:
            block.attention.wq = Int8Linear.from_linear(block.attention.wq)
        return model

    model = trained(quantized())
    lora.save(tmp_path / "adapter", model)
    loaded = quantized()
    lora.load(loaded, tmp_path / "adapter")
    assert torch.equal(logits(loaded), logits(model))
    with pytest.raises(ValueError, match="the base of layers.0.attention.wq is a Int8Linear"):
        lora.merge(model)
    with pytest.raises(ValueError, match="digest"):
        lora.load(fresh(), tmp_path / "adapter")


def test_what_reads_a_single_matrix_or_divides_one_refuses_adapters():
    model = trained(fresh())
    with pytest.raises(ValueError, match="has no single weight"):
        upcycle(model, n_experts=2, n_active=1, width=8)
    with pytest.raises(ValueError, match=r"this model has \d+, such as layers.0.*tune.lora.merge"):
        divisible.refuse_unfit(model, n_ranks=2)
    lora.remove(model)
    lora.add(model, rank=2, targets=["output"])
    batch = Batch(ids=IDS, targets=IDS, documents=torch.zeros_like(IDS),
                  positions=torch.arange(IDS.shape[1]).expand_as(IDS))
    with pytest.raises(ValueError, match="fused loss multiplies by the weight of the output"):
        fused_parts().loss(model, batch, is_bf16=False)


@pytest.mark.parametrize(("options", "message"), [
    (dict(rank=0), "rank must be an int above 0; got 0"),
    (dict(rank=-1), "rank must be an int above 0"),
    (dict(rank=65), r"rank=65 for layers.0.attention.w., of \d+ inputs .*Choose at most \d+"),
    (dict(alpha=-1.0), "alpha must be a number above 0"),
    (dict(targets="wq"), r"targets are a list of names.*\"wq\""),
    (dict(targets=[]), "targets are a list of names"),
    (dict(targets=["wg"]), "got 'wg', did you mean"),
    (dict(targets=["router.directions"]), "Routed experts, routers and embeddings have no"),
    (dict(targets=["q"]), "each target is a linear layer"),
    (dict(seed=-1), "seed must be a whole number"),
])
def test_what_is_no_adapter_is_refused_and_the_model_is_unchanged(options, message):
    model = fresh("llama-4") if "router" in message else fresh()
    with pytest.raises(ValueError, match=message):
        lora.add(model, **dict(rank=2) | options)
    assert not lora.adapters(model) and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("verb", [
    lora.remove, lora.merge, lambda model: lora.merged(model).__enter__(),
    lambda model: lora.without(model).__enter__(), lambda model: lora.save("nowhere", model)])
def test_a_model_without_adapters_is_refused(verb):
    with pytest.raises(ValueError, match="with adapters"):
        verb(fresh())


def test_adapters_are_added_to_a_whole_model_only():
    model = fresh()
    model.layers[0].attention.wq = torch.nn.Linear(model.config.dim, 8)  # a slice, as on a mesh
    with pytest.raises(ValueError, match=r"layers.0.attention.wq is not like that"):
        lora.add(model, rank=1)
    with pytest.raises(ValueError, match="weights in memory"):
        lora.add(Llama(model.config).to("meta"), rank=1)


def test_the_seed_decides_the_first_numbers():
    first, same, other = (lora.add(fresh(), rank=2, seed=seed) for seed in (3, 3, 4))
    name = "layers.1.attention.wo"
    assert torch.equal(first[name].w_a, same[name].w_a)
    assert not torch.equal(first[name].w_a, other[name].w_a)
    assert not torch.equal(first[name].w_a, first["layers.1.attention.wq"].w_a)
