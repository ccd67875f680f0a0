import pytest

from llama_from_scratch.train.records import Evaluation, History, Step, TrainConfig

EVALUATION = Evaluation(loss=2.0, bits_per_byte=1.25, n_targets=10, n_bytes=30)


def step(number, **changes):
    return Step(**dict(step=number, loss=3.0 - number, lr=1e-3, grad_norm=1.0, n_tokens=64,
                       time_s=0.5) | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_step=3), r"no field 'n_step'; did you mean 'n_steps'\?"),
        (dict(n_steps=0), "n_steps must be at least 1; got 0"),
        (dict(micro_batch_size=0), "micro_batch_size must be at least 1; got 0"),
        (dict(peak_lr=-1.0), "peak_lr must be above 0"),
        (dict(beta2=1.5), "beta2 must be between 0 and 1; got 1.5"),
        (dict(seq_len=1), "seq_len must be at least 2"),
        (dict(n_warmup=8, n_steps=8), "n_warmup=8, n_steps=8"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**change)


@pytest.mark.parametrize("name", ["peak_lr", "adam_eps", "max_grad_norm", "final_lr_ratio"])
def test_a_setting_that_is_not_a_number_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must .*; got nan"):
        TrainConfig(**{name: float("nan")})


def test_a_history_lists_losses_tokens_and_validations():
    steps = (step(0), step(1, validation=EVALUATION), step(2, n_tokens=10))
    history = History(steps=steps, is_complete=False)
    assert history.losses == [3.0, 2.0, 1.0]
    assert history.n_tokens == [64, 128, 138]
    assert history.validations == [(1, EVALUATION)]


def test_a_steps_speed_is_its_tokens_by_its_time():
    assert step(0).tokens_per_s == 128.0
