"""Tokenizers in the layouts of well-known checkpoints, trained in a moment by the reference."""

import functools
import json

import tokenizers
from tokenizer_texts import CORPUS
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel, Digits, Metaspace, Split
from tokenizers.trainers import BpeTrainer

from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN

TEXT = [CORPUS, "def f(x):\n    return x[1] + 2024\n", "naïve 中文字 emoji 😀😀 ünïcödé\n\n\n"] * 2
ALPHABET = ByteLevel.alphabet()


def special(*names, **flags):
    """Special tokens that are found as they are written, unless `flags` say otherwise."""
    return [AddedToken(name, special=True, **{"normalized": False} | flags) for name in names]


def plain(*names, **flags):
    """Added tokens that are not special, by default of the text as it came."""
    return [AddedToken(name, special=False, **{"normalized": False} | flags) for name in names]


def _bytes(steps, *, first=(), after=(), size=420, begin=None, ignore_merges=False):
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(TEXT, BpeTrainer(vocab_size=size, initial_alphabet=ALPHABET,
                                              special_tokens=list(first), show_progress=False))
    made.add_tokens(list(after))
    if begin:
        template = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B",
            special_tokens=[(begin, made.token_to_id(begin))])
        made.post_processor = processors.Sequence(
            [processors.ByteLevel(trim_offsets=False), template])
    return made


def _pieces(*, after=(), prefix="always", metaspace=None, size=430, flags=None, is_split=False):
    model = models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    made = tokenizers.Tokenizer(model)
    if metaspace:
        made.pre_tokenizer = Metaspace(prepend_scheme=metaspace, split=is_split)
    else:
        front = [normalizers.Prepend("▁")] * (prefix == "always")
        made.normalizer = normalizers.Sequence([*front, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] * ((metaspace or prefix) != "never")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    specials = special("<unk>", "<s>", "</s>", **flags or {})
    # Trained word by word, as real vocabularies were; the pieces then merge in any context.
    cut = made.pre_tokenizer
    made.pre_tokenizer = Metaspace(prepend_scheme="always", split=True)
    made.normalizer, kept = None, made.normalizer
    names = [f"<0x{value:02X}>" for value in range(256)]
    made.train_from_iterator(TEXT, BpeTrainer(vocab_size=size, special_tokens=[
        *specials, *special(*names)], show_progress=False))
    file = json.loads(made.to_str())
    file["added_tokens"] = [t for t in file["added_tokens"] if not t["content"].startswith("<0x")]
    made = tokenizers.Tokenizer.from_str(json.dumps(file))
    made.normalizer = kept
    if cut is not None:
        made.pre_tokenizer = cut
    else:
        file = json.loads(made.to_str()) | {"pre_tokenizer": None}
        made = tokenizers.Tokenizer.from_str(json.dumps(file))
    made.add_tokens(list(after))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", made.token_to_id("<s>"))])
    return made


def llama_3_split():
    return [Split(Regex(LLAMA3_PATTERN), "isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False)]


def smollm():
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"]
    return _bytes([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)],
                  first=special(*names))


def gpt_2():
    return _bytes([ByteLevel(add_prefix_space=True)], after=special("<|endoftext|>"))


def hermes():
    """Llama 3 with other special tokens, and some that are not special."""
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"]
    return _bytes(llama_3_split(), begin=names[0], ignore_merges=True, after=[
        *special(*names), *plain("<tool_call>", "</tool_call>", "<scratch_pad>")])


def r1_distill():
    names = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
    return _bytes(llama_3_split(), begin=names[0], ignore_merges=True, after=[
        *special(*names), *plain("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")])


def deepseek_coder():
    """Several splits, one after the other."""
    return _bytes([
        Split(Regex(r"[\r\n]"), "isolated"), Split(Regex(r"\s?\p{L}+"), "isolated"),
        Split(Regex(r"\s?\p{P}+"), "isolated"), Split(Regex("[一-龥ࠀ-一가-퟿]+"), "isolated"),
        Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=False)],
        after=special("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<|EOT|>"))


def any_flags():
    """Added tokens with every flag, found in the text as it came or in what it becomes."""
    return _bytes(llama_3_split(), first=special("<|first|>"), after=[
        *special("<mask>", lstrip=True), *special("<pad>", rstrip=True),
        *plain("cat", single_word=True), *plain("<n>", normalized=True, lstrip=True, rstrip=True),
        *special("<big  one>"), *plain("  "), *plain("\n\n", normalized=True)])


def behaviors():
    """Splits of each behavior, by a text and by a pattern, the other way round as well."""
    return _bytes([
        Split("th", "merged_with_next"), Split(Regex("[aeiou]+"), "merged_with_previous"),
        Split(Regex(r"\S+"), "contiguous", invert=True), Split("x", "removed"),
        Split(Regex(r"\p{N}{1,2}"), "isolated", invert=True),
        ByteLevel(add_prefix_space=False, use_regex=False)], after=special("<s>"))


def tinyllama():
    return _pieces()


def tinyllama_chatml():
    """Llama 2 with more tokens, special and not."""
    return _pieces(after=[*special("<|im_start|>", "<|im_end|>", "[PAD]"), *plain("<think>")])


def old_llama_2():
    """Special tokens are looked for in the text with its blank in front."""
    return _pieces(flags={"normalized": True}, after=plain("<x>", normalized=True))


def metaspace(scheme, **how):
    return lambda: _pieces(metaspace=scheme, **how)


LAYOUTS = {
    "SmolLM": smollm, "GPT-2 with a blank in front": gpt_2, "Hermes": hermes,
    "R1-Distill": r1_distill, "DeepSeek Coder": deepseek_coder, "every flag": any_flags,
    "every behavior": behaviors, "TinyLlama": tinyllama, "TinyLlama with ChatML": tinyllama_chatml,
    "old Llama 2": old_llama_2, "Metaspace first": metaspace("first"),
    "Metaspace always": metaspace("always"), "Metaspace never": metaspace("never"),
    "Metaspace first and more": metaspace("first", after=[
        *special("<|im_start|>", "<|im_end|>"), *plain("<think>", lstrip=True, rstrip=True),
        *plain("the", single_word=True, normalized=True)]),
    "Metaspace that splits": metaspace("first", is_split=True, after=plain("<think>")),
    "no blank in front": lambda: _pieces(prefix="never", after=plain("<think>", normalized=True)),
}


@functools.cache
def layout(name):
    """The reference tokenizer of a layout, trained once."""
    return LAYOUTS[name]()
