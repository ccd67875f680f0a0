import io

from llama_from_scratch.experiments.overview import Tracker
from llama_from_scratch.train.progress import Shown, TerminalLine, TrainingMoment, line
from llama_from_scratch.train.records import Step

CLOCK = "llama_from_scratch.experiments.overview.time.monotonic"


def moment(n_done, *, what="a, seed 0", sample=""):
    step = Step(step=n_done - 1, loss=2.5, lr=1e-3, grad_norm=1.0, n_tokens=2048, time_s=1.0)
    return TrainingMoment(what=what, n_steps=10, step=step, left_s=0.0, sample=sample)


def test_runs_in_progress_are_shown_with_their_losses_and_the_time_that_all_will_take(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(CLOCK, lambda: now[0])
    tracker = Tracker(what="small", n_steps=[10, 10, 10], n_ended=1)
    assert line(tracker.now()).endswith("] 1/4 runs, starting")
    tracker.moved(0, moment(1))  # began a second ago
    now[0] = 103.0
    overview = tracker.moved(2, moment(4, what="b, seed 0", sample="Tim ran."))
    # Two steps in four seconds: of the third run only the last of four was seen.
    assert overview.words == ("1/4 runs, 50 s left: a, seed 0, 1/10, loss 2.500 | "
                              "b, seed 0, 4/10, loss 2.500")
    assert (overview.n_done, overview.n_steps, overview.is_kept) == (5, 30, False)
    assert overview.sample == "Tim ran."
    assert isinstance(overview, Shown) and isinstance(moment(1), Shown)


def test_a_run_that_ends_early_does_not_make_the_others_look_faster(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(CLOCK, lambda: now[0])
    tracker = Tracker(what="small", n_steps=[10, 10], n_ended=0)
    tracker.moved(0, moment(1))
    overview = tracker.ended(0, "a, seed 0: diverged: at step 1")
    assert overview.left_s == 10.0, "one step took a second, and ten are left"
    assert overview.is_kept and overview.n_ended == 1 and overview.running == ()


def test_a_sweep_without_anything_to_do_has_ended():
    overview = Tracker(what="small", n_steps=[], n_ended=3).now("remembered")
    assert line(overview) == f"small [{'#' * 24}] 3/3 runs, all ended: remembered"


def test_a_log_gets_a_line_for_each_run_that_ends_with_its_sample():
    stream, tracker = io.StringIO(), Tracker(what="small", n_steps=[10, 10], n_ended=0)
    show = TerminalLine(stream)
    show(tracker.now())
    show(tracker.moved(0, moment(9, sample="Tim ran.")))
    show(tracker.ended(0, "a, seed 0: validation loss 2.000"))
    first, sample = stream.getvalue().splitlines()
    assert first.startswith("small [######") and "1/2 runs" in first
    assert first.endswith("a, seed 0: validation loss 2.000") and sample == "  'Tim ran.'"
