"""DPO's loss is its formula, its gradient the formula's, and only answers and their margin count.

The reference here is a slow loop: one pair after the other, one token after the other, from the
logits of unpadded rows.
"""

import math
from dataclasses import replace

import preference_cases as cases
import pytest
import torch
from paper_mesh import on_paper

from llama_from_scratch.checkpoint import native
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.shard import shard
from llama_from_scratch.parallel.training import parts_on
from llama_from_scratch.tokenizer.chat_format import Message
from llama_from_scratch.train import TrainParts, train
from llama_from_scratch.train.data import IGNORE, Packed
from llama_from_scratch.train.resume import read
from llama_from_scratch.tune import dpo, lora
from llama_from_scratch.tune.pairs.log_probs import token_log_probs
from llama_from_scratch.tune.pairs.pair_rows import PairRows, pair_examples_of
from llama_from_scratch.tune.pairs.preferences import Preference, preferred

FAST = replace(dpo.DPO, n_steps=4, n_warmup=1, batch_size=4, seq_len=128, peak_lr=1e-3)
END = cases.tokenizer().special_ids["<|eot_id|>"]


def rows(pairs):
    return PairRows(pair_examples_of(pairs, cases.tokenizer(), cases.FORMAT, max_tokens=256),
                    cases.tokenizer())


def slow_log_prob(model, example, *, is_end_counted):
    """The sum over the learned tokens of a row, read alone; and how many they are with the end."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([example.ids]))[0]
    total, n = 0.0, 0
    for t, (token, is_learned) in enumerate(zip(example.ids, example.is_learned, strict=True)):
        if is_learned:
            n += 1
            if token != END or is_end_counted:
                total += float(logits_TV[t - 1].log_softmax(-1)[token])
    return total, n


def slow_loss(model, base, examples, *, beta, nll, is_end_counted):
    """The mean over pairs, plus nll times the mean over the tokens of all chosen answers."""
    losses, chosen_nats, n_chosen = [], 0.0, 0
    for pair in examples:
        d = {}
        for name in ("chosen", "rejected"):
            now, _ = slow_log_prob(model, getattr(pair, name), is_end_counted=is_end_counted)
            then, _ = slow_log_prob(base, getattr(pair, name), is_end_counted=is_end_counted)
            d[name] = now - then
        losses.append(math.log(1 + math.exp(-beta * (d["chosen"] - d["rejected"]))))
        with_end, n = slow_log_prob(model, pair.chosen, is_end_counted=True)
        chosen_nats, n_chosen = chosen_nats - with_end, n_chosen + n
    return sum(losses) / len(losses) + nll * chosen_nats / n_chosen


def loss_of(base, data, *, beta=0.1, nll=0.2, is_end_counted=False):
    unweighed = () if is_end_counted else (END,)
    reference = dpo._log_probs(base, data, batch_size=2, unweighed=unweighed, is_bf16=False)
    return dpo.PreferenceLoss(beta=beta, nll=nll, reference=reference, unweighed=unweighed)


@pytest.mark.parametrize("is_end_counted", [False, True])
def test_the_loss_of_a_batch_is_that_of_a_slow_loop_over_pairs(is_end_counted):
    base, model = cases.model(dtype=torch.float64), cases.model(seed=1, dtype=torch.float64)
    data = rows(cases.pairs(5))
    loss = loss_of(base, data, beta=0.3, nll=0.7, is_end_counted=is_end_counted)
    batch = data.of([4, 1, 3, 0])
    found = loss(model, batch) / batch.n_targets
    expected = slow_loss(model, base, [data.examples[i] for i in (4, 1, 3, 0)], beta=0.3, nll=0.7,
                         is_end_counted=is_end_counted)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def hand_made():
    """Logits of two pairs in float64, and the batch that they would belong to."""
    data = rows([preferred("a", "b c", "d"), preferred("a b", "c", "d e f")])
    batch = data.of([0, 1])
    torch.manual_seed(0)
    logits_BTV = torch.randn(*batch.rows.ids.shape, cases.tokenizer().vocab_size,
                             dtype=torch.float64, requires_grad=True)
    reference_B2 = -10 * torch.rand(2, 2, dtype=torch.float64)
    is_target_BT = batch.rows.targets != IGNORE
    found_BT = logits_BTV.log_softmax(-1).gather(
        -1, batch.rows.targets.clamp(min=0)[..., None])[..., 0]
    log_probs_BT = torch.where(is_target_BT, found_BT, 0.0)
    return batch, logits_BTV, log_probs_BT, reference_B2


@pytest.mark.parametrize("nll", [0.0, 0.2])
def test_the_gradient_is_the_formula_on_hand_made_logits(nll):
    beta, (batch, logits_BTV, log_probs_BT, reference_B2) = 0.3, hand_made()
    loss = dpo.PreferenceLoss(beta=beta, nll=nll, reference=reference_B2, unweighed=(END,))
    (loss.of(log_probs_BT.unflatten(0, (-1, 2)), batch) / batch.n_targets).backward()

    expected_BTV = torch.zeros_like(logits_BTV)
    targets_BT, n_pairs = batch.rows.targets, 2
    n_chosen = int((targets_BT[::2] != IGNORE).sum())
    p_BTV = logits_BTV.detach().softmax(-1)
    counted = [[t for t in range(targets_BT.shape[1]) if targets_BT[row, t] not in (IGNORE, END)]
               for row in range(4)]
    sums = [sum(log_probs_BT[row, t].item() for t in counted[row]) for row in range(4)]
    for pair in range(n_pairs):
        d_chosen = sums[2 * pair] - float(reference_B2[pair, 0])
        d_rejected = sums[2 * pair + 1] - float(reference_B2[pair, 1])
        weight = beta / (1 + math.exp(beta * (d_chosen - d_rejected)))
        for row, sign in ((2 * pair, -1.0), (2 * pair + 1, 1.0)):
            for t in counted[row]:
                one_V = torch.zeros(p_BTV.shape[-1], dtype=torch.float64)
                one_V[targets_BT[row, t]] = 1
                expected_BTV[row, t] += sign * weight * (one_V - p_BTV[row, t]) / n_pairs
        for t in range(targets_BT.shape[1]):  # the usual loss, with the end
            if targets_BT[2 * pair, t] != IGNORE:
                one_V = torch.zeros(p_BTV.shape[-1], dtype=torch.float64)
                one_V[targets_BT[2 * pair, t]] = 1
                expected_BTV[2 * pair, t] -= nll * (one_V - p_BTV[2 * pair, t]) / n_chosen
    torch.testing.assert_close(logits_BTV.grad, expected_BTV, rtol=0, atol=1e-10)
    # Headers, prompts and padding get exactly nothing.
    assert torch.equal(logits_BTV.grad[targets_BT == IGNORE],
                       torch.zeros_like(logits_BTV.grad[targets_BT == IGNORE]))
    ends = logits_BTV.grad[targets_BT == END].abs().sum(-1).reshape(2, 2)
    assert ends[:, 1].eq(0).all()
    assert ends[:, 0].ne(0).all() if nll else ends[:, 0].eq(0).all()


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
def test_before_the_first_step_the_loss_is_log_2_for_any_beta(beta):
    base, data = cases.model(dtype=torch.float64), rows(cases.pairs(4))
    batch = data.of([0, 1, 2, 3])
    loss = loss_of(base, data, beta=beta, nll=0.0)(base, batch) / batch.n_targets
    assert loss.item() == pytest.approx(math.log(2), abs=1e-9)


def test_a_step_lowers_the_loss_below_log_2_because_the_reference_does_not_move():
    model = cases.model()
    history = dpo.fit(model, cases.pairs(4), cases.tokenizer(), nll=0.0, format=cases.FORMAT,
                      config=replace(FAST, n_steps=8))
    assert history.losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert history.losses[-1] < math.log(2) - 0.1


def test_training_makes_the_margin_grow_and_says_how_both_answers_moved():
    model, pairs, tokenizer = cases.model(), cases.pairs(8), cases.tokenizer()
    how = dict(format=cases.FORMAT)
    before = dpo.log_probs(model, pairs, tokenizer, **how)
    dpo.fit(model, pairs, tokenizer, **how, config=replace(FAST, n_steps=12))
    moved = dpo.shift(dpo.log_probs(model, pairs, tokenizer, **how), before)
    assert moved.chosen - moved.rejected > 1
    assert moved.accuracy.n == 8 and moved.accuracy.value > 0.8


def test_log_probs_do_not_depend_on_the_batch_and_are_in_the_order_of_the_pairs():
    model, pairs, tokenizer = cases.model(dtype=torch.float64), cases.pairs(5), cases.tokenizer()
    for masks_end in (True, False):
        how = dict(format=cases.FORMAT, masks_end=masks_end)
        found_B2 = dpo.log_probs(model, pairs, tokenizer, **how, batch_size=4)
        torch.testing.assert_close(found_B2, dpo.log_probs(model, pairs, tokenizer, **how,
                                                           batch_size=1), rtol=1e-10, atol=1e-10)
        for found_2, pair in zip(found_B2, rows(pairs).examples, strict=True):
            slow = [slow_log_prob(model, example, is_end_counted=not masks_end)[0]
                    for example in (pair.chosen, pair.rejected)]
            assert found_2.tolist() == pytest.approx(slow, rel=1e-9)


def test_a_pair_that_differs_only_in_masked_tokens_has_the_margin_0():
    prompt = (Message(role="user", content="Hi"),)
    chosen, rejected = ((Message(role="assistant", content=" Hello", ends_turn=is_end),)
                        for is_end in (True, False))
    pair = Preference(prompt=prompt, chosen=chosen, rejected=rejected)
    model, how = cases.model(dtype=torch.float64), dict(format=cases.FORMAT)
    [masked_2] = dpo.log_probs(model, [pair], cases.tokenizer(), **how)
    assert masked_2[0].item() == pytest.approx(masked_2[1].item(), rel=1e-12)
    [whole_2] = dpo.log_probs(model, [pair], cases.tokenizer(), **how, masks_end=False)
    assert abs(whole_2[0] - whole_2[1]) > 1e-3


def test_swapping_chosen_and_rejected_mirrors_the_loss():
    base, model = cases.model(dtype=torch.float64), cases.model(seed=1, dtype=torch.float64)
    pairs = cases.pairs(1)
    swapped = [replace(pairs[0], chosen=pairs[0].rejected, rejected=pairs[0].chosen)]
    one, other = (loss_of(base, data, beta=0.1, nll=0.0)(model, data.of([0])).item()
                  for data in (rows(pairs), rows(swapped)))
    # sigmoid(m) + sigmoid(-m) = 1
    assert math.exp(-one) + math.exp(-other) == pytest.approx(1, abs=1e-12)
    assert abs(one - other) > 1e-3


def test_only_the_difference_of_the_answers_counts():
    batch, _, log_probs_BT, reference_B2 = hand_made()
    losses = [dpo.PreferenceLoss(beta=0.1, nll=0.0, reference=reference_B2 + constant).of(
        log_probs_BT.unflatten(0, (-1, 2)), batch).item() for constant in (0.0, -7.0)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_the_gradient_does_not_depend_on_micro_batches():
    grads, losses = [], []
    for size in (1, 3, None):
        model, tokenizer = cases.model(dtype=torch.float64), cases.tokenizer()
        found = {}

        def clip(parameters, *, max_norm, model=model, found=found):
            found.update({name: p.grad.clone() for name, p in model.named_parameters()})
            return torch.tensor(1.0)

        history = dpo.fit(model, cases.pairs(4), tokenizer, format=cases.FORMAT, nll=0.5,
                          config=replace(FAST, n_steps=1, n_warmup=0, micro_batch_size=size),
                          parts=TrainParts(clip=clip))
        grads.append(found)
        losses += history.losses
    for found in grads[:-1]:
        for name, grad in found.items():
            torch.testing.assert_close(grad, grads[-1][name], rtol=1e-7, atol=1e-10)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-9)


def test_the_reference_is_computed_once_from_the_model_as_it_was_given(monkeypatch):
    n_passes, was = [], dpo.token_log_probs

    def counted(model, batch, **how):
        n_passes.append(torch.is_grad_enabled())
        return was(model, batch, **how)

    monkeypatch.setattr(dpo, "token_log_probs", counted)
    dpo.fit(cases.model(), cases.pairs(8), cases.tokenizer(), format=cases.FORMAT, config=FAST)
    assert n_passes == [False, False, True, True, True, True]  # 8 pairs once, then 4 steps


def test_a_resumed_run_is_the_uninterrupted_one_with_its_own_reference(tmp_path):
    pairs, tokenizer, how = cases.pairs(8), cases.tokenizer(), dict(format=cases.FORMAT)
    whole = cases.model()
    history = dpo.fit(whole, pairs, tokenizer, **how, config=FAST, folder=tmp_path / "whole")

    def stop(step):
        if step.step == 1:
            raise KeyboardInterrupt

    begun = cases.model()
    dpo.fit(begun, pairs, tokenizer, **how, config=FAST, folder=tmp_path / "run", on_step=stop)
    # The trained weights are a wrong reference, so it must come from the folder.
    resumed, _ = native.load(tmp_path / "run")
    again = dpo.fit(resumed, pairs, tokenizer, **how, config=FAST, folder=tmp_path / "run",
                    is_resumed=True)
    assert again.losses == history.losses
    for (name, p), (_, q) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(p, q), name
    reference = dpo.log_probs(cases.model(), pairs, tokenizer, **how, batch_size=4)
    assert torch.tensor(read(tmp_path / "run").source["reference"]).equal(reference)


def test_a_resumed_run_of_adapters_is_the_uninterrupted_one(tmp_path):
    def adapted():
        model = cases.model()
        lora.add(model, rank=2)
        return model

    def run(model, folder, **how):
        return dpo.fit(model, cases.pairs(8), cases.tokenizer(), format=cases.FORMAT, config=FAST,
                       parts=lora.parts(), folder=tmp_path / folder, **how)

    def stop(step):
        if step.step == 2:
            raise KeyboardInterrupt

    whole, resumed = adapted(), adapted()
    history = run(whole, "whole")
    run(adapted(), "run", on_step=stop)
    # These adapters have learned, so a reference computed from them would be a wrong one.
    with torch.no_grad():
        for _, p in lora.weights(resumed):
            p += 1.0
    again = run(resumed, "run", is_resumed=True)
    assert again.losses == history.losses and len(again.losses) == 4
    for (name, p), (_, q) in zip(lora.weights(whole), lora.weights(resumed), strict=True):
        assert torch.equal(p, q), name


def test_the_parts_of_a_mesh_train_as_the_usual_ones():
    pairs, tokenizer = cases.pairs(8), cases.tokenizer()
    how = dict(format=cases.FORMAT, config=replace(FAST, n_steps=2))
    history = dpo.fit(cases.model(), pairs, tokenizer, **how)
    sharded = shard(cases.model(), on_paper(Mesh()))
    found = dpo.fit(sharded.model, pairs, tokenizer, **how, parts=parts_on(sharded))
    assert found.losses == pytest.approx(history.losses, abs=2e-5)
    assert [step.grad_norm for step in found.steps] == pytest.approx(
        [step.grad_norm for step in history.steps], rel=1e-4)


def test_a_run_is_not_resumed_with_other_settings_or_pairs(tmp_path):
    pairs, tokenizer, how = cases.pairs(4), cases.tokenizer(), dict(format=cases.FORMAT)
    dpo.fit(cases.model(), pairs, tokenizer, **how, config=FAST, folder=tmp_path / "run")
    how |= dict(folder=tmp_path / "run", is_resumed=True, config=replace(FAST, n_steps=5))
    with pytest.raises(ValueError, match="beta is 0.1 there and 0.2 here"):
        dpo.fit(cases.model(), pairs, tokenizer, beta=0.2, **how)
    with pytest.raises(ValueError, match="masks_end is True there and False here"):
        dpo.fit(cases.model(), pairs, tokenizer, masks_end=False, **how)
    with pytest.raises(ValueError, match="has 4, got 3. Give the same pairs"):
        dpo.fit(cases.model(), pairs[:3], tokenizer, **how)
    with pytest.raises(ValueError, match="data.digest is"):
        dpo.fit(cases.model(), pairs[::-1], tokenizer, **how)


def test_a_run_of_another_kind_is_not_resumed(tmp_path):
    tokenizer, config = cases.tokenizer(), replace(FAST, n_steps=1, n_warmup=0)
    train(cases.model(), Packed(["Tom has the coin. " * 60], tokenizer), config=config,
          folder=tmp_path / "run")
    with pytest.raises(ValueError, match="resuming needs a run of dpo.fit"):
        dpo.fit(cases.model(), cases.pairs(2), tokenizer, format=cases.FORMAT, config=config,
                folder=tmp_path / "run", is_resumed=True)


@pytest.mark.parametrize("wrong, message", [
    ({"beta": 0.0}, "beta must be a finite number above 0, .*; got 0"),
    ({"beta": -1.0}, "got -1.0"),
    ({"beta": math.nan}, "got nan"),
    ({"beta": math.inf}, "got inf"),
    ({"nll": -0.1}, "nll, .* at least 0; got -0.1"),
    ({"nll": math.nan}, "got nan"),
])
def test_wrong_factors_are_refused_before_anything_is_computed(wrong, message):
    model = cases.model()
    before = token_log_probs(model, rows(cases.pairs(1)).of([0]).rows)
    with pytest.raises(ValueError, match=message):
        dpo.fit(model, cases.pairs(2), cases.tokenizer(), format=cases.FORMAT, **wrong)
    assert torch.equal(before, token_log_probs(model, rows(cases.pairs(1)).of([0]).rows))


def test_no_pairs_and_a_model_without_a_format_are_refused():
    with pytest.raises(ValueError, match="needs pairs; got none"):
        dpo.fit(cases.model(), [], cases.tokenizer(), format=cases.FORMAT)
    with pytest.raises(ValueError, match="needs a chat format"):
        dpo.fit(cases.model(), cases.pairs(1), cases.tokenizer())
