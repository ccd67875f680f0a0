"""Finds the chat format of a model's files: their template, or our format if it writes the same.

It also makes a template that writes the same as one of our formats, for files that other programs
read.

Notebook 19.
"""

from collections.abc import Sequence

from llama_from_scratch.tokenizer.chat_format.format import ChatFormat
from llama_from_scratch.tokenizer.chat_format.frames import Headers
from llama_from_scratch.tokenizer.chat_format.messages import Message
from llama_from_scratch.tokenizer.chat_format.template import ChatTemplate
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tokenizer.prompting import DEFAULT, Prompting

_DATE = "26 Jul 2024"
_SYSTEM = Message(role="system", content="Be short.")
_ASKED, _AGAIN, _WIDE = (Message(role="user", content=content)
                         for content in ("How are you?", "Are you\n\nsure?", " A\tspaced one. "))
_ANSWERED = Message(role="assistant", content="I am well.")
_PLAIN = ([_ASKED], [_SYSTEM, _ASKED], [_ASKED, _ANSWERED, _AGAIN],
          [_SYSTEM, _AGAIN, _ANSWERED, _ASKED])
_DIALOGS = (*_PLAIN, [_WIDE], [_SYSTEM, _WIDE, _ANSWERED, _WIDE])
_LOOKING = Message(role="user", content=" What is it?", images=(None, None))
_WITH_IMAGES = ([_LOOKING], [_LOOKING, _ANSWERED, _ASKED, _ANSWERED, _LOOKING])


def format_of(
    prompting: Prompting, tokenizer: AnyTokenizer, *, ours: Sequence[ChatFormat]
) -> ChatFormat | ChatTemplate | None:
    """Returns the format that the templates in files write; None if there are no templates.

    It is the first of `ours` that gives the same ids for dialogs of all kinds, or otherwise the
    template itself. If the template only adds a date to one of our formats, it gets that name.
    """
    if not prompting.templates:
        return None
    found = ChatTemplate(name="the template of its files", templates=prompting.templates,
                         token_names=prompting.token_names)
    for format in ours:
        dialogs = _DIALOGS if format.image is None else (*_DIALOGS, *_WITH_IMAGES)
        if _writes_the_same(found, format, tokenizer, dialogs=dialogs, today=None):
            return format
    for format in ours:
        if format.knowledge_date and _writes_the_same(found, format, tokenizer, dialogs=_PLAIN,
                                                      today=_DATE):
            return ChatTemplate(name=f"{format.name}, by {found.name}", kin=format,
                                templates=prompting.templates, token_names=prompting.token_names)
    return found


def prompting_for(format: ChatFormat, tokenizer: AnyTokenizer) -> Prompting:
    """Returns what the files of a model for chats in `format` say about texts.

    Raises ValueError if the vocabulary lacks the special tokens of the format.
    """
    names = {i: name for name, i in tokenizer.special_ids.items()}
    ends = format.stop_ids(tokenizer)
    return Prompting(end_ids=ends, eos_ids=ends, adds_bos=True,
                     templates={DEFAULT: template_of(format)},
                     token_names={"bos_token": names[tokenizer.bos_id],
                                  "eos_token": names[tokenizer.eos_id]})


def template_of(format: ChatFormat) -> str:
    """Returns a Jinja template that writes dialogs like `format`, without tools."""
    frame, content = format.frame, "message['content']" + (" | trim" if format.strips else "")
    refusal = ("{%- if tools %}{{- raise_exception('this template has no words for tools') }}"
               "{%- endif %}\n")
    if isinstance(frame, Headers):
        body = f"{{{{- {content} + '{frame.eot}' }}}}\n"
        if format.image is not None:
            body = (f"{{%- if message['content'] is string %}}{{{{- {content} }}}}\n"
                    "{%- else %}{%- for part in message['content'] %}\n"
                    f"{{{{- '{format.image}' if part['type'] == 'image' else part['text'] }}}}\n"
                    "{%- endfor %}{%- endif %}\n"
                    f"{{{{- '{frame.eot}' }}}}\n")
        return (f"{refusal}{{{{- '{frame.bos}' }}}}\n"
                "{%- for message in messages %}\n"
                f"{{{{- '{frame.start}' + message['role'] + '{frame.end}\\n\\n' }}}}\n"
                f"{body}"
                "{%- endfor %}\n"
                "{%- if add_generation_prompt %}"
                f"{{{{- '{frame.start}assistant{frame.end}\\n\\n' }}}}{{%- endif %}}\n")
    opening, closing = frame.system
    return (f"{refusal}{{%- set ns = namespace(lead='') %}}\n"
            "{%- for message in messages %}\n"
            "{%- if message['role'] == 'system' and loop.first %}\n"
            f"{{%- set ns.lead = '{opening}\\n' + message['content'] + '\\n{closing}\\n\\n' %}}\n"
            "{%- elif message['role'] == 'user' %}\n"
            f"{{{{- '{frame.bos}{frame.open} ' + (ns.lead + message['content']) | trim "
            f"+ ' {frame.close}' }}}}\n"
            "{%- set ns.lead = '' %}\n"
            "{%- elif message['role'] == 'assistant' %}\n"
            f"{{{{- ' ' + message['content'] | trim + ' {frame.eos}' }}}}\n"
            "{%- else %}{{- raise_exception('roles are system, user and assistant') }}\n"
            "{%- endif %}\n"
            "{%- endfor %}\n")


def _writes_the_same(
    template: ChatTemplate, format: ChatFormat, tokenizer: AnyTokenizer, *,
    dialogs: Sequence[Sequence[Message]], today: str | None,
) -> bool:
    """Returns whether both give the same ids for every dialog; False if either refuses one."""
    try:
        return all(template.encode(dialog, tokenizer, today=today or _DATE)
                   == format.encode(dialog, tokenizer, today=today) for dialog in dialogs)
    except ValueError:
        return False
