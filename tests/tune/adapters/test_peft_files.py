import json
import math

import peft
import pytest
import torch
from hugging_face_twin import loud, twin_of
from llama4_twin import loud_llama4, text_twin_of, toy
from safetensors.torch import load_file, save_file

from llama_from_scratch import family
from llama_from_scratch.tune import lora
from llama_from_scratch.tune.adapters import peft_files
from llama_from_scratch.tune.adapters.peft_files import slots

IDS = torch.tensor([[5, 17, 3, 40, 22, 8, 31, 77, 1, 2, 3]])
# What PEFT writes for LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"]), as its
# documentation shows it, with the settings that newer versions add.
SETTINGS = {
    "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None,
    "auto_mapping": None, "base_model_name_or_path": "owner/base", "bias": "none",
    "corda_config": None, "ensure_weight_tying": False, "eva_config": None, "exclude_modules": None,
    "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
    "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
    "loftq_config": {}, "lora_alpha": 3, "lora_bias": False, "lora_dropout": 0.05,
    "megatron_config": None, "megatron_core": "megatron.core", "modules_to_save": None,
    "peft_type": "LORA", "peft_version": "0.18.0", "qalora_group_size": 16, "r": 2,
    "rank_pattern": {}, "revision": None, "target_modules": ["q_proj", "down_proj"],
    "target_parameters": None, "task_type": "CAUSAL_LM", "trainable_token_indices": None,
    "use_dora": False, "use_qalora": False, "use_rslora": False}


def fresh(generation="llama-3"):
    return loud(family.tiny(generation))


def trained(model, **options):
    lora.add(model, **dict(rank=3, alpha=6.0) | options)
    with torch.no_grad():
        for _, p in lora.weights(model):
            p.normal_(std=0.2)
    return model


def peft_folder(folder, model, *, config=None, **settings):
    """A folder as PEFT writes it for a Llama of transformers: made here without our library."""
    folder.mkdir(exist_ok=True)
    settings = SETTINGS | settings
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True))
    c, r = model.config, settings["r"]
    sizes = {"self_attn.q_proj": (c.dim, c.n_heads * c.head_dim),
             "self_attn.k_proj": (c.dim, c.n_kv_heads * c.head_dim),
             "self_attn.o_proj": (c.n_heads * c.head_dim, c.dim),
             "mlp.down_proj": (c.ffn_dim, c.dim)}
    generator, tensors = torch.Generator().manual_seed(4), {}
    for i in range(c.n_layers):
        for module, (n_in, n_out) in sizes.items():
            if module.rpartition(".")[2] in settings["target_modules"]:
                name = f"base_model.model.model.layers.{i}.{module}"
                tensors[f"{name}.lora_A.weight"] = torch.randn(r, n_in, generator=generator) / 8
                tensors[f"{name}.lora_B.weight"] = torch.randn(n_out, r, generator=generator) / 8
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@torch.no_grad()
def as_peft_computes(folder, twin):
    """The logits of a model of transformers with the adapter of a folder, by PEFT's formula.

    Only the files are used: the weight of each named module becomes W + scale B A.
    """
    about = json.loads((folder / "adapter_config.json").read_text())
    r = about["r"]
    scale = about["lora_alpha"] / (math.sqrt(r) if about["use_rslora"] else r)
    tensors = load_file(folder / "adapter_model.safetensors")
    seen = set()
    for name, a in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b = tensors[name.replace("lora_A", "lora_B")]
            twin.get_submodule(module).weight.add_(scale * b @ a)
            seen.add(module)
    targets = about["target_modules"]
    linear = {name for name, part in twin.named_modules() if isinstance(part, torch.nn.Linear)}
    assert seen == {name for name in linear if name in targets
                    or any(name.endswith(f".{target}") for target in targets)}
    return twin(IDS).logits


@pytest.mark.parametrize(("generation", "options"), [
    ("llama-2", {}), ("llama-3", dict(is_rank_stabilized=True)),
    ("llama-3.1", dict(targets=["wq", "wk", "output"])),
    ("llama-3", dict(targets=["layers.1.attention.wk", "layers.0.feed_forward.w_down"]))])
def test_transformers_computes_the_same_from_our_files_alone(generation, options, tmp_path):
    model = fresh(generation)
    twin = twin_of(model)
    lora.save(tmp_path / "adapter", trained(model, **options))
    with torch.no_grad():
        ours = model(IDS)
    expected = as_peft_computes(tmp_path / "adapter", twin)
    # Two implementations in fp32, whose logits differ by up to 3e-5 without adapters.
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=3e-4)


def test_transformers_computes_the_same_llama_4_from_our_files_alone(tmp_path):
    model = loud_llama4(toy(step=2))
    twin = text_twin_of(model)
    lora.save(tmp_path / "adapter", trained(model))
    assert any(".shared_expert." in name
               for name in load_file(tmp_path / "adapter/adapter_model.safetensors"))
    with torch.no_grad():
        ours = model(IDS)
    expected = as_peft_computes(tmp_path / "adapter", twin)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=3e-4)


@pytest.mark.parametrize("settings", [
    {}, dict(use_rslora=True), dict(target_modules=["k_proj", "o_proj"], r=1, lora_alpha=0.5),
    dict(init_lora_weights="gaussian", lora_dropout=0.1, inference_mode=False, task_type=None)])
def test_an_adapter_of_peft_computes_what_peft_computes(settings, tmp_path):
    model = fresh()
    folder = peft_folder(tmp_path / "adapter", model, **settings)
    expected = as_peft_computes(folder, twin_of(model))
    lora.load(model, folder)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), expected, rtol=1e-4, atol=3e-4)
    with pytest.raises(ValueError, match="records none. Leave it out"):
        lora.remove(model)
        lora.load(model, folder, is_other_base=True)


def test_an_adapter_of_peft_is_written_again_as_it_was(tmp_path):
    model = fresh()
    folder = peft_folder(tmp_path / "theirs", model)
    lora.load(model, folder)
    lora.save(tmp_path / "ours", model, base="owner/base")
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors")
                    for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    about = json.loads((tmp_path / "ours/adapter_config.json").read_text())
    assert {key: value for key, value in about.items() if key != "target_modules"}.items() <= (
        SETTINGS | {"lora_dropout": 0.0}).items()
    assert about["target_modules"] == ["down_proj", "q_proj"]


def test_rows_of_queries_and_keys_are_reordered_and_others_are_not(tmp_path):
    model = trained(fresh())
    lora.save(tmp_path / "adapter", model)
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    own = lora.adapters(model)
    for theirs, ours, is_same in (("self_attn.q_proj", "attention.wq", False),
                                  ("self_attn.k_proj", "attention.wk", False),
                                  ("self_attn.v_proj", "attention.wv", True),
                                  ("mlp.up_proj", "feed_forward.w_up", True)):
        b = stored[f"base_model.model.model.layers.2.{theirs}.lora_B.weight"]
        w_b = own[f"layers.2.{ours}"].w_b
        assert torch.equal(b, w_b) == is_same
        assert torch.equal(b.sort(0).values, w_b.sort(0).values)
        assert torch.equal(stored[f"base_model.model.model.layers.2.{theirs}.lora_A.weight"],
                           own[f"layers.2.{ours}"].w_a)


@pytest.mark.parametrize(("generation", "short"), [
    ("llama-3", ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
    ("llama-3.2-vision", None)])
def test_targets_are_short_names_where_these_mean_the_same_layers(generation, short, tmp_path):
    model = family.tiny(generation).new_model()
    lora.save(tmp_path / "adapter", trained(model))
    about = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    full = sorted(place.theirs for name, place in slots(model.config).items()
                  if name in lora.adapters(model))
    assert about["target_modules"] == (short or full)


@pytest.mark.parametrize("generation", ["llama-3.2", "llama-3.2-vision", "llama-4-vision"])
def test_files_of_adapters_everywhere_are_read_again(generation, tmp_path):
    model = family.tiny(generation).new_model()
    targets = [*lora.MATRICES, "output"] + ["vision.wq", "vision.projector"] * ("vision"
                                                                               in generation)
    trained(model, targets=targets, is_tied_head=model.config.is_tied)
    lora.save(tmp_path / "adapter", model)
    read = peft_files.read(tmp_path / "adapter", model.config)
    own = lora.adapters(model)
    assert read.weights.keys() == own.keys()
    assert all(torch.equal(a, own[name].w_a) and torch.equal(b, own[name].w_b)
               for name, (a, b) in read.weights.items())
    if not model.config.is_tied:
        head = next(name for name in load_file(tmp_path / "adapter/adapter_model.safetensors")
                    if "lm_head" in name)
        prefix = "language_model." if "vision" in generation else ""
        assert head.startswith(f"base_model.model.{prefix}lm_head.lora_")


def test_names_of_newer_versions_of_transformers_are_read(tmp_path):
    model = trained(family.tiny("llama-3.2-vision").new_model(), targets=["wq", "output"])
    lora.save(tmp_path / "adapter", model)
    file, about = tmp_path / "adapter/adapter_model.safetensors", tmp_path / "adapter"
    tensors = load_file(file)
    newer = {name.replace("base_model.model.language_model.model.",
                          "base_model.model.model.language_model.")
             .replace("base_model.model.language_model.lm_head.", "base_model.model.lm_head."): t
             for name, t in tensors.items()}
    assert not newer.keys() & tensors.keys()
    save_file(newer, file)
    (about / "checksums.json").unlink()
    settings = json.loads((about / "adapter_config.json").read_text())
    settings["target_modules"] = ".*language_model.*q_proj|lm_head"
    (about / "adapter_config.json").write_text(json.dumps(settings))
    read = peft_files.read(about, model.config)
    assert read.weights.keys() == lora.adapters(model).keys()


def test_every_name_is_of_a_linear_layer_in_transformers():
    twin = twin_of(fresh())
    linear = {name for name, part in twin.named_modules() if isinstance(part, torch.nn.Linear)}
    assert {place.theirs for place in slots(family.tiny("llama-3")).values()} == linear
    model = loud_llama4(toy(step=2))
    linear = {name for name, part in text_twin_of(model).named_modules()
              if isinstance(part, torch.nn.Linear) and not name.endswith("router")}
    assert {place.theirs for place in slots(model.config).values()} == linear


def test_16_bits_are_read_exactly_and_computed_in_fp32(tmp_path):
    model = fresh()
    folder = peft_folder(tmp_path / "adapter", model)
    file = folder / "adapter_model.safetensors"
    stored = {name: t.bfloat16() for name, t in load_file(file).items()}
    save_file(stored, file)
    made = lora.load(model, folder)
    layer = made["layers.0.feed_forward.w_down"]
    assert layer.w_b.dtype == torch.float32
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"
    assert torch.equal(layer.w_b, stored[name].float())


def test_layers_to_transform_and_left_out_layers_are_obeyed(tmp_path):
    model = fresh()
    folder = peft_folder(tmp_path / "adapter", model, layers_to_transform=[1, 2],
                         exclude_modules=["layers.2.mlp.down_proj"])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    with pytest.raises(ValueError, match=r"layers.0.* is not of an adapter of this model"):
        peft_files.read(folder, model.config)
    save_file({name: t for name, t in tensors.items()
               if (".layers.1." in name or ".layers.2." in name)
               and ".layers.2.mlp" not in name}, file)
    assert peft_files.read(folder, model.config).weights.keys() == {
        "layers.1.attention.wq", "layers.1.feed_forward.w_down", "layers.2.attention.wq"}


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "named"), [
    (dict(use_dora=True), "use_dora=True"),
    (dict(bias="lora_only"), "bias='lora_only'"),
    (dict(modules_to_save=["lm_head"]), "modules_to_save=['lm_head']"),
    (dict(rank_pattern={"q_proj": 4}), "rank_pattern="),
    (dict(alpha_pattern={"q_proj": 4}), "alpha_pattern="),
    (dict(init_lora_weights="pissa"), "init_lora_weights='pissa'"),
    (dict(init_lora_weights="loftq", loftq_config={"loftq_bits": 4}), "loftq_config="),
    (dict(peft_type="VERA"), "peft_type='VERA'"),
    (dict(task_type="SEQ_CLS"), "task_type='SEQ_CLS'"),
    (dict(lora_bias=True), "lora_bias=True"),
    (dict(fan_in_fan_out=True), "fan_in_fan_out=True"),
    (dict(trainable_token_indices=[1]), "trainable_token_indices="),
    (dict(target_parameters=["experts.gate_up_proj"]), "target_parameters="),
    (dict(layer_replication=[[0, 2]]), "layer_replication="),
    (dict(use_qalora=True), "use_qalora=True"),
    (dict(use_rslora=1), "use_rslora=1"),
    (dict(a_setting_of_tomorrow="on"), "a_setting_of_tomorrow='on'"),
])
def test_settings_that_are_not_built_here_are_refused_by_name(settings, named, tmp_path):
    model = fresh()
    folder = peft_folder(tmp_path / "adapter", model, **settings)
    with pytest.raises(ValueError, match="which is not built here. Merge") as refused:
        lora.load(model, folder)
    assert named in str(refused.value) and not lora.adapters(model)


@pytest.mark.parametrize("settings", [
    dict(lora_alpha=0), dict(lora_alpha="8"), dict(lora_alpha=None)])
def test_numbers_that_are_none_are_refused(settings, tmp_path):
    folder = peft_folder(tmp_path / "adapter", fresh(), **settings)
    with pytest.raises(ValueError, match="r and lora_alpha must be numbers above 0"):
        lora.load(fresh(), folder)


def change_rank(tensors):
    return {name: t.repeat(2, 1) if "lora_A" in name else t for name, t in tensors.items()}


@pytest.mark.parametrize(("change", "message"), [
    (lambda tensors: dict(list(tensors.items())[:-1]), "lora_B.weight is missing"),
    (lambda tensors: {name: t for name, t in tensors.items() if ".layers.3." not in name},
     r"layers.3.mlp.down_proj.lora_A.weight is missing"),
    (lambda tensors: tensors | {"base_model.model.model.embed_tokens.weight": torch.ones(2, 2)},
     "embed_tokens.weight' is not of an adapter"),
    (lambda tensors: tensors | {
        "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(2, 64)},
     "layers.9.* is not of an adapter of this model"),
    (change_rank, r"is torch.float32 \(4, 64\), not floating-point \(2, 64\)"),
    (lambda tensors: {name: t.int() for name, t in tensors.items()}, "is torch.int32"),
    (lambda tensors: {name: t.transpose(0, 1).contiguous() for name, t in tensors.items()},
     "not floating-point"),
    (lambda tensors: {name: t / 0 for name, t in tensors.items()}, "numbers are finite"),
    (lambda tensors: {"a": torch.ones(1)}, "is missing"),
])
def test_tensors_that_do_not_fit_are_refused_and_named(change, message, tmp_path):
    model = fresh()
    folder = peft_folder(tmp_path / "adapter", model)
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(ValueError, match=message):
        lora.load(model, folder)
    assert not lora.adapters(model)


def test_an_adapter_of_a_wider_model_is_refused(tmp_path):
    folder = peft_folder(tmp_path / "adapter", fresh())
    with pytest.raises(ValueError, match="of the sizes of this model.*Load the model"):
        lora.load(family.tiny("llama-4").new_model(), folder)


def test_damaged_files_are_refused(tmp_path):
    lora.save(tmp_path / "adapter", trained(fresh()))
    for name in ("adapter_config.json", "adapter_model.safetensors", "base.json"):
        file = tmp_path / "adapter" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            lora.load(fresh(), tmp_path / "adapter")
        file.write_bytes(whole)
    (tmp_path / "adapter/checksums.json").unlink()
    (tmp_path / "adapter/base.json").write_text('{"digest": "12"}')
    with pytest.raises(ValueError, match="the 64 digits of a digest"):
        lora.load(fresh(), tmp_path / "adapter")


def test_what_is_no_folder_with_an_adapter_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist. Give the folder"):
        lora.load(fresh(), tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no adapter_config.json"):
        lora.load(fresh(), tmp_path)
    folder = peft_folder(tmp_path / "adapter", fresh())
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match="adapter_model.safetensors"):
        lora.load(fresh(), folder)
    (folder / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match="a pickle, which can run code"):
        lora.load(fresh(), folder)
    (folder / "adapter_config.json").write_text("[1]")
    with pytest.raises(ValueError, match="settings are a JSON object"):
        lora.load(fresh(), folder)


# --- PEFT itself ----------------------------------------------------------------------------------


@pytest.fixture
def exact():
    """A model in float64 and its twin in transformers, as PEFT changes the twin in place."""
    model = fresh().double()
    return model, twin_of(model).double().eval()


@pytest.mark.parametrize("is_rank_stabilized", [False, True])
def test_peft_loads_what_we_write_and_computes_the_same(tmp_path, exact, is_rank_stabilized):
    model, twin = exact
    plain = model(IDS)
    trained(model, rank=3, alpha=8.0, is_rank_stabilized=is_rank_stabilized)
    lora.save(tmp_path / "ours", model)
    theirs = peft.PeftModel.from_pretrained(twin, str(tmp_path / "ours")).double().eval()
    with torch.no_grad():
        assert (theirs(IDS).logits - model(IDS)).abs().max() < 1e-4
        assert (plain - model(IDS)).abs().max() > 0.1
        lora.merge(model)
        assert (theirs.merge_and_unload()(IDS).logits - model(IDS)).abs().max() < 1e-4


@pytest.mark.parametrize("is_rank_stabilized", [False, True])
def test_we_load_what_peft_writes(tmp_path, exact, is_rank_stabilized):
    model, twin = exact
    theirs = peft.get_peft_model(twin, peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"],
        use_rslora=is_rank_stabilized)).eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    lora.load(model, tmp_path / "theirs")
    with torch.no_grad():
        assert (theirs(IDS).logits - model(IDS)).abs().max() < 1e-4
    assert set(lora.adapters(model)) == {f"layers.{i}.{name}" for i in range(len(model.layers))
                                         for name in ("attention.wq", "attention.wv",
                                                      "feed_forward.w_down")}


@pytest.mark.parametrize("other", [{"use_dora": True}, {"bias": "all"},
                                   {"modules_to_save": ["lm_head"]},
                                   {"rank_pattern": {"q_proj": 2}}], ids=str)
def test_what_peft_can_do_and_we_cannot_is_refused_by_name(tmp_path, exact, other):
    model, twin = exact
    peft.get_peft_model(twin, peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], **other)).save_pretrained(tmp_path / "theirs")
    with pytest.raises(ValueError, match=next(iter(other))):
        lora.load(model, tmp_path / "theirs")


def test_adapters_of_two_ranks_have_no_folder():
    model = trained(fresh(), targets=["wq"])
    other = lora.add(fresh(), rank=2, targets=["wk"])
    model.layers[0].attention.wk = other["layers.0.attention.wk"]
    with pytest.raises(ValueError, match="same rank and alpha"):
        peft_files.described(model)


