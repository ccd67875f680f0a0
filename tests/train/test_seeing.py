import random

import pytest
import torch
from small_seeing import seeing_model, some, tokenizer

from llama_from_scratch.train import seeing
from llama_from_scratch.train.digits import Digits
from llama_from_scratch.train.picture_batches import tiles_of
from llama_from_scratch.train.scenes import Scenes
from llama_from_scratch.train.seeing import AdapterStage, EncoderStage, SeeingRecipe
from llama_from_scratch.train.words import WordsStage
from llama_from_scratch.vision.adapter import detach


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def bits(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_encoder_learns_and_nothing_else_changes(words):
    model, losses = seeing_model(words.vocab_size), []
    before = bits(model)
    head = seeing.train_encoder(
        model.vision.encoder, Scenes(), on_step=lambda step: losses.append(step.loss),
        stage=EncoderStage(n_steps=40, n_images=16, splits=("train", "hues")))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert changed(before, bits(model)) <= {
        f"vision.encoder.{name}" for name, _ in model.vision.encoder.named_parameters()}
    pictures = [Scenes().draw(random.Random(i), split="test") for i in range(3)]
    tiles = tiles_of(pictures, model.config.vision)
    found = head(model.vision.encoder(tiles.pixels[:, 0], tiles.aspect_ids[:, 0]))
    assert [tuple(logits.shape) for logits in found] == [(3, 4, n) for n in Scenes.n_classes]


def test_a_quarter_is_read_from_its_own_patches():
    config = seeing.small_vision_config(8)
    head = seeing.QuarterHead(config, Scenes())
    states = torch.zeros(1, 1, config.n_tokens, 2 * config.dim)
    plain = torch.cat(head(states), dim=-1)
    for row, column in ((0, 1), (2, 3), (3, 0)):
        states_of_one = states.clone()
        states_of_one[0, 0, 1 + 4 * row + column, : config.dim] = 1
        is_other = (torch.cat(head(states_of_one), dim=-1) != plain).any(-1)[0]
        assert is_other.nonzero().flatten().tolist() == [2 * (row // 2) + column // 2]


def test_the_adapter_learns_and_no_bit_of_the_text_model_changes(words):
    model, steps = seeing_model(words.vocab_size), []
    text, before = detach(model), bits(model)
    seeing.train_adapter(model, Scenes(), words, on_step=steps.append,
                         stage=AdapterStage(n_steps=30, n_images=8, peak_lr=1e-2))
    losses = [step.loss for step in steps]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    trained = changed(before, bits(model))
    ids = {id(p) for p in text.parameters()}
    assert not {name for name, p in model.named_parameters() if id(p) in ids} & trained
    assert {"vision.projector.weight", "image_embeddings.weight",
            "layers.1.cross.attention.wq.weight",
            "vision.encoder.patch_embedding.linear.weight"} <= trained
    assert all(gate for gate in steps[-1].gates.values()), "every gate has left 0"
    assert set(steps[0].gates) == {"layers.1.cross.attention_gate.weight",
                                   "layers.1.cross.ffn_gate.weight"}


def test_each_question_counts_the_same_however_long_its_answer_is(words):
    model, asked = seeing_model(words.vocab_size), some(Scenes(), 6)
    alone = [seeing.answer_loss(model, [seeing.Example(picture=example.picture, questions=(one,))],
                                words).item()
             for example in asked for one in example.questions]
    whole = seeing.answer_loss(model, asked, words).item()
    assert whole == pytest.approx(sum(alone) / len(alone), rel=1e-5)


def test_a_stage_depends_on_its_seed_alone(words):
    losses = []
    for seed in (0, 0, 1):
        model, steps = seeing_model(words.vocab_size), []
        seeing.train_adapter(model, Scenes(), words, on_step=steps.append, seed=seed,
                             stage=AdapterStage(n_steps=3, n_images=4))
        losses.append([step.loss for step in steps])
    assert losses[0] == losses[1] != losses[2]


def test_a_recipe_leaves_the_text_model_as_it_was_and_closes_no_door_to_stories(words):
    text = detach(seeing_model(words.vocab_size))
    before, ids = bits(text), torch.tensor([words.encode("How many shapes?")])
    logits = text(ids).detach()
    recipe = SeeingRecipe(words=WordsStage(n_steps=2), cross_layers=(1,),
                          encoder=EncoderStage(n_steps=2, n_images=4),
                          adapter=AdapterStage(n_steps=3, n_images=4))
    steps = []
    model = seeing.learn_to_see(text, Scenes(), words, recipe=recipe, on_step=steps.append)
    assert [bool(step.gates) for step in steps] == [False] * 2 + [True] * 3
    assert not changed(before, bits(text)) and torch.equal(model(ids), logits)
    assert all(p.data_ptr() == q.data_ptr()
               for p, q in zip(text.parameters(), detach(model).parameters(), strict=True))


def test_each_task_has_a_recipe():
    for task in (Scenes(), Digits()):
        recipe = seeing.RECIPES[task.name]
        assert set(recipe.adapter.kinds) <= set(task.kinds("train"))
        assert set(recipe.encoder.splits) <= set(task.splits)


def test_fresh_eyes_say_where_a_patch_is_and_depend_on_their_seed(words):
    text = detach(seeing_model(words.vocab_size))
    first, again, other = (bits(seeing.with_eyes(text, cross_layers=(1,), seed=seed))
                           for seed in (0, 0, 1))
    assert not changed(first, again) and len(changed(first, other)) > 20
    places = first["vision.encoder.positions.in_tile"]
    assert places.std().item() == pytest.approx(seeing.PLACE_STD, rel=0.05)
