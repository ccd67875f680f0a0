"""The KV cache of one growing text, kept between calls, so that a chat's turns are read only once.

Each turn sends the whole conversation so far, of which only the end is new. The longest common
beginning stays in the cache, the rest is removed from it, and only the new ids go through the
model. Images belong to the text: it is common only up to the first image that differs, and only
new images go through the encoder.

Continues notebook 16.
"""

import itertools
from collections.abc import Iterator, Sequence

from llama_from_scratch.model.kv_cache import KVCache
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.seeing import SeeingLlama
from llama_from_scratch.vision.shown_images import ShownImages


class PrefixCache:
    """Keys and values of the last text, to be passed to `stream` as `prefix`.

    `ids` is the text it holds; the images in it are compared by their content. The answers equal
    those without it up to rounding, because the text is read in other pieces. It grows with the
    text and starts over when the model's weights have changed. It serves one text at a time: a new
    `stream` takes the cache from an unfinished one, which then cannot continue. A `stream` may be
    abandoned, or fail, at any moment.
    """

    def __init__(self, model: Llama) -> None:
        self.ids: list[int] = []
        self._model = model
        self._images: list[bytes] = []  # a digest of each image of the last prompt
        self._weights, self._cache, self._turn = None, None, object()

    def begin(
        self, model: Llama, prompt: Sequence[int], *, max_tokens: int,
        images: ShownImages | None = None,
    ) -> tuple[KVCache, ShownImages | None]:
        """Returns a cache with room for the prompt and `max_tokens` more, and with what was read.

        `prompt`, `images`: as `checks.as_images` returns them.
        The second value is the images of the prompt that the cache does not hold, None if it holds
        all. The last id of the prompt is never in the cache, because the answer begins with that
        id's logits.
        Raises ValueError for a model other than the one that the cache was made for.
        """
        if model is not self._model:
            raise ValueError("a PrefixCache holds the keys and values of one model; this is "
                             "another model than it was made for. Make one for each model: "
                             "PrefixCache(model)")
        weights = weights_of(model)
        if isinstance(model, SeeingLlama):
            weights.append((model.sees_before_images,))
        if weights != self._weights:
            self.ids, self._cache, self._weights = [], None, weights
        context, n_needed = model.config.max_seq_len, len(prompt) + max_tokens
        before, self._images = self._images, [] if images is None else images.digests()
        n_places = [] if images is None else model.n_places(images)[0]
        self.ids = self.ids[: self._n_read(prompt[:-1], before, n_places=n_places)]
        self._turn = object()
        if self._cache is None:
            self._cache = model.new_cache(batch_size=1, max_seq_len=n_needed)
        self._cache.truncate(len(self.ids))
        if self._cache.max_seq_len < n_needed:
            # Doubling copies each token about once, however many turns there are.
            room = min(context, max(n_needed, 2 * self._cache.max_seq_len))
            self._cache = self._cache.copy([0], max_seq_len=room)
        if images is None:
            return self._cache, None
        n_known = _n_whole(n_places, n_read=self.ids.count(model.place_id))
        return self._cache, None if n_known == len(self._images) else images.after(n_known)

    def follow(self, prompt: Sequence[int], tokens: Iterator[int]) -> Iterator[int]:
        """Yields the tokens of a stream on the cache from `begin`, and keeps `ids` up to date.

        Raises ValueError if a later `begin` has taken the cache since.
        """
        text, turn = list(prompt), self._turn
        for token in tokens:
            self.ids += text[len(self.ids) : self._cache.length]
            text.append(token)
            yield token
            if self._turn is not turn:
                raise ValueError("a PrefixCache serves one stream at a time; a later stream took "
                                 "over this PrefixCache. Finish one stream before the next begins, "
                                 "or give each its own PrefixCache")
        self.ids += text[len(self.ids) : self._cache.length]

    def _n_read(
        self, prompt: Sequence[int], before: Sequence[bytes], *, n_places: Sequence[int]
    ) -> int:
        """Returns how many ids of the prompt are in the cache, with only whole images.

        `before`: the images there. `n_places`: of each image of the prompt.
        """
        model, n = self._model, _n_shared(self.ids, prompt)
        if not isinstance(model, SeeingLlama):
            return n
        if model.sees_before_images and before != self._images:
            return 0  # even the first id saw all images
        shared = n_places[: _n_shared(before, self._images)]
        places = [i for i, token in enumerate(self.ids[:n]) if token == model.place_id]
        n_kept = sum(shared[: _n_whole(shared, n_read=len(places))])
        return n if len(places) == n_kept else places[n_kept]


def _n_whole(n_places: Sequence[int], *, n_read: int) -> int:
    """Returns how many images are whole if `n_read` of their places are read."""
    return sum(end <= n_read for end in itertools.accumulate(n_places))


def _n_shared(left: Sequence[int | bytes], right: Sequence[int | bytes]) -> int:
    """Returns how many items at the beginning are equal in both."""
    n_most = min(len(left), len(right))
    return next((n for n in range(n_most) if left[n] != right[n]), n_most)


def weights_of(model: Llama) -> list[tuple]:
    """Returns a value that changes when a weight is replaced or written to."""
    return [(w.data_ptr(), w.dtype, 0 if w.is_inference() else w._version)
            for w in model.parameters()]
