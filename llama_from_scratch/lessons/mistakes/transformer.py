"""Mistakes that readers make in chapter 15."""

import dataclasses

import torch
from torch import Tensor, nn

from llama_from_scratch import family
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.lessons.mistakes import Listed
from llama_from_scratch.model.inputs import BlockInputs
from llama_from_scratch.model.kv_cache import Uncached
from llama_from_scratch.model.mask import Visible, plain_tokens

listed = Listed()


# --- 1: a Llama on paper --------------------------------------------------------------------------

_D, _F, _V, _GK = 6144, 16_384, 128_256, 8 * 128


def _counted(
    *, kv: int = _GK, n_matrices: int = 3, norms: int = 2 * _D, n_tables: int = 2, last: int = _D,
) -> int:
    layer = 2 * _D * _D + 2 * _D * kv + n_matrices * _D * _F + norms
    return 44 * layer + n_tables * _V * _D + last


@listed("15.1", of="on_paper")
def head_forgotten() -> int:
    """one table is counted: this model is untied, so it has two"""
    return _counted(n_tables=1)


@listed("15.1", of="on_paper")
def no_shared_heads() -> int:
    """`wk` and `wv` are counted with 48 heads: there are 8 key/value heads"""
    return _counted(kv=_D)


@listed("15.1", of="on_paper")
def two_matrices() -> int:
    """two feed-forward matrices are counted: SwiGLU has three"""
    return _counted(n_matrices=2)


@listed("15.1", of="on_paper")
def norms_forgotten() -> int:
    """the two norms of each layer are left out"""
    return _counted(norms=0)


@listed("15.1", of="on_paper")
def one_norm_per_layer() -> int:
    """one norm is counted in each layer: both readers have one"""
    return _counted(norms=_D)


@listed("15.1", of="on_paper")
def last_norm_forgotten() -> int:
    """the last norm is left out"""
    return _counted(last=0)


@listed("15.1", of="on_paper")
def key_without_value() -> int:
    """only one of `wk` and `wv` is counted"""
    return _counted(kv=_GK // 2)


# --- 2: a design within a budget ------------------------------------------------------------------


def _design(*, n_layers: int = 12, dim: int = 768, n_heads: int = 12, **fields: object
            ) -> LlamaConfig:
    base = family.config("llama-3.2-1b")
    given = {"vocab_size": 32_000, "n_kv_heads": 4, "ffn_dim": 2048} | fields
    return dataclasses.replace(base, dim=dim, n_heads=n_heads, layers=base.layers[:n_layers],
                               **given)


@listed("15.2", of="my_design")
def vocabulary_kept() -> LlamaConfig:
    """the vocabulary does not have 32,000 entries"""
    return _design(vocab_size=128_256)


@listed("15.2", of="my_design")
def narrow_heads() -> LlamaConfig:
    """heads do not have 64 channels"""
    return _design(n_heads=24)


@listed("15.2", of="my_design")
def untied_tables() -> LlamaConfig:
    """more than a third of the parameters is in tables"""
    return _design(n_layers=8, is_tied=False)


@listed("15.2", of="my_design")
def two_layers_too_many() -> LlamaConfig:
    """the sum is not within 2% of 100 million"""
    return _design(n_layers=14)


@listed("15.2", of="my_design")
def tables_not_counted() -> LlamaConfig:
    """the sum is not within 2% of 100 million"""
    return _design(n_layers=16)


# --- 3: both readers look at the same page --------------------------------------------------------


@listed("15.3", of="parallel")
def one_norm_for_both(block: nn.Module, x_BTD: Tensor, inputs: BlockInputs) -> Tensor:
    """both readers use `attention_norm`: the feed-forward network has a norm of its own"""
    read_BTD = block.attention_norm(x_BTD)
    found_BTD = block.attention(read_BTD, inputs, cache=Uncached())
    return x_BTD + found_BTD + block.feed_forward(read_BTD)


@listed("15.3", of="parallel")
def one_after_the_other(block: nn.Module, x_BTD: Tensor, inputs: BlockInputs) -> Tensor:
    """the second reader sees what the first one wrote, as in a Llama"""
    x_BTD = x_BTD + block.attention(block.attention_norm(x_BTD), inputs, cache=Uncached())
    return x_BTD + block.feed_forward(block.ffn_norm(x_BTD))


@listed("15.3", of="parallel")
def page_added_twice(block: nn.Module, x_BTD: Tensor, inputs: BlockInputs) -> Tensor:
    """the page is added twice, once with each reader"""
    found_BTD = x_BTD + block.attention(block.attention_norm(x_BTD), inputs, cache=Uncached())
    return found_BTD + x_BTD + block.feed_forward(block.ffn_norm(x_BTD))


@listed("15.3", of="parallel")
def page_not_added(block: nn.Module, x_BTD: Tensor, inputs: BlockInputs) -> Tensor:
    """the page itself is not added: the residual is missing"""
    found_BTD = block.attention(block.attention_norm(x_BTD), inputs, cache=Uncached())
    return found_BTD + block.feed_forward(block.ffn_norm(x_BTD))


@listed("15.3", of="parallel")
def norms_exchanged(block: nn.Module, x_BTD: Tensor, inputs: BlockInputs) -> Tensor:
    """the two norms are exchanged"""
    found_BTD = block.attention(block.ffn_norm(x_BTD), inputs, cache=Uncached())
    return x_BTD + found_BTD + block.feed_forward(block.attention_norm(x_BTD))


@listed("15.3", of="parallel")
def read_without_norm(block: nn.Module, x_BTD: Tensor, inputs: BlockInputs) -> Tensor:
    """the readers get the page without its norms"""
    return x_BTD + block.attention(x_BTD, inputs, cache=Uncached()) + block.feed_forward(x_BTD)


# --- 4: the last norm forgotten -------------------------------------------------------------------


def _stream(llama: nn.Module, ids_BT: Tensor, *, n_skipped: int = 0) -> Tensor:
    n_tokens = ids_BT.shape[1]
    everything_before = Visible(tokens=plain_tokens(n_tokens), n_queries=n_tokens)
    inputs = BlockInputs(rotation=llama.rope(torch.arange(n_tokens)[None]),
                         visible={None: everything_before})
    x_BTD = llama.tok_embeddings(ids_BT)
    for layer in llama.layers[n_skipped:]:
        x_BTD = layer(x_BTD, inputs)
    return x_BTD


@listed("15.4", of="without_last_norm")
def norm_still_there(llama: nn.Module, ids_BT: Tensor) -> Tensor:
    """the last norm is still there"""
    return llama.output(llama.norm(_stream(llama, ids_BT)))


@listed("15.4", of="without_last_norm")
def head_left_out(llama: nn.Module, ids_BT: Tensor) -> Tensor:
    """the head is left out together with the norm: what is returned is the stream"""
    return _stream(llama, ids_BT)


@listed("15.4", of="without_last_norm")
def norm_after_the_head(llama: nn.Module, ids_BT: Tensor) -> Tensor:
    """the logits are normed instead of the stream"""
    logits_BTV = llama.output(_stream(llama, ids_BT))
    return nn.functional.rms_norm(logits_BTV, logits_BTV.shape[-1:])


@listed("15.4", of="without_last_norm")
def layers_left_out(llama: nn.Module, ids_BT: Tensor) -> Tensor:
    """the layers are left out together with the norm"""
    return llama.output(llama.tok_embeddings(ids_BT))


@listed("15.4", of="without_last_norm")
def first_layer_left_out(llama: nn.Module, ids_BT: Tensor) -> Tensor:
    """the first layer is left out"""
    return llama.output(_stream(llama, ids_BT, n_skipped=1))


# --- 5: the stream and the depth ------------------------------------------------------------------


def _growth(
    model: nn.Module, ids_BT: Tensor, factor: float, *, wo: bool = True, w_down: bool = True,
) -> tuple[float, float]:
    """The size of the stream at its start and at its end."""
    sizes: list[float] = []

    def note(_: nn.Module, args: object, out: Tensor) -> None:
        sizes.append(out.square().mean().sqrt().item())

    hooks = [part.register_forward_hook(note) for part in (model.tok_embeddings, *model.layers)]
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.wo.weight.mul_(factor if wo else 1)
            layer.feed_forward.w_down.weight.mul_(factor if w_down else 1)
        model(ids_BT)
    for hook in hooks:
        hook.remove()
    return sizes[0], sizes[-1]


@listed("15.5", of="growth")
def only_attention_writes(model: nn.Module, ids_BT: Tensor, factor: float) -> float:
    """only `wo` is multiplied: `w_down` writes to the stream, too"""
    start, end = _growth(model, ids_BT, factor, w_down=False)
    return end / start


@listed("15.5", of="growth")
def only_feed_forward_writes(model: nn.Module, ids_BT: Tensor, factor: float) -> float:
    """only `w_down` is multiplied: `wo` writes to the stream, too"""
    start, end = _growth(model, ids_BT, factor, wo=False)
    return end / start


@listed("15.5", of="growth")
def size_not_growth(model: nn.Module, ids_BT: Tensor, factor: float) -> float:
    """the last size is returned: the growth is the last size divided by the first"""
    return _growth(model, ids_BT, factor)[1]


@listed("15.5", of="growth")
def first_over_last(model: nn.Module, ids_BT: Tensor, factor: float) -> float:
    """the first size is divided by the last"""
    start, end = _growth(model, ids_BT, factor)
    return start / end


@listed("15.5", of="growth")
def divided_by_factor(model: nn.Module, ids_BT: Tensor, factor: float) -> float:
    """the writers are divided by the factor: they are to be multiplied"""
    start, end = _growth(model, ids_BT, 1 / factor)
    return end / start


@listed("15.5", of="growth")
def factor_not_used(model: nn.Module, ids_BT: Tensor, factor: float) -> float:
    """the writers are not multiplied at all"""
    start, end = _growth(model, ids_BT, 1)
    return end / start
