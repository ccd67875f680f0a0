import pytest
from loud_models import loud_model


@pytest.fixture(scope="module")
def model():
    return loud_model()
