"""Mistakes that readers make in chapter 16."""

import math
import re
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

listed = Listed()


# --- 1: a random story ----------------------------------------------------------------------------


def _hit(probs_V: Tensor, dart: Tensor) -> int:
    return int((probs_V.cumsum(0) <= dart).sum())


@torch.inference_mode()
def _story(
    model: Llama, ids: Sequence[int], n_tokens: int, seed: int,
    choose: Callable[[Tensor, Tensor], int],
) -> list[int]:
    generator, written = torch.Generator().manual_seed(seed), list(ids)
    for _ in range(n_tokens):
        logits_V = model(torch.tensor([written]))[0, -1]
        dart = torch.rand((), generator=generator, dtype=torch.float64)
        written.append(choose(logits_V, dart))
    return written


@listed("16.1", of="write_randomly")
def temperature_multiplied(
    model: Llama, ids: list[int], n_tokens: int, temperature: float, seed: int
) -> list[int]:
    """the logits are multiplied by the temperature: they are divided by it"""
    return _story(model, ids, n_tokens, seed,
                  lambda logits_V, dart: _hit((logits_V * temperature).softmax(0), dart))


@listed("16.1", of="write_randomly")
def temperature_not_used(
    model: Llama, ids: list[int], n_tokens: int, temperature: float, seed: int
) -> list[int]:
    """the temperature is not used"""
    return _story(model, ids, n_tokens, seed,
                  lambda logits_V, dart: _hit(logits_V.softmax(0), dart))


@listed("16.1", of="write_randomly")
def dart_not_used(
    model: Llama, ids: list[int], n_tokens: int, temperature: float, seed: int
) -> list[int]:
    """the most likely token is appended: the dart decides"""
    return _story(model, ids, n_tokens, seed, lambda logits_V, dart: int(logits_V.argmax()))


@listed("16.1", of="write_randomly")
def probabilities_divided(
    model: Llama, ids: list[int], n_tokens: int, temperature: float, seed: int
) -> list[int]:
    """the probabilities are divided by the temperature: divide the logits, before the softmax"""
    return _story(model, ids, n_tokens, seed,
                  lambda logits_V, dart: _hit(logits_V.softmax(0) / temperature, dart))


@listed("16.1", of="write_randomly")
def rank_for_id(
    model: Llama, ids: list[int], n_tokens: int, temperature: float, seed: int
) -> list[int]:
    """the probabilities are sorted first, and the rank of the token is appended, not its id"""
    return _story(model, ids, n_tokens, seed, lambda logits_V, dart: _hit(
        (logits_V / temperature).softmax(0).sort(descending=True).values, dart))


@listed("16.1", of="write_randomly")
@torch.inference_mode()
def drawn_by_multinomial(
    model: Llama, ids: list[int], n_tokens: int, temperature: float, seed: int
) -> list[int]:
    """`torch.multinomial` draws the token, which needs other random numbers: the dart decides"""
    generator, written = torch.Generator().manual_seed(seed), list(ids)
    for _ in range(n_tokens):
        probs_V = (model(torch.tensor([written]))[0, -1] / temperature).softmax(0)
        torch.rand((), generator=generator, dtype=torch.float64)  # the dart, which is not used
        written.append(torch.multinomial(probs_V, 1, generator=generator).item())
    return written


# --- 2: how surprised the model is ----------------------------------------------------------------


@torch.inference_mode()
def _log_probs(model: Llama, ids: Sequence[int], *, n_later: int = 1) -> Tensor:
    """ln p of the token that is `n_later` places after each position."""
    log_probs_TV = model(torch.tensor([list(ids)]))[0].log_softmax(-1)
    return log_probs_TV[: len(ids) - n_later].gather(1, torch.tensor(ids)[n_later:, None])[:, 0]


@listed("16.2", of="surprise")
def natural_logarithm(model: Llama, ids: list[int]) -> float:
    """the natural logarithm is taken: bits need the logarithm to base 2"""
    return -_log_probs(model, ids).mean().item()


@listed("16.2", of="surprise")
def multiplied_by_ln_2(model: Llama, ids: list[int]) -> float:
    """the natural logarithm is multiplied by ln 2: log2 p is ln p divided by ln 2"""
    return -_log_probs(model, ids).mean().item() * math.log(2)


@listed("16.2", of="surprise")
def sum_of_surprise(model: Llama, ids: list[int]) -> float:
    """the sum is returned: the mean is asked for"""
    return -_log_probs(model, ids).sum().item() / math.log(2)


@listed("16.2", of="surprise")
def same_position(model: Llama, ids: list[int]) -> float:
    """each position is compared with its own token: its logits are about the next one"""
    return -_log_probs(model, ids, n_later=0).mean().item() / math.log(2)


@listed("16.2", of="surprise")
def first_token_counted(model: Llama, ids: list[int]) -> float:
    """the sum is divided by the number of all tokens: the first one is given and does not count"""
    return -_log_probs(model, ids).sum().item() / math.log(2) / len(ids)


@listed("16.2", of="surprise")
def logarithm_of_mean(model: Llama, ids: list[int]) -> float:
    """the logarithm of the mean probability is taken: take the mean of the logarithms"""
    return -math.log2(_log_probs(model, ids).exp().mean().item())


@listed("16.2", of="surprise")
def sign_forgotten(model: Llama, ids: list[int]) -> float:
    """the minus is missing: a probability below 1 has a negative logarithm"""
    return _log_probs(model, ids).mean().item() / math.log(2)


# --- 3: the ends of sentences ---------------------------------------------------------------------


def _ids_where(tokenizer: Tokenizer, is_right: Callable[[str], object]) -> list[int]:
    return [i for i in range(tokenizer.vocab_size) if is_right(tokenizer.decode([i]))]


@listed("16.3", of="sentence_ends")
def single_marks(tokenizer: Tokenizer) -> list[int]:
    """only tokens that are nothing but a mark are in the list: others contain one, too"""
    return _ids_where(tokenizer, lambda text: text in (".", "!", "?"))


@listed("16.3", of="sentence_ends")
def periods_only(tokenizer: Tokenizer) -> list[int]:
    """only the period is looked for: `!` and `?` also end a sentence"""
    return _ids_where(tokenizer, lambda text: "." in text)


@listed("16.3", of="sentence_ends")
def mark_at_the_end(tokenizer: Tokenizer) -> list[int]:
    """only tokens that end with a mark are in the list: a quotation mark can follow it"""
    return _ids_where(tokenizer, lambda text: text.endswith((".", "!", "?")))


@listed("16.3", of="sentence_ends")
def one_text_of_all_marks(tokenizer: Tokenizer) -> list[int]:
    """the text `.!?` is looked for as a whole: one of the three marks is enough"""
    return _ids_where(tokenizer, lambda text: ".!?" in text)


@listed("16.3", of="sentence_ends")
def other_tokens(tokenizer: Tokenizer) -> list[int]:
    """the tokens without a mark are in the list"""
    return _ids_where(tokenizer, lambda text: not set(text) & set(".!?"))


# --- 4: cut first, soften afterward ---------------------------------------------------------------

Cut = Callable[[Tensor, float], Tensor]


@listed("16.4", of="cut_then_soften")
def softened_first(logits_V: Tensor, cut: Cut, dial: float, temperature: float) -> Tensor:
    """the temperature comes first, as in the library: here the cut comes first"""
    return cut(logits_V / temperature, dial).softmax(0)


@listed("16.4", of="cut_then_soften")
def without_temperature(logits_V: Tensor, cut: Cut, dial: float, temperature: float) -> Tensor:
    """the temperature is not used"""
    return cut(logits_V, dial).softmax(0)


@listed("16.4", of="cut_then_soften")
def logits_returned(logits_V: Tensor, cut: Cut, dial: float, temperature: float) -> Tensor:
    """logits are returned: the softmax is missing"""
    return cut(logits_V, dial) / temperature


@listed("16.4", of="cut_then_soften")
def probabilities_cut(logits_V: Tensor, cut: Cut, dial: float, temperature: float) -> Tensor:
    """probabilities are given to `cut`: it takes logits"""
    return cut((logits_V / temperature).softmax(0), dial)


@listed("16.4", of="cut_then_soften")
def softmax_twice(logits_V: Tensor, cut: Cut, dial: float, temperature: float) -> Tensor:
    """the softmax is taken twice: `soften` contains it"""
    return (cut(logits_V, dial) / temperature).softmax(0).softmax(0)


@listed("16.4", of="cut_then_soften")
def multiplied_after_cut(logits_V: Tensor, cut: Cut, dial: float, temperature: float) -> Tensor:
    """the logits are multiplied by the temperature: they are divided by it"""
    return (cut(logits_V, dial) * temperature).softmax(0)


# --- 5: the share of known words ------------------------------------------------------------------


def _words(text: str) -> list[str]:
    return re.findall("[a-z]+", text.lower())


@listed("16.5", of="share_known")
def mean_of_shares(texts: list[str], known: Collection[str]) -> float:
    """each text has a share of its own, and their mean is returned: count all words together"""
    shares = [sum(word in known for word in _words(text)) / len(_words(text)) for text in texts]
    return sum(shares) / len(shares)


@listed("16.5", of="share_known")
def each_word_once(texts: list[str], known: Collection[str]) -> float:
    """each word is counted once: count it each time it occurs"""
    words = {word for text in texts for word in _words(text)}
    return sum(word in known for word in words) / len(words)


@listed("16.5", of="share_known")
def capitals_kept(texts: list[str], known: Collection[str]) -> float:
    """capital letters are not made small, and the pattern drops them from their words"""
    words = [word for text in texts for word in re.findall("[a-z]+", text)]
    return sum(word in known for word in words) / len(words)


@listed("16.5", of="share_known")
def split_at_spaces(texts: list[str], known: Collection[str]) -> float:
    """the texts are split at spaces, so periods and commas stay in the words"""
    words = [word for text in texts for word in text.lower().split()]
    return sum(word in known for word in words) / len(words)


@listed("16.5", of="share_known")
def share_unknown(texts: list[str], known: Collection[str]) -> float:
    """the share of unknown words is returned"""
    words = [word for text in texts for word in _words(text)]
    return sum(word not in known for word in words) / len(words)


@listed("16.5", of="share_known")
def number_of_known(texts: list[str], known: Collection[str]) -> float:
    """the number of known words is returned: divide it by the number of all words"""
    return float(sum(word in known for text in texts for word in _words(text)))
