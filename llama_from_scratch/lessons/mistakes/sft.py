"""Mistakes that readers make in chapter 50."""

import math
import re

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: the mask ----------------------------------------------------------------------------------


def _mask(
    ids: list[int], start: int, end: int, eot: int, assistant: int, *, has_end: bool = True,
    has_header: bool = False, has_blank_line: bool = False, is_everyone: bool = False,
) -> list[bool]:
    is_learned = [False] * len(ids)
    is_assistant = is_content = False
    for i, token in enumerate(ids):
        if token == start:
            is_assistant, is_content = is_everyone or ids[i + 1] == assistant, False
        is_in_header = i and not is_content and is_assistant
        if is_content and is_assistant and (token != eot or has_end):
            is_learned[i] = True
        if is_in_header and (has_header or (has_blank_line and ids[i - 1] == end)):
            is_learned[i] = True
        if i and ids[i - 1] == end:
            is_content = True
        elif token == eot:
            is_content = False
    return is_learned


@listed("50.1", of="mask_of")
def without_the_end(ids: list[int], start: int, end: int, eot: int, assistant: int) -> list[bool]:
    """eot is not learned: then no example shows how an answer ends"""
    return _mask(ids, start, end, eot, assistant, has_end=False)


@listed("50.1", of="mask_of")
def with_the_header(ids: list[int], start: int, end: int, eot: int, assistant: int) -> list[bool]:
    """the assistant's header is learned: your program writes it"""
    return _mask(ids, start, end, eot, assistant, has_header=True)


@listed("50.1", of="mask_of")
def with_the_blank_line(
    ids: list[int], start: int, end: int, eot: int, assistant: int
) -> list[bool]:
    """the blank line after the header is learned: your program writes it"""
    return _mask(ids, start, end, eot, assistant, has_blank_line=True)


@listed("50.1", of="mask_of")
def everyone(ids: list[int], start: int, end: int, eot: int, assistant: int) -> list[bool]:
    """the user's turns are learned too: the model only reads them"""
    return _mask(ids, start, end, eot, assistant, is_everyone=True)


@listed("50.1", of="mask_of")
def one_early(ids: list[int], start: int, end: int, eot: int, assistant: int) -> list[bool]:
    """the mask is one place early: it says of each id whether it is itself learned"""
    return [*_mask(ids, start, end, eot, assistant)[1:], False]


# --- 2: a packed row ------------------------------------------------------------------------------


def _documents(lengths: list[int], seq_len: int) -> list[int]:
    found = [n for n, length in enumerate(lengths) for _ in range(length)]
    return found + [found[-1]] * (seq_len - len(found))


def _positions(lengths: list[int], seq_len: int) -> list[int]:
    found = [i for length in lengths for i in range(length)]
    return found + list(range(found[-1] + 1, found[-1] + 1 + seq_len - len(found)))


@listed("50.2", of="packed_row")
def positions_go_on(lengths: list[int], seq_len: int) -> tuple[list[int], list[int]]:
    """positions count through the row: they begin again in each dialog"""
    return list(range(seq_len)), _documents(lengths, seq_len)


@listed("50.2", of="packed_row")
def one_document(lengths: list[int], seq_len: int) -> tuple[list[int], list[int]]:
    """all places have the same number: then the dialogs see each other"""
    return _positions(lengths, seq_len), [0] * seq_len


@listed("50.2", of="packed_row")
def without_padding(lengths: list[int], seq_len: int) -> tuple[list[int], list[int]]:
    """the row ends with its last dialog: fill it up to seq_len places"""
    n = sum(lengths)
    return _positions(lengths, n), _documents(lengths, n)


@listed("50.2", of="packed_row")
def padding_of_its_own(lengths: list[int], seq_len: int) -> tuple[list[int], list[int]]:
    """padding is a dialog of its own: here it continues the last one"""
    n = sum(lengths)
    return (_positions(lengths, n) + list(range(seq_len - n)),
            _documents(lengths, n) + [len(lengths)] * (seq_len - n))


# --- 3: said twice --------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


@listed("50.3", of="is_twice")
def letters_halved(text: str) -> bool:
    """the halves of the letters are compared: compare words, without what is between them"""
    half = len(text) // 2
    return bool(text) and text[:half].strip().lower() == text[half:].strip().lower()


@listed("50.3", of="is_twice")
def nothing_counts(text: str) -> bool:
    """an empty text passes: nothing is said in it, and not twice"""
    found = _words(text)
    return found[: len(found) // 2] * 2 == found


@listed("50.3", of="is_twice")
def case_matters(text: str) -> bool:
    """capital letters matter: the task says that they do not"""
    found = re.findall(r"[A-Za-z]+", text)
    return bool(found) and found[: len(found) // 2] * 2 == found


@listed("50.3", of="is_twice")
def each_word_twice(text: str) -> bool:
    """every word occurs an even number of times: also the order has to be the same"""
    found = _words(text)
    return bool(found) and all(found.count(word) % 2 == 0 for word in found)


# --- 4: pass@k ------------------------------------------------------------------------------------


@listed("50.4", of="pass_at")
def with_putting_back(n: int, c: int, k: int) -> float:
    """each draw has the same chance: the drawn answers are not put back"""
    return 1 - (1 - c / n) ** k


@listed("50.4", of="pass_at")
def all_right(n: int, c: int, k: int) -> float:
    """this is how likely all k are right: one right answer is enough"""
    return math.comb(c, k) / math.comb(n, k)


@listed("50.4", of="pass_at")
def only_wrong(n: int, c: int, k: int) -> float:
    """this is how likely all k are wrong: the task asks for the opposite"""
    return math.comb(n - c, k) / math.comb(n, k)


@listed("50.4", of="pass_at")
def k_times_the_share(n: int, c: int, k: int) -> float:
    """k times the share of right answers: that counts draws with two right answers twice"""
    return min(k * c / n, 1.0)


# --- 5: the number of cases -----------------------------------------------------------------------


@listed("50.5", of="cases_needed")
def rounded_down(p: float, error: float) -> int:
    """the number is rounded down: then the error is a little too large"""
    return math.floor(p * (1 - p) / error**2 + 1e-9)


@listed("50.5", of="cases_needed")
def without_the_square(p: float, error: float) -> int:
    """the error is not squared: four times the cases halve it"""
    return math.ceil(p * (1 - p) / error - 1e-9)


@listed("50.5", of="cases_needed")
def worst_case(p: float, error: float) -> int:
    """p is taken as a half: the spread is smaller near 0 and 1"""
    return math.ceil(0.25 / error**2 - 1e-9)


@listed("50.5", of="cases_needed")
def half_of_p(p: float, error: float) -> int:
    """1 - p is forgotten: the spread is p (1 - p)"""
    return math.ceil(p / error**2 - 1e-9)
