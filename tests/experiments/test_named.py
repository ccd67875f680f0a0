import pytest

from llama_from_scratch.experiments.named import EXPERIMENTS, named
from llama_from_scratch.experiments.settings import changed, settings


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_found_by_its_name_asks_something_and_takes_its_own_settings(name):
    experiment = named(name)
    assert experiment.name == name and "?" in experiment.about
    own = {key: value for key, value in settings(experiment).items() if value is not None}
    assert changed(experiment, own) == experiment


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no experiment is called 'smal'; did you mean 'small'"):
        named("smal")
