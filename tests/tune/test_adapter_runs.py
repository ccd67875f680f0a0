import dataclasses
import functools
import json

import pytest
import tiny_runs
import torch
from safetensors.torch import load_file
from tiny_runs import CONFIG, DATA, equal

from llama_from_scratch import load as load_checkpoint
from llama_from_scratch.train import train
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.optimizer import decay_groups
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.records import TrainConfig
from llama_from_scratch.tune import lora

FILES = {"adapter_config.json", "adapter_model.safetensors", "base.json", "checksums.json",
         "optimizer.safetensors", "training.json"}


def adapted(*, seed=0, base_seed=0, **options):
    """A model with new adapters."""
    model = tiny_runs.make(base_seed)
    lora.add(model, **dict(rank=2, alpha=4.0, seed=seed) | options)
    return model


def run(model=None, *, config=CONFIG, **options):
    model = adapted() if model is None else model
    return train(model, DATA, config=config, **dict(parts=lora.parts()) | options), model


def stop_after(n):
    def stop(step):
        if step.step + 1 == n:
            raise KeyboardInterrupt

    return stop


@pytest.fixture(scope="module")
def straight():
    return run()


def test_a_run_changes_the_adapters_and_nothing_else(straight):
    history, model = straight
    assert history.losses[-1] < history.losses[0] - 0.1
    before = adapted()
    for name, p in model.named_parameters():
        is_adapter = name.endswith(("w_a", "w_b"))
        assert torch.equal(p, before.get_parameter(name)) != is_adapter, name
    lora.remove(before)
    assert equal(before, tiny_runs.make())


def test_the_optimizer_has_the_adapters_and_nothing_else():
    model = adapted()
    groups = decay_groups(model, weight_decay=0.1)
    assert [list(group.params) for group in groups] == [[name for name, _ in lora.weights(model)]]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_an_interrupted_run_goes_on_to_the_same_bits(n, tmp_path, straight):
    first, _ = run(folder=tmp_path / "run", on_step=stop_after(n))
    assert len(first.steps) == n
    resumed, model = run(adapted(seed=5), folder=tmp_path / "run", is_resumed=True)
    assert resumed.losses == straight[0].losses
    assert equal(model, straight[1])


def test_a_checkpoint_holds_the_adapters_alone_and_is_loaded_like_any_other(tmp_path):
    _, model = run(folder=tmp_path / "run", parts=lora.parts(base="owner/name"))
    assert {file.name for file in (tmp_path / "run").iterdir()} == FILES
    stored = load_file(tmp_path / "run/adapter_model.safetensors")
    assert sum(t.numel() for t in stored.values()) == sum(
        p.numel() for _, p in lora.weights(model))
    averages = load_file(tmp_path / "run/optimizer.safetensors")
    assert sum(t.numel() for t in averages.values()) == 1 + 2 * sum(
        t.numel() for t in stored.values())
    about = json.loads((tmp_path / "run/adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == "owner/name"
    fresh = tiny_runs.make()
    lora.load(fresh, tmp_path / "run")
    assert equal(fresh, model)
    with pytest.raises(ValueError, match="holds adapters, which belong to one.*tune.lora.load"):
        load_checkpoint(tmp_path / "run")


def test_a_loaded_adapter_is_trained_further_in_another_folder(tmp_path, straight):
    run(folder=tmp_path / "run")
    model = tiny_runs.make()
    lora.load(model, tmp_path / "run")
    history, _ = run(model, folder=tmp_path / "more")
    assert history.losses[-1] < straight[0].losses[-1]


def test_parts_of_the_reader_are_kept(straight):
    calls = []

    def counted(model, batch, *, is_bf16):
        calls.append(batch)
        return sum_of_nats(model, batch, is_bf16=is_bf16)

    history, _ = run(parts=lora.parts(TrainParts(loss=counted)))
    assert history.losses == straight[0].losses and len(calls) == CONFIG.n_steps
    with pytest.raises(ValueError, match="own weights, begin, save; got another save"):
        lora.parts(TrainParts(save=functools.partial(print)))
    with pytest.raises(ValueError, match="got another weights and begin and save"):
        lora.parts(lora.parts())


def test_micro_batches_and_the_memory_of_the_base_do_not_matter(straight):
    config = dataclasses.replace(CONFIG, micro_batch_size=2)
    history, _ = run(config=config)
    # fp32 sums in another order, over eight steps.
    assert history.losses == pytest.approx(straight[0].losses, abs=1e-4)


@pytest.mark.parametrize(("other", "message"), [
    (dict(base_seed=1), "has the base that it began with.*digest"),
    (dict(alpha=5.0), "has the adapters that it began with: 14 with .*alpha=4.0"),
    (dict(is_rank_stabilized=True), "has the adapters that it began with"),
    (dict(rank=3), "must belong to the same parameters|has the adapters that it began with"),
    (dict(targets=["wq"]), "must belong to the same parameters|has the adapters that it began"),
])
def test_a_run_is_resumed_with_its_base_and_its_adapters_only(other, message, tmp_path):
    run(folder=tmp_path / "run", on_step=stop_after(2))
    with pytest.raises(ValueError, match=message):
        run(adapted(**other), folder=tmp_path / "run", is_resumed=True)


def test_other_settings_are_refused_and_the_number_of_steps_may_change(tmp_path):
    run(folder=tmp_path / "run", on_step=stop_after(2))
    with pytest.raises(ValueError, match="config.peak_lr is 0.01 there and 0.02 here"):
        run(config=dataclasses.replace(CONFIG, peak_lr=2e-2), folder=tmp_path / "run",
            is_resumed=True)
    history, _ = run(config=dataclasses.replace(CONFIG, n_steps=4), folder=tmp_path / "run",
                     is_resumed=True)
    assert len(history.steps) == 4


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    run(folder=tmp_path / "run", on_step=stop_after(2))
    with pytest.raises(ValueError, match="already holds adapters, which a new run would replace"):
        run(folder=tmp_path / "run")
    tiny_runs.run(folder=tmp_path / "whole")
    with pytest.raises(ValueError, match="must hold only an adapter; .* also holds config.json"):
        run(folder=tmp_path / "whole")
    with pytest.raises(ValueError, match="needs a folder with the checkpoint of a run"):
        run(folder=tmp_path / "whole", is_resumed=True)
    with pytest.raises(ValueError, match="needs a folder with the checkpoint of a run; got None"):
        run(is_resumed=True)
    with pytest.raises(ValueError, match="also holds adapter_config.json"):
        tiny_runs.run(folder=tmp_path / "run")
    lora.save(tmp_path / "alone", adapted())
    with pytest.raises(ValueError, match="needs the record of a run"):
        run(folder=tmp_path / "alone", is_resumed=True)


def test_a_run_of_adapters_needs_adapters_and_a_run_of_a_model_refuses_them(tmp_path):
    with pytest.raises(ValueError, match="with adapters has some to save"):
        run(tiny_runs.make(), folder=tmp_path / "run")
    with pytest.raises(ValueError, match=r"Merge or remove adapters.*tune.lora.parts\(\)"):
        tiny_runs.run(adapted(), folder=tmp_path / "run")
    model = adapted()
    model.norm.requires_grad_(True)
    with pytest.raises(ValueError, match="norm.weight would be trained too"):
        run(model)
    assert not (tmp_path / "run").exists()


class OnlyBatches:
    """Data without a digest."""

    def batch(self, step, *, batch_size, seq_len, seed):
        return DATA.batch(step, batch_size=batch_size, seq_len=seq_len, seed=seed)


def test_data_without_a_digest_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="data with a tokenizer, .* got a OnlyBatches"):
        train(adapted(), OnlyBatches(), config=CONFIG, folder=tmp_path / "run",
              parts=lora.parts())


def test_a_small_run_in_bfloat16_learns():
    config = TrainConfig(**dataclasses.asdict(CONFIG) | dict(is_bf16=True))
    history, model = run(config=config)
    assert history.losses[-1] < history.losses[0] - 0.1
    assert all(p.dtype == torch.float32 for _, p in lora.weights(model))
