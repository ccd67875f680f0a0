"""Every flipped bit of a checkpoint is found, and one without checksums still loads."""

import json
import os
import shutil

import pytest
import tiny_runs
from tiny_checkpoints import TOKENIZER, drawn, same_weights, tiny, tokenizer_for
from tiny_runs import make, run

from llama_from_scratch.checkpoint import checksums, native
from llama_from_scratch.checkpoint.convert import write
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.files import checksum


def flip(file, bit):
    with open(file, "r+b") as opened:
        opened.seek(bit // 8)
        (byte,) = opened.read(1)
        opened.seek(bit // 8)
        opened.write(bytes([byte ^ 1 << bit % 8]))


def bits(file, n):
    """About `n` bits spread over the file, at every place in a byte; of a short file all."""
    total = 8 * file.stat().st_size
    return range(0, total, max(total // n, 1) | 1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint in the middle of a run."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    run(folder=folder)
    return folder


FILES = [*native.FILES, *native.TRAINING_FILES, checksums.NAME]


def test_a_run_has_a_checksum_for_each_file(saved):
    known = json.loads((saved / checksums.NAME).read_text())
    assert sorted([*known, checksums.NAME]) == sorted(FILES) == sorted(os.listdir(saved))
    assert all(known[name] == checksum(saved / name) for name in known)


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found(name, saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    model = make()
    for bit in bits(folder / name, 150):
        flip(folder / name, bit)
        with pytest.raises(ValueError) as caught:
            if name not in native.FILES:
                run(model, folder=folder, is_resumed=True)
            load(folder)
        assert str(folder) in str(caught.value), f"bit {bit}"
        flip(folder / name, bit)
    load(folder)
    run(model, folder=folder, is_resumed=True)


@pytest.mark.parametrize("name", native.FILES)
def test_load_weights_and_load_tokenizer_look_at_what_they_read(name, saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    flip(folder / name, 8 * (folder / name).stat().st_size - 12)
    with pytest.raises(ValueError, match=rf"{name} is damaged|{name}; it cannot be read"):
        native.load_weights(folder, make())
        native.load_tokenizer(folder)


def test_a_damaged_file_is_named_with_the_cure(saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    flip(folder / "model.safetensors", 8 * 20_000)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged: its CRC-32 is [0-9a-f]{8},"
                                         r" and checksums.json says .*delete checksums.json"):
        native.load(folder)
    (folder / "checksums.json").unlink()
    native.load(folder)


def test_a_checkpoint_of_an_earlier_version_loads_and_resumes(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run", ignore=shutil.ignore_patterns(checksums.NAME))
    assert checksums.read(tmp_path / "run") is None
    assert tiny_runs.equal(load(tmp_path / "run")[0], load(saved)[0])
    run(make(), folder=tmp_path / "run", is_resumed=True)


def test_a_file_that_the_list_does_not_name_is_not_believed(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    known = checksums.read(tmp_path / "run")
    del known["tokenizer.model"]
    (tmp_path / "run" / checksums.NAME).write_text(json.dumps(known))
    with pytest.raises(ValueError, match="tokenizer.model is damaged.* says nothing"):
        native.load(tmp_path / "run")


def test_a_save_in_the_middle_of_a_load_is_no_damage(tmp_path):
    native.save(tmp_path / "m", drawn(1), TOKENIZER)
    opened = native.open_checkpoint(tmp_path / "m")
    native.save(tmp_path / "m", drawn(2), TOKENIZER)
    with pytest.raises(ValueError, match=r"was replaced by a newer one meanwhile. Load it again"):
        list(opened.tensors(None))
    assert same_weights(native.load(tmp_path / "m")[0], drawn(2))


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_all_files_of_a_checkpoint_may_be_read_by_the_same_people(umask, tmp_path):
    before = os.umask(umask)
    try:
        run(folder=tmp_path / "run")
        native.save(tmp_path / "native", drawn(0), TOKENIZER)
        for format, settings in {"hugging-face": {"n_shards": 2}, "meta": {"n_shards": 2},
                                 "gguf": {}, "llama2c": {}}.items():
            generation = "llama-2" if format == "llama2c" else "llama-3.1"
            write(tmp_path / format, tiny(generation), tokenizer=tokenizer_for(generation),
                  format=format, **settings)
    finally:
        os.umask(before)
    paths = [path for path in tmp_path.rglob("*")]
    assert len(paths) > 20
    for path in paths:
        full = 0o777 if path.is_dir() else 0o666
        assert path.stat().st_mode & 0o777 == full & ~umask, path
