"""Programs that torchrun starts: one node, two nodes on loopback, two networks; and bad starts."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import on_ranks
import pytest
import torch
import torch.distributed as dist

from llama_from_scratch.parallel import torchrun
from llama_from_scratch.parallel.torchrun import Place, compare, installed, meet, read_place

TESTS = Path(__file__).parents[1]
RIGHT = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node-a",
         "MASTER_PORT": "29500"}
PROGRAM = """\
import json, sys
import parity, torch
from llama_from_scratch.parallel import torchrun
from llama_from_scratch.parallel.shard import shard
sizes, stage, out = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with torchrun.from_environment(device="cpu", timeout_s=300) as world:
    total = world.all_reduce(torch.tensor([10 + world.rank])).item()
    found = parity.together(world, shard, parity.config(), sizes, stage=stage)
    worst = parity.largest_difference(found, parity.alone(parity.config()))
    with open(f"{out}/{world.rank}.json", "w") as file:
        json.dump([world.size, str(world.device), total, worst], file)
"""


def run(folder, commands, *, interfaces):
    """Runs the program on nodes, each a command that begins torchrun; returns what ranks wrote."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    started = []
    for command, interface in zip(commands, interfaces, strict=True):
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1",
                                    "GLOO_SOCKET_IFNAME": interface}
        started.append(subprocess.Popen(command, cwd=folder, env=environment, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    codes, said = on_ranks.ends_of(started)
    assert codes == [0] * len(started), said
    files = sorted(folder.glob("*.json"))
    return [json.loads(file.read_text()) for file in files]


def torchrun_with(folder, *options, sizes, stage):
    (folder / "program.py").write_text(PROGRAM)
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *options,
            "program.py", json.dumps(sizes), str(stage), "."]


def node(number, address, port):
    return ["--nnodes", "2", "--node-rank", str(number), "--master-addr", address,
            "--master-port", str(port)]


def a_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def assert_trained(found, size):
    total = sum(10 + rank for rank in range(size))
    assert [each[:3] for each in found] == [[size, "cpu", total]] * size
    assert max(each[3] for each in found) < 1e-12, "as one process computes it"


LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
needs_gloo_by_name = pytest.mark.skipif(
    sys.platform == "win32", reason="names of interfaces are other ones there")


@needs_gloo_by_name
def test_ranks_of_one_node_compute_what_one_process_does(tmp_path):
    command = torchrun_with(tmp_path, "--standalone", sizes={"dp": 2}, stage=2)
    assert_trained(run(tmp_path, [command], interfaces=[LOOPBACK]), 2)


@needs_gloo_by_name
@pytest.mark.slow
def test_two_nodes_on_loopback_train_across_them(tmp_path):
    port = a_free_port()
    commands = [torchrun_with(tmp_path, *node(number, "127.0.0.1", port),
                              sizes={"dp": 2, "tp": 2}, stage=3) for number in (0, 1)]
    assert_trained(run(tmp_path, commands, interfaces=[LOOPBACK] * 2), 4)


@pytest.fixture
def networks():
    """Two network namespaces that are joined by a cable: as two machines, they share no address."""
    if not shutil.which("ip"):
        pytest.skip("needs the command `ip`, which this machine does not have")
    names = [f"llama{os.getpid()}{side}" for side in "ab"]
    cables = [f"ll{os.getpid() % 100_000}{side}" for side in "ab"]
    steps = [["netns", "add", names[0]], ["netns", "add", names[1]],
             ["link", "add", cables[0], "netns", names[0], "type", "veth", "peer", "name",
              cables[1], "netns", names[1]]]
    for number in (0, 1):
        steps += [["-n", names[number], "addr", "add", f"10.77.0.{number + 1}/24", "dev",
                   cables[number]],
                  ["-n", names[number], "link", "set", cables[number], "up"],
                  ["-n", names[number], "link", "set", "lo", "up"]]
    try:
        for step in steps:
            made = subprocess.run(["ip", *step], capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"this machine does not allow network namespaces: {made.stderr}")
        yield names, cables
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.slow
def test_two_nodes_in_networks_of_their_own_train_across_them(tmp_path, networks):
    names, cables = networks
    commands = [["ip", "netns", "exec", name, *torchrun_with(
        tmp_path, *node(number, "10.77.0.1", 29511), sizes={"dp": 2, "tp": 2}, stage=3)]
        for number, name in enumerate(names)]
    assert_trained(run(tmp_path, commands, interfaces=cables), 4)


# --- bad starts -----------------------------------------------------------------------------------

def set_place(monkeypatch, **changes):
    for name, value in (RIGHT | changes).items():
        monkeypatch.setenv(name, value)


def test_the_place_is_read_from_the_variables():
    assert read_place(RIGHT) == Place(rank=1, size=4, local_rank=1, address="node-a", port=29500)


def test_a_program_knows_whether_torchrun_started_it(monkeypatch):
    assert not torchrun.is_started()
    set_place(monkeypatch)
    assert torchrun.is_started()


@pytest.mark.parametrize("missing", torchrun.VARIABLES)
def test_a_missing_variable_is_named_with_the_way_to_start(missing):
    with pytest.raises(ValueError) as caught:
        read_place({name: value for name, value in RIGHT.items() if name != missing})
    assert f"got none for {missing}. Start the program with: torchrun" in str(caught.value)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"RANK": "-1"}, "RANK is a whole number; got '-1'"), ({"MASTER_PORT": "x"}, "MASTER_PORT is"),
    ({"RANK": "4"}, "got RANK=4, LOCAL_RANK=1, WORLD_SIZE=4"),
    ({"LOCAL_RANK": "7"}, "below WORLD_SIZE; got RANK=1, LOCAL_RANK=7"),
    ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0")])
def test_a_place_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError) as caught:
        read_place(RIGHT | wrong)
    assert message in str(caught.value)


def test_a_gpu_that_is_not_there_is_refused_before_anything_else(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    set_place(monkeypatch)
    with (pytest.raises(ValueError, match="got LOCAL_RANK=1 on .*, which has 1. Set --nproc-per"),
          torchrun.from_environment(device="cuda")):
        pass


def test_a_port_that_an_earlier_run_holds_is_named_with_the_cure(monkeypatch):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = str(held.getsockname()[1])
        set_place(monkeypatch, RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                  MASTER_PORT=port)
        with pytest.raises(ValueError) as caught, torchrun.from_environment(device="cpu"):
            pass
    assert f"127.0.0.1:{port} is taken, perhaps by an earlier run" in str(caught.value)
    assert "set another MASTER_PORT" in str(caught.value)


def test_a_store_that_does_not_answer_is_named(monkeypatch):
    port = str(a_free_port())
    set_place(monkeypatch, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with (pytest.raises(ValueError) as caught,
          torchrun.from_environment(device="cpu", timeout_s=0.5)):
        pass
    assert f"127.0.0.1:{port} did not answer rank 1 within 0.5 s (" in str(caught.value)
    assert "no firewall" in str(caught.value)


@needs_gloo_by_name
def test_one_rank_is_a_world_and_may_be_one_again(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", LOOPBACK)
    for is_debug in (False, True):
        set_place(monkeypatch, RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                  MASTER_PORT=str(a_free_port()))
        with torchrun.from_environment(device="cpu", is_debug=is_debug) as world:
            assert (world.rank, world.size, str(world.device)) == (0, 1, "cpu")
            assert (world.agreement is not None) == is_debug
        assert not dist.is_initialized()


def compared(versions):
    """What each of several ranks raises, or None; each rank is a thread."""
    store, found = dist.HashStore(), [None] * len(versions)

    def one(rank):
        place = Place(rank=rank, size=len(versions), local_rank=0, address="a", port=1)
        try:
            compare(store, place, versions[rank])
        except ValueError as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(versions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def met(store, ranks, *, value):
    """What each rank reads of rank 0 after they have met; each rank is a thread."""
    found = {}

    def one(rank):
        place = Place(rank=rank, size=len(ranks), local_rank=0, address="a", port=1)
        mine = meet(store, place, timeout_s=20.0)
        if rank == 0:
            time.sleep(0.1)
            mine.set("address", value)
        found[rank] = mine.get("address").decode()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    return found


def test_ranks_that_are_started_again_never_read_what_earlier_ones_wrote():
    store = dist.HashStore()
    for value, ranks in (("first", [0, 1, 2]), ("second", [2, 1, 0]), ("third", [1, 0, 2])):
        assert met(store, ranks, value=value) == dict.fromkeys(ranks, value)


def test_a_rank_whose_start_nobody_leads_is_told():
    store = dist.HashStore()
    store.set("start", "old")
    with pytest.raises(ValueError, match="rank 1 waited so long for rank 0 at a:1. Start all"):
        meet(store, Place(rank=1, size=2, local_rank=0, address="a", port=1), timeout_s=0.1)


def test_equal_versions_are_accepted_and_these_are_compared():
    assert compared([installed()] * 4) == [None] * 4
    assert installed()["torch"] == torch.__version__
    assert installed().keys() == {"torch", "CUDA", "llama_from_scratch"}


def test_other_versions_are_named_with_their_nodes_on_every_rank(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node-a")
    old, new = {"torch": "2.12.0", "code": "1"}, {"torch": "2.13.0", "code": "1"}
    found = compared([old, old, new, old])
    assert len(set(found)) == 1
    assert found[0] == ("all nodes need the same versions; got torch 2.12.0 on node-a (ranks 0, 1, "
                        "3), torch 2.13.0 on node-a (rank 2). Install the same on each")


def test_a_change_of_our_own_code_is_another_version(tmp_path, monkeypatch):
    before = installed()["llama_from_scratch"]
    monkeypatch.setattr(torchrun.llama_from_scratch, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "a.py").write_text("x = 1")
    first = installed()["llama_from_scratch"]
    (tmp_path / "a.py").write_text("x = 2")
    assert len({before, first, installed()["llama_from_scratch"]}) == 3
