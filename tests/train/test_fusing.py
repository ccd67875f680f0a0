"""A small text model learns to read images as tokens, with its text trained or frozen."""

import random

import pytest
import torch
from small_seeing import some
from small_seeing import tokenizer as words_of_scenes

from llama_from_scratch.config import ImageIds, LayerSpec, LlamaConfig
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train import fusing
from llama_from_scratch.train.exact_match import exact_match
from llama_from_scratch.train.fusing import FusionStage, TileStage
from llama_from_scratch.train.picture_batches import tiles_of
from llama_from_scratch.train.scenes import Scenes
from llama_from_scratch.train.seeing import answer_loss
from llama_from_scratch.vision.early_fusion import fuse_vision

IDS = ImageIds(image_start=350, image_end=351, image=352, patch=353, tile_x_separator=354,
               tile_y_separator=355)


@pytest.fixture(scope="module")
def words():
    return words_of_scenes()


def fused():
    torch.manual_seed(0)
    text = Llama(LlamaConfig(dim=16, n_heads=2, n_kv_heads=1, ffn_dim=32, vocab_size=356,
                             max_seq_len=64, norm_eps=1e-5, rope_theta=1e4,
                             layers=(LayerSpec(),) * 2))
    return fuse_vision(text, fusing.small_tile_config(16), image_ids=IDS)


def bits(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_picture_of_one_tile_takes_a_token_for_each_quarter():
    config = fusing.small_tile_config(16)
    assert (config.n_patches, config.n_tokens) == (16, 4)


def test_the_ids_of_an_image_are_reserved_in_the_tokenizer_of_llama_3():
    tokenizer = Tokenizer.train("a b c", 256 + 257, special_tokens=released.LLAMA_3_2_VISION)
    ids = fusing.reserved_image_ids(tokenizer)
    names = {number: name for name, number in tokenizer.special_ids.items()}
    assert all("reserved" in names[number] for number in vars(ids).values())


def test_the_encoder_learns_what_is_in_each_quarter_and_nothing_else_changes(words):
    model, losses = fused(), []
    before = bits(model)
    fusing.train_tile_encoder(model.vision.encoder, Scenes(), stage=TileStage(
        n_steps=40, n_images=16), on_step=lambda step: losses.append(step.loss))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert all(name.startswith("vision.encoder.") for name in changed(before, bits(model)))


def test_a_quarter_is_read_from_its_own_patches():
    config = fusing.small_tile_config(8)
    head = fusing.TileQuarterHead(config, Scenes())
    plain = torch.cat(head(torch.zeros(1, 16, config.dim)), dim=-1)
    for row, column in ((0, 1), (2, 3), (3, 0)):
        states = torch.zeros(1, 16, config.dim)
        states[0, 4 * row + column] = 1
        is_other = (torch.cat(head(states), dim=-1) != plain).any(-1)[0]
        assert is_other.nonzero().flatten().tolist() == [2 * (row // 2) + column // 2]


@pytest.mark.parametrize("text_lr", [1e-2, 0.0])
def test_the_text_model_learns_too_or_keeps_every_bit(text_lr, words):
    model, losses = fused(), []
    before = bits(model)
    fusing.train_fusion(model, Scenes(), words, on_step=lambda step: losses.append(step.loss),
                        stage=FusionStage(n_steps=25, n_images=8, peak_lr=1e-2, text_lr=text_lr))
    trained = changed(before, bits(model))
    assert {"vision.projector.weight", "vision.encoder.positions"} <= trained
    of_text = {name for name in trained if not name.startswith("vision.")}
    assert bool(of_text) == bool(text_lr)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_the_loss_depends_on_the_picture_and_each_answer_counts_the_same(words):
    model, asked = fused(), some(Scenes(), 4)
    whole = answer_loss(model, asked, words).item()
    alone = [answer_loss(model, [fusing_one(example, question)], words).item()
             for example in asked for question in example.questions]
    assert whole == pytest.approx(sum(alone) / len(alone), rel=1e-5)
    model.vision.projector.weight.data.mul_(-3.0)
    assert answer_loss(model, asked, words).item() != pytest.approx(whole, rel=1e-6)


def fusing_one(example, question):
    return type(example)(picture=example.picture, questions=(question,))


def test_answers_are_counted_with_and_without_the_picture(words):
    model = fused()
    for is_blind in (False, True):
        found = exact_match(model, Scenes(), words, n_images=5, is_blind=is_blind)
        assert sum(found.n_asked.values()) == 20


def test_tiles_are_the_ones_that_the_model_cuts():
    model = fused()
    pictures = [Scenes().draw(random.Random(i), split="train") for i in range(3)]
    ours, theirs = tiles_of(pictures, model.config.vision), model.cut(
        [[picture.pixels] for picture in pictures])
    assert torch.equal(ours.pixels, theirs.pixels) and ours.grids == theirs.grids
