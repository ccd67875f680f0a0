"""Looking up a pair that was read long ago: a task that layers with chunks cannot solve alone.

A text is a row of pairs, key value key value and so on. Each text draws its own value for every
key, so nothing can be learned by heart: when a key comes again, its value must be found earlier in
the text. A model that has learned this can be tested with a needle: a key that occurs once, at a
chosen distance before it is asked for, in a text of any length.

Letters: B texts, T tokens, V keys. Notebooks 24 and 25. Needle tests: Kamradt, "Needle in a
haystack", 2023 (github.com/gkamradt/LLMTest_NeedleInAHaystack).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint.json_file import read_json
from llama_from_scratch.config import LayerSpec, LlamaConfig, TemperatureTuning, record
from llama_from_scratch.model.temperature import Tempered, Unscaled
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.optimizer import AdamW, clip_gradients, decay_groups
from llama_from_scratch.train.schedule import learning_rate

N_KEYS = 32
"""Keys are the ids from 0 on. As many values follow them, with the next ids."""

CHANCE = 1 / N_KEYS
"""The share of right values for a model that guesses."""

CHUNK_SIZE = 16

TRAINED = 64
"""The tokens in a text from which models learn, unless told otherwise."""

KINDS = {
    "R": LayerSpec(chunk_size=CHUNK_SIZE, has_qk_norm=True),
    "N": LayerSpec(has_rope=False),
    "G": LayerSpec(has_qk_norm=True),
}
"""Kinds of layers by a letter: R has RoPE in chunks, N has no RoPE and sees everything, G has RoPE
and sees everything. Queries and keys are normed where there is RoPE, as in Llama 4."""


def recall_config(pattern: str, *, max_seq_len: int = 2048) -> LlamaConfig:
    """Returns a small model for the task, with one layer for each letter of `pattern`.

    `pattern`: letters of `KINDS`, such as "RN". Raises ValueError for another letter.
    """
    if not pattern or set(pattern) - set(KINDS):
        raise ValueError(f"a pattern has one letter of {', '.join(KINDS)} for each layer; got "
                         f"{pattern!r}")
    return LlamaConfig(dim=64, n_heads=2, n_kv_heads=2, ffn_dim=128, vocab_size=2 * N_KEYS,
                       max_seq_len=max_seq_len, norm_eps=1e-5, rope_theta=100.0,
                       layers=tuple(KINDS[kind] for kind in pattern))


def temper(model: Llama, tuning: TemperatureTuning | None) -> None:
    """Switches temperature tuning on in all layers without RoPE, in place, or off with None."""
    for block, spec in zip(model.layers, model.config.layers, strict=True):
        if not spec.has_rope:
            block.attention.scale_queries = Unscaled() if tuning is None else Tempered(tuning)


def pairs(
    n_texts: int, n_tokens: int, *, generator: torch.Generator, most_keys: int = N_KEYS
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Returns texts of pairs, and as targets the values whose key came before, else IGNORE.

    Each text has 2 to `most_keys` different keys.
    """
    value_BV, key_BV = _drawn(n_texts, generator)
    n_used_B1 = torch.randint(2, most_keys + 1, (n_texts, 1), generator=generator)
    which_BP = (torch.rand(n_texts, n_tokens // 2, generator=generator) * n_used_B1).long()
    return _asked(key_BV.gather(1, which_BP), value_BV)


def needles(
    n_texts: int, n_tokens: int, *, distance: int, generator: torch.Generator
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B"]]:
    """Returns texts that end with a key, and the value that should come next.

    The key occurs once before, `distance` tokens earlier. All other keys are other ones.
    Raises ValueError unless `distance` is even, above 0, and inside the text.
    """
    n_pairs = n_tokens // 2
    if distance % 2 or not 0 < distance < 2 * n_pairs:
        raise ValueError(f"keys are two tokens apart, so the distance in a text of {n_tokens} "
                         f"tokens must be even, from 2 to {2 * n_pairs - 2}; got {distance}")
    value_BV, key_BV = _drawn(n_texts, generator)
    key_BP = key_BV.gather(1, torch.randint(1, N_KEYS, (n_texts, n_pairs), generator=generator))
    key_BP[:, [n_pairs - 1 - distance // 2, n_pairs - 1]] = key_BV[:, :1]
    ids_BT = _joined(key_BP, value_BV)
    return ids_BT[:, :-1], ids_BT[:, -1]


def far_pairs(
    n_texts: int, n_tokens: int, *, generator: torch.Generator
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Returns texts and targets as `pairs` does, in which half of the keys are far.

    A far key occurs twice: in the first 16 pairs, and in the last 16. Between them are only other
    keys. In `pairs`, the latest occurrence of a key is rarely far, so nothing far is ever needed.
    Raises ValueError for texts of fewer tokens than two far keys of each kind need.
    """
    n_far, n_pairs = N_KEYS // 2, n_tokens // 2
    if n_pairs < 2 * n_far:
        raise ValueError(f"a text with {n_far} far keys has at least {4 * n_far} tokens; got "
                         f"n_tokens={n_tokens}")
    value_BV, key_BV = _drawn(n_texts, generator)
    between = torch.randint(n_far, N_KEYS, (n_texts, n_pairs - 2 * n_far), generator=generator)
    again = torch.rand(n_texts, n_far, generator=generator).argsort(1)
    which_BP = torch.cat([torch.arange(n_far).expand(n_texts, -1), between, again], 1)
    return _asked(key_BV.gather(1, which_BP), value_BV)


@torch.inference_mode()
def share_found(
    model: Llama, n_tokens: int, *, distance: int, n_texts: int = 100, seed: int = 7
) -> float:
    """Returns the share of needles whose value is the most probable next token."""
    ids_BT, value_B = needles(n_texts, n_tokens, distance=distance,
                              generator=torch.Generator().manual_seed(seed))
    n_together = max(1, 25_000 // n_tokens)
    right = [model(ids_BT[i : i + n_together])[:, -1].argmax(-1) == value_B[i : i + n_together]
             for i in range(0, n_texts, n_together)]
    return torch.cat(right).float().mean().item()


def needle_map(
    model: Llama, lengths: Sequence[int], *, n_depths: int = 4, n_texts: int = 50, seed: int = 7
) -> list[list[float]]:
    """Returns the shares of needles found: a row for each length, a column for each depth.

    `lengths`: of the texts, in tokens. Depth d of `n_depths` is the middle of that part of the
    text, counted from its beginning, so the last depth is the nearest to the question.
    """
    def distance(n_tokens: int, depth: int) -> int:
        n_pairs = n_tokens // 2
        return 2 * max(round(n_pairs * (1 - (depth + 0.5) / n_depths)), 1)

    return [[share_found(model, n_tokens, distance=distance(n_tokens, depth), n_texts=n_texts,
                         seed=seed) for depth in range(n_depths)] for n_tokens in lengths]


@record
class RecallStage:
    """How a model learns the task. `n_tokens`: of each of the `n_texts` texts of a step.

    `has_far_keys`: the texts come from `far_pairs` instead of `pairs`.
    """

    n_steps: int = 400
    n_texts: int = 32
    n_tokens: int = TRAINED
    peak_lr: float = 4e-3
    has_far_keys: bool = False


def train_recall(model: Llama, *, stage: RecallStage, seed: int = 0) -> Iterator[float]:
    """Trains a model in place, and yields the loss of each step in nats per target."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = AdamW(decay_groups(model, weight_decay=0.01))
    for step in range(stage.n_steps):
        draw = far_pairs if stage.has_far_keys else pairs
        loss = recall_loss(model, *draw(stage.n_texts, stage.n_tokens, generator=generator))
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(model.parameters(), max_norm=1.0)
        optimizer.step(lr=learning_rate(step, n_steps=stage.n_steps, peak=stage.peak_lr,
                                        n_warmup=min(50, stage.n_steps // 10)))
        yield loss.item()


def recall_loss(
    model: Llama, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Returns the mean loss over the values that can be known, in nats."""
    return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


def _drawn(
    n_texts: int, generator: torch.Generator
) -> tuple[Int[Tensor, "B V"], Int[Tensor, "B V"]]:
    """Returns a value for each key, and the keys in random order."""
    value_BV = torch.randint(N_KEYS, (n_texts, N_KEYS), generator=generator)
    return value_BV, torch.rand(n_texts, N_KEYS, generator=generator).argsort(1)


def _joined(key_BP: Int[Tensor, "B P"], value_BV: Int[Tensor, "B V"]) -> Int[Tensor, "B T"]:
    return torch.stack([key_BP, value_BV.gather(1, key_BP) + N_KEYS], -1).flatten(1)


def _asked(
    key_BP: Int[Tensor, "B P"], value_BV: Int[Tensor, "B V"]
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Returns the texts of these keys, and the values that can be known as targets."""
    ids_BT = _joined(key_BP, value_BV)
    targets_BT = torch.full_like(ids_BT, IGNORE)
    targets_BT[:, 0::2] = torch.where(_came_before(key_BP), ids_BT[:, 1::2], IGNORE)
    return ids_BT, targets_BT


def _came_before(key_BP: Int[Tensor, "B P"]) -> Bool[Tensor, "B P"]:
    return (key_BP[:, :, None] == key_BP[:, None]).tril(-1).any(-1)


def trained() -> Llama:
    """Returns the bundled model "RG", which learned from texts of `TRAINED` tokens. New each time.

    Its second layer has RoPE and sees everything, so in longer texts it meets new angles.
    """
    model = Llama(recall_config("RG", max_seq_len=TRAINED))
    model.load_state_dict(load_file(bundled.path("recall.safetensors")))
    return model


def stored_runs() -> list[dict[str, Any]]:
    """Returns the stored results of several patterns of layers, one for each pattern and seed.

    A run has "pattern", "seed", "losses", and "found": for each length of the text, distance of the
    needle and strength of temperature tuning, the "share" of needles found.
    """
    return read_json(bundled.path("recall.json"))["runs"]
