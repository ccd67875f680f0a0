"""A model card: what a model is, what it read, what was measured, and what it cannot do.

All figures come from measurements that are given, with their errors and numbers of cases, and from
the model itself. A card without measurements or without limits is refused: it would be an
advertisement.

Notebook 59. Source: Mitchell et al., "Model cards for model reporting", arXiv:1810.03993.
"""

from collections.abc import Mapping, Sequence

from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tune.evals import Mean, Share


@record
class ModelCard:
    """What is said about a model. `text` is the card in Markdown.

    `measured`: by the name of a measure, what was found. `read`: what it was trained on. `uses` and
    `limits`: what it is for, and what it cannot do or was not tested for. Raises ValueError if one
    of them is empty, and for a line break in a name or a sentence.
    """

    name: str
    about: Mapping[str, str]
    read: Sequence[str]
    uses: Sequence[str]
    measured: Mapping[str, Share | Mean]
    limits: Sequence[str]

    def __post_init__(self) -> None:
        for part in ("about", "read", "uses", "measured", "limits"):
            if not getattr(self, part):
                raise ValueError(f"a model card has {part}; got none. Say what is known, also that "
                                 "something was not measured")
        told = (self.name, *self.about, *self.about.values(), *self.read, *self.uses,
                *self.measured, *self.limits)
        if broken := [each for each in told if not each.strip() or "\n" in each]:
            raise ValueError("names and sentences of a card have one line, with something in it; "
                             f"got {broken[0]!r}")

    @property
    def text(self) -> str:
        """The card in Markdown."""
        lines = [f"# {self.name}", "", "| | |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in self.about.items()]
        for title, told in (("It has read", self.read), ("It is for", self.uses)):
            lines += ["", f"## {title}", "", *(f"- {each}" for each in told)]
        lines += ["", "## Measured", "", "| what | value | standard error | cases |",
                  "|---|---:|---:|---:|"]
        lines += [f"| {_cell(name)} | {_value(found)} | {_error(found)} | {found.n:,} |"
                  for name, found in self.measured.items()]
        lines += ["", "## Limits", "", *(f"- {each}" for each in self.limits)]
        return "\n".join(lines) + "\n"


def card(
    model: Llama, tokenizer: AnyTokenizer, *, name: str, read: Sequence[str], uses: Sequence[str],
    measured: Mapping[str, Share | Mean], limits: Sequence[str],
) -> ModelCard:
    """Returns the card of a model, with its sizes as they are in the model itself."""
    config = model.config
    about = {
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "layers, width": f"{config.n_layers}, {config.dim}",
        "heads (query, key/value)": f"{config.n_heads}, {config.n_kv_heads}",
        "context": f"{config.max_seq_len:,} tokens",
        "vocabulary": f"{tokenizer.vocab_size:,} tokens",
        "numbers": str(model.dtype).removeprefix("torch.")}
    return ModelCard(name=name, about=about, read=read, uses=uses, measured=measured, limits=limits)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _value(found: Share | Mean) -> str:
    return f"{100 * found.value:.0f} %" if isinstance(found, Share) else f"{found.value:.2f}"


def _error(found: Share | Mean) -> str:
    return f"{100 * found.error:.0f} %" if isinstance(found, Share) else f"{found.error:.2f}"
