import matplotlib
import pytest

matplotlib.use("Agg")  # no window, whatever the machine


@pytest.fixture(autouse=True)
def no_figure_left_by_another_test():
    import matplotlib.pyplot as plt

    plt.close("all")
