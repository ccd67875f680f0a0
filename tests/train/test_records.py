import pytest

from llama_from_scratch.train.records import TrainConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_step=3), r"no field 'n_step'; did you mean 'n_steps'\?"),
        (dict(n_steps=0), "n_steps must be at least 1; got 0"),
        (dict(micro_batch_size=0), "micro_batch_size must be at least 1; got 0"),
        (dict(peak_lr=-1.0), "peak_lr must be above 0"),
        (dict(beta2=1.5), "beta2 must lie between 0 and 1; got 1.5"),
        (dict(seq_len=1), "seq_len must be at least 2"),
        (dict(n_warmup=8, n_steps=8), "n_warmup=8, n_steps=8"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**change)
