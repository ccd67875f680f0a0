"""A reward is read where the answer ends, and learned from differences only.

The reference is a slow loop: one unpadded row after the other.
"""

import math
from dataclasses import replace

import preference_cases as cases
import pytest
import torch

from llama_from_scratch.checkpoint import native
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import Message
from llama_from_scratch.train import TrainParts
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.tune import reward
from llama_from_scratch.tune.dialogs import Dialog, exchange
from llama_from_scratch.tune.pair_rows import PairExample, PairRows, pair_examples_of
from llama_from_scratch.tune.preferences import preferred
from llama_from_scratch.tune.rows import example_of, padded

FAST = replace(reward.REWARD, n_steps=4, n_warmup=1, batch_size=4, seq_len=128)
HOW = dict(format=cases.FORMAT)


def judge(*, seed=0, dtype=torch.float32, is_tied=True):
    torch.manual_seed(seed)
    found = reward.RewardModel(Llama(replace(cases.config(), is_tied=is_tied)).to(dtype))
    torch.nn.init.normal_(found.head.weight)  # zeros would hide where it is read
    return found


def slow_reward(judge, dialog):
    """The head's product with the hidden state at the last id, which ends the answer."""
    ids = cases.FORMAT.encode(dialog.messages, cases.tokenizer(), is_answered=True)
    assert ids[-1] == cases.tokenizer().special_ids["<|eot_id|>"]
    with torch.no_grad():
        hidden_D = judge.model.hidden(torch.tensor([ids]))[0, -1]
        return float(judge.head.weight[0] @ hidden_D)


def rows(pairs):
    examples = pair_examples_of(pairs, cases.tokenizer(), cases.FORMAT, max_tokens=256)
    return PairRows([PairExample(chosen=reward.ended(pair.chosen),
                                 rejected=reward.ended(pair.rejected), margin=pair.margin)
                     for pair in examples], cases.tokenizer())


def test_a_reward_is_read_at_the_end_of_the_answer_whatever_the_padding_and_the_batch():
    found, dialogs = judge(dtype=torch.float64), [
        dialog for pair in cases.pairs(5) for dialog in pair.dialogs]
    expected = [slow_reward(found, dialog) for dialog in dialogs]
    assert len({round(value, 6) for value in expected}) > 8
    for size in (1, 3, 64):
        scores = reward.scores(found, dialogs, cases.tokenizer(), **HOW, batch_size=size)
        assert scores == pytest.approx(expected, rel=1e-9)
    assert reward.scores(found, dialogs[::-1], cases.tokenizer(), **HOW) == pytest.approx(
        expected[::-1], rel=1e-9)


def test_the_row_of_an_ended_example_reads_all_of_the_answer_and_marks_one_place():
    tokenizer = cases.tokenizer()
    example = example_of(exchange("Hi", " Hello"), tokenizer, cases.FORMAT)
    batch = padded([[reward.ended(example)], [reward.ended(example_of(
        exchange("Hi Tom", " Hello Tom"), tokenizer, cases.FORMAT))]])
    assert batch.ids[0][: len(example.ids)].tolist() == list(example.ids)
    assert (batch.targets != IGNORE).sum(1).tolist() == [1, 1]
    assert (batch.targets[0] != IGNORE).nonzero().tolist() == [[len(example.ids) - 1]]


def test_what_follows_the_last_answer_does_not_change_its_reward():
    found, tokenizer = judge(dtype=torch.float64), cases.tokenizer()
    example = example_of(exchange("Hi", " Hello"), tokenizer, cases.FORMAT)
    longer = replace(example, ids=(*example.ids, 7, 8),
                     is_learned=(*example.is_learned, False, False))
    assert reward.ended(longer) == reward.ended(example)
    assert found(padded([[reward.ended(longer)]])).shape == (1,)


def test_the_loss_of_a_batch_is_that_of_a_slow_loop_over_pairs():
    found, pairs = judge(dtype=torch.float64), cases.pairs(5)
    batch = rows(pairs).of([3, 0, 4, 1])
    expected = 0.0
    for i in (3, 0, 4, 1):
        chosen, rejected = (slow_reward(found, dialog) for dialog in pairs[i].dialogs)
        assert pairs[i].margin > 0
        expected += math.log(1 + math.exp(-(chosen - rejected - pairs[i].margin)))
    loss = reward.BradleyTerryLoss(judge=found)(found.model, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_loss_and_its_gradient_are_the_formula():
    torch.manual_seed(0)
    chosen, rejected = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    margins = torch.rand(6, dtype=torch.float64)
    losses = reward.bradley_terry(chosen, rejected, margins)
    for i in range(6):
        d = float((chosen[i] - rejected[i] - margins[i]).detach())
        assert losses[i].item() == pytest.approx(math.log(1 + math.exp(-d)), rel=1e-12)
    grad_chosen, grad_rejected = torch.autograd.grad(losses.sum(), (chosen, rejected))
    expected = -torch.sigmoid(-(chosen - rejected - margins)).detach()
    torch.testing.assert_close(grad_chosen, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad_rejected, -expected, rtol=0, atol=1e-12)


def test_a_constant_for_each_prompt_changes_nothing():
    torch.manual_seed(0)
    chosen, rejected, constant = torch.randn(3, 6, dtype=torch.float64)
    margins = torch.zeros(6, dtype=torch.float64)
    torch.testing.assert_close(
        reward.bradley_terry(chosen + constant, rejected + constant, margins),
        reward.bradley_terry(chosen, rejected, margins), rtol=1e-12, atol=1e-12)


def test_a_margin_asks_for_more_and_the_margin_0_is_the_plain_loss():
    chosen, rejected = torch.tensor([1.0]), torch.tensor([0.0])
    plain, larger = (reward.bradley_terry(chosen, rejected, torch.tensor([m])).item()
                     for m in (0.0, 1.0))
    assert plain == pytest.approx(-math.log(1 / (1 + math.exp(-1.0))), rel=1e-6)
    assert larger == pytest.approx(math.log(2), rel=1e-6)  # the difference is all eaten up


def test_margins_are_used_unless_they_are_left_out():
    pairs = [replace(pair, margin=2.0) for pair in cases.pairs(4)]
    config = replace(FAST, n_steps=1, n_warmup=0)
    first = []
    for has_margins in (True, False):
        fresh = reward.RewardModel(cases.model())
        first += reward.fit(fresh, pairs, cases.tokenizer(), **HOW, config=config,
                            has_margins=has_margins).losses
    assert first == pytest.approx([math.log(1 + math.exp(2.0)), math.log(2)], rel=1e-5)


@pytest.mark.parametrize("is_tied", [True, False])
def test_training_ranks_the_pairs_and_leaves_an_output_layer_of_its_own_alone(is_tied):
    torch.manual_seed(0)
    found = reward.RewardModel(Llama(replace(cases.config(), is_tied=is_tied)))
    output = found.model.output.weight.detach().clone()
    pairs = [replace(pair, margin=0.0) for pair in cases.pairs(8)]
    history = reward.fit(found, pairs, cases.tokenizer(), **HOW,
                         config=replace(FAST, n_steps=24, peak_lr=3e-3, weight_decay=0.1))
    assert history.losses[0] == pytest.approx(math.log(2), rel=1e-5)
    assert history.losses[-1] < 0.4
    assert reward.accuracy(found, pairs, cases.tokenizer(), **HOW).n_right >= 7
    assert found.head.weight.abs().max() > 0
    assert torch.equal(found.model.output.weight, output) != is_tied


def test_accuracy_counts_the_pairs_whose_chosen_answer_has_the_larger_reward():
    found, pairs = judge(), cases.pairs(6)
    right = [slow_reward(found, chosen) > slow_reward(found, rejected)
             for chosen, rejected in (pair.dialogs for pair in pairs)]
    share = reward.accuracy(found, pairs, cases.tokenizer(), **HOW)
    assert (share.n_right, share.n) == (sum(right), 6)
    assert 0 < share.n_right < 6


def test_the_gradient_does_not_depend_on_micro_batches_and_is_clipped_with_the_head():
    lengths, losses = [], []
    for size in (1, 3, None):
        found = judge(dtype=torch.float64)
        seen = []

        def clip(parameters, *, max_norm, seen=seen):
            parameters = list(parameters)
            seen += [parameters[-1], torch.stack([
                p.grad.norm() for p in parameters if p.grad is not None]).norm().item()]
            return torch.tensor(1.0)

        losses += reward.fit(found, cases.pairs(4), cases.tokenizer(), **HOW, config=replace(
            FAST, n_steps=1, n_warmup=0, micro_batch_size=size), parts=TrainParts(clip=clip)).losses
        assert seen[0] is found.head.weight
        lengths.append(seen[1])
    assert lengths == pytest.approx([lengths[0]] * 3, rel=1e-9)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-9)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_saved_reward_model_gives_the_same_rewards(tmp_path, is_tied):
    found, tokenizer = judge(is_tied=is_tied), cases.tokenizer()
    dialogs = [dialog for pair in cases.pairs(2) for dialog in pair.dialogs]
    for _ in range(2):  # the second save replaces the first
        reward.save(tmp_path / "m", found, tokenizer)
    again, its_tokenizer = reward.load(tmp_path / "m")
    assert reward.scores(again, dialogs, its_tokenizer, **HOW) == reward.scores(
        found, dialogs, tokenizer, **HOW)
    model, _ = native.load(tmp_path / "m")  # the language model in it loads as any other
    assert torch.equal(model.output.weight, found.model.output.weight)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    pairs, tokenizer = cases.pairs(8), cases.tokenizer()
    whole = reward.RewardModel(cases.model())
    history = reward.fit(whole, pairs, tokenizer, **HOW, config=FAST)

    def stop(step):
        if step.step == 1:
            raise KeyboardInterrupt

    begun = reward.RewardModel(cases.model())
    reward.fit(begun, pairs, tokenizer, **HOW, config=FAST, folder=tmp_path / "run", on_step=stop)
    resumed = judge(seed=5)
    again = reward.fit(resumed, pairs, tokenizer, **HOW, config=FAST, folder=tmp_path / "run",
                       is_resumed=True)
    assert again.losses == history.losses
    for (name, p), (_, q) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(p, q), name
    loaded, _ = reward.load(tmp_path / "run")
    assert torch.equal(loaded.head.weight, whole.head.weight)


def test_folders_without_a_head_and_with_a_damaged_one_are_refused(tmp_path):
    found, tokenizer = judge(), cases.tokenizer()
    native.save(tmp_path / "plain", found.model, tokenizer)
    with pytest.raises(ValueError, match="a reward model has a file reward.safetensors; .* none"):
        reward.load(tmp_path / "plain")
    reward.save(tmp_path / "m", found, tokenizer)
    file = tmp_path / "m" / native.REWARD_FILE
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged"):
        reward.load(tmp_path / "m")


def test_a_head_of_another_width_is_refused(tmp_path):
    found, tokenizer = judge(), cases.tokenizer()
    found.head = torch.nn.Linear(9, 1, bias=False)
    reward.save(tmp_path / "m", found, tokenizer)
    with pytest.raises(ValueError, match=r"one tensor, reward, of shape \(1, 64\); it has .*9"):
        reward.load(tmp_path / "m")


@pytest.mark.parametrize("name", ["share", "reduce", "accumulate", "begin", "save"])
def test_parts_that_do_not_know_the_head_are_refused(name):
    usual = getattr(TrainParts(), name)

    def another(*args, **how):
        return usual(*args, **how)

    with pytest.raises(ValueError, match=f"whole and in one process, .*got another {name}. Leave"):
        reward.fit(judge(), cases.pairs(2), cases.tokenizer(), **HOW,
                   parts=TrainParts(**{name: another}))


def test_what_has_no_answer_to_score_is_refused_with_its_number():
    found, tokenizer = judge(), cases.tokenizer()
    asked = Dialog(messages=(*exchange("Hi", " Hello").messages,
                             Message(role="user", content="And?")))
    with pytest.raises(ValueError, match="ends with the assistant; dialog 1 ends with the user"):
        reward.scores(found, [exchange("Hi", " Hello"), asked], tokenizer, **HOW)
    with pytest.raises(ValueError, match="an answer has words or calls"):
        reward.scores(found, [exchange("Hi", " ")], tokenizer, **HOW)
    short = reward.RewardModel(Llama(replace(cases.config(), max_seq_len=16)))
    with pytest.raises(ValueError, match="reads at most 16 tokens; dialog 0 has"):
        reward.scores(short, [exchange("Hi " * 9, " Hello")], tokenizer, **HOW)
    with pytest.raises(ValueError, match="needs pairs; got none"):
        reward.fit(found, [], tokenizer, **HOW)
    with pytest.raises(ValueError, match="holds 16 tokens, and pair 0 has"):
        reward.fit(short, [preferred("Hi " * 9, "a", "b")], tokenizer, **HOW)
    assert reward.scores(found, [], tokenizer, **HOW) == []
