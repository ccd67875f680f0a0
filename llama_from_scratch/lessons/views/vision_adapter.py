"""Shows how a text model learns to see, what it answers, and where it looks for each word.

Used by the chapter on the vision adapter (22).
"""

import math
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.lessons.figures.look import png
from llama_from_scratch.lessons.widgets import parts
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.model.inputs import ImageInputs
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.train.picture_batches import tiles_of
from llama_from_scratch.train.questions import QUARTERS, Picture
from llama_from_scratch.train.rates import SeeingStep
from llama_from_scratch.train.scenes import PAIRS, Scene, Thing, painted
from llama_from_scratch.vision.adapter import EncodedImages, VisionLlama
from llama_from_scratch.vision.cross_attention import CrossAttention, SeeingBlock

NOTHING = "nothing"
_MAX_WORDS = 24

QUESTIONS = ("What is top left?", "How many shapes?", "How many are red?", "What is blue?",
             "What color is the square?", "Where is the blue square?", "Is there a red circle?",
             "Is the yellow cross left of the blue square?")


@torch.no_grad()
def read_picture(
    model: VisionLlama, tokenizer: Tokenizer, question: str, *, picture: Picture | None
) -> tuple[list[int], list[int]]:
    """Returns the ids of a question about a picture, and the ids of the model's likeliest answer.

    Without a picture the model is blind: there is no image and no id for one. The answer ends
    before end-of-text, and after 24 tokens.
    """
    images = None if picture is None else model.encode(tiles_of([picture], model.config.vision))
    asked = [tokenizer.bos_id, *([] if images is None else [model.config.image_id]),
             *tokenizer.encode(question)]
    ids = list(asked)
    while len(ids) < len(asked) + _MAX_WORDS:
        likeliest = model(torch.tensor([ids]), images=images)[0, -1].argmax().item()
        if likeliest == tokenizer.eos_id:
            break
        ids.append(likeliest)
    return asked, ids[len(asked):]


@torch.no_grad()
def cross_attention_weights(
    model: VisionLlama, ids: Int[Tensor, "B T"], images: EncodedImages
) -> Float[Tensor, "B L H T S"]:
    """Returns the weight of each image token for each text token, in every head of every block.

    The weights are computed again by the plain formula, because fused attention does not keep them.
    Errors as in the model's `forward`.
    """
    weights: list[Tensor] = []

    def see(module: CrossAttention, arguments: tuple[Tensor, ImageInputs]) -> None:
        x, inputs = arguments
        q = module.q_norm(module.wq(x).unflatten(-1, (-1, module.head_dim)))
        k, _ = module.keys_and_values(inputs.states)
        k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
        score = torch.einsum("bthk,bshk->bhts", q, k) / math.sqrt(module.head_dim)
        weights.append(score.masked_fill(~inputs.visible.mask, -math.inf).softmax(-1))

    with ExitStack() as hooks:
        for block in model.layers:
            if isinstance(block, SeeingBlock):
                hooks.callback(block.cross.attention.register_forward_pre_hook(see).remove)
        model(ids, images=images)
    return torch.stack(weights, dim=1)


def ask_about_scene(model: VisionLlama, tokenizer: Tokenizer) -> Explorer:
    """Returns a widget: put things into a scene, ask, and see the answer and where it comes from.

    Below the controls are the answer with and without the picture, and for a word of the answer how
    much each cross-attention block looks at each patch.
    """
    names = [NOTHING, *(" ".join(pair) for pair in PAIRS)]
    keys = [quarter.replace(" ", "_") for quarter in QUARTERS]

    def asked(question: str, own_question: str) -> str:
        return own_question.strip() or question

    def answered(**values: Any) -> tuple[Scene, list[int], list[int]]:
        scene = scene_of([values[key] for key in keys], seed=values["drawing"])
        question = asked(values["question"], values["own_question"])
        return scene, *read_picture(model, tokenizer, question, picture=scene)

    def draw(**values: Any) -> Figure:
        scene, ids, answer = answered(**values)
        word = min(values["word"], max(len(answer), 1)) - 1
        images = model.encode(tiles_of([scene], model.config.vision))
        weights = cross_attention_weights(model, torch.tensor([[*ids, *answer]]), images)
        of_blocks_LS = weights[0, :, :, len(ids) - 1 + word].mean(1)
        question = asked(values["question"], values["own_question"])
        _, blind = read_picture(model, tokenizer, question, picture=None)
        return look_frame(
            scene.pixels, of_blocks_LS, layers=model.config.cross_layers, question=question,
            words=[tokenizer.decode([token]) for token in answer], word=word,
            blind=tokenizer.decode(blind).strip())

    def limits(**values: Any) -> dict[str, int]:
        return {"word": max(len(answered(**values)[2]), 1)}

    return explore(
        draw, title="Ask about a scene", limits=limits,
        controls={**{key: names for key in keys}, "drawing": (0, 20), "question": list(QUESTIONS),
                  "own_question": "", "word": (1, _MAX_WORDS)},
        labels={"drawing": "sizes, places and shades", "own_question": "or another question",
                "word": "word of the answer"},
        start={"top_left": "red circle", "bottom_left": "yellow cross",
               "bottom_right": "blue square"})


def scene_of(names: Sequence[str], *, seed: int) -> Scene:
    """Returns a scene with a thing or "nothing" in each of QUARTERS; `seed` decides how it looks.
    """
    things = tuple(Thing(quarter=quarter, color=name.split()[0], shape=name.split()[1])
                   for quarter, name in enumerate(names) if name != NOTHING)
    return Scene(pixels=painted(things, random.Random(seed)), things=things, may_name=PAIRS)


def look_frame(
    pixels: UInt8[np.ndarray, "px px 3"], weights: Float[Tensor, "L S"], *, layers: Sequence[int],
    question: str, words: Sequence[str], word: int, blind: str,
) -> Figure:
    """Draws a picture, and how much each block looks at its patches while it writes one word.

    `weights`: of the class token and then the patches, for the token before that word. `layers`:
    the text layer after each block. `blind`: the answer without the picture.
    """
    side = math.isqrt(weights.shape[1] - 1)
    fig, axes = plt.subplots(1, 1 + len(weights), figsize=(9.2, 3.2), squeeze=False)
    axes[0, 0].imshow(pixels)
    axes[0, 0].set_title("the picture")
    for ax, layer, weights_S in zip(axes[0, 1:], layers, weights, strict=True):
        ax.imshow(weights_S[1:].view(side, side).numpy(), vmin=0, vmax=max(0.3, weights.max()))
        ax.set_title(f"before layer {layer}")
        ax.set_xlabel(f"class token {weights_S[0]:.0%}")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    answer = "".join(words).strip() or "(nothing)"
    now = words[word].strip() if words else "(nothing)"
    marked = "".join(f" [{each.strip()}]" if i == word else each for i, each in enumerate(words))
    # An untrained model may write bytes for which no font has a sign.
    shown = "".join(sign if sign.isprintable() else "�" for sign in marked.strip() or answer)
    fig.suptitle(f"{question}\n{shown}", parse_math=False)
    best = weights[:, 1:].mean(0).argmax().item()
    fig.set_label(f"“{question}” With the picture: “{answer}”. Without it: "
                  f"“{blind or '(nothing)'}”. The maps belong to the word “{now}”: on average over "
                  f"blocks and heads, most weight is on the patch in row {best // side}, column "
                  f"{best % side}.")
    return fig


# --- learning -----------------------------------------------------------------------------------


class SeeingPlot(ipywidgets.VBox):
    """Draws the loss and the gates of a model while it learns to see.

    Display it before the run, and pass it to `train_encoder` and `train_adapter` as `on_step`.
    `picture.value` is the PNG. `steps` has all steps so far.
    """

    def __init__(self, *, n_steps: int) -> None:
        self.steps: list[SeeingStep] = []
        self._next_s = 0.0
        self.bar = ipywidgets.IntProgress(max=n_steps, description="steps",
                                          layout={"width": "32em", "max_width": "100%"})
        self.picture = parts.picture()
        super().__init__([parts.heading(""), self.bar, parts.framed(self.picture)])
        self.add_class(parts.WIDGET_CLASS)

    def __call__(self, step: SeeingStep) -> None:
        self.steps.append(step)
        is_last = len(self.steps) == self.bar.max
        began_s = time.monotonic()
        if began_s < self._next_s and not is_last:
            return
        self.bar.value = len(self.steps)
        figure = seeing_frame(self.steps)
        self.picture.value = png(figure)
        plt.close(figure)
        self._next_s = parts.next_drawing_s(began_s, time.monotonic())

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        still = {"text/plain": "a live plot of the loss and the gates (run the cell to watch it)"}
        return super()._repr_mimebundle_(**settings) | still


def seeing_frame(steps: Sequence[SeeingStep]) -> Figure:
    """Draws the losses of a run, and tanh of each gate; steps without gates belong to the encoder.

    The loss is averaged over 10 steps.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.3))
    n_before = sum(not step.gates for step in steps)
    for name, part in (("encoder", steps[:n_before]), ("adapter", steps[n_before:])):
        if part:
            losses = np.array([step.loss for step in part])
            smooth = [losses[max(0, i - 9) : i + 1].mean() for i in range(len(losses))]
            at = np.arange(len(part)) + (n_before if name == "adapter" else 0)
            left.plot(at, smooth, label=name)
    left.set(xlabel="step", ylabel="loss (nats)", ylim=(0, None), title="What is left to learn")
    left.legend()
    opened = steps[n_before:]
    for name in opened[0].gates if opened else ():
        _, layer, _, part, _ = name.split(".")
        line = "-" if part.startswith("attention") else "--"
        right.plot([step.gates[name] for step in opened], line, color=f"C{int(layer) % 7}",
                   label=layer if line == "-" else None)
    right.axhline(0, color="0.6", lw=1, zorder=0)
    right.set(xlabel="step of the adapter", ylabel="tanh(gate)", ylim=(-1, 1),
              title="Gates (dashed: feed-forward)")
    if opened:
        right.legend(title="before layer", ncols=2)
    last = max((abs(gate) for gate in steps[-1].gates.values()), default=0.0)
    fig.set_label(f"After {len(steps)} steps the loss is {steps[-1].loss:.2f}; the gate that is "
                  f"farthest from 0 is at a distance of {last:.2f}.")
    return fig
