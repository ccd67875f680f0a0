import shutil

import gguf as reference
import pytest
import torch
from gguf_reference import by_their_writer, write
from tiny_checkpoints import far_logits, same_weights, tiny, tokenizer_for

from llama_from_scratch.checkpoint import gguf, gguf_split
from llama_from_scratch.checkpoint.inspect import facts as facts_of
from llama_from_scratch.checkpoint.load import load, open_checkpoint
from llama_from_scratch.checkpoint.opened import build

KIND = reference.GGUFValueType
N_PARTS = 4


def part(i, n=N_PARTS, stem="m"):
    return f"{stem}-{i:05}-of-{n:05}.gguf"


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A model in four parts, as llama.cpp's own package writes them: 12 tensors in each, then 4."""
    folder = tmp_path_factory.mktemp("split")
    by_their_writer(folder / "m.gguf", tiny(), split_max_tensors=12)
    assert sorted(path.name for path in folder.iterdir()) == [part(i) for i in range(1, 5)]
    return folder


@pytest.fixture
def copied(split, tmp_path):
    return shutil.copytree(split, tmp_path / "copied")


@pytest.mark.parametrize("first", [False, True])
def test_any_part_opens_the_whole(first, tmp_path):
    """With an empty first part, too, as some are made to be read first over a network."""
    model = tiny()
    by_their_writer(tmp_path / "m.gguf", model, split_max_tensors=12, small_first_shard=first)
    files = sorted(tmp_path.iterdir())
    for file in files:
        opened = gguf.open_checkpoint(file)
        assert opened.files == tuple(files) and opened.config == model.config
        assert opened.n_bytes == sum(path.stat().st_size for path in files)
        assert same_weights(build(opened), model)
        assert torch.equal(far_logits(build(opened)), far_logits(model))


def test_parts_of_a_packed_model_are_unpacked_from_their_own_files(tmp_path):
    kind = reference.GGMLQuantizationType.Q5_1
    model = tiny("llama-3.2")
    by_their_writer(tmp_path / "whole.gguf", model, kinds={"all": kind})
    by_their_writer(tmp_path / "m.gguf", model, kinds={"all": kind}, split_max_tensors=5)
    parts = gguf.open_checkpoint(next(tmp_path.glob("m-00003*")))
    assert same_weights(build(parts), build(gguf.open_checkpoint(tmp_path / "whole.gguf")))


def test_a_folder_with_one_model_is_as_good_as_the_file(split, tmp_path):
    assert open_checkpoint(split).files == tuple(sorted(split.iterdir()))
    assert load_is_from(write(tmp_path, tiny()), tmp_path)
    (tmp_path / "config.json").write_text("{}")  # as in repositories that hold a GGUF file alone
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "other.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert load_is_from(tmp_path / "m.gguf", tmp_path)
    (tmp_path / "m.gguf").unlink()
    with pytest.raises(ValueError, match=r"other.gguf; there is a git-lfs pointer.*lfs pull"):
        open_checkpoint(tmp_path)


def load_is_from(file, folder):
    model, tokenizer = load(folder)
    assert tokenizer.encode("the cat") == tokenizer_for("llama-3.1").encode("the cat")
    return same_weights(model, tiny()) and open_checkpoint(folder).files == (file,)


def test_a_folder_with_several_models_is_refused_by_their_names(copied):
    write(copied, tiny(), name="other.gguf")
    with pytest.raises(ValueError, match=r"only one GGUF file; .*copied has 2: "
                                         rf"{part(1)}, other.gguf. Give the path of one of them"):
        load(copied)


def test_inspect_counts_the_parts(split):
    opened = gguf.open_checkpoint(split / part(2))
    opened = type(opened)(**{**vars(opened), "read_tokenizer": lambda: tokenizer_for("llama-3.1")})
    assert facts_of(opened)["stored as"].endswith("in 4 files")


def test_missing_parts_are_named(copied):
    (copied / part(1)).unlink()
    (copied / part(3)).unlink()
    with pytest.raises(ValueError, match=rf"in 4 parts needs all of them; .*copied lacks "
                                         rf"{part(1)}, {part(3)}. Download the missing"):
        gguf.open_checkpoint(copied / part(2))


def test_a_part_under_another_name_is_refused(copied):
    (copied / part(2)).rename(copied / "second.gguf")
    with pytest.raises(ValueError, match=r"second.gguf is one of 4 parts, which must have the "
                                         r"names NAME-00001-of-00004.gguf .* llama-gguf-split"):
        gguf.open_checkpoint(copied / "second.gguf")
    shutil.copy(copied / part(3), copied / part(2))
    with pytest.raises(ValueError, match=rf"{part(2)} is part 3 of 4 by its content"):
        gguf.open_checkpoint(copied / part(1))


def test_parts_of_another_model_are_refused(copied, tmp_path):
    by_their_writer(tmp_path / "m.gguf", tiny(n_layers=5), split_max_tensors=15)
    shutil.copy(tmp_path / part(2), copied / part(2))
    with pytest.raises(ValueError, match=r"must belong to one model; split.tensors.count is 40 in "
                                         rf".*{part(1)} and 49 in .*{part(2)}. Download all"):
        gguf.open_checkpoint(copied / part(1))


@pytest.mark.parametrize("other", [
    {"n_layers": 4, "ffn_dim": 96},
    {"n_layers": 4, "dim": 32},
])
def test_parts_of_a_model_of_another_shape_are_refused(other, copied, tmp_path):
    by_their_writer(tmp_path / "m.gguf", tiny(**other), split_max_tensors=12)
    shutil.copy(tmp_path / part(3), copied / part(3))
    with pytest.raises(ValueError, match=r"must fit its config; "):
        gguf.open_checkpoint(copied / part(1))


def test_a_tensor_in_two_parts_or_in_none_is_refused(copied, tmp_path):
    by_their_writer(tmp_path / "m.gguf", tiny(), split_max_tensors=12,
                    order=lambda pair: pair[0][::-1])
    shutil.copy(tmp_path / part(2), copied / part(2))
    with pytest.raises(ValueError, match=r"each tensor must be in one part; '.*' is in "
                                         rf".*{part(1)} and in .*{part(2)}"):
        gguf.open_checkpoint(copied / part(1))


@pytest.mark.parametrize(("key", "value", "message"), [
    ("split.count", (100_000, KIND.UINT32), r"a whole number up to 99999; .*m.gguf has 100000"),
    ("split.count", (-1, KIND.INT32), r"has -1"), ("split.count", ("3", KIND.STRING), r"has '3'"),
    ("split.count", (2, KIND.UINT16), r"m.gguf is one of 2 parts, which must have the names"),
])
def test_a_count_that_is_none_is_refused(key, value, message, tmp_path):
    path = by_their_writer(tmp_path / "m.gguf", tiny(), facts={key: value})
    with pytest.raises(ValueError, match=message):
        gguf.open_checkpoint(path)


@pytest.mark.parametrize("facts", [
    {"split.count": (1, KIND.UINT16), "split.no": (0, KIND.UINT16)},
    {"split.count": (0, KIND.UINT8)},
])
def test_a_file_that_was_joined_again_is_whole(facts, tmp_path):
    path = by_their_writer(tmp_path / "m.gguf", tiny(), facts=facts)
    assert gguf_split.whole(path)[1] == (path,)


def test_a_number_of_tensors_that_is_not_reached_is_refused(copied, tmp_path):
    for path in copied.iterdir():
        data = path.read_bytes()
        at = data.index(b"split.tensors.count") + len("split.tensors.count") + 4
        path.write_bytes(data[:at] + (41).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(ValueError, match=r"its 41 tensors together; the parts of .* hold 40. "):
        gguf.open_checkpoint(copied / part(1))
