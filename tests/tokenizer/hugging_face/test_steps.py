"""Steps that are known do what the reference does, others are refused; see test_json_tokenizer."""

import json
import random

import pytest
import tokenizers
from tokenizer_texts import random_text
from tokenizers import Regex, normalizers, pre_tokenizers

from llama_from_scratch.tokenizer.hugging_face.steps import cutter, flat, normalizer

NORMALIZERS = {
    "NFC": normalizers.NFC(), "NFKD": normalizers.NFKD(),
    "both": normalizers.Sequence([normalizers.NFD(), normalizers.Replace("a", "$1")]),
    "by a pattern": normalizers.Replace(Regex(r"\s+"), " "),
    "none": normalizers.Sequence([]),
}
CUTS = {
    "isolated": pre_tokenizers.Split("a", "isolated"),
    "removed": pre_tokenizers.Split(Regex("[a-e]+"), "removed"),
    "removed but": pre_tokenizers.Split(Regex("[a-e]+"), "removed", invert=True),
    "with the next": pre_tokenizers.Split(Regex("[a-e]"), "merged_with_next"),
    "with the previous": pre_tokenizers.Split(Regex("[a-e]"), "merged_with_previous"),
    "runs": pre_tokenizers.Split(Regex("[a-e]"), "contiguous"),
    "runs of digits": pre_tokenizers.Digits(individual_digits=False),
    "digits": pre_tokenizers.Digits(individual_digits=True),
    "blanks": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "inside": pre_tokenizers.Sequence([
        pre_tokenizers.Digits(True), pre_tokenizers.Metaspace(prepend_scheme="first"),
        pre_tokenizers.Sequence([pre_tokenizers.Split("t", "merged_with_next")])]),
}


def part_of(step, *, key):
    """The JSON of one step, as a file holds it."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    setattr(made, key, step)
    return json.loads(made.to_str())[key]


@pytest.mark.parametrize("step", NORMALIZERS.values(), ids=NORMALIZERS)
def test_a_known_normalizer_does_what_the_reference_does(step):
    ours, rng = normalizer(part_of(step, key="normalizer")), random.Random(0)
    for text in ["", "e\u0301ﬁ", *(random_text(rng) for _ in range(150))]:
        assert ours(text) == step.normalize_str(text), text


@pytest.mark.parametrize("step", CUTS.values(), ids=CUTS)
def test_a_known_cut_is_made_where_the_reference_makes_it(step):
    ours = cutter(flat(part_of(step, key="pre_tokenizer"), "pretokenizers"))
    rng = random.Random(1)
    for text in ["abcxab", "12 a 3", *(random_text(rng, ["abba"]) for _ in range(200))]:
        if text:
            assert ours(text, True) == [part for part, _ in step.pre_tokenize_str(text)], text


@pytest.mark.parametrize("step", [
    {"type": "BertPreTokenizer"}, {"type": "Whitespace"}, {"type": "Split", "pattern": {}}, {},
    {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "sometimes"},
    {"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated"}, {"type": ["Split"]},
])
def test_a_cut_that_is_not_known_is_refused(step):
    with pytest.raises(ValueError, match="must cut text by Split, Digits, ByteLevel or Metaspace"):
        cutter([step])


def test_other_settings_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="of a Split must be one of Isolated, .* got 'Odd'"):
        cutter([{"type": "Split", "pattern": {"String": "a"}, "behavior": "Odd"}])
    with pytest.raises(ValueError, match="does not compile"):
        cutter([{"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}])
    with pytest.raises(ValueError, match="must normalize text by .*Lowercase"):
        normalizer({"type": "Lowercase"})
    with pytest.raises(ValueError, match="needs steps that keep all text"):
        cutter([{"type": "Split", "pattern": {"String": "a"}, "behavior": "Removed"},
                {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}])
