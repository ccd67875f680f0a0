import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch.checkpoint.sharded.manifest import SavedTensor
from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.lessons.figures import manifests

WHOLE = Region.whole((4, 6))
BY_COLUMNS = {f"rank-{part}.safetensors": WHOLE.part(axis=1, part=part, n_parts=2)
              for part in range(2)}
BY_SPAN = {"rank-0.safetensors": WHOLE.span(0, 9), "rank-2.safetensors": WHOLE.span(9, 15)}


def saved(regions, shape=(4, 6)):
    return SavedTensor(dtype=torch.float32, shape=shape, pieces=tuple(regions.items()))


def test_each_element_belongs_to_the_file_that_holds_it():
    assert manifests.owners(saved(BY_COLUMNS)).tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    expected = np.where(np.arange(24) < 9, 0, 2).reshape(4, 6)
    assert np.array_equal(manifests.owners(saved(BY_SPAN)), expected)


def test_the_picture_shows_the_owners_and_names_the_files(monkeypatch):
    styled(monkeypatch)
    tensors = {"by columns": saved(BY_COLUMNS), "by span": saved(BY_SPAN)}
    figure = manifests.held(tensors, title="wo")
    assert faults(figure) == []
    for ax, regions in zip(figure.axes, (BY_COLUMNS, BY_SPAN), strict=True):
        (image,) = ax.images
        assert np.array_equal(image.get_array(), manifests.owners(saved(regions)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f"rank-{rank}.safetensors" for rank in (0, 1, 2)]
    assert "by span: rank 0 9 elements, rank 2 15 elements." in figure.get_label()
    plt.close("all")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"shows matrices; got norm of the shape \(6,\)"):
        manifests.held({"norm": saved({"rank-0.safetensors": Region.whole((6,))}, (6,))}, title="x")
    with pytest.raises(ValueError, match="colors for 7 files; got one of rank 9"):
        manifests.held({"w": saved({"rank-9.safetensors": WHOLE})}, title="x")
