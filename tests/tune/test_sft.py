import dataclasses

import pytest
import torch
from chat_dialogs import SMALL

from llama_from_scratch import family
from llama_from_scratch.checkpoint import native
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune import evals, sft
from llama_from_scratch.tune.dialogs import exchange

FORMAT, TOKENIZER = FORMATS["llama-3.2"], SMALL["llama-3.1"]
DIALOGS = [exchange(f"Say {word}", word) for word in ("Rome", "city", "help", "today")]
QUICK = dataclasses.replace(sft.SFT, n_steps=40, n_warmup=4, batch_size=4, seq_len=64,
                            peak_lr=5e-3)


def model_of(generation="llama-3.2", tokenizer=TOKENIZER):
    torch.manual_seed(0)
    return Llama(dataclasses.replace(family.tiny(generation), vocab_size=tokenizer.vocab_size))


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("generation", ["llama-2", "llama-3.2"])
def test_a_model_learns_to_answer(generation):
    tokenizer = SMALL.get(generation, TOKENIZER)
    model, format = model_of(generation, tokenizer), FORMATS[generation]
    history = sft.fit(model, DIALOGS, tokenizer, format=format,
                      config=dataclasses.replace(QUICK, n_steps=60))
    assert history.is_complete and history.losses[-1] < 0.3 < history.losses[0]
    users = [dialog.messages[0].content for dialog in DIALOGS]
    assert evals.ask(model, tokenizer, users, format, max_tokens=8) == [
        dialog.messages[1].content for dialog in DIALOGS]


def test_a_model_with_experts_learns_too():
    tokenizer = SMALL["llama-4"]
    history = sft.fit(model_of("llama-4", tokenizer), DIALOGS, tokenizer, format=FORMATS["llama-4"],
                      config=dataclasses.replace(QUICK, n_steps=8, n_warmup=2))
    assert history.losses[-1] < history.losses[0] - 0.5


def test_packed_rows_learn_as_well():
    model = model_of()
    config = dataclasses.replace(QUICK, batch_size=1, seq_len=256)
    history = sft.fit(model, DIALOGS, TOKENIZER, format=FORMAT, is_packed=True, config=config)
    assert history.losses[-1] < 0.3


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path):
    whole, cut = model_of(), model_of()
    config = dataclasses.replace(QUICK, n_steps=6, checkpoint_every=3)
    expected = sft.fit(whole, DIALOGS, TOKENIZER, format=FORMAT, config=config)

    def stop(step):
        if step.step == 2:
            raise KeyboardInterrupt

    first = sft.fit(cut, DIALOGS, TOKENIZER, format=FORMAT, config=config, folder=tmp_path / "run",
                    on_step=stop)
    assert not first.is_complete
    again = model_of()
    second = sft.fit(again, DIALOGS, TOKENIZER, format=FORMAT, config=config,
                     folder=tmp_path / "run", is_resumed=True)
    assert second.losses == expected.losses and same(again, whole)
    saved, tokenizer = native.load(tmp_path / "run")
    assert same(saved, whole) and tokenizer.vocab_size == TOKENIZER.vocab_size


def test_validation_is_measured_on_answers():
    config = dataclasses.replace(QUICK, n_steps=4, n_warmup=1, validate_every=2)
    history = sft.fit(model_of(), DIALOGS, TOKENIZER, format=FORMAT, config=config,
                      validation=DIALOGS[:2])
    [(first, before), (last, after)] = history.validations
    assert (first, last) == (1, 3) and after.loss < before.loss
    assert after.n_bytes == len("Romecity")


def test_replayed_texts_are_among_the_rows():
    """A run with them has more targets than one without."""
    alone, mixed = model_of(), model_of()
    config = dataclasses.replace(QUICK, n_steps=1, n_warmup=0, batch_size=8)
    sft.fit(alone, DIALOGS, TOKENIZER, format=FORMAT, config=config)
    history = sft.fit(mixed, DIALOGS, TOKENIZER, format=FORMAT, config=config,
                      replay=["Rome today help"], replay_share=0.5, replay_tokens=16)
    assert not same(alone, mixed) and history.steps[0].n_tokens > 0


def test_a_model_without_a_chat_format_is_refused():
    with pytest.raises(ValueError, match="nothing in this model's files names one"):
        sft.fit(model_of(), DIALOGS, TOKENIZER)
    letters = SMALL["llama-2"]
    with pytest.raises(ValueError, match="needs the special token"):
        sft.fit(model_of(tokenizer=letters), DIALOGS, letters, format=FORMAT)


def test_weights_of_16_bits_are_refused_unless_they_are_frozen():
    model = model_of().bfloat16()
    with pytest.raises(ValueError, match="tuning needs weights in fp32"):
        sft.fit(model, DIALOGS, TOKENIZER, format=FORMAT, config=QUICK)
    sft.refuse_16_bits(model.requires_grad_(False))


def test_a_dialog_longer_than_a_row_is_refused_before_the_first_step():
    config = dataclasses.replace(QUICK, seq_len=8)
    with pytest.raises(ValueError, match="a row holds 9 tokens, and dialog 0 has"):
        sft.fit(model_of(), DIALOGS, TOKENIZER, format=FORMAT, config=config)


def test_dialogs_that_are_cut_are_counted():
    long = dataclasses.replace(DIALOGS[0], messages=DIALOGS[0].messages * 9)
    config = dataclasses.replace(QUICK, n_steps=2, n_warmup=1)
    with pytest.raises(ValueError, match="dialog 1 has"):
        sft.fit(model_of(), [DIALOGS[1], long], TOKENIZER, format=FORMAT, config=config)
    with pytest.warns(UserWarning, match="1 of 2 dialogs had more than 65 tokens and lost"):
        sft.fit(model_of(), [DIALOGS[1], long], TOKENIZER, format=FORMAT, config=config,
                is_cut=True)
