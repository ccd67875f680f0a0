"""Mistakes that readers make in chapter 41."""

from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: the loss of the batch ---------------------------------------------------------------------


@listed("41.1", of="loss_of_batch")
def mean_of_means(sums: list[float], counts: list[int]) -> float:
    """the mean of the ranks' means is taken: a rank with few targets then counts as much as one
    with many"""
    means = [total / count if count else 0.0 for total, count in zip(sums, counts, strict=True)]
    return sum(means) / len(means)


@listed("41.1", of="loss_of_batch")
def sum_of_means(sums: list[float], counts: list[int]) -> float:
    """the ranks' means are added up: add up the sums and the counts instead"""
    return sum(total / count if count else 0.0 for total, count in zip(sums, counts, strict=True))


@listed("41.1", of="loss_of_batch")
def by_ranks(sums: list[float], counts: list[int]) -> float:
    """the sum is divided by the number of ranks: the loss is per target"""
    return sum(sums) / len(sums)


@listed("41.1", of="loss_of_batch")
def by_first(sums: list[float], counts: list[int]) -> float:
    """the sum over all ranks is divided by the targets of the first rank alone"""
    return sum(sums) / max(counts[0], 1)


# --- 2: buckets -----------------------------------------------------------------------------------


def _filled(names: list[str], sizes: dict[str, int], limit: int) -> list[list[str]]:
    found, filling = [], []
    for name in names:
        filling.append(name)
        if sum(sizes[each] for each in filling) >= limit:
            found.append(filling)
            filling = []
    return [*found, filling] if filling else found


@listed("41.2", of="buckets_of")
def from_the_first(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """the buckets begin with the first parameter: backward completes the last one first"""
    return _filled(list(sizes), sizes, limit)


@listed("41.2", of="buckets_of")
def without_rest(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """the last bucket is left out when it does not become full: its gradients would never be
    sent"""
    found = _filled(list(reversed(sizes)), sizes, limit)
    return found if sum(sizes[name] for name in found[-1]) >= limit else found[:-1]


@listed("41.2", of="buckets_of")
def never_above(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """a bucket is closed before it would exceed the limit: it is full when it has at least that
    much"""
    found: list[list[str]] = [[]]
    for name in reversed(sizes):
        if found[-1] and sum(sizes[each] for each in [*found[-1], name]) > limit:
            found.append([])
        found[-1].append(name)
    return found


@listed("41.2", of="buckets_of")
def only_above(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """a bucket with exactly the limit is not closed: at least means that it is full"""
    return _filled(list(reversed(sizes)), sizes, limit + 1)


@listed("41.2", of="buckets_of")
def only_buckets_reversed(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """the buckets are filled from the first parameter and reversed afterward: fill them from the
    last parameter"""
    return [bucket[::-1] for bucket in reversed(_filled(list(sizes), sizes, limit))]


# --- 3: what may start ----------------------------------------------------------------------------


@listed("41.3", of="may_start")
def every_full_one(buckets: list[set[str]], arrived: set[str], n_started: int) -> list[int]:
    """a full bucket starts although one before it has not started: then the order differs from
    rank to rank"""
    return [i for i in range(n_started, len(buckets)) if buckets[i] <= arrived]


@listed("41.3", of="may_start")
def only_the_next(buckets: list[set[str]], arrived: set[str], n_started: int) -> list[int]:
    """only one bucket starts: others after it may be full already, and wait for no gradient"""
    return [n_started] if n_started < len(buckets) and buckets[n_started] <= arrived else []


@listed("41.3", of="may_start")
def started_again(buckets: list[set[str]], arrived: set[str], n_started: int) -> list[int]:
    """buckets that have started are listed again"""
    found = []
    for i, bucket in enumerate(buckets):
        if not bucket <= arrived:
            break
        found.append(i)
    return found


@listed("41.3", of="may_start")
def partly_full(buckets: list[set[str]], arrived: set[str], n_started: int) -> list[int]:
    """a bucket starts with its first gradient: the others in it are not there yet"""
    found = []
    for i in range(n_started, len(buckets)):
        if not buckets[i] & arrived:
            break
        found.append(i)
    return found


# --- 4: bytes -------------------------------------------------------------------------------------


@listed("41.4", of="sent_in_a_step")
def each_micro_batch(n_params: int, n_ranks: int, n_micro_batches: int) -> float:
    """every micro-batch sends its gradients: only the sum over all of them must be sent"""
    return n_micro_batches * 2 * (n_ranks - 1) / n_ranks * 4 * n_params


@listed("41.4", of="sent_in_a_step")
def one_half(n_params: int, n_ranks: int, n_micro_batches: int) -> float:
    """the all-gather is forgotten: an all-reduce is a reduce-scatter and an all-gather"""
    return (n_ranks - 1) / n_ranks * 4 * n_params


@listed("41.4", of="sent_in_a_step")
def twice_whole(n_params: int, n_ranks: int, n_micro_batches: int) -> float:
    """the factor (n - 1) / n is missing: a rank does not send itself anything"""
    return 2.0 * 4 * n_params


@listed("41.4", of="sent_in_a_step")
def numbers(n_params: int, n_ranks: int, n_micro_batches: int) -> float:
    """numbers are counted instead of bytes: each has four"""
    return 2 * (n_ranks - 1) / n_ranks * n_params


@listed("41.4", of="sent_in_a_step")
def of_all_ranks(n_params: int, n_ranks: int, n_micro_batches: int) -> float:
    """the bytes of all ranks are added up: one rank's are asked for"""
    return 2.0 * (n_ranks - 1) * 4 * n_params


# --- 5: clipping ----------------------------------------------------------------------------------


def _clip(gradient: Tensor, max_norm: float) -> Tensor:
    return gradient * min(1.0, max_norm / gradient.norm().item())


@listed("41.5", of="clipped_together")
def each_alone(gradients: list[Tensor], max_norm: float) -> Tensor:
    """each rank's gradient is clipped before the sum: that changes the direction of the sum"""
    return sum(_clip(gradient, max_norm) for gradient in gradients)


@listed("41.5", of="clipped_together")
def averaged(gradients: list[Tensor], max_norm: float) -> Tensor:
    """the gradients are averaged: each is already a part of one sum over all targets"""
    return _clip(sum(gradients) / len(gradients), max_norm)


@listed("41.5", of="clipped_together")
def by_sum_of_lengths(gradients: list[Tensor], max_norm: float) -> Tensor:
    """the lengths of the ranks' gradients are added up: vectors that point apart have a shorter
    sum"""
    length = sum(gradient.norm().item() for gradient in gradients)
    return sum(gradients) * min(1.0, max_norm / length)


@listed("41.5", of="clipped_together")
def always_scaled(gradients: list[Tensor], max_norm: float) -> Tensor:
    """a short gradient is made longer: clipping only shortens"""
    total = sum(gradients)
    return total * (max_norm / total.norm())
