"""Batches with images: what is a target, who shares an image, and steps that reach every part."""

import dataclasses

import pytest
import torch
from seeing_twin import IMAGE, TEXT, loud, pictures

from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.images import ImageBatch, image_batch
from llama_from_scratch.train.loop import gradients, train
from llama_from_scratch.train.loss import sum_of_nats
from llama_from_scratch.train.records import TrainConfig
from llama_from_scratch.vision.adapter import detach

PROMPTS = [[1, IMAGE, 5, 6], [1, IMAGE, 7], [1, IMAGE, 8, 9, 2], [1, 4, 3]]
ANSWERS = [[11, 3], [12, 13, 3], [14], [15, 3]]


def made(**changes):
    images = pictures([[6], [2], [0]])
    batch = image_batch(PROMPTS, ANSWERS, images=images, image_rows=[0, 1, 0, 2])
    return dataclasses.replace(batch, **changes) if changes else batch


def test_only_answers_are_targets_and_rows_are_padded_on_the_right():
    batch = made()
    assert batch.ids.tolist()[:2] == [[1, IMAGE, 5, 6, 11], [1, IMAGE, 7, 12, 13]]
    assert batch.targets.tolist() == [
        [IGNORE] * 3 + [11, 3], [IGNORE] * 2 + [12, 13, 3], [IGNORE] * 4 + [14],
        [IGNORE] * 2 + [15, 3, IGNORE]]
    assert batch.documents.tolist() == [[0] * 5] * 3 + [[0] * 4 + [-1]]
    assert batch.n_targets == 8


def test_the_loss_is_each_rows_own_loss_added_up():
    model, batch = loud(), made()
    alone = sum(
        sum_of_nats(model, image_batch([prompt], [answer], images=batch.images.__class__(
            pixels=batch.images.pixels[row : row + 1],
            aspect_ids=batch.images.aspect_ids[row : row + 1])))
        for prompt, answer, row in zip(PROMPTS, ANSWERS, [0, 1, 0, 2], strict=True))
    torch.testing.assert_close(sum_of_nats(model, batch), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_micro_batches_add_up_to_the_gradients_of_the_whole(rows):
    model, batch = loud(), made()
    loss = gradients(model, batch)
    whole = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    assert gradients(model, batch, micro_batch_size=rows) == pytest.approx(loss, rel=1e-5)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, whole[name], rtol=1e-4, atol=2e-6)


def test_images_that_several_rows_show_are_encoded_once():
    model, counted = loud(), []
    model.vision.register_forward_pre_hook(lambda _, args: counted.append(len(args[0])))
    gradients(model, made())
    assert counted == [2]


def test_a_step_reaches_every_part_and_a_batch_of_text_alone_leaves_the_eyes_without_gradient():
    model = loud()
    gradients(model, made())
    assert all(weight.grad.any() for weight in model.parameters())
    model.zero_grad()
    gradients(model, image_batch([[1, 4, 3]], [[15]], images=pictures([[0]])))
    eyes = [weight for name, weight in model.named_parameters() if name.startswith("vision.")]
    assert not any(weight.grad is not None and weight.grad.any() for weight in eyes)


class OneBatch:
    """Data that gives the same batch at each step."""

    def batch(self, step, *, batch_size, seq_len, seed):
        return made()


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_training_learns_the_answers_and_leaves_a_frozen_text_as_it_was(micro_batch_size):
    model = loud()
    text = detach(model).requires_grad_(False)
    before = {name: weight.clone() for name, weight in text.named_parameters()}
    history = train(model, OneBatch(), config=TrainConfig(
        n_steps=25, batch_size=4, seq_len=5, peak_lr=1e-2, n_warmup=2, weight_decay=0.0,
        micro_batch_size=micro_batch_size))
    assert history.steps[-1].loss < 0.5 * history.steps[0].loss
    assert all(torch.equal(before[name], weight) for name, weight in text.named_parameters())


def test_an_image_id_is_never_a_target():
    batch = made()
    targets = batch.targets.clone()
    targets[0, 0] = IMAGE
    with pytest.raises(ValueError, match=f"below {TEXT.vocab_size}; got {IMAGE}. .*{IGNORE}"):
        sum_of_nats(loud(), made(targets=targets))


def test_missing_and_unknown_fields_are_refused():
    fields = {name: getattr(made(), name) for name in ImageBatch.__dataclass_fields__}
    with pytest.raises(ValueError, match="ImageBatch needs images; got only"):
        ImageBatch(**{name: value for name, value in fields.items() if name != "images"})
    with pytest.raises(ValueError, match="no field 'aspect_ids'; did you mean 'images'|known"):
        ImageBatch(**fields, aspect_ids=made().images.aspect_ids)


@pytest.mark.parametrize("rows", [[0, 1, 0, 3], [0, 1, 0, 1], [0, 1, 0, -1], [0, 1, 2]])
def test_rows_of_images_that_are_not_there_or_not_shown_are_refused(rows):
    with pytest.raises(ValueError, match="image_rows must"):
        made(image_rows=torch.tensor(rows))


def test_prompts_without_answers_are_refused():
    images = pictures([[6]])
    with pytest.raises(ValueError, match="got 1 prompts and 2 answers"):
        image_batch([[1]], [[2], [3]], images=images)
    with pytest.raises(ValueError, match="answer 0 is empty"):
        image_batch([[1, IMAGE]], [[]], images=images)
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        image_batch([[]], [[1]], images=images)
