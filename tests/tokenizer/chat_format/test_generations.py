"""Each generation's dialogs have the known ids, and those of transformers' templates."""

import chat_templates
import numpy as np
import pytest
from chat_dialogs import (
    CITY,
    CORPUS,
    GENERATIONS,
    SMALL,
    WEATHER,
    assistant,
    call,
    ipython,
    system,
    user,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from released_tokens import KNOWN_3, KNOWN_4, in_order, ranks_with
from tokenizer_texts import FIRST_PIECES
from transformers import MllamaProcessor, PreTrainedTokenizerFast
from transformers.models.llama4.processing_llama4 import Llama4Processor
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from llama_from_scratch.config import ImageIds
from llama_from_scratch.tokenizer import Tokenizer, hugging_face
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END
from llama_from_scratch.tokenizer.chat_format import (
    FORMATS,
    LLAMA_2,
    LLAMA_3,
    LLAMA_3_1,
    LLAMA_3_2_VISION,
    LLAMA_4,
    ChatTemplate,
)
from llama_from_scratch.tokenizer.pieces import BLANK, Piece
from llama_from_scratch.tokenizer.released import LLAMA_3 as NAMES_3
from llama_from_scratch.tokenizer.released import LLAMA_3_1 as NAMES_3_1
from llama_from_scratch.tokenizer.released import LLAMA_3_2_VISION as NAMES_VISION
from llama_from_scratch.tokenizer.released import LLAMA_4 as NAMES_4
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN
from llama_from_scratch.vision import image_layout

DATE_TOKENS = {
    "Cut": 38766, "ting": 1303, " Knowledge": 33025, " Date": 2696, " December": 6790, "202": 2366,
    "Today": 15724, "26": 1627, " Jul": 10263, "You": 2675, " are": 527, " helpful": 11190,
    " assistant": 18328, "Cu": 128, "ng": 129, "ing": 130,
}  # fmt: skip


def known_3(special_tokens):
    known = {text: i for text, i in DATE_TOKENS.items() if i > 130}
    ranks = ranks_with(KNOWN_3 | known, in_order([]), 128_000)
    # Merging passes through these; their true places do not matter.
    for text in ("Cu", "ng", "ing"):
        spare = next(token for token in ranks if token.startswith(b"\xff\xfe"))
        ranks[text.encode()] = ranks.pop(spare)
    return Tokenizer(ranks, special_tokens=special_tokens, pattern=LLAMA3_PATTERN)


def test_llama_3_has_the_known_ids():
    ids = LLAMA_3.encode([user("This is a test sentence.")], known_3(NAMES_3))
    message = [128006, 882, 128007, 271, 2028, 374, 264, 1296, 11914, 13, 128009]
    assert ids == [128000, *message, 128006, 78191, 128007, 271]


def test_llama_3_1_has_the_known_ids_with_dates():
    dialog = [system("You are a helpful assistant."), user("Hello")]
    assert LLAMA_3_1.encode(dialog, known_3(NAMES_3_1), today="26 Jul 2024") == [
        128000, 128006, 9125, 128007, 271, 38766, 1303, 33025, 2696, 25, 6790, 220, 2366, 18, 198,
        15724, 2696, 25, 220, 1627, 10263, 220, 2366, 19, 271, 2675, 527, 264, 11190, 18328, 13,
        128009, 128006, 882, 128007, 271, 9906, 128009, 128006, 78191, 128007, 271,
    ]  # fmt: skip


def test_llama_4_has_the_known_ids():
    ranks = ranks_with(KNOWN_4, in_order([0xC0, 0xC1, *range(0xF5, 0x100)]), 200_000)
    tokenizer = Tokenizer(ranks, special_tokens=NAMES_4, pattern=LLAMA4_PATTERN)
    assert LLAMA_4.encode([user("Hello")], tokenizer) == [
        200000, 200005, 1556, 200006, 368, 19873, 200008, 200005, 140680, 200006, 368,
    ]  # fmt: skip
    assert LLAMA_4.stop_ids(tokenizer) == {200001, 200007, 200008}


def test_llama_2_has_the_known_ids():
    known = {f"{BLANK}[": 518, "INST": 25580, "]": 29962, f"{BLANK}Hi": 6324, "/": 29914}
    known |= {"IN": 400, "ST": 401}
    known |= {char: 1000 + i for i, char in enumerate(f"{BLANK}[INSTHi")} | {f"{BLANK}H": 402}
    pieces = [Piece(f"unused {i}", -9e9) for i in range(32_000)]
    pieces[:259] = FIRST_PIECES
    for text, i in known.items():
        pieces[i] = Piece(text, -float(i))
    tokenizer = SentencePiece(pieces)
    ids = LLAMA_2.encode([user("Hi")], tokenizer)
    assert ids == [1, 518, 25580, 29962, 6324, 518, 29914, 25580, 29962]
    assert LLAMA_2.stop_ids(tokenizer) == {2}


@pytest.mark.parametrize(
    "format, names, stops",
    [(LLAMA_3, NAMES_3, ["<|end_of_text|>", "<|eot_id|>"]),
     (LLAMA_3_1, NAMES_3_1, ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"])],
)  # fmt: skip
def test_answers_stop_where_the_generation_does(format, names, stops):
    tokenizer = Tokenizer.train(CORPUS, 260 + len(names), special_tokens=names)
    assert format.stop_ids(tokenizer) == {tokenizer.special_ids[name] for name in stops}


HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
HEADERS_4 = (
    HEADERS.replace("start_header_id", "header_start")
    .replace("end_header_id", "header_end")
    .replace("eot_id", "eot")
)
TEMPLATE_3_1 = """{{- bos_token }}
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content | trim %}{% set messages = messages[1:] %}
{%- else %}{% set first = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}
{%- if tools %}{{- 'Environment: ipython\n' }}{% endif %}
{{- 'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n' + first + '<|eot_id|>' }}
{%- if tools %}
{{- '<|start_header_id|>user<|end_header_id|>\n\nCall one.\n\n' }}
{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\n\n' }}{% endfor %}
{{- messages[0].content | trim + '<|eot_id|>' }}{% set messages = messages[1:] %}
{%- endif %}
{%- for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}
{%- if m.tool_calls %}
{%- set c = m.tool_calls[0].function %}
{{- '{"name": "' + c.name + '", "parameters": ' + (c.arguments | tojson) + '}' }}
{%- else %}{{- m.content | trim }}{% endif %}
{{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""
TEMPLATES = {
    "llama-2": (
        "{% if messages[0].role == 'system' %}"
        "{% set lead = '<<SYS>>\\n' + messages[0].content | trim + '\\n<</SYS>>\\n\\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set lead = '' %}{% endif %}"
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ bos_token + '[INST] ' + ((lead if loop.first else '') + m.content | trim) | trim"
        " + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "llama-3": HEADERS,
    "llama-3.1": TEMPLATE_3_1,
    "llama-4": HEADERS_4,
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    found = {}
    for name, ours in SMALL.items():
        hugging_face.write(folder / f"{name}.json", ours)
        bos, eos = ("<s>", "</s>") if name == "llama-2" else BEGIN_AND_END
        found[name] = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / f"{name}.json"),
            bos_token=bos,
            eos_token=eos,
            chat_template=TEMPLATES[name],
        )
    return found


CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cs"])
SAID = (
    st.text(st.one_of(st.sampled_from("abc AB12\n\t.,'é日👍{}"), CHARACTERS))
    .map(str.strip)
    .filter(lambda text: not any(mark in text for mark in ("<", "[", BLANK, "\ufffd")))
)
TURNS = st.tuples(st.none() | SAID, st.lists(SAID, min_size=1, max_size=5))


@pytest.mark.parametrize("name", GENERATIONS)
@settings(max_examples=60, deadline=None)
@given(turns=TURNS)
def test_dialogs_have_the_ids_of_transformers_template(theirs, name, turns):
    lead, said = turns
    dialog = [] if lead is None else [system(lead)]
    dialog += [user(text) if i % 2 == 0 else assistant(text) for i, text in enumerate(said)]
    is_answered = len(said) % 2 == 0
    today = {"today": "26 Jul 2024"} if name == "llama-3.1" else {}
    expected = theirs[name].apply_chat_template(
        [{"role": m.role, "content": m.content} for m in dialog],
        add_generation_prompt=not is_answered,
        return_dict=False,
    )
    assert FORMATS[name].encode(dialog, SMALL[name], is_answered=is_answered, **today) == expected


@settings(max_examples=40, deadline=None)
@given(asked=SAID, city=st.text(CHARACTERS.filter(lambda char: char != "<")), result=SAID)
def test_tool_calls_in_json_have_the_ids_of_transformers_template(theirs, asked, city, result):
    dialog = [user(asked), assistant("", call("weather", city=city)), ipython(result)]
    called = {"name": "weather", "arguments": {"city": city}}
    offered = {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": CITY, "required": ["city"]},
    }
    expected = theirs["llama-3.1"].apply_chat_template(
        [
            {"role": "user", "content": asked},
            {"role": "assistant", "tool_calls": [{"type": "function", "function": called}]},
            {"role": "ipython", "content": result},
        ],
        tools=[{"type": "function", "function": offered}],
        add_generation_prompt=True,
        return_dict=False,
    )
    ids = LLAMA_3_1.encode(
        dialog,
        SMALL["llama-3.1"],
        tools=[WEATHER],
        instructions="Call one.",
        today="26 Jul 2024",
    )
    assert ids == expected


# --- images ---------------------------------------------------------------------------------------

PHOTO = np.zeros((20, 30, 3), np.uint8)


def test_llama_3_2_vision_has_the_known_ids():
    ids = LLAMA_3_2_VISION.encode([user("Hello", images=(PHOTO,))], known_3(NAMES_VISION))
    assert ids == [128000, 128006, 882, 128007, 271, 128256, 9906, 128009,
                   128006, 78191, 128007, 271]


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    """transformers' processor, with a small vocabulary and a template in the released manner."""
    ours = Tokenizer.train([CORPUS] * 2, 320 + len(NAMES_VISION), special_tokens=NAMES_VISION,
                           pattern=LLAMA3_PATTERN)
    path = tmp_path_factory.mktemp("vision") / "tokenizer.json"
    hugging_face.write(path, ours)
    bos, eos = BEGIN_AND_END
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token=bos, eos_token=eos,
                                     pad_token="<|finetune_right_pad_id|>")
    images = MllamaImageProcessorPil(size={"height": 28, "width": 28})
    return ours, MllamaProcessor(images, theirs, chat_template=chat_templates.HEADERS_WITH_IMAGES)


LOOKING_TURNS = st.lists(st.tuples(SAID, st.integers(0, 3)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(turns=LOOKING_TURNS)
def test_dialogs_with_images_have_the_ids_of_transformers_processor(processor, turns):
    ours, theirs = processor
    dialog = [user(text, images=(PHOTO,) * n) if i % 2 == 0 else assistant(text)
              for i, (text, n) in enumerate(turns)]
    seen_by_template = [
        {"role": m.role, "content": [{"type": "image"}] * len(m.images)
         + [{"type": "text", "text": m.content}]} for m in dialog]
    is_answered, n_images = len(turns) % 2 == 0, sum(len(m.images) for m in dialog)
    text = theirs.apply_chat_template(seen_by_template, add_generation_prompt=not is_answered,
                                      date_string="26 Jul 2024")
    expected = theirs(images=[[PHOTO] * n_images] if n_images else None, text=[text],
                      add_special_tokens=False)["input_ids"][0]
    template = ChatTemplate(name="theirs", templates={"default": theirs.chat_template},
                            token_names={"bos_token": BEGIN_AND_END[0]})
    assert template.encode(dialog, ours, is_answered=is_answered,
                           today="26 Jul 2024") == list(expected)
    # Without images the template adds a system's message with dates, in ours that is `today`.
    today = None if n_images else "26 Jul 2024"
    assert LLAMA_3_2_VISION.encode(dialog, ours, is_answered=is_answered,
                                   today=today) == list(expected)
    assert expected.count(ours.special_ids["<|image|>"]) == n_images


def test_an_image_in_llama_4_is_one_id_that_the_model_writes_out():
    """transformers' text before its processor; the processor writes it out as the model does."""
    tokenizer = SMALL["llama-4"]
    names = ("image_start", "image_end", "image", "patch", "tile_x_separator", "tile_y_separator")
    ids = ImageIds(**{name: tokenizer.special_ids[f"<|{name}|>"] for name in names})
    dialog = [user("What are they?", images=(None, None))]
    found = LLAMA_4.encode(dialog, tokenizer)
    assert found.count(ids.image) == 2 and found.count(ids.patch) == 0
    text = ("<|begin_of_text|><|header_start|>user<|header_end|>\n\n<|image|><|image|>"
            "What are they?<|eot|><|header_start|>assistant<|header_end|>\n\n")
    grids, n_tokens = [(2, 1), (1, 1)], 3
    for grid in grids:
        text = text.replace("<|image|>", Llama4Processor._prompt_split_image(
            None, grid, n_tokens).replace("<|image|>", "<|IMAGE|>"), 1)
    expected = tokenizer.encode(text.replace("IMAGE", "image"), allowed_special="all")
    assert image_layout.written_out(found, grids, ids=ids, n_tokens=n_tokens) == expected
