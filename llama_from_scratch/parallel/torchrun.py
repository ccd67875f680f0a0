"""The world of a program that torchrun has started: on GPUs, and on several machines.

    def work(world): ...

    if __name__ == "__main__":
        with torchrun.from_environment(device="cuda") as world:
            work(world)

    torchrun --standalone --nproc-per-node 8 script.py

Each process is one rank and has one GPU. torchrun tells a process its place in variables of the
environment, and SLURM or ssh can do the same: `docs/many_machines.md` has the recipes. Ranks find
each other through a store of rank 0's machine. Before they connect, they compare through it what
they have installed, because different versions of PyTorch can hang or exchange nonsense.

Notebook 40.
"""

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

import llama_from_scratch
from llama_from_scratch.config import record
from llama_from_scratch.files import digest
from llama_from_scratch.parallel.agreement import Agreement, seconds
from llama_from_scratch.parallel.stacks import stack_on_signal
from llama_from_scratch.parallel.world import World, joined

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_POLL_S = 0.02
_START = "Start the program with: torchrun --standalone --nproc-per-node N script.py"


@record
class Place:
    """Where this process is. `local_rank`: its number on its machine. `address`: of the store."""

    rank: int
    size: int
    local_rank: int
    address: str
    port: int

    @property
    def store(self) -> str:
        return f"{self.address}:{self.port}"


def is_started() -> bool:
    """Returns whether torchrun, or something with the same variables, has started this process."""
    return all(name in os.environ for name in VARIABLES)


@contextlib.contextmanager
def from_environment(
    *, device: Literal["cpu", "cuda"], timeout_s: float = 1800.0, is_debug: bool = False
) -> Iterator[World]:
    """Yields the world of all processes that torchrun has started; leaves it at the end.

    `device`: "cuda" gives this rank the GPU of its local rank, with NCCL; "cpu" uses gloo.
    `timeout_s`: how long to wait for other ranks, at the start and in each collective. `is_debug`:
    ranks that disagree on the next collective raise `Disagreement`. Meanwhile, the signal SIGUSR1
    writes to the standard error where this rank is (kill -USR1 PID), which helps if it hangs.
    Raises ValueError if a variable is missing or wrong, if there is no such GPU, if other ranks
    cannot be reached, or if they have other versions.
    """
    place = read_place(os.environ)
    own = _device(device, place)
    store = meet(_store(place, timeout_s=timeout_s), place, timeout_s=timeout_s)
    compare(store, place, installed())
    agreement = Agreement(dist.PrefixStore("agreement", store),
                          timeout_s=timeout_s / 2) if is_debug else None
    with stack_on_signal(), joined(
            rank=place.rank, size=place.size, store=dist.PrefixStore("world", store), device=own,
            timeout_s=timeout_s, agreement=agreement) as world:
        yield world
        if agreement is not None:
            agreement.end(place.rank)


def read_place(environment: Mapping[str, str]) -> Place:
    """Returns the place that the variables give. Raises ValueError if they cannot be right."""
    if missing := [name for name in VARIABLES if name not in environment]:
        raise ValueError(f"every rank has the variables {', '.join(VARIABLES)}; got none for "
                         f"{', '.join(missing)}. {_START}")
    numbers = {}
    for name in VARIABLES:
        if name != "MASTER_ADDR":
            text = environment[name]
            if not (text.isascii() and text.isdecimal()):
                raise ValueError(f"{name} is a whole number; got {text!r}. {_START}")
            numbers[name] = int(text)
    rank, size, local_rank, port = numbers.values()
    if not rank < size or not local_rank < size:
        raise ValueError(f"RANK and LOCAL_RANK are below WORLD_SIZE; got RANK={rank}, "
                         f"LOCAL_RANK={local_rank}, WORLD_SIZE={size}. {_START}")
    return Place(rank=rank, size=size, local_rank=local_rank, address=environment["MASTER_ADDR"],
                 port=port)


def installed() -> dict[str, str]:
    """Returns what all ranks must have alike: PyTorch, its CUDA, and our own code."""
    root = Path(llama_from_scratch.__file__).parent
    code = digest(*[part for path in sorted(root.rglob("*.py"))
                    for part in (path.relative_to(root).as_posix(), path.read_bytes())])
    return {"torch": torch.__version__, "CUDA": str(torch.version.cuda),
            "llama_from_scratch": f"with code {code[:8]}"}


def meet(store: dist.Store, place: Place, *, timeout_s: float) -> dist.Store:
    """Returns a part of the store that only the ranks of this start use.

    torchrun keeps its store when it starts the ranks again after a failure, and there is still what
    the earlier ranks wrote, such as addresses of ranks that have ended. So rank 0 names this start
    by a random word. A rank answers with a word of its own, and goes on when rank 0 has repeated
    it.
    Raises ValueError if rank 0 does not do so in time.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + timeout_s
    if place.rank == 0:
        store.set("start", own)
        answers = [store.get(f"start/{own}/{rank}").decode() for rank in range(1, place.size)]
        store.set(f"start/{own}", " ".join(answers))
        return dist.PrefixStore(own, store)
    answered = ""
    while time.monotonic() < deadline:
        start = store.get("start").decode()
        if start != answered:  # otherwise it may be the word of an earlier start
            store.set(f"start/{start}/{place.rank}", own)
            answered = start
        if store.check([f"start/{start}"]) and own in store.get(f"start/{start}").decode().split():
            return dist.PrefixStore(start, store)
        time.sleep(_POLL_S)
    raise ValueError(f"all ranks of a start must come within {timeout_s:g} s; rank {place.rank} "
                     f"waited so long for rank 0 at {place.store}. Start all nodes again")


def compare(store: dist.Store, place: Place, own: Mapping[str, str]) -> None:
    """Returns when every rank has come. Raises ValueError on all if they have other versions.

    Rank 0 reads what each rank has written, and writes the verdict that all read.
    """
    mine = json.dumps({"node": socket.gethostname(), "versions": dict(own)})
    store.set(f"installed/{place.rank}", mine)
    if place.rank == 0:
        found = [json.loads(store.get(f"installed/{rank}")) for rank in range(place.size)]
        store.set("verdict", _difference(found))
    if verdict := store.get("verdict").decode():
        raise ValueError(verdict)


def _difference(found: list[dict]) -> str:
    """Returns a message that names each version with its nodes; empty if all are equal."""
    told = []
    for name in found[0]["versions"]:
        nodes: dict[str, dict[str, list[int]]] = {}
        for rank, about in enumerate(found):
            version = about["versions"].get(name, "none")
            nodes.setdefault(version, {}).setdefault(about["node"], []).append(rank)
        if len(nodes) > 1:
            told.append(", ".join(
                f"{name} {version} on " + " and ".join(
                    f"{node} ({_span(ranks)})" for node, ranks in where.items())
                for version, where in nodes.items()))
    if not told:
        return ""
    return f"all nodes need the same versions; got {'; '.join(told)}. Install the same on each"


def _span(ranks: list[int]) -> str:
    few = ", ".join(map(str, ranks[:8])) + ", ..." * (len(ranks) > 8)
    return f"rank {few}" if len(ranks) == 1 else f"ranks {few}"


def _device(device: str, place: Place) -> torch.device:
    if device == "cpu":
        return torch.device("cpu")
    n_gpus = torch.cuda.device_count()
    if place.local_rank >= n_gpus:
        raise ValueError(f"every rank has a GPU of its own; got LOCAL_RANK={place.local_rank} on "
                         f"{socket.gethostname()}, which has {n_gpus}. Set --nproc-per-node to at "
                         'most that number, or use device="cpu"')
    own = torch.device("cuda", place.local_rank)
    torch.cuda.set_device(own)
    return own


def _store(place: Place, *, timeout_s: float) -> dist.Store:
    """Returns the store in which the ranks find each other."""
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=seconds(timeout_s)))
    except (RuntimeError, ValueError) as error:  # DistNetworkError and DistStoreError are such
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise ValueError(
                f"rank 0 offers a store at a port that is free; {place.store} is taken, perhaps by "
                "an earlier run. End that run, or set another MASTER_PORT (--master-port) on every "
                "node") from error
        raise ValueError(
            f"every rank must reach the store of rank 0; {place.store} did not answer rank "
            f"{place.rank} within {timeout_s:g} s ({str(error).splitlines()[0]}). Check that every "
            "node was started with the same address and port, and that no firewall is between "
            "them") from error
    store.set_timeout(seconds(timeout_s))
    return store
