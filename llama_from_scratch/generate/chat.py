"""A conversation: the model reads the messages so far, and writes the next answer in pieces.

A turn reads only the new tokens and images, because the keys and values of the others are kept. A
model that sees can be shown images in any turn. When the context is full, the model no longer reads
the oldest turns; `n_forgotten` counts their messages.

Notebook 19.
"""

from collections.abc import Iterator, Sequence

from llama_from_scratch.checkpoint.inspect import chat_format, marked_format
from llama_from_scratch.generate.checks import check_sees
from llama_from_scratch.generate.generate import stream, text_of, until
from llama_from_scratch.generate.prefix import PrefixCache
from llama_from_scratch.generate.sampling import GREEDY, Sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate, Message
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.vision.images import decoded
from llama_from_scratch.vision.seeing import SeeingLlama


class Chat:
    """A conversation between a user and a model, with all its `messages`.

    `system` is read before the messages and may be changed at any time. `format`: by default the
    one that the model's files name. `context`: the most tokens of an answer together with all that
    the model reads for it, by default the model's context. After an answer, `n_forgotten` is the
    number of messages at the beginning that were not read for it, and `is_cut` is True if
    `max_tokens` or the context ended it, not the model. `sees`: whether images can be shown.

    Raises ValueError if the model has no chat format and none is given, or if `context` exceeds the
    model's.
    """

    def __init__(
        self, model: Llama, tokenizer: AnyTokenizer, *,
        format: ChatFormat | ChatTemplate | None = None, system: str | None = None,
        context: int | None = None,
    ) -> None:
        found = chat_format(model.config, tokenizer) if format is None else format
        if found is None:
            marks = marked_format(model.config, tokenizer)
            hint = f" It has the special tokens of {marks.name}." if marks else ""
            raise ValueError("a chat needs a format, and nothing in this model's files says that "
                             f"it was made for chats.{hint} Give one of chat_format.FORMATS, or "
                             "let the model continue a text with generate")
        context = model.config.max_seq_len if context is None else context
        if not 1 <= context <= model.config.max_seq_len:
            raise ValueError("the context of a chat is at least 1 token and at most the model's "
                             f"{model.config.max_seq_len}; got {context}")
        self.model, self.tokenizer, self.format, self.context = (
            model, tokenizer, found, context)
        self.system = system
        self.messages: list[Message] = []
        self.n_forgotten, self.is_cut = 0, False
        self.sees = _marks_images(found, model, tokenizer)
        self._stop_ids = found.stop_ids(tokenizer)
        self._stop_text = (found.stop_text(tokenizer) if isinstance(found, ChatTemplate) else None)
        self._prefix = PrefixCache(model)
        self._is_answering = False

    def say(
        self, text: str, *, images: Sequence[object] = (), max_tokens: int = 512,
        sampling: Sampling = GREEDY, seed: int = 0,
    ) -> Iterator[str]:
        """Yields the answer to `text`, in pieces that can be shown as they come.

        `images`: those that the message shows, each as in `Message`. They are decoded at once, and
        `messages` holds copies as Pillow images, so that a file or an array may change later.
        At its end, `messages` holds the question and the answer. If the caller stops early,
        `messages` holds what was read of the answer. Room for `max_tokens`, or for a quarter of the
        context if that is less, is reserved for the answer. The oldest turns are forgotten to make
        this room.
        Raises ValueError, and forgets `text`, if it is empty, does not fit into the context by
        itself, or contains what the format cannot express, if an image cannot be read or the model
        reads only text, or if an answer is still being read.
        """
        if self._is_answering:
            raise ValueError("a chat gives one answer at a time, and one is still being read. "
                             "Read it to its end, or close it")
        if not text.strip() and not images:
            raise ValueError("a message needs words, and this one has none. Write at least one")
        if images:
            self.check_sees()
        if max_tokens < 1:
            raise ValueError(f"an answer has at least 1 token; got max_tokens={max_tokens}")
        question = Message(role="user", content=text, images=tuple(
            decoded(image).copy() for image in images))  # an array may share its memory
        prompt, n_forgotten, n_ids = self._prompt(
            question, n_reserved=min(max_tokens, self.context // 4))
        n_most = min(max_tokens, self.context - n_ids)
        return self._answer(question, prompt, n_forgotten=n_forgotten, max_tokens=n_most,
                            sampling=sampling, seed=seed)

    def check_sees(self) -> None:
        """Raises ValueError unless images can be shown: unless the model and its format see."""
        check_sees(self.model)
        if not self.sees:
            raise ValueError(f"the format of {self.format.name} does not mark an image with the id "
                             f"{self.model.config.image_id}, which this model reads as an image. "
                             "Choose the format of its family, such as llama-3.2-vision, and a "
                             "tokenizer with its tokens")

    def reset(self) -> None:
        """Forgets all messages and keeps `system`."""
        self.messages, self.n_forgotten, self.is_cut = [], 0, False

    def _prompt(self, question: Message, *, n_reserved: int) -> tuple[list[int], int, int]:
        """Returns the ids before the answer, with one for each image.

        Also how many of the first messages they leave out, and how many ids the model reads.
        """
        lead = [] if self.system is None else [Message(role="system", content=self.system)]
        for n in range(self.n_forgotten, len(self.messages) + 1, 2):  # a question and its answer
            read = [*self.messages[n:], question]
            ids = self.format.encode([*lead, *read], self.tokenizer)
            n_ids = len(ids) + sum(self.model.text_length(image) - 1
                                   for message in read for image in message.images)
            if n_ids + max(n_reserved, 1) <= self.context:
                return ids, n, n_ids
        what = "this message" if self.system is None else "this message with the system's"
        raise ValueError(f"the context holds {self.context} tokens, and {what} takes {n_ids}, "
                         f"which leaves no room for {max(n_reserved, 1)} of an answer. "
                         "Write fewer words")

    def _answer(
        self, question: Message, prompt: Sequence[int], *, n_forgotten: int, max_tokens: int,
        sampling: Sampling, seed: int,
    ) -> Iterator[str]:
        said, n_drawn = "", 0
        read = [*self.messages[n_forgotten:], question]
        images = [image for message in read for image in message.images]

        def drawn() -> Iterator[int]:
            nonlocal n_drawn
            for token in stream(self.model, prompt, images=[images] if images else None,
                                max_tokens=max_tokens, sampling=sampling, seed=seed,
                                stop_ids=self._stop_ids, prefix=self._prefix):
                n_drawn += 1
                yield token

        self._is_answering = True
        try:
            for piece in until(self._stop_text, text_of(drawn(), self.tokenizer)):
                # A text of SentencePiece begins with a space.
                if piece := piece if said else piece.lstrip():
                    said += piece
                    yield piece
            self.is_cut = n_drawn == max_tokens
        except (GeneratorExit, KeyboardInterrupt):
            self.is_cut = True
            raise
        except BaseException:
            said, n_drawn = "", -1
            raise
        finally:
            self._is_answering = False
            if n_drawn >= 0:
                self.messages += [question, Message(role="assistant", content=said)]
                self.n_forgotten = n_forgotten


def _marks_images(format: ChatFormat | ChatTemplate, model: Llama, tokenizer: AnyTokenizer) -> bool:
    """Returns whether the format writes, for one image, the one id that this model reads as one."""
    if not isinstance(model, SeeingLlama):
        return False
    try:
        ids = format.encode([Message(role="user", content="?", images=(None,))], tokenizer)
    except ValueError:  # the format has no images, or refuses a dialog that begins with one
        return False
    return ids.count(model.config.image_id) == 1
