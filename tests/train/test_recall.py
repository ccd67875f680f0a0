"""The task of looking up pairs, its needles, and what layers with chunks can learn of them."""

import dataclasses

import pytest
import torch

from llama_from_scratch.config import TemperatureTuning
from llama_from_scratch.model.temperature import query_scales
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.recall import (
    KINDS,
    N_KEYS,
    RecallStage,
    far_pairs,
    needle_map,
    needles,
    pairs,
    recall_config,
    recall_loss,
    share_found,
    stored_runs,
    temper,
    train_recall,
    trained,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_value_is_asked_for_exactly_where_its_key_came_before():
    ids, targets = pairs(5, 40, generator=generator(), most_keys=6)
    for row, wanted in zip(ids.tolist(), targets.tolist(), strict=True):
        value_of = {}
        for t in range(0, 40, 2):
            key, value = row[t], row[t + 1]
            assert 0 <= key < N_KEYS <= value < 2 * N_KEYS
            assert value_of.setdefault(key, value) == value, "a key keeps its value in a text"
            came_before = key in row[:t:2]
            assert wanted[t] == (value if came_before else IGNORE) and wanted[t + 1] == IGNORE
        assert 1 <= len(value_of) <= 6


def test_each_text_draws_its_own_values():
    ids, _ = pairs(200, 64, generator=generator())
    values = {row[row.index(0) + 1] for row in ids.tolist() if 0 in row[::2]}
    assert len(values) > 20


@pytest.mark.parametrize(("n_tokens", "distance"), [(64, 8), (64, 2), (64, 62), (256, 200)])
def test_a_needle_occurs_once_at_its_distance_before_it_is_asked_for(n_tokens, distance):
    ids, values = needles(20, n_tokens, distance=distance, generator=generator())
    assert ids.shape == (20, n_tokens - 1)
    for row, value in zip(ids.tolist(), values.tolist(), strict=True):
        places = [t for t in range(0, n_tokens, 2) if row[t] == row[-1]]
        assert places == [n_tokens - 2 - distance, n_tokens - 2]
        assert row[places[0] + 1] == value


def test_far_keys_come_at_the_beginning_and_at_the_end_only():
    ids, targets = far_pairs(5, 256, generator=generator())
    n_far = N_KEYS // 2
    for row, wanted in zip(ids.tolist(), targets.tolist(), strict=True):
        keys, values = row[::2], row[1::2]
        assert sorted(keys[:n_far]) == sorted(keys[-n_far:]) and len(set(keys[:n_far])) == n_far
        assert not set(keys[:n_far]) & set(keys[n_far:-n_far])
        assert len(set(zip(keys, values, strict=True))) == len(set(keys))
        assert wanted[-2 * n_far :: 2] == values[-n_far:] and set(wanted[: 2 * n_far]) == {IGNORE}
    assert far_pairs(2, 64, generator=generator())[0].shape == (2, 64)
    with pytest.raises(ValueError, match="has at least 64 tokens; got n_tokens=62"):
        far_pairs(2, 62, generator=generator())


def test_a_map_of_needles_has_the_shares_of_its_distances():
    torch.manual_seed(0)
    model = Llama(recall_config("RN"))
    list(train_recall(model, stage=RecallStage(n_steps=3, n_texts=4)))
    found = needle_map(model, (64, 128), n_depths=4, n_texts=30, seed=3)
    assert found == [[share_found(model, n, distance=d, n_texts=30, seed=3) for d in distances]
                     for n, distances in ((64, (56, 40, 24, 8)), (128, (112, 80, 48, 16)))]


def test_the_bundled_model_finds_what_is_near_and_nothing_that_is_far():
    model = trained()
    assert model.config == recall_config("RG", max_seq_len=64)
    assert share_found(model, 64, distance=56) > 0.95
    longer = Llama(recall_config("RG", max_seq_len=256))
    longer.load_state_dict(model.state_dict())
    assert share_found(longer, 256, distance=224) < 0.2


@pytest.mark.parametrize("distance", [0, 7, 64, -2])
def test_a_needle_outside_the_text_is_refused(distance):
    with pytest.raises(ValueError, match=f"must be even, from 2 to 62; got {distance}"):
        needles(1, 64, distance=distance, generator=generator())


def test_a_pattern_is_one_layer_for_each_letter():
    assert recall_config("RNG").layers == tuple(KINDS[letter] for letter in "RNG")
    with pytest.raises(ValueError, match="one letter of R, N, G for each layer; got 'RX'"):
        recall_config("RX")


@pytest.mark.parametrize(("pattern", "is_blind"), [("RR", True), ("RRRR", True), ("RN", False),
                                                   ("NR", False), ("RG", False)])
def test_layers_with_chunks_alone_carry_nothing_over_a_border(pattern, is_blind):
    torch.manual_seed(0)
    model = Llama(recall_config(pattern))
    ids = torch.randint(64, (1, 64))
    other = torch.cat([torch.randint(64, (1, 48)), ids[:, 48:]], dim=1)
    with torch.no_grad():
        change = (model(ids) - model(other))[0, 48:].abs().max().item()
    assert (change == 0.0) if is_blind else change > 0.1


def test_training_lowers_the_loss_and_repeats_with_the_same_seed():
    stage, found = RecallStage(n_steps=60, n_texts=8, n_tokens=32), []
    for _ in range(2):
        torch.manual_seed(0)
        model = Llama(recall_config("RN"))
        found.append(list(train_recall(model, stage=stage, seed=3)))
    assert found[0] == found[1] and len(found[0]) == 60
    assert sum(found[0][-5:]) < 0.9 * sum(found[0][:5])


def test_the_loss_is_the_mean_over_what_can_be_known():
    torch.manual_seed(0)
    model = Llama(recall_config("RN"))
    ids, targets = pairs(3, 16, generator=generator(), most_keys=3)
    logits = model(ids).log_softmax(-1)
    losses = [-logits[b, t, targets[b, t]] for b in range(3) for t in range(16)
              if targets[b, t] != IGNORE]
    torch.testing.assert_close(recall_loss(model, ids, targets), sum(losses) / len(losses))


def test_needles_are_found_by_a_model_that_looks_them_up_and_by_no_guess(monkeypatch):
    torch.manual_seed(0)
    model = Llama(recall_config("RN"))
    assert share_found(model, 64, distance=20, n_texts=50) < 0.2

    def looked_up(ids):
        logits = torch.zeros(*ids.shape, 64)
        for b, row in enumerate(ids.tolist()):
            logits[b, -1, row[row.index(row[-1]) + 1]] = 1
        return logits

    monkeypatch.setattr(model, "forward", looked_up)
    assert share_found(model, 64, distance=20, n_texts=50) == 1.0


def test_temperature_tuning_is_switched_on_and_off_where_there_is_no_rope():
    torch.manual_seed(0)
    model, tuning = Llama(recall_config("RN")), TemperatureTuning(floor=8, strength=0.5)
    layer = dataclasses.replace(KINDS["N"], temperature=tuning)
    with_tuning = Llama(dataclasses.replace(model.config, layers=(KINDS["R"], layer)))
    with_tuning.load_state_dict(model.state_dict())
    ids = torch.randint(64, (1, 40))
    with torch.no_grad():
        plain = model(ids)
        temper(model, tuning)
        tuned = model(ids)
        temper(model, None)
        assert torch.equal(tuned, with_tuning(ids)) and torch.equal(model(ids), plain)
    assert torch.equal(tuned[:, :7], plain[:, :7])
    assert not torch.allclose(tuned[:, 7:], plain[:, 7:])
    assert query_scales(torch.tensor([[6, 7]]), tuning)[0, 0] == 1


def test_the_stored_runs_are_those_of_the_script():
    runs = stored_runs()
    assert {run["pattern"] for run in runs} == {"RN", "RG", "RR", "GG", "NN"}
    for run in runs:
        assert len(run["losses"]) == RecallStage().n_steps
        assert all(0 <= each["share"] <= 1 for each in run["found"])
