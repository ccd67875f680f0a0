"""Checkpoints in parts: every mesh reads what every other saved, and a failed save costs nothing.
"""

import dataclasses
import os
import shutil
import subprocess
import sys

import on_ranks
import pytest
import saving_on_ranks as on
import torch
from saving_on_ranks import MESHES
from tiny_runs import make

from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.folders import held
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.checkpoint.sharded import manifest
from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.checkpoint.sharded.saved import SavedPieces
from llama_from_scratch.parallel.launch import RankFailed, Ranks
from llama_from_scratch.parallel.saving import Saver
from llama_from_scratch.parallel.world import alone
from llama_from_scratch.train import resume
from llama_from_scratch.train.loop import train
from llama_from_scratch.train.loss import sum_of_nats

NAMES = list(MESHES)


@pytest.fixture(scope="module")
def four():
    on_ranks.by_value("saving_on_ranks")
    with Ranks(4, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def known():
    return on.alone()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, four, known):
    """A checkpoint after two of four steps, saved in parts by each mesh."""
    root = tmp_path_factory.mktemp("saved")
    for i, name in enumerate(NAMES):
        found = four.run(on.run, name, root / str(i), n_steps=2)
        assert_same(found, known, n_steps=2)
    return [root / str(i) for i in range(len(NAMES))]


def assert_same(found, known, *, n_steps):
    for losses, lengths in found:
        assert losses == pytest.approx(known[0][:n_steps], rel=0, abs=1e-12)
        assert lengths == pytest.approx(known[1][:n_steps], rel=1e-11)
    assert len({tuple(losses) for losses, _ in found}) == 1


def test_a_checkpoint_is_one_folder_and_every_element_is_written_once(folders):
    for folder in folders:
        saved = SavedPieces(folder, known=None)
        assert sorted(file.name for file in folder.iterdir()) == sorted(
            ["checksums.json", "config.json", "manifest.json", "tokenizer.model", "training.json",
             *saved.files])
        saved.refuse_damage()
        n = sum(region.n for tensor in saved.tensors.values() for _, region in tensor.pieces)
        n_params = on.model_of().config.n_params
        assert n == 3 * n_params + 1  # weights, two averages, and the number of steps
        sizes = [(folder / file).stat().st_size for file in saved.files]
        assert len(sizes) == 4 and max(sizes) < 0.5 * sum(sizes), "copies are divided"


def assert_loaded(four, name, folders):
    """Each rank has its part of every checkpoint, bit for bit, and computes with it."""
    model, batch = load(folders[-1])[0], on.DATA.batch(0, batch_size=4, seq_len=16, seed=0)
    known = sum_of_nats(model, batch, is_bf16=False).item()
    found = four.run(on.loaded, name, folders)
    assert [wrong for wrong, _ in found] == [[]] * 4
    assert [loss for _, loss in found] == pytest.approx([known] * 4, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_mesh_loads_what_every_other_saved(four, folders, name):
    assert_loaded(four, name, folders)


def test_experts_are_saved_and_loaded_wherever_they_are(tmp_path, four):
    names, known = list(on.EXPERTS), on.alone(name="experts, ep4")
    for name in names:
        assert_same(four.run(on.run, name, tmp_path / name, n_steps=2), known, n_steps=2)
    for i, name in enumerate(names):
        assert_loaded(four, name, [tmp_path / each for each in names])
        if i % 2:
            found = four.run(on.run, name, tmp_path / names[i - 1], is_resumed=True, seed=1)
            assert_same(found, known, n_steps=4)


def test_a_run_goes_on_with_the_same_losses_on_another_mesh(tmp_path, four, folders, known):
    for i, folder in enumerate(folders):
        shutil.copytree(folder, tmp_path / str(i))
        found = four.run(on.run, NAMES[i - 3], tmp_path / str(i), is_resumed=True, seed=1)
        assert_same(found, known, n_steps=4)


def test_one_process_goes_on_and_generates_from_it(tmp_path, folders, known):
    for i in (0, 2, 5):
        shutil.copytree(folders[i], tmp_path / str(i))
        assert_same([on.alone(tmp_path / str(i), is_resumed=True, seed=1)], known, n_steps=4)
    model, tokenizer = load(folders[5])
    saved = SavedPieces(folders[5], known=None)
    assert tokenizer.encode("The cat") == on.BYTES.encode("The cat")
    assert all(torch.equal(p, saved.whole(manifest.MODEL + name))
               for name, p in model.named_parameters())


def test_another_model_or_another_run_is_refused_with_the_keys_that_differ(folders):
    with pytest.raises(ValueError, match=r"model.dim is 16 there and 32 here"):
        train(make(dim=32, vocab_size=260, is_tied=True).double(), on.DATA, config=on.RUN,
              folder=folders[1], is_resumed=True)
    other = dataclasses.replace(on.RUN, peak_lr=1.0)
    with pytest.raises(ValueError, match=r"config.peak_lr is 0.01 there and 1.0 here"):
        train(on.model_of(), on.DATA, config=other, folder=folders[1], is_resumed=True)


def test_a_run_that_rank_0_saved_whole_goes_on_in_parts_and_back(tmp_path, four, known):
    folder = tmp_path / "run"
    four.run(on.run, "tp2 x dp2, stage 3", folder, n_steps=2, saves_in_parts=False)
    assert (folder / "model.safetensors").exists()
    four.run(on.run, "zero3", folder, n_steps=3, is_resumed=True, seed=1)
    assert (folder / "manifest.json").exists() and not (folder / "model.safetensors").exists()
    found = four.run(on.run, "tp4", folder, is_resumed=True, saves_in_parts=False, seed=2)
    assert_same(found, known, n_steps=4)
    assert not (folder / "manifest.json").exists()


def test_very_uneven_tensors_are_saved_as_they_were_when_save_was_called(tmp_path, four):
    written = four.run(on.save_uneven, str(tmp_path))
    assert sum(n for each in written for n in each.values()) == 40_030
    assert not written[3].keys() & {"model.huge"} and len(written[3]) > 20
    for number, folder in enumerate(("first", "second")):
        saved = SavedPieces(tmp_path / folder, known=None)
        assert torch.equal(saved.whole("model.huge").flatten(),
                           torch.arange(40_000.0) + 1000 * number)
        assert [saved.whole(f"model.tiny.{i}").item() for i in range(30)] == [
            i + 1000 * number for i in range(30)]


def test_ranks_work_together_while_one_disk_is_slow(tmp_path, four):
    for n_done, n_logged in four.run(on.while_it_writes, str(tmp_path / "run")):
        assert n_done == n_logged > 3, "and what the saver sends is not in the log of the training"


def test_a_disk_that_is_full_ends_the_run_on_all_ranks_and_costs_nothing(tmp_path, four, known):
    folder = tmp_path / "run"
    found = four.run(on.failing, str(folder))
    assert {(kind, n) for kind, _, n in found} == {("SaveFailed", 2)}
    for _, words, _ in found:
        assert "the one before it is unchanged; rank 2: [Errno 28] No space left" in words
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(resume.read(folder).steps) == 1
    assert_same(four.run(on.run, "zero3", folder, is_resumed=True), known, n_steps=4)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize(("rank", "stage"), [(1, 2), (0, 4)])
def test_a_rank_that_dies_in_a_save_leaves_the_checkpoint_before(tmp_path, known, rank, stage):
    folder = tmp_path / "run"
    on_ranks.by_value("saving_on_ranks")
    with pytest.raises(RankFailed, match=f"rank {rank} died"), Ranks(
            4, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        ranks.run(on.die_in_save, str(folder), rank=rank, stage=stage)
    (tmp_path / ".run.unfinished").mkdir(exist_ok=True)  # rank 0 may have had time to remove it
    (tmp_path / ".run.unfinished/rank-0.safetensors").write_text("half")
    assert len(resume.read(folder).steps) == 2
    assert_same([on.alone(folder, is_resumed=True, seed=1)], known, n_steps=4)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_another_job_holds_is_refused(tmp_path):
    saver = Saver(alone())
    pieces = {"model.x": (torch.ones(3), Region.whole((3,)))}
    code = ("import sys\nfrom llama_from_scratch.checkpoint.folders import held\n"
            f"with held({str(tmp_path / 'run')!r}):\n    print('held', flush=True)\n"
            "    sys.stdin.readline()")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "held\n"
        saver.save(tmp_path / "run", pieces, describe=on.describe)
        with pytest.raises(OSError, match=f"process {other.pid} on .*Wait until it ends, stop it"):
            saver.wait()
        other.stdin.close()
    with held(tmp_path / "run"):  # its own lock
        saver.save(tmp_path / "run", pieces, describe=on.describe)
        saver.wait()
    assert native.open_pieces(tmp_path / "run").whole("model.x").tolist() == [1, 1, 1]
