import pytest
from tiny_runs import run


@pytest.fixture(scope="session")
def uninterrupted():
    """The history and the model of a run from its first step to its last."""
    return run()
