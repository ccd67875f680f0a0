import errno
import re
import shutil

import pytest
import torch
import transformers
from tiny_checkpoints import far_logits, same_weights

from llama_from_scratch import family
from llama_from_scratch.checkpoint.load import load, open_checkpoint
from llama_from_scratch.generate.chat import Chat
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.train import mini as module
from llama_from_scratch.train.mini import mini, small_config, trained
from llama_from_scratch.train.mini_families import PUBLISHED
from llama_from_scratch.train.records import TrainConfig
from llama_from_scratch.train.story_dialogs import THEMES

REAL, QUICK = module.TRAINING, dict(n_steps=2)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    quick = TrainConfig(n_steps=5, n_warmup=1, seq_len=64, batch_size=1)
    monkeypatch.setattr(module, "TRAINING", quick)


@pytest.fixture(scope="module")
def stories():
    return module._stories()[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# --- the files ------------------------------------------------------------------------------------

HUGGING_FACE = ["config.json", "generation_config.json", "model.safetensors",
                "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
META = ["checklist.chk", "consolidated.00.pth", "params.json", "tokenizer.model"]


@pytest.mark.parametrize(("name", "format", "expected"), [
    ("llama-2", "hugging-face", sorted([*HUGGING_FACE, "tokenizer.model"])),
    ("llama-2", "meta", META),
    ("llama-2", "llama2c", ["model.bin", "tokenizer.bin"]),
    ("llama-3.2", "hugging-face", HUGGING_FACE),
    ("llama-3.2", "meta", META),
    ("llama-3.2", "native", ["checksums.json", "config.json", "model.safetensors",
                             "tokenizer.model"]),
    ("llama-1", "meta", META),
])
def test_a_folder_has_the_files_of_a_published_checkpoint(name, format, expected, cache, tmp_path):
    mini(tmp_path / "x", family=name, format=format, cache=cache, **QUICK)
    assert files(tmp_path / "x") == expected
    opened = open_checkpoint(tmp_path / "x")
    usual = torch.float16 if name == "llama-1" else torch.bfloat16
    assert opened.dtype == (torch.float32 if format == "llama2c" else usual)
    assert opened.config == small_config(name)
    assert files(tmp_path) == ["x"]


@pytest.mark.parametrize("name", family.TEXT_GENERATIONS)
def test_every_format_of_a_family_holds_the_same_model_and_tokenizer(name, cache, tmp_path):
    formats = PUBLISHED[name].formats
    for format in formats:
        mini(tmp_path / format, family=name, format=format, cache=cache, **QUICK)
    loaded = [load(tmp_path / format, dtype=torch.float32) for format in formats]
    first, its_tokenizer = loaded[0]
    for model, tokenizer in loaded:
        assert same_weights(model, first)
        assert torch.equal(far_logits(model), far_logits(first))
        text = "Milo and the fox, é"
        assert tokenizer.encode(text) == its_tokenizer.encode(text)


def test_shards_are_those_of_a_published_checkpoint(cache, tmp_path):
    made = dict(family="llama-3.3", cache=cache, **QUICK)
    mini(tmp_path / "meta", format="meta", n_shards=4, **made)
    assert files(tmp_path / "meta")[1:5] == [f"consolidated.0{i}.pth" for i in range(4)]
    mini(tmp_path / "hf", format="hugging-face", n_shards=3, **made)
    assert "model-00001-of-00003.safetensors" in files(tmp_path / "hf")
    assert "model.safetensors.index.json" in files(tmp_path / "hf")
    assert same_weights(load(tmp_path / "meta")[0], load(tmp_path / "hf")[0])


@pytest.mark.parametrize("name", ["llama-1", "llama-2", "llama-3", "llama-3.2", "llama-3.3",
                                  "llama-4"])
def test_transformers_opens_a_mini_and_computes_the_same(name, cache, tmp_path):
    mini(tmp_path / "x", family=name, format="hugging-face", n_shards=2, cache=cache, **QUICK)
    twin = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "x", dtype=torch.float32)
    model, tokenizer = load(tmp_path / "x", dtype=torch.float32)
    text = "Once there was a fox, and it sang."
    ids = tokenizer.encode(text, bos=True)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "x")(text)["input_ids"]
    assert theirs in (ids, ids[1:])
    ids_1T = torch.tensor([ids])
    with torch.no_grad():
        torch.testing.assert_close(twin(ids_1T).logits, model(ids_1T), atol=1e-4, rtol=1e-4)
    if name in FORMATS:  # then generation stops where an answer ends
        ends = twin.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends)
        assert ends == FORMATS[name].stop_ids(tokenizer)


# --- kept between calls ---------------------------------------------------------------------------


@pytest.fixture
def count(monkeypatch):
    """How often a model was trained."""
    calls, train = [], module._train

    def counted(*args, **settings):
        calls.append(args)
        train(*args, **settings)

    monkeypatch.setattr(module, "_train", counted)
    return calls


def test_a_family_is_trained_once_and_every_format_after_that_is_instant(count, tmp_path):
    mini(tmp_path / "a", format="meta", cache=tmp_path / "cache", **QUICK)
    mini(tmp_path / "b", format="hugging-face", cache=tmp_path / "cache", **QUICK)
    assert len(count) == 1 and len(files(tmp_path / "cache")) == 1
    mini(tmp_path / "c", family="llama-1", format="meta", cache=tmp_path / "cache", **QUICK)
    mini(tmp_path / "d", format="meta", cache=tmp_path / "cache", n_steps=3)
    assert len(count) == 3, "another family and another budget are other models"


@pytest.mark.parametrize(
    "damage", ["flip a bit", "cut a file", "lose a file", "add a file", "an empty folder"])
def test_a_damaged_cache_is_trained_again(damage, count, tmp_path):
    before, _ = trained("llama-2", cache=tmp_path, **QUICK)
    (entry,) = tmp_path.iterdir()
    weights = entry / "model.safetensors"
    before = {name: weight.clone() for name, weight in before.named_parameters()}
    data = bytearray(weights.read_bytes())
    data[-1000] ^= 1
    {"flip a bit": lambda: weights.write_bytes(data),
     "cut a file": lambda: weights.write_bytes(data[:5000]),
     "lose a file": weights.unlink, "add a file": lambda: (entry / "more").write_text(""),
     "an empty folder": lambda: (shutil.rmtree(entry), entry.mkdir())}[damage]()
    after, _ = trained("llama-2", cache=tmp_path, **QUICK)
    assert len(count) == 2 and len(files(tmp_path)) == 1
    assert all(torch.equal(weight, before[name]) for name, weight in after.named_parameters())
    trained("llama-2", cache=tmp_path, **QUICK)
    assert len(count) == 2


def test_a_model_that_computes_something_else_by_now_is_trained_again(count, tmp_path, monkeypatch):
    trained("llama-2", cache=tmp_path, **QUICK)
    loss = module._loss
    monkeypatch.setattr(module, "_loss", lambda *args: loss(*args) + 0.1)
    trained("llama-2", cache=tmp_path, **QUICK)
    assert len(count) == 2


def test_the_key_tells_every_setting_and_the_data_apart(stories):
    config, training = small_config("llama-2"), module.TRAINING
    keys = {module._key(*change) for change in [
        (config, training, stories, "llama-2"), (config, training, stories, "llama-1"),
        (small_config("llama-3"), training, stories, "llama-2"),
        (config, training, stories[:-1], "llama-2"),
        (config, TrainConfig(n_steps=7, n_warmup=1), stories, "llama-2")]}
    assert len(keys) == 5


def test_a_training_that_is_interrupted_keeps_nothing(tmp_path):
    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mini(tmp_path / "x", cache=tmp_path / "cache", on_step=stop, **QUICK)
    assert files(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_warned_of_and_the_mini_is_made(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(UserWarning, match="cannot be kept in .*cache"):
        mini(tmp_path / "x", cache=tmp_path / "cache", **QUICK)
    assert files(tmp_path / "x") == META


def test_training_leaves_the_random_numbers_of_others_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    trained("llama-1", cache=tmp_path, **QUICK)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_a_real_mini_tells_what_it_is_asked_for_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRAINING", REAL)
    model, tokenizer = trained("llama-2", cache=tmp_path)
    stories, held_out = module._stories()
    assert module._loss(model, tokenizer, held_out) < 1.25, "nats per token; 7.5 before training"
    known = set(re.findall(r"[A-Za-z']+", " ".join(stories)))
    n_words = n_strange = n_ended = n_right = 0
    for i, (word, words) in enumerate(THEMES.items()):
        told_theme = Chat(model, tokenizer, system=f"You tell stories about {words}.")
        for chat, asked in ((Chat(model, tokenizer), f"Tell me a story about {words}."),
                            (told_theme, "Tell me a story.")):
            sampling = Sampling(temperature=0.5, top_p=0.9)
            told = "".join(chat.say(asked, max_tokens=320, sampling=sampling, seed=i))
            said = re.findall(r"[A-Za-z']+", told)
            n_words, n_strange = n_words + len(said), n_strange + len(set(said) - known)
            n_ended, n_right = n_ended + (not chat.is_cut), n_right + (word in told)
            assert len("".join(chat.say("Go on.", max_tokens=320))) > 0
    assert n_words > 16 * 40 and n_strange < 0.05 * n_words
    assert n_ended >= 12 and n_right >= 11, "of 16; by chance 2 are right"


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "message"), [
    (dict(family="llama-22"), "the families with a mini are .*; got 'llama-22'; did you mean"),
    (dict(family="llama-4-vision"), "the families with a mini are"),
    (dict(format="hf"), "formats that can be written are .*; got 'hf'"),
    (dict(family="llama-3", format="llama2c"), "format llama2c can hold only llama-2; got llama-3"),
    (dict(format="meta", n_shards=3), "n_shards must divide n_heads"),
    (dict(format="gguf", dtype="bfloat16"), "gguf can be written in"),
])  # fmt: skip
def test_what_cannot_be_made_is_refused_and_leaves_nothing(settings, message, cache, tmp_path):
    with pytest.raises(ValueError, match=message):
        mini(tmp_path / "x", cache=cache, **settings, **QUICK)
    assert files(tmp_path) == []


@pytest.mark.parametrize("format", ["meta", "gguf"])
def test_what_is_there_is_not_overwritten_and_nothing_is_trained_for_it(format, count, tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(ValueError, match="there is something at"):
        mini(tmp_path / "x", format=format, cache=tmp_path / "cache", **QUICK)
    assert (tmp_path / "x").read_text() == "mine" and count == []


@pytest.mark.parametrize("where", ["the weights", "the side files"])
def test_a_full_disk_leaves_no_half_a_mini(where, cache, tmp_path, monkeypatch):
    trained("llama-2", cache=cache, **QUICK)

    def full(*args, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "the weights":
        monkeypatch.setattr(torch, "save", full)
    else:
        monkeypatch.setitem(module.SIDE_FILES, "meta", full)
    with pytest.raises(OSError, match="No space left"):
        mini(tmp_path / "x", format="meta", cache=cache, **QUICK)
    assert files(tmp_path) == []
