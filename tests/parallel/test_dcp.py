"""PyTorch's own functions read what we write, and we read what they write."""

import pytest
import torch
import torch.distributed.checkpoint as dcp
from sharded_files import pieces_of, save
from tiny_runs import BYTES, CONFIG, DATA, equal, make, run

from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.sharded import manifest
from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.parallel.dcp import SIDE, from_dcp, to_dcp
from llama_from_scratch.train import resume
from llama_from_scratch.train.loop import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run after four steps, saved in one piece and in parts, and its model."""
    root = tmp_path_factory.mktemp("runs")

    def stop(step):
        if step.step == 3:
            raise KeyboardInterrupt

    _, model = run(make(is_tied=True), folder=root / "whole", on_step=stop)
    parts = root / "parts"
    parts.mkdir()
    native.write_description(parts, model, tokenizer=BYTES)
    (parts / "training.json").write_bytes((root / "whole/training.json").read_bytes())
    state = native.read_tensors(root / "whole/optimizer.safetensors")
    tensors = {manifest.MODEL + name: p.detach() for name, p in model.named_parameters()}
    tensors |= {manifest.OPTIMIZER + name: x for name, x in state.items()}
    save(parts, {name: pieces_of(x, [Region.whole(x.shape).span(0, x.numel() // 3),
                                     Region.whole(x.shape).span(x.numel() // 3,
                                                                x.numel() - x.numel() // 3)])
                 for name, x in tensors.items()})
    return root, model, state


@pytest.mark.parametrize("kind", ["whole", "parts"])
def test_pytorch_loads_what_we_write_into_a_plain_model(tmp_path, runs, kind):
    root, model, state = runs
    to_dcp(root / kind, tmp_path / "dcp")
    plain = make(seed=1, is_tied=True)
    found = {"model": {name: p.detach() for name, p in plain.named_parameters()},
             "optimizer": {name: torch.zeros_like(x) for name, x in state.items()}}
    dcp.load(found, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    assert equal(plain, model)
    assert all(torch.equal(found["optimizer"][name], x) for name, x in state.items())


def test_a_run_goes_there_and_back_and_on(tmp_path, runs):
    root, _, _ = runs
    to_dcp(root / "parts", tmp_path / "dcp")
    from_dcp(tmp_path / "dcp", tmp_path / "run")
    known, _ = run(make(is_tied=True))
    history = train(make(seed=1, is_tied=True), DATA, config=CONFIG, folder=tmp_path / "run",
                    is_resumed=True)
    assert history.losses == known.losses


def test_we_load_what_pytorch_writes(tmp_path, runs):
    root, model, _ = runs
    other = {"net": {f"_orig.{name}": p.detach() for name, p in model.state_dict().items()},
             "step": 3}
    dcp.save(other, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    from_dcp(tmp_path / "dcp", tmp_path / "run", like=root / "whole", prefix="net._orig.")
    loaded, tokenizer = native.load(tmp_path / "run")
    assert equal(loaded, model) and tokenizer.encode("cat") == BYTES.encode("cat")
    with pytest.raises(ValueError, match="holds a model and no run to resume"):
        resume.read(tmp_path / "run")


def test_what_is_not_there_is_named(tmp_path, runs):
    root, *_ = runs
    with pytest.raises(ValueError, match="a DCP folder has a file .metadata; .*has none"):
        from_dcp(root / "whole", tmp_path / "run")
    dcp.save({"model": {"norm.weight": torch.ones(3)}}, checkpoint_id=str(tmp_path / "dcp"),
             no_dist=True)
    with pytest.raises(ValueError, match=f"has no folder {SIDE} and like is None"):
        from_dcp(tmp_path / "dcp", tmp_path / "run")
    with pytest.raises(ValueError, match="layers.0.attention.wk.weight is missing"):
        from_dcp(tmp_path / "dcp", tmp_path / "run", like=root / "whole")
    assert not (tmp_path / "run").exists()
