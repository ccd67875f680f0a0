import random

import numpy as np
import pytest
from tiny_experiments import tiny

from llama_from_scratch.experiments.curves import AXES, METRICS, Curves
from llama_from_scratch.train.records import Evaluation, Step


def step(number, *, is_validated=False):
    evaluation = Evaluation(loss=2.0, bits_per_byte=1.25, n_targets=10, n_bytes=30)
    return Step(step=number, loss=3.0 - number, lr=1e-3, grad_norm=1.0, n_tokens=32, time_s=0.5,
                validation=evaluation if is_validated else None)


@pytest.fixture
def curves(tmp_path):
    return Curves.of([step(0), step(1, is_validated=True), step(2)], config=tiny(tmp_path).model,
                     seq_len=16)


def test_the_curves_of_steps_count_tokens_seconds_and_flops(curves, tmp_path):
    assert curves.steps.tolist() == [1, 2, 3] and curves.tokens.tolist() == [32, 64, 96]
    assert curves.seconds.tolist() == [0.5, 1.0, 1.5]
    flops = 3 * 32 * tiny(tmp_path).model.flops_per_token(8)
    assert curves.flops.tolist() == [flops, 2 * flops, 3 * flops]
    assert curves.validation_steps.tolist() == [2] and curves.bits_per_byte.tolist() == [1.25]


def test_each_metric_lies_along_each_axis(curves):
    for axis in AXES:
        for metric in METRICS:
            places, values = curves.along(metric, axis=axis)
            assert len(places) == len(values) == (1 if metric in (
                "validation_loss", "bits_per_byte") else 3)
    assert curves.along("validation_loss", axis="tokens")[0].tolist() == [64]


def test_unknown_metrics_and_axes_are_refused_with_the_nearest(curves):
    with pytest.raises(ValueError, match="did you mean 'loss'"):
        curves.along("los")
    with pytest.raises(ValueError, match="did you mean 'tokens'"):
        curves.along("loss", axis="token")


def test_what_is_written_comes_back_and_numpy_reads_it(curves, tmp_path):
    curves.write(tmp_path / "curves.npz")
    again = Curves.read(tmp_path / "curves.npz")
    for name in Curves.__dataclass_fields__:
        np.testing.assert_allclose(getattr(again, name), getattr(curves, name), rtol=1e-6)
    assert np.load(tmp_path / "curves.npz")["loss"].tolist() == [3.0, 2.0, 1.0]


def test_a_run_without_steps_has_empty_curves(tmp_path):
    none = Curves.of([], config=tiny(tmp_path).model, seq_len=16)
    none.write(tmp_path / "curves.npz")
    assert len(Curves.read(tmp_path / "curves.npz").steps) == 0


def arrays(**changes):
    plain = {name: np.array([1.0, 2.0], np.float32) for name in Curves.__dataclass_fields__}
    plain |= {name: np.array([1, 2]) for name in ("steps", "tokens", "validation_steps")}
    return plain | changes


@pytest.mark.parametrize(("changes", "message"), [
    ({"loss": np.array([1.0])}, "must hold 2 numbers per step; loss has the shape"),
    ({"loss": np.array(1.0)}, "must hold 2 numbers per step; loss has the shape"),
    ({"steps": np.array(1)}, "numbers per step"),
    ({"loss": np.array(["a", "b"])}, "loss has the type"),
    ({"steps": np.array([1.0, 2.0])}, "steps has the type"),
    ({"loss": np.array([None, None])}, "cannot be read"),
    ({"validation_steps": np.array([1, 7])}, "validations of its own steps"),
])
def test_arrays_of_another_kind_are_refused(tmp_path, changes, message):
    file = tmp_path / "curves.npz"
    np.savez(file, **arrays())
    assert Curves.read(file).steps.tolist() == [1, 2]
    np.savez(file, **arrays(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        Curves.read(file)
    assert "run the experiment again" in str(caught.value)


def test_a_missing_array_and_a_missing_file_are_refused(tmp_path):
    file = tmp_path / "curves.npz"
    with pytest.raises(ValueError, match="does not exist"):
        Curves.read(file)
    np.savez(file, **{name: x for name, x in arrays().items() if name != "lr"})
    with pytest.raises(ValueError, match="cannot be read.*lr"):
        Curves.read(file)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ValueError, match="cannot be read"):
        Curves.read(tmp_path / "one.npy")


def test_damage_of_any_kind_is_a_value_error(curves, tmp_path):
    file, draw = tmp_path / "curves.npz", random.Random(0)
    curves.write(file)
    whole, n_refused = file.read_bytes(), 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        file.write_bytes(bytes(data[: draw.choice([len(data), draw.randrange(len(data))])]))
        try:
            Curves.read(file)
        except ValueError as error:
            n_refused += 1
            assert str(file) in str(error)
    assert n_refused > 200
