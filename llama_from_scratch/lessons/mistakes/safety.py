"""Mistakes that readers make in chapter 57."""

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()
Rates = tuple[float, float]


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


# --- 1: the two rates -----------------------------------------------------------------------------


@listed("57.1", of="rates")
def over_all_requests(kinds: list[str], refused: list[bool]) -> Rates:
    """each rate is divided by the number of all requests: it counts its own kind only"""
    told = list(zip(kinds, refused, strict=True))
    return (sum(kind == "harmful" and not r for kind, r in told) / len(told),
            sum(kind == "borderline" and r for kind, r in told) / len(told))


@listed("57.1", of="rates")
def borderline_as_harmful(kinds: list[str], refused: list[bool]) -> Rates:
    """borderline requests count as harmful: they are harmless and only sound so"""
    told = list(zip(kinds, refused, strict=True))
    return (_share([not r for kind, r in told if kind != "everyday"]),
            _share([r for kind, r in told if kind == "borderline"]))


@listed("57.1", of="rates")
def everyday_among_borderline(kinds: list[str], refused: list[bool]) -> Rates:
    """everyday requests count among the borderline ones: these are reported apart"""
    told = list(zip(kinds, refused, strict=True))
    return (_share([not r for kind, r in told if kind == "harmful"]),
            _share([r for kind, r in told if kind != "harmful"]))


@listed("57.1", of="rates")
def refusals_as_violations(kinds: list[str], refused: list[bool]) -> Rates:
    """refused harmful requests count as violations: those that are answered do"""
    told = list(zip(kinds, refused, strict=True))
    return (_share([r for kind, r in told if kind == "harmful"]),
            _share([r for kind, r in told if kind == "borderline"]))


# --- 2: a threshold -------------------------------------------------------------------------------


@listed("57.2", of="at_threshold")
def turned_around(harmful: list[float], harmless: list[float], threshold: float) -> Rates:
    """requests below the threshold are refused: those above it are"""
    return _share([m > threshold for m in harmful]), _share([m <= threshold for m in harmless])


@listed("57.2", of="at_threshold")
def with_a_minus(harmful: list[float], harmless: list[float], threshold: float) -> Rates:
    """the threshold has the wrong sign"""
    return _share([m <= -threshold for m in harmful]), _share([m > -threshold for m in harmless])


@listed("57.2", of="at_threshold")
def at_the_threshold_too(harmful: list[float], harmless: list[float], threshold: float) -> Rates:
    """a margin equal to the threshold is refused: only margins above it are"""
    return _share([m < threshold for m in harmful]), _share([m >= threshold for m in harmless])


@listed("57.2", of="at_threshold")
def the_other_order(harmful: list[float], harmless: list[float], threshold: float) -> Rates:
    """the two rates are swapped: first the violations"""
    return _share([m > threshold for m in harmless]), _share([m <= threshold for m in harmful])


# --- 3: the area ----------------------------------------------------------------------------------


@listed("57.3", of="area_under")
def without_ties(harmful: list[float], harmless: list[float]) -> float:
    """a tie counts nothing: it counts a half"""
    return _share([a > b for a in harmful for b in harmless])


@listed("57.3", of="area_under")
def ties_as_wins(harmful: list[float], harmless: list[float]) -> float:
    """a tie counts as one in the right order: it counts a half"""
    return _share([a >= b for a in harmful for b in harmless])


@listed("57.3", of="area_under")
def the_wrong_way(harmful: list[float], harmless: list[float]) -> float:
    """the harmless margins should be the smaller ones, not the larger"""
    return sum((a < b) + 0.5 * (a == b) for a in harmful for b in harmless) / (
        len(harmful) * len(harmless))


# --- 4: a chain -----------------------------------------------------------------------------------


@listed("57.4", of="seen_by_user")
def only_if_both(
    answers: list[str], front: list[bool], behind: list[bool], refusal: str
) -> list[str]:
    """an answer is replaced only if both guards flag it: one of them is enough"""
    return [refusal if a and b else answer
            for answer, a, b in zip(answers, front, behind, strict=True)]


@listed("57.4", of="seen_by_user")
def only_in_front(
    answers: list[str], front: list[bool], behind: list[bool], refusal: str
) -> list[str]:
    """the guard behind the assistant is not asked"""
    return [refusal if a else answer for answer, a in zip(answers, front, strict=True)]


@listed("57.4", of="seen_by_user")
def left_out(
    answers: list[str], front: list[bool], behind: list[bool], refusal: str
) -> list[str]:
    """flagged answers are left out: each request still needs an answer, the refusal"""
    return [answer for answer, a, b in zip(answers, front, behind, strict=True)
            if not (a or b)]
