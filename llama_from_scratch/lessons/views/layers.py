"""Shows what each layer adds to a token's stream, and which token it would predict next.

The prediction comes from the logit lens.

Used by the chapter on the transformer (15).
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK, BLUE, GREEN, ORANGE
from llama_from_scratch.lessons.views.inspect_model import Activations, lens, trace
from llama_from_scratch.lessons.views.text import encode, names_of
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore, slider
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

# More rows would overlap, so some layers are left out, at equal distances.
_MAX_LAYERS_SHOWN = 16


def residual_stream(model: Llama, tokenizer: Tokenizer, *, text: str) -> Explorer:
    """Returns a widget that shows what each layer adds to a token's stream.

    It also shows the token that the layer would predict next if the model ended there.
    """
    def draw(text: str, token: int) -> Figure:
        ids = encode(model, tokenizer, text=text)
        passed, names = trace(model, torch.tensor(ids)), names_of(tokenizer, ids)
        probs_LV = lens(model, passed.stream[:, token]).softmax(-1)
        best = probs_LV.max(-1)
        first_choices = names_of(tokenizer, best.indices.tolist())
        guesses = list(zip(first_choices, best.values.tolist(), strict=True))
        follows = names[token + 1] if token + 1 < len(names) else None
        return residual_frame(passed, guesses, token=token, name=names[token], follows=follows)

    last = len(encode(model, tokenizer, text=text)) - 1
    return explore(draw, title="Layer by layer",
                   controls={"text": text, "token": slider(max(last, 1), last)},
                   labels={"token": "token (position)"},
                   limits=lambda text, **_: {"token": len(encode(model, tokenizer, text=text)) - 1})


def residual_frame(
    passed: Activations, guesses: Sequence[tuple[str, float]], *, token: int, name: str,
    follows: str | None = None
) -> Figure:
    """Draws the sizes of the stream and of both additions in each layer, next to `guesses`.

    `guesses` holds (token, probability) after each layer.
    """
    n_layers = len(passed.attention)
    size = lambda x_LTD: x_LTD[:, token].square().mean(-1).sqrt().tolist()
    stream, attention, feed_forward = (size(passed.stream), size(passed.attention),
                                       size(passed.feed_forward))
    shown = sorted({round(k)
                    for k in np.linspace(0, n_layers, min(n_layers, _MAX_LAYERS_SHOWN) + 1)})
    rows = range(len(shown))
    where = ["embedding", *(f"layer {layer}" for layer in range(n_layers))]
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 1.5 + 0.42 * len(shown)), sharey=True)
    added = [(row, layer - 1) for row, layer in enumerate(shown) if layer]
    for offset, sizes, color, half in ((-0.2, attention, BLUE, "attention"),
                                       (0.2, feed_forward, ORANGE, "feed-forward")):
        places, values = [row + offset for row, _ in added], [sizes[layer] for _, layer in added]
        left.barh(places, values, height=0.38, color=color, label=f"{half} adds")
    left.plot([stream[layer] for layer in shown], rows, "o-", color=BLACK,
              label="stream afterwards")
    left.set(xlim=(0, None), xlabel="size (root mean square per channel)")
    left.set_title(f"{token}: {name}", parse_math=False)
    left.set_yticks(rows, [where[layer] for layer in shown])
    left.invert_yaxis()
    left.legend(loc="upper right")
    final = guesses[-1][0]
    for row, layer in enumerate(shown):
        guess, prob = guesses[layer]
        right.barh(row, prob, color=GREEN if guess == final else "0.75", height=0.7)
        right.text(prob + 0.02, row, f"{guess}  {prob:.0%}", va="center", fontsize=12,
                   parse_math=False)
    right.set(xlim=(0, 1.4), xticks=(0, 0.5, 1), xlabel="probability of its first choice")
    question = "What would come next?" if follows is None else f"What comes next? (here: {follows})"
    right.set_title(question, parse_math=False)
    told = ", ".join(f"{where[k]} “{guesses[k][0]}” {guesses[k][1]:.0%}" for k in shown)
    fig.set_label(f"After token {token}, “{name}”, the first choice is: {told}. The size of the "
                  f"stream changes from {stream[0]:.2f} to {stream[-1]:.2f}.")
    return fig
