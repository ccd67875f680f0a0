"""Keys and values of images that are kept: appended, selected, truncated, copied, counted."""

import pytest
import torch
from seeing_twin import IMAGE, TEXT, VISION, loud, pictures

from llama_from_scratch.vision.image_cache import ImageCache, LayerCacheWithImages
from llama_from_scratch.vision.tiles import TiledImages


def kv(n, start=0):
    k = torch.arange(start, start + n, dtype=torch.float32).view(1, n, 1, 1).repeat(2, 1, 1, 3)
    return k, -k


def read(model, cache, ids, images=None):
    with torch.inference_mode():
        return model(torch.tensor(ids), images=images, cache=cache)


def layers_with_images(cache):
    return [layer for layer in cache.layers if isinstance(layer, LayerCacheWithImages)]


def test_new_images_come_last_and_all_stay():
    cache = ImageCache()
    cache.append(*kv(4))
    keys, values = cache.append(*kv(2, start=10))
    assert keys[0, :, 0, 0].tolist() == [0, 1, 2, 3, 10, 11]
    assert torch.equal(values, -keys)
    assert all(torch.equal(a, b) for a, b in zip(cache.all(), (keys, values), strict=True))
    assert cache.n_bytes == 2 * keys.nbytes


def test_slots_are_selected_with_all_their_tokens():
    cache = ImageCache()
    cache.append(*kv(6))
    cache.select([0, 2], n_tokens=2)
    keys, values = cache.all()
    assert keys[0, :, 0, 0].tolist() == [0, 1, 4, 5]
    assert torch.equal(values, -keys)
    cache.select([], n_tokens=2)
    assert cache.n_bytes == 0


def test_rows_take_their_images_along():
    cache = ImageCache()
    k = torch.arange(3.0).view(3, 1, 1, 1)
    cache.append(k, -k)
    keys, values = cache.rows([2, 0]).all()
    assert keys.flatten().tolist() == [2, 0]
    assert torch.equal(values, -keys)
    assert ImageCache().rows([0]).n_bytes == 0


def test_a_cache_keeps_no_graph():
    k, v = kv(1)
    with pytest.raises(ValueError, match="keys of images that need a gradient.*inference_mode"):
        ImageCache().append(k.requires_grad_(), v)


def test_bytes_of_an_image_are_those_of_the_formula():
    model = loud()
    cache = model.new_cache(batch_size=2, max_seq_len=8)
    text = cache.n_bytes
    read(model, cache, [[IMAGE, 1], [IMAGE, 2]], pictures([[1], [6]]))
    per_image = 2 * VISION.max_tiles * VISION.n_tokens * TEXT.n_kv_heads * TEXT.head_dim * 4
    assert cache.n_bytes - text == 2 * per_image * len(model.config.cross_layers)


def test_truncating_forgets_the_images_whose_ids_are_forgotten():
    model = loud()
    cache = model.new_cache(batch_size=2, max_seq_len=8)
    read(model, cache, [[IMAGE, 1, 5, 2], [3, IMAGE, IMAGE, 4]], pictures([[1, 0], [6, 2]]))
    assert cache.slots.numbers.tolist() == [[0, -1], [0, 1]]
    cache.truncate(2)
    assert cache.slots.numbers.tolist() == [[0], [0]]
    assert {layer.images.all()[0].shape[1] for layer in layers_with_images(cache)} == {
        VISION.max_tiles * VISION.n_tokens}
    cache.truncate(1)
    assert cache.slots.numbers.tolist() == [[0], [-1]]
    cache.truncate(0)
    assert not cache.has_images and all(layer.images.n_bytes == 0
                                        for layer in layers_with_images(cache))


def test_after_truncating_another_image_takes_the_place_and_the_old_one_is_gone():
    model, first, second = loud(), pictures([[6]]), pictures([[6]], seed=2)
    ids = [[7, IMAGE, 8, 9]]
    fresh = read(model, model.new_cache(batch_size=1, max_seq_len=8), ids, second)
    cache = model.new_cache(batch_size=1, max_seq_len=8)
    old = read(model, cache, ids, first)
    cache.truncate(1)
    new = read(model, cache, [ids[0][1:]], second)
    assert (old - fresh)[:, 1:].abs().max() > 0.1
    torch.testing.assert_close(new, fresh[:, 1:], atol=1e-5, rtol=1e-5)


def test_a_copy_holds_the_rows_tokens_and_only_their_images():
    model = loud()
    images = pictures([[6, 2], [1, 0], [0, 0]])
    ids = [[1, IMAGE, IMAGE, 4], [5, 6, IMAGE, 7], [8, 9, 10, 11]]
    cache = model.new_cache(batch_size=3, max_seq_len=8)
    read(model, cache, ids, images)
    copy = cache.copy([2, 1], max_seq_len=6)
    assert copy.slots.numbers.tolist() == [[-1], [0]]
    together, alone = (read(model, some, [[3]] * some.batch_size)[rows] for some, rows in
                       ((cache, [2, 1]), (copy, [0, 1])))
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)
    assert not cache.copy([2], max_seq_len=6).has_images


def test_a_copy_that_leaves_the_beginning_out_still_knows_what_its_tokens_see():
    model, images = loud(), pictures([[6, 2]])
    cache = model.new_cache(batch_size=1, max_seq_len=8)
    read(model, cache, [[1, IMAGE, 4, IMAGE]], images)
    copy = cache.copy([0], max_seq_len=8, start=2)
    assert (copy.before.first.item(), copy.before.end.item()) == (1, 2)
    assert copy.before.is_image.item()


def test_an_interrupted_pass_leaves_nothing_behind_once_it_is_truncated():
    model, both = loud(), pictures([[6, 2]])
    first, second = (TiledImages(pixels=both.pixels[:, i : i + 1],
                                 aspect_ids=both.aspect_ids[:, i : i + 1]) for i in range(2))
    cache = model.new_cache(batch_size=1, max_seq_len=8)
    read(model, cache, [[1, IMAGE]], first)

    def fail(*_):
        raise KeyboardInterrupt

    hook = model.layers[2].register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        read(model, cache, [[4, IMAGE, 3]], second)
    hook.remove()
    cache.truncate(2)
    again = read(model, cache, [[4, IMAGE, 3]], second)
    fresh = read(model, model.new_cache(batch_size=1, max_seq_len=8), [[1, IMAGE, 4, IMAGE, 3]],
                 both)
    torch.testing.assert_close(again, fresh[:, 2:], atol=1e-5, rtol=1e-5)
