"""Write with a model, or talk to it: type, press Enter, and watch the answer token by token.

The model reads everything that was written so far and fits its context. `ChatWindow` continues one
text; `Conversation` uses the model's chat format, and shows images to a model that sees. The model
answers in its own thread, so the notebook and all other controls still respond. Without a kernel, a
picture of the opening is shown.

Used by the chapters on training (17) and chat (19, 5x), and by the tour.
"""

import base64
import html
import io
import math
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.foreign import naming
from llama_from_scratch.generate import chat as generate_chat
from llama_from_scratch.generate.generate import stream
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.lessons.figures.look import BLACK, BLUE, ORANGE, png
from llama_from_scratch.lessons.views.text import encode
from llama_from_scratch.lessons.widgets import parts
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.vision.images import decoded

# Short enough to read along, and long enough not to keep the browser busy.
_SHOW_EVERY_S = 0.1
_WIDTH = 88
_ENTER_S = 1.0
_COLORS = {"you": BLUE, "model": ORANGE}
_WHO = {"user": "you", "assistant": "model"}
_THUMBNAIL_PX = 96


class _Talk(ipywidgets.VBox):
    """A text field, buttons, a temperature and the conversation.

    `turns` holds the conversation as (who, text) pairs.

    Each subclass defines how an answer begins (`_begin`), and what a new start clears (`_forget`).
    """

    def __init__(
        self, title: str, *, seed: int, controls: Sequence[ipywidgets.Widget] = ()
    ) -> None:
        self._seed, self._shown_s = seed, -math.inf
        self._stop = threading.Event()
        self.title, self.turns, self.thread = title, [], threading.Thread()
        self.field = ipywidgets.Text(
            placeholder="your words, then Enter", continuous_update=False,
            **parts.look_of("you", width_em=35))
        self.temperature = ipywidgets.FloatSlider(
            value=0.8, min=0.0, max=1.5, step=0.05, **parts.look_of("temperature"))
        self.send_button = ipywidgets.Button(
            description="Send", button_style="primary", tooltip="or press Enter")
        self.stop_button = ipywidgets.Button(description="Stop", disabled=True)
        self.new_button = ipywidgets.Button(description="Start over")
        self.problem, self.page = ipywidgets.HTML(), ipywidgets.HTML()
        buttons = ipywidgets.HBox([self.send_button, self.stop_button, self.new_button],
                                  layout={"margin": "0 0 0 9em", "flex_flow": "row wrap"})
        heading = parts.heading(title, notice=parts.TALK_NOT_LIVE)
        super().__init__([heading, self.page, self.problem, self.field, buttons, *controls,
                          self.temperature])
        self.add_class(parts.WIDGET_CLASS)
        self._entered_s = -math.inf
        self.field.on_msg(self._on_message)
        self.field.observe(lambda change: self._on_words(change["new"]), names="value")
        self.send_button.on_click(lambda _: self.send(self.field.value))
        self.stop_button.on_click(lambda _: self.stop())
        self.new_button.on_click(lambda _: self.start_over())
        self._still = b""

    def _on_message(self, _: ipywidgets.Widget, content: dict, buffers: list) -> None:
        """Reacts to Enter, which the browser may send shortly before the words."""
        if content.get("event") == "submit":
            self._entered_s = time.monotonic()
            self._on_words(self.field.value)

    def _on_words(self, text: str) -> None:
        if text and time.monotonic() - self._entered_s < _ENTER_S:
            self._entered_s = -math.inf
            self.send(text)

    def send(self, text: str) -> None:
        """Adds `text` to the conversation and lets the model answer in a thread.

        If `text` is refused, `problem` shows why.
        """
        if self.thread.is_alive():
            self._tell("The model is still writing. Wait, or press Stop")
            return
        try:
            answer = self._begin(text, Sampling(temperature=self.temperature.value))
        except ValueError as error:
            self._tell(str(error))
            return
        self.field.value = ""
        self._tell("")
        self._stop.clear()
        self.send_button.disabled, self.stop_button.disabled = True, False
        self.thread = threading.Thread(target=answer, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Stops the answer after the current token."""
        self._stop.set()

    def start_over(self) -> None:
        """Clears the conversation."""
        self.stop()
        if self.thread.is_alive():
            self.thread.join()
        self._forget()
        self.turns = []
        self._tell("")
        self._show()

    def _begin(self, text: str, sampling: Sampling) -> Callable[[], None]:
        """Adds `text` to the turns, and returns the function that writes the answer.

        Raises ValueError if `text` cannot be sent.
        """
        raise NotImplementedError

    def _forget(self) -> None:
        raise NotImplementedError

    def _is_time_to_show(self) -> bool:
        is_time = time.monotonic() - self._shown_s > _SHOW_EVERY_S
        if is_time:
            self._shown_s = time.monotonic()
        return is_time

    def _show(self, *, n_unread: int = 0) -> None:
        """Shows the turns; the first `n_unread`, which the model no longer reads, are pale."""
        rows = ['<div style="white-space: pre-wrap; line-height: 1.4; margin: 4px 0; padding-left: '
                f'8px; border-left: 4px solid {_COLORS[who]}'
                f'{"; opacity: 0.5" if i < n_unread else ""}">'
                f"<b>{who}</b> {self._pictures_of(i)}{html.escape(text)}</div>"
                for i, (who, text) in enumerate(self.turns)]
        self.page.value = f'<div role="log" style="max-width: 52em">{"".join(rows)}</div>'

    def _pictures_of(self, turn: int) -> str:
        """Returns the HTML of the images that a turn shows."""
        return ""

    def _tell(self, words: str) -> None:
        self.problem.value = f'<div role="alert"><i>{html.escape(words)}</i></div>' if words else ""

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, Any]:
        live = super()._repr_mimebundle_(**settings)
        still = {"text/plain": f"{self.title} (a conversation: run the cell to write to it)"}
        if self._still:
            still["image/png"] = parts.still(self._still, words=parts.TALK_NOT_LIVE)
        return live | still


class ChatWindow(_Talk):
    """Lets the reader write a text together with a model.

    It has a text field, buttons, a temperature, and the text in `turns` as (who, text) pairs.

    `opening` is sent at once, and the model continues it greedily, so that there is something to
    see; "" sends nothing. An answer ends with the text's end token, after `max_tokens`, or when
    Stop is pressed. `seed` grows by one with every answer.
    """

    def __init__(
        self, model: Llama, tokenizer: Tokenizer, *, title: str = "Write with your model",
        opening: str = "Once upon a time",
        max_tokens: int = 120, seed: int = 0,
    ) -> None:
        self._model, self._tokenizer, self._max_tokens = model, tokenizer, max_tokens
        self._ids: list[int] = []
        self._is_over = False
        super().__init__(title, seed=seed)
        if opening:
            self._begin(opening, Sampling(temperature=0.0))()
            self._still = png(chat_frame(self.turns, title=title))

    def _begin(self, text: str, sampling: Sampling) -> Callable[[], None]:
        return partial(self._answer, self._read(text), sampling)

    def _forget(self) -> None:
        self._ids, self._is_over = [], False

    def _read(self, text: str) -> list[int]:
        """Returns the ids so far and the ids of `text`; after an ended text, only the latter."""
        room = self._model.config.max_seq_len - 1
        before = [] if self._is_over else self._ids
        new = encode(self._model, self._tokenizer, text=f" {text}" if before and text else text,
                     max_tokens=room)
        if before and new[0] == self._tokenizer.special_ids.get("<|begin_of_text|>"):
            new = new[1:]
        if len(before) + len(new) > room:
            raise ValueError(f"the model's context has room for {room + 1} tokens; {len(before)} "
                             f"are used, and your text has {len(new)} more. Write less, or start "
                             "over")
        self._ids, self._is_over = before + new, False
        self.turns += [("you", text), ("model", "")]
        return self._ids

    def _answer(self, prompt: list[int], sampling: Sampling) -> None:
        answer = []
        n_most = min(self._max_tokens, self._model.config.max_seq_len - len(prompt))
        try:
            for token in stream(self._model, prompt, max_tokens=n_most, sampling=sampling,
                                seed=self._seed, stop_ids=self._tokenizer.stop_ids):
                answer.append(token)
                if self._stop.is_set():
                    break
                if self._is_time_to_show():
                    self._set_answer(answer)
        except ValueError as error:
            self._tell(str(error))
        finally:
            self._ids, self._seed = prompt + answer, self._seed + 1
            self._is_over = len(answer) < n_most and not self._stop.is_set()
            self._set_answer(answer)
            self.send_button.disabled, self.stop_button.disabled = False, True

    def _set_answer(self, answer: list[int]) -> None:
        # Some bytes of the last character may be in the next token.
        self.turns[-1] = ("model", self._tokenizer.decode(answer).rstrip("\ufffd"))
        self._show()


class Conversation(_Talk):
    """Lets the reader talk to a model in its chat format.

    `chat` keeps the messages, and may already contain some.

    Below the conversation is the system message, which the model reads before all other messages.
    It can be changed at any time. `opening` is sent at once with `images`, and answered greedily.
    An answer ends when the model ends it, after `max_tokens`, or when Stop is pressed. `seed` grows
    by one with every answer. Turns that no longer fit the context are pale.

    If the model sees, `upload` is a button that adds images to the next message. `waiting` are the
    images that were added and not sent yet. Otherwise `upload` is None.
    """

    def __init__(
        self, chat: generate_chat.Chat, *, title: str = "Talk with your model", opening: str = "",
        images: Sequence[object] = (), max_tokens: int = 300, seed: int = 0,
    ) -> None:
        self.chat, self._max_tokens = chat, max_tokens
        if images:
            chat.check_sees()
        self.waiting, self._shown = [decoded(image) for image in images], []
        self._thumbnails: dict[int, tuple[Any, str]] = {}
        self.upload = ipywidgets.FileUpload(
            accept="image/*", multiple=True, description="Show an image",
            layout={"width": "auto"}) if chat.sees else None
        self.shelf = ipywidgets.HTML()
        self.system = ipywidgets.Text(value=chat.system or "", continuous_update=False,
                                      placeholder="what the model reads before all other messages",
                                      **parts.look_of("system message", width_em=35))
        seeing = [] if self.upload is None else [ipywidgets.HBox(
            [self.upload, self.shelf], layout={"margin": "0 0 0 9em", "align_items": "center"})]
        super().__init__(title, seed=seed, controls=[*seeing, self.system])
        if self.upload is not None:
            self.upload.observe(lambda change: self._add(change["new"]), names="value")
        self.system.observe(lambda change: self._set_system(change["new"]), names="value")
        self._show_chat()
        self._show_shelf()
        if opening:
            self._begin(opening, Sampling(temperature=0.0))()
        if self.turns:
            lead = [("system", chat.system)] if chat.system else []
            turns = [(who, "".join(f"[{_words_of(image)}] " for image in shown) + text)
                     for (who, text), shown in zip(self.turns, self._shown, strict=True)]
            self._still = png(chat_frame([*lead, *turns], title=title))

    def _add(self, files: Sequence[Mapping[str, Any]]) -> None:
        """Adds uploaded images to the next message. `problem` names a file that is not an image."""
        if not files:
            return
        self._tell("")
        for file in files:
            try:
                with naming(file["name"]):
                    self.waiting.append(decoded(bytes(file["content"])))
            except ValueError as error:
                self._tell(str(error))
        self.upload.value = ()  # so that the same file can be chosen again
        self._show_shelf()

    def _show_shelf(self) -> None:
        self.shelf.value = "".join(map(self._thumbnail, self.waiting))

    def _pictures_of(self, turn: int) -> str:
        return "".join(map(self._thumbnail, self._shown[turn]))

    def _thumbnail(self, image: Any) -> str:
        """Returns the HTML of a small image, made once for each."""
        if id(image) not in self._thumbnails:
            self._thumbnails[id(image)] = image, thumbnail(image)
        return self._thumbnails[id(image)][1]

    def _set_system(self, text: str) -> None:
        self.chat.system = text.strip() or None
        self._tell("the model reads this system message from now on" if self.chat.system
                   else "there is no system message from now on")

    def _begin(self, text: str, sampling: Sampling) -> Callable[[], None]:
        images = self.waiting
        pieces = self.chat.say(text, images=images, max_tokens=self._max_tokens, sampling=sampling,
                               seed=self._seed)
        self.turns += [("you", text), ("model", "")]
        self._shown += [images, []]
        self.waiting = []
        self._show_shelf()
        return partial(self._answer, pieces, images)

    def _forget(self) -> None:
        self.chat.reset()
        self.waiting, self._shown, self._thumbnails = [], [], {}
        self._show_shelf()

    def _answer(self, pieces: Iterator[str], images: Sequence[object]) -> None:
        said, n_before = "", self.chat.n_forgotten
        try:
            for piece in pieces:
                said += piece
                if self._stop.is_set():
                    break
                if self._is_time_to_show():
                    self.turns[-1] = ("model", said)
                    self._show(n_unread=n_before)
        except ValueError as error:
            self._tell(str(error))
            self.waiting = [*images, *self.waiting]  # the question is forgotten, the images are not
            self._show_shelf()
        finally:
            pieces.close()
            self._seed += 1
            self._show_chat()
            if self.chat.n_forgotten > n_before:
                self._tell(f"the context of {self.chat.context:,} tokens is full: the first "
                           f"{self.chat.n_forgotten} messages are forgotten")
            self.send_button.disabled, self.stop_button.disabled = False, True

    def _show_chat(self) -> None:
        self.turns = [(_WHO[message.role], message.content) for message in self.chat.messages]
        self._shown = [message.images for message in self.chat.messages]
        self._show(n_unread=self.chat.n_forgotten)


def thumbnail(image: Any) -> str:
    """Returns a Pillow image in RGB as HTML, at most 96 pixels wide and high.

    Small images are enlarged by whole numbers, so that each of their pixels is a square.
    """
    times = _THUMBNAIL_PX // max(image.size)
    small = image.resize([times * edge for edge in image.size], 0) if times > 1 else image.copy()
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    file = io.BytesIO()
    small.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return (f'<img alt="{_words_of(image)}" title="{_words_of(image)}" '
            'style="display: inline-block; vertical-align: middle; margin: 2px 6px 2px 0" '
            f'src="data:image/png;base64,{data}">')


def _words_of(image: Any) -> str:
    return f"an image of {image.width} x {image.height} pixels"


def chat_frame(turns: list[tuple[str, str]], *, title: str) -> Figure:
    """Draws a conversation."""
    lines = [(who, line) for who, text in turns
             for line in textwrap.wrap(f"{who}: {text}", _WIDTH) or [f"{who}:"]]
    fig, ax = plt.subplots(figsize=(9, 0.7 + 0.24 * len(lines)))
    for row, (who, line) in enumerate(lines):
        ax.text(0, row, line, va="center", fontsize=12, parse_math=False,
                color=BLUE if who == "you" else BLACK,
                fontweight="normal" if who == "model" else "bold")
    ax.set(title=title, xlim=(0, 1), ylim=(len(lines) - 0.4, -0.6))
    ax.axis("off")
    return fig
