"""Longer contexts: a trained model's rotations are slowed down, and what that does is measured.

Past the length that it was trained on, a model meets angles between far tokens that it has never
seen. Three ways to bring them back into the range it knows: divide all frequencies (position
interpolation, Chen et al., arXiv:2306.15595), raise the base theta, which slows slow pairs more
than fast ones (Code Llama, arXiv:2308.12950, section 2.4; bloc97's "NTK-aware" RoPE, 2023), or slow
only the slow pairs (Llama 3.1, `model.rope.scale_frequencies`). Then some training on long texts
finishes the work (Llama 3, arXiv:2407.21783, section 3.4.2).

Notebook 25.
"""

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from llama_from_scratch.config import RopeScaling
from llama_from_scratch.model.rope import Rope
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer


def stretch(
    model: Llama, *, max_seq_len: int, theta: float | None = None,
    scaling: RopeScaling | None = None, linear_factor: float | None = None,
) -> None:
    """Gives a model another RoPE and room for longer texts, in place. Its weights stay.

    `max_seq_len`: the new context in tokens. What is None stays as the config has it. Caches made
    before do not fit any more. Raises ValueError for a context that is shorter than the model's.
    """
    if max_seq_len < model.config.max_seq_len:
        raise ValueError(f"a context can be stretched from {model.config.max_seq_len} tokens on; "
                         f"got max_seq_len={max_seq_len}. A shorter text needs no change")
    given = {"rope_theta": theta, "rope_scaling": scaling, "rope_linear_factor": linear_factor}
    model.config = dataclasses.replace(
        model.config, max_seq_len=max_seq_len,
        **{name: value for name, value in given.items() if value is not None})
    model.rope = Rope(model.config).to(model.device)


def theta_for(factor: float, *, theta: float, head_dim: int) -> float:
    """Returns the base with which the slowest pair turns `factor` times slower than with `theta`.

    The fastest pair turns as before: its frequency is 1 for any base. Frequency r is
    theta^(-2r/K), and the slowest has r = K/2 - 1, so the base grows by factor^(K / (K - 2)).
    Raises ValueError for a factor below 1, and for heads of fewer than 4 channels.
    """
    if not factor >= 1.0:
        raise ValueError(f"a context becomes longer by a factor of at least 1; got {factor}")
    if head_dim < 4:
        raise ValueError("the base matters to heads of 4 channels or more, whose pairs differ; got "
                         f"head_dim={head_dim}")
    return theta * factor ** (head_dim / (head_dim - 2))


def joined_rows(
    texts: Sequence[str], tokenizer: Tokenizer, *, n_tokens: int
) -> Int[Tensor, "B T"]:
    """Returns rows of `n_tokens` tokens: begin-of-text, and texts with a space before each.

    A row goes on where the one before ended, and the end that fills no row is left out.
    Raises ValueError if not even one row is full.
    """
    ids = [i for text in texts for i in tokenizer.encode(f" {text}")]
    n_rows = len(ids) // (n_tokens - 1) if n_tokens > 1 else 0
    if not n_rows:
        raise ValueError(f"a row of {n_tokens} tokens needs at least two, and as much text; got "
                         f"{len(ids)} tokens of text. Give more text or shorter rows")
    rows = torch.tensor(ids[: n_rows * (n_tokens - 1)]).view(n_rows, n_tokens - 1)
    return torch.cat([torch.full((n_rows, 1), tokenizer.bos_id), rows], 1)


@torch.inference_mode()
def bits_by_position(
    model: Llama, rows: Int[Tensor, "B T"], tokenizer: Tokenizer, *, edges: Sequence[int],
    batch_size: int = 8,
) -> list[float]:
    """Returns the bits per byte of text between neighboring places of `edges`.

    Part i has the tokens with positions edges[i] + 1 to edges[i + 1], each predicted from all
    tokens before it in its row. Raises ValueError unless the edges grow from 0 or more to T - 1 at
    most, and for a part without text.
    """
    if len(edges) < 2 or edges[0] < 0 or edges[-1] >= rows.shape[1] or any(
            a >= b for a, b in pairwise(edges)):
        raise ValueError("edges of parts grow from 0 or more to the last position, which is "
                         f"{rows.shape[1] - 1} here; got {[*edges]}")
    special = set(tokenizer.special_ids.values())
    bytes_of = torch.tensor([0 if i in special else len(tokenizer.decode_bytes([i]))
                             for i in range(tokenizer.vocab_size)])
    bits_T = torch.zeros(rows.shape[1] - 1, dtype=torch.float64)
    for part in rows.split(batch_size):
        logits_BTV = model(part[:, :-1].to(model.device))
        nats_BT = F.cross_entropy(logits_BTV.transpose(1, 2).float(),
                                   part[:, 1:].to(model.device), reduction="none")
        bits_T += nats_BT.double().sum(0).cpu() / math.log(2)
    bytes_T = bytes_of[rows[:, 1:]].sum(0)
    n_bytes = [int(bytes_T[a:b].sum()) for a, b in pairwise(edges)]
    if 0 in n_bytes:
        first = n_bytes.index(0)
        raise ValueError("bits per byte need text in each part; between positions "
                         f"{edges[first]} and {edges[first + 1]} there is no text")
    return [bits_T[a:b].sum().item() / n
            for (a, b), n in zip(pairwise(edges), n_bytes, strict=True)]
