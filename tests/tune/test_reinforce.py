import dataclasses
import math

import pytest
import tiny_rewards
import torch
from chat_dialogs import SMALL
from tiny_rewards import CONFIG, PROMPTS, STOPS, TOKENIZER, answer, share_of_letters, weights

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import FORMATS, Message
from llama_from_scratch.train.loop import Diverged
from llama_from_scratch.tune import reinforce
from llama_from_scratch.tune.dialogs import Dialog
from llama_from_scratch.tune.policy import samples


def fit(model=None, prompts=PROMPTS, *, reward=share_of_letters, config=CONFIG, **options):
    model = tiny_rewards.make() if model is None else model
    history = reinforce.fit(model, prompts, TOKENIZER, reward=reward, config=config,
                            **dict(stop_ids=STOPS) | options)
    return history, model


def longer(**changes):
    return dataclasses.replace(CONFIG, **dict(n_steps=16, n_prompts=8, n_answers=8) | changes)


def share_of_low(prompt, text, is_finished):
    """The share of characters before the letters."""
    return sum(c < "@" for c in text) / max(len(text), 1)


@pytest.mark.parametrize("changes", [
    {}, dict(baseline="others", normalizer="constant"), dict(is_scaled=True, normalizer="sequence"),
    dict(n_epochs=2, n_minibatches=2, clip_low=0.2, clip_high=0.28),
    dict(n_rounds=2, temperature=1.2), dict(beta=0.01)], ids=str)
def test_random_weights_learn_what_is_rewarded_with_each_term(changes):
    history, _ = fit(config=longer(**changes), reward=share_of_low)
    first, last = (sum(history.rewards[i :][:3]) / 3 for i in (0, -3))
    assert first < 0.3 and last > first + 0.15, (first, last)
    assert history.is_complete and len(history.steps) == 16


def test_the_opposite_reward_teaches_the_opposite():
    _, model = fit(reward=lambda *told: -share_of_low(*told), config=longer())
    drawn = samples.groups(model, PROMPTS, n=8, max_tokens=6, stop_ids=STOPS, seed=9)
    text = "".join(TOKENIZER.decode(each.text_ids) for group in drawn for each in group)
    assert sum(c < "@" for c in text) / len(text) < 0.1


def test_what_is_cut_off_earns_nothing_so_a_model_learns_to_end():
    config = longer(max_cut_reward=0.0, n_steps=20)
    history, _ = fit(reward=lambda prompt, text, is_finished: 1.0, config=config,
                     stop_ids=frozenset(range(240, 258)))
    first, *_, last = history.steps
    assert first.share_cut > 0.4 and last.share_cut < 0.1


def test_the_record_of_a_step_says_what_happened():
    history, _ = fit(config=dataclasses.replace(CONFIG, n_epochs=2, n_warmup=2))
    for i, step in enumerate(history.steps):
        assert step.step == i and 0 <= step.reward <= 1 and 0 <= step.share_equal <= 1
        assert 1 <= step.n_tokens <= 6 and step.n_groups == 4 and 0 < step.n_rows <= 16
        assert step.ratio_min < 1 < step.ratio_max and 0 < step.mismatch < 1e-5
        assert step.grad_norm > 0 and step.kl == step.share_clipped == 0
        assert step.sampling_s > 0 and step.update_s > 0
    assert [step.lr for step in history.steps] == pytest.approx(
        [CONFIG.peak_lr / 3, CONFIG.peak_lr * 2 / 3, CONFIG.peak_lr, CONFIG.peak_lr])


def test_each_step_draws_for_other_prompts_with_other_numbers():
    asked = []

    def noted(model, prompts, *, first, **how):
        asked.append((first, tuple(map(tuple, prompts))))
        return samples.groups(model, prompts, first=first, **how)

    fit(sample=noted, config=dataclasses.replace(CONFIG, n_steps=3))
    assert [first for first, _ in asked] == [0, 4, 8]
    assert len({prompt for _, prompts in asked for prompt in prompts}) == 12


def test_equal_seeds_give_equal_runs_and_other_seeds_other_ones():
    (one, a), (two, b), (three, _) = fit(), fit(), fit(
        config=dataclasses.replace(CONFIG, seed=1))
    assert one.rewards == two.rewards != three.rewards and torch.equal(weights(a), weights(b))


def test_prompts_may_be_texts_dialogs_ids_or_tasks_and_the_reward_gets_them_as_they_are():
    tokenizer, format = SMALL["llama-3.1"], FORMATS["llama-3.2"]
    torch.manual_seed(0)
    config = dataclasses.replace(family.tiny("llama-3.2"), vocab_size=tokenizer.vocab_size)
    model, seen, asked = Llama(config), [], []
    task = ("task", " city")
    dialog = Dialog(messages=(Message(role="user", content=" city"),))
    prompts = [" city", dialog, format.encode(dialog.messages, tokenizer), task]

    def sample(model, prompts, *, n, **how):
        asked.extend((tuple(prompt), how["stop_ids"]) for prompt in prompts)
        return samples.groups(model, prompts, n=n, **how)

    def reward(prompt, text, is_finished):
        seen.append(prompt)
        return len(seen) / 100

    reinforce.fit(model, prompts, tokenizer, reward=reward, sample=sample,
                  format=format, ask=lambda prompt: prompt[1] if prompt is task else prompt,
                  config=dataclasses.replace(CONFIG, n_steps=1, n_answers=2))
    assert {ids for ids, _ in asked} == {tuple(prompts[2])}, "all four ask the same"
    assert {stops for _, stops in asked} == {format.stop_ids(tokenizer)}
    for prompt in prompts:
        assert sum(each is prompt for each in seen) == 2


def test_tools_may_take_part_in_an_answer():
    def with_tool(model, prompts, *, n, **how):
        groups = samples.groups(model, prompts, n=n, **how)
        return [[dataclasses.replace(
            each, ids=(*each.ids, 40), log_probs=(*each.log_probs, 0.0),
            is_written=(True,) * len(each.ids) + (False,), is_finished=True)
            for each in group] for group in groups]

    (plain, _), (tool, _) = fit(), fit(sample=with_tool)
    assert tool.rewards[0] == plain.rewards[0] or tool.steps[0].n_tokens == plain.steps[0].n_tokens


def test_the_reference_is_a_copy_that_stays_as_it_is():
    history, model = fit(config=longer(beta=0.5, n_steps=6))
    free, _ = fit(config=longer(n_steps=6))
    assert history.steps[0].kl == pytest.approx(0, abs=1e-9) and history.steps[-1].kl > 0
    assert all(p.requires_grad for p in model.parameters())
    assert free.steps[-1].kl == 0
    given, _ = fit(config=longer(beta=0.5, n_steps=6), reference=tiny_rewards.make())
    assert given.rewards == history.rewards


def test_only_trainable_weights_move():
    model = tiny_rewards.make()
    model.tok_embeddings.weight.requires_grad_(False)
    before = model.tok_embeddings.weight.clone(), model.norm.weight.clone()
    fit(model)
    assert torch.equal(model.tok_embeddings.weight, before[0])
    assert not torch.equal(model.norm.weight, before[1])


def test_a_resumed_run_repeats_the_uninterrupted_one(tmp_path):
    config = dataclasses.replace(CONFIG, n_steps=6, n_epochs=2, n_minibatches=2, n_rounds=2,
                                 beta=0.1)
    whole, expected = fit(config=config)
    seen = []

    def stop(step):
        seen.append(step)
        if step.step == 2:
            raise KeyboardInterrupt

    begun, _ = fit(config=config, folder=tmp_path / "run", on_step=stop)
    assert not begun.is_complete and len(begun.steps) == 3 and begun.steps == tuple(seen)
    history, model = fit(config=config, folder=tmp_path / "run", is_resumed=True)
    assert torch.equal(weights(model), weights(expected))
    assert len(history.steps) == 6 and history.rewards == whole.rewards
    assert history.steps[:3] == begun.steps


def test_an_error_in_on_step_saves_the_steps_so_far(tmp_path):
    def fail(step):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fit(folder=tmp_path / "run", on_step=fail)
    history, _ = fit(folder=tmp_path / "run", is_resumed=True)
    assert len(history.steps) == 4


def test_a_constant_reward_ends_with_an_error_that_says_so():
    config = dataclasses.replace(CONFIG, n_steps=9, patience=3)
    model, seen = tiny_rewards.make(), []
    with pytest.raises(ValueError, match="in the first 3 steps the answers of all 12 groups earned "
                                         "the same, 0.25 in the last step, so nothing"):
        fit(model, reward=lambda *_: 0.25, config=config, on_step=seen.append)
    assert torch.equal(weights(model), weights(tiny_rewards.make())) and len(seen) == 2
    history, _ = fit(reward=lambda *_: 0.25, config=dataclasses.replace(config, n_steps=2))
    assert [step.share_equal for step in history.steps] == [1, 1]


@pytest.mark.parametrize("change", [dict(beta=0.1), dict(skips_zeros=False),
                                    dict(baseline="none"), dict(baseline="none", beta=0.1)])
def test_a_reward_without_an_advantage_is_found_whatever_else_moves_the_answers(change):
    config = dataclasses.replace(CONFIG, n_steps=9, patience=3, **change)
    with pytest.raises(ValueError, match="earned the same, 0 in the last step"):
        fit(reward=lambda *_: 0.0, config=config)


def test_without_a_baseline_equal_rewards_above_0_are_no_error():
    config = dataclasses.replace(CONFIG, n_steps=4, patience=2, baseline="none")
    history, _ = fit(reward=lambda *_: 1.0, config=config)
    assert len(history.steps) == 4


def test_a_run_that_has_learned_everything_goes_on():
    calls = []

    def reward(prompt, text, is_finished):
        calls.append(text)
        return float(len(calls) == 1)

    history, _ = fit(reward=reward, config=dataclasses.replace(CONFIG, n_steps=6, patience=2))
    assert [step.n_rows > 0 for step in history.steps] == [True] + [False] * 5


@pytest.mark.parametrize("options, message", [
    (dict(prompts=[]), "needs prompts; got none"),
    (dict(prompts=[[1], []]), "prompt 1 is empty"),
    (dict(prompts=[[1] * 30]), "leaves room for"),
    (dict(prompts=[[1], [999]]), "prompt 1 holds 999"),
    (dict(stop_ids=frozenset()), "an id that ends them; got none"),
    (dict(prompts=[object()]), "prompt 0 is <object .* give ask="),
    (dict(prompts=[" city"]), "names one|needs a chat format"),
    (dict(reference=tiny_rewards.make()), "got beta=0"),
    (dict(is_resumed=True), "resuming needs a folder"),
])
def test_what_would_fail_later_is_refused_first(options, message):
    def reward(prompt, text, is_finished):
        raise AssertionError("nothing is drawn")

    with pytest.raises(ValueError, match=message):
        fit(reward=reward, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_are_refused_before_anything_is_drawn(dtype):
    with pytest.raises(ValueError, match=f"needs weights in fp32.* is {dtype}. .*float()"):
        fit(tiny_rewards.make().to(dtype))


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_text_is_no_prompt(empty):
    with pytest.raises(ValueError, match="a prompt has words; prompt 0 is"):
        reinforce.fit(tiny_rewards.make(), [empty], SMALL["llama-3.1"], reward=share_of_letters,
                      format=FORMATS["llama-3.2"])


def test_the_model_itself_is_no_reference():
    model = tiny_rewards.make()
    with pytest.raises(ValueError, match="a reference is another model"):
        fit(model, config=dataclasses.replace(CONFIG, beta=0.1), reference=model)


def test_a_sampler_that_reports_other_log_probabilities_is_refused():
    def shifted(model, prompts, **how):
        return [[dataclasses.replace(each, log_probs=tuple(x + 0.01 for x in each.log_probs))
                 for each in group] for group in samples.groups(model, prompts, **how)]

    with pytest.raises(ValueError, match="the same log-probability"):
        fit(sample=shifted)


def test_a_reward_that_fails_names_the_answer():
    with pytest.raises(ValueError, match=r"the answer '.*' to the prompt \[256, .*raised KeyError"):
        fit(reward=lambda prompt, text, is_finished: {}[text])
    with pytest.raises(ValueError, match="returned nan"):
        fit(reward=lambda *_: math.nan)


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path):
    model = tiny_rewards.make()

    def break_it(step):
        model.norm.weight.data[0] = math.inf

    config = dataclasses.replace(CONFIG, checkpoint_every=1)
    with pytest.raises(Diverged, match="of step 0 made a weight infinite .* Lower peak_lr=0.01"):
        fit(model, config=config, folder=tmp_path / "run", on_step=break_it)
    assert not (tmp_path / "run").exists()


def test_answers_of_one_id_work():
    history, _ = fit(config=dataclasses.replace(CONFIG, max_tokens=1))
    assert {step.n_tokens for step in history.steps} == {1.0}
    assert answer(1).text_ids == ()
