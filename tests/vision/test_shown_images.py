import pytest
import torch
from fusion_twin import grid_images
from seeing_twin import pictures

from llama_from_scratch.vision.shown_images import ShownImages, digest


def test_a_digest_depends_on_the_kind_the_dtype_and_every_value():
    x = torch.arange(6.0)
    found = {digest("a", x), digest("b", x), digest("a", x.double()), digest("a", x + 0.5),
             digest("a", x.bfloat16())}
    assert len(found) == 5
    assert digest("a", x[::2]) == digest("a", torch.tensor([0.0, 2.0, 4.0]))
    assert digest("a", x.requires_grad_()) in found


@pytest.mark.parametrize("images", [pictures([[6, 2], [1, 0]]),
                                    grid_images((((2, 2), (1, 2)), ((1, 1),)))],
                         ids=["Llama 3.2", "Llama 4"])
def test_images_of_both_kinds_answer_alike(images):
    assert isinstance(images, ShownImages)
    assert images.n_images.tolist() == [2, 1]
    assert len(images.digests()) == 2
    assert images.after(1).n_images.tolist() == [1, 0]
    assert images.after(1).digests() == images.digests()[1:]
