import matplotlib.pyplot as plt
import pytest
import torch

from llama_from_scratch.lessons import begin


@pytest.fixture
def restored():
    n_threads = torch.get_num_threads()
    with plt.rc_context():
        yield
    torch.set_num_threads(n_threads)
    torch.set_printoptions(profile="default")


def test_the_look_is_set_and_small_models_run_on_one_core(restored):
    torch.set_num_threads(2)
    plt.rcParams["axes.titlesize"] = 30
    begin()
    assert torch.get_num_threads() == 1
    assert plt.rcParams["axes.titlesize"] == 13
    assert repr(torch.tensor([1e-5, 1.0])) == "tensor([0.000, 1.000])"
