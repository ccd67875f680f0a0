"""Chooses among the shapes of a kernel by measuring them on this GPU.

A contest is one kernel at one size. Its candidates are rungs, or other shapes of the same rung, by
name. Each is compared with float64 first, and then the right ones are timed in turn. The one with
the smallest median wins, and the results file keeps all times.

Nothing reads the results file. What the library launches is in each kernel's own table and stays as
it is, on every machine, until somebody changes the table because of committed results. The report
therefore names every contest whose winner differs from the table.

Notebook 36.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.trial import compare, timing
from llama_from_scratch.kernels.trial.operation import Outputs
from llama_from_scratch.kernels.trial.parts import Finding, Say, TrialStep
from llama_from_scratch.kernels.trial.timing import Time
from llama_from_scratch.kernels.trial.tolerance import judge

MARGIN = 0.02   # a candidate that is faster by less is no better than the default
N_ROUNDS = 2    # of all candidates, because a GPU changes its clocks; the better one counts


@record
class Candidate:
    """A shape of a kernel: its name, and `way(*prepare(*inputs))`, which gives the outputs."""

    name: str
    way: Callable[..., Outputs]


@record
class Contest:
    """A kernel at one size. `default`: the name of the candidate that the kernel's table takes.

    `inputs(size, draw)`, `exact` and `plain` are as in an `Operation`. `prepare` is done once for
    all candidates, and is not timed. `checked`: the size at which the candidates are compared with
    float64, where `size` is too large for that. `fits_cache`: whether all inputs may be found in
    the cache, because arithmetic limits the kernel.
    """

    name: str
    size: tuple[int, ...]
    default: str
    candidates: tuple[Candidate, ...]
    inputs: Callable[..., Outputs]
    exact: Callable[..., Outputs]
    plain: Callable[..., Outputs]
    prepare: Callable[..., Outputs] = lambda *inputs: inputs
    is_gradient: bool = False
    fits_cache: bool = False
    checked: tuple[int, ...] | None = None
    dtype: torch.dtype = torch.bfloat16


@record
class Decision:
    """The winner of a contest, and the times of all candidates that are right.

    `complaints`: by name, why a candidate was not timed.
    """

    winner: str
    default: str
    times: dict[str, Time]
    complaints: dict[str, str]

    @property
    def gain(self) -> float:
        """How many times faster than the default the winner is."""
        return self.times[self.default].median / self.times[self.winner].median

    @property
    def is_default_best(self) -> bool:
        return self.gain < 1 + MARGIN


def decide(contest: Contest, *, device: torch.device, say: Say) -> Decision:
    """Returns the winner of a contest.

    Raises ValueError if the default is not among the candidates, is wrong, or does not run.
    """
    complaints = _complaints(contest, device)
    if why := complaints.get(contest.default, "it is not a candidate"):
        raise ValueError(f"the default of a contest must be a candidate that is right; "
                         f"{contest.default} of {contest.name} is not: {why}")
    sets, times = _inputs(contest, device), {}
    right = [each for each in contest.candidates if not complaints[each.name]]
    for _ in range(N_ROUNDS):
        for each in right:
            time = timing.time_graph(
                lambda each=each: [partial(each.way, *inputs) for inputs in sets])
            best = times.get(each.name, time)
            times[each.name] = min(time, best, key=lambda time: time.median)
    for name, time in times.items():
        say(f"  {contest.name}, {name}: {time.median:.1f} us")
    return Decision(winner=min(times, key=lambda name: times[name].median),
                    default=contest.default, times=times,
                    complaints={name: line for name, line in complaints.items() if line})


def _inputs(contest: Contest, device: torch.device) -> list[list[Tensor]]:
    """Returns sets of prepared inputs, enough of them that no cache holds them all."""
    generator = torch.Generator(device).manual_seed(3)
    draw = lambda *shape: torch.randn(shape, generator=generator, device=device)

    def drawn() -> list[Tensor]:
        made = contest.inputs(contest.size, draw)
        return list(contest.prepare(*(compare.rounded(x, contest.dtype) for x in made)))

    first = drawn()
    if contest.fits_cache:
        return [first]
    n_sets = max(1, math.ceil(4 * timing.L2_BYTES / sum(x.nbytes for x in first)))
    return [first, *(drawn() for _ in range(n_sets - 1))]


def _complaints(contest: Contest, device: torch.device) -> dict[str, str]:
    """Returns by name why a candidate cannot win: "" if it is right."""
    generator = torch.Generator(device).manual_seed(5)
    draw = lambda *shape: torch.randn(
        shape, generator=generator, dtype=torch.float64, device=device)
    inputs = [compare.rounded(x, contest.dtype)
              for x in contest.inputs(contest.checked or contest.size, draw)]
    exact = contest.exact(*map(compare.widened, inputs))
    plain = contest.plain(*inputs)
    prepared = contest.prepare(*inputs)

    def complaint(candidate: Candidate) -> str:
        try:
            results = candidate.way(*prepared)
        except (RuntimeError, ValueError) as error:   # a rung refuses sizes that it cannot take
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        verdicts = [judge(x, exact=e, eager=p, is_gradient=contest.is_gradient)
                    for x, e, p in zip(results, exact, plain, strict=True)]
        return next((str(verdict) for verdict in verdicts if not verdict.is_ok), "")

    return {each.name: complaint(each) for each in contest.candidates}


def steps(
    device: torch.device, *, contests: Callable[[torch.device], Sequence[Contest]]
) -> list[TrialStep]:
    """Returns the steps of the part `tuning`: one for each contest of `trial.contests`."""
    return [TrialStep(name=contest.name, run=partial(_step, contest, device))
            for contest in contests(device)]


def _step(contest: Contest, device: torch.device, say: Say) -> Finding:
    decision = decide(contest, device=device, say=say)
    if decision.is_default_best:
        say(f"{contest.name}: {decision.default}, as in the table")
    else:
        say(f"{contest.name}: {decision.winner} is {decision.gain:.2f} times as fast as "
            f"{decision.default}, which the table takes")
    return Finding(data={"decision": timing.as_data(decision) | {
        "gain": decision.gain, "is_default_best": decision.is_default_best}})
