"""What both kinds of models that see have in common."""

import pytest
import torch
from fusion_twin import IDS, grid_images, loud_fusion
from llama4_twin import toy
from PIL import Image
from seeing_twin import IMAGE, loud, pictures, row_of

from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.fusion_tiles import GridImages
from llama_from_scratch.vision.seeing import SeeingLlama

CASES = {
    "Llama 3.2": (loud, pictures([[6, 2], [1, 0]]), IMAGE, [[1, 1], [1]]),
    "Llama 4": (lambda: loud_fusion(toy(max_seq_len=256)),
                grid_images((((2, 2), (1, 2)), ((1, 1),))), IDS.image, [[20, 12], [4]]),
}


@pytest.fixture(params=CASES)
def case(request):
    make, images, image_id, n_places = CASES[request.param]
    return make(), images, image_id, n_places


def test_a_prompt_has_one_id_for_each_image_and_is_written_out(case):
    model, images, image_id, n_places = case
    assert isinstance(model, SeeingLlama) and model.config.image_id == image_id
    assert model.n_places(images) == n_places
    prompts = [[5, image_id, 6, image_id], [image_id, 7]]
    rows = model.written_out(prompts, images)
    assert [row.count(model.place_id) for row in rows] == [sum(row) for row in n_places]
    assert model.written_out(rows, images) == rows
    assert [[token for token in row if token < 50] for row in rows] == [[5, 6], [7]]


def test_the_length_of_an_image_in_the_text_is_that_of_its_ids(case):
    model, _, image_id, _ = case
    for size in ((20, 30), (200, 90), (10, 500)):
        image = Image.new("RGB", size)
        [row] = model.written_out([[image_id]], model.cut([[image]]))
        assert model.text_length(image) == len(row)


def test_hidden_and_forward_belong_together(case):
    model, images, image_id, _ = case
    [row] = model.written_out([[5, image_id, 6, image_id, 9]],
                              first_row(images))
    ids = torch.tensor([row])
    with torch.inference_mode():
        hidden = model.hidden(ids, images=first_row(images))
        assert torch.equal(model.output(hidden).float(), model(ids, images=first_row(images)))


def first_row(images):
    """The images of the first row alone."""
    if isinstance(images, GridImages):
        return GridImages(pixels=images.pixels[:8], grids=images.grids[:1])
    return row_of(images, 0)


def test_the_text_model_is_a_plain_llama_with_the_very_parts(case):
    model, _, _, _ = case
    text = model.text_model()
    assert type(text) is Llama and text.config == model.config.text
    ours = dict(model.named_parameters())
    assert all(any(w is each for each in ours.values()) for w in text.parameters())


def test_images_for_other_rows_are_refused(case):
    model, images, _, _ = case
    with pytest.raises(ValueError, match="3 rows of ids and 2 rows of images"):
        model.refuse_unfit(images, n_rows=3)
    with pytest.raises(ValueError, match="1 rows of ids and 2 rows of images"):
        model.refuse_unfit([["a.png"], []], n_rows=1)


def test_images_that_were_cut_for_the_other_kind_of_model_are_refused():
    kinds = list(CASES.values())
    for (make, *_), (_, images, *_) in (kinds, kinds[::-1]):
        with pytest.raises(ValueError, match=r"model\.cut\(rows\)|vision\.split"):
            make().refuse_unfit(images, n_rows=2)


def test_what_a_model_that_sees_must_say_is_asked_at_construction():
    class Blind(SeeingLlama):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Blind(toy())
