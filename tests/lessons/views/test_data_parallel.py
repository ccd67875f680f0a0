import matplotlib.pyplot as plt
import pytest
from pictures import faults, styled

from llama_from_scratch import family
from llama_from_scratch.lessons.views import data_parallel as views
from llama_from_scratch.parallel import costs
from llama_from_scratch.parallel.comm_log import Call, CommLog, Span
from llama_from_scratch.parallel.mesh import Mesh

TINY = family.tiny("llama-3")
MODELS = {"tiny": TINY, "1B": family.config("llama-3.2-1b")}


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


def real_log():
    log = CommLog()
    log.spans.append(Span(name="backward", began_s=5.0, ended_s=5.010))
    log.calls.append(Call(op="all_reduce", group="world", size=4, n_bytes=4 * TINY.n_params,
                          note="", began_s=5.004, waited_s=5.010, ended_s=5.012))
    return log


RUNS = {(4, 100_000): real_log()}


def frame(**choice):
    return views.data_parallel_frame(MODELS, runs=RUNS, measured="tiny",
                                     **{"model": "tiny", "n_ranks": 4,
                                        "bucket_bytes": 100_000} | choice)


@pytest.mark.parametrize("n_ranks", (2, 64, 16_384))
@pytest.mark.parametrize("bucket_bytes", (0, 100_000, 10**15))
def test_the_calculated_log_sends_what_the_formula_says_in_order(n_ranks, bucket_bytes):
    log = views.calculated(TINY, n_ranks=n_ranks, bucket_bytes=bucket_bytes)
    plan = costs.Plan(config=TINY, mesh=Mesh(dp=n_ranks))
    assert log.sent_bytes() == sum(costs.sent_bytes(plan).values())
    ends = [0.0, *(call.ended_s for call in log.calls)]
    assert all(call.began_s >= end for call, end in zip(log.calls, ends, strict=False))
    assert all(call.began_s >= span.ended_s
               for call, span in zip(log.calls, log.spans, strict=True))
    assert log.calls[-1].exposed_s > 0, "the last bucket is never hidden"


def test_buckets_hide_what_one_message_does_not():
    def exposed(bucket_bytes):
        log = views.calculated(MODELS["1B"], n_ranks=8, bucket_bytes=bucket_bytes)
        return sum(call.exposed_s for call in log.calls)

    assert exposed(25 * 2**20) < 0.7 * exposed(10**15)


@pytest.mark.parametrize("choice", [{}, {"n_ranks": 2}, {"model": "1B", "n_ranks": 16_384},
                                    {"bucket_bytes": 0}, {"bucket_bytes": 10**15}])
def test_the_picture_shows_a_real_run_where_there_is_one(choice):
    figure = frame(**choice)
    assert faults(figure) == []
    has_run = "The real run: 1 all-reduces" in figure.get_label()
    assert has_run == (choice == {})
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert any("Measured" in title for title in titles) == has_run
    memory = costs.memory_bytes(costs.Plan(config=MODELS[choice.get("model", "tiny")],
                                           mesh=Mesh(dp=2)))
    widths = [bar.get_width() for bar in figure.axes[-1].patches]
    assert [w / sum(widths) for w in widths] == pytest.approx(
        [n / sum(memory.values()) for n in memory.values() if n])


def test_a_control_changes_the_picture_and_the_words():
    view = views.data_parallel_costs(MODELS, runs=RUNS, measured="tiny")
    before = view.picture.value
    assert "tiny on 4 ranks" in view.words.value and "The real run" in view.words.value
    view.controls["n_ranks"].value = 64
    assert view.picture.value != before and "tiny on 64 ranks" in view.words.value
    assert "2 ranks" in views.data_parallel_costs(
        MODELS, runs=RUNS, measured="tiny", start={"n_ranks": 2}).words.value
