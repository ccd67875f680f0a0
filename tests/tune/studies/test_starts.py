import torch

from llama_from_scratch.tune.studies import starts
from llama_from_scratch.tune.world import describing, instructions


def test_each_start_is_a_copy_of_its_own():
    first, tokenizer = starts.fresh("assistant")
    with torch.no_grad():
        first.output.weight.zero_()
    second, _ = starts.fresh("assistant")
    assert second.output.weight.abs().max() > 0 and second.output.weight.dtype == torch.float32
    assert tokenizer.vocab_size == 1152


def test_measures_tell_the_assistant_from_the_base(monkeypatch):
    monkeypatch.setattr(starts, "N_CASES", 24)
    monkeypatch.setattr(starts, "N_STORIES", 16)
    assistant, base = starts.fresh("assistant"), starts.fresh("base")
    assert starts.obeyed(*assistant, instructions.any_single).value > 0.8
    assert starts.obeyed(*base, instructions.any_single).value < 0.3
    bits = starts.bits_per_byte(*base)
    assert 0.4 < bits.value < 0.8 and 0 < bits.error < 0.1


def test_lessons_and_pairs_follow_their_seed():
    one, again, other = (starts.lessons(3, instructions.any_single, seed=seed)
                         for seed in (1, 1, 2))
    assert one == again != other
    pairs = starts.careless_pairs(20, "train", seed=3)
    assert pairs == starts.careless_pairs(20, "train", seed=3)
    assert all(each.chosen != each.rejected for each in pairs)
    tasks = starts.descriptions(20, "train", seed=4)
    assert {each.user for each in tasks}.isdisjoint(
        each.user for each in starts.descriptions(20, "test", seed=4))


def test_descriptions_are_scored_with_their_own_person(monkeypatch):
    monkeypatch.setattr(starts, "N_SCORED", 6)
    told = starts.descriptions(6, "test", seed=98)
    perfect = iter([" ".join(describing.fact(kind, each.person) for kind in describing.ABOUT)
                    for each in told])
    monkeypatch.setattr(starts.evals, "ask",
                        lambda model, tokenizer, asked, *rest, **more: [next(perfect)
                                                                        for _ in asked])
    model, tokenizer = starts.fresh("assistant")
    scores, words = starts.described(model, tokenizer)
    assert scores == [float(describing.BEST)] * 6 and min(words) > 6
