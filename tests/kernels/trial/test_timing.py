"""What is measured in addition to the kernels, as far as it needs no GPU."""

import subprocess
from types import SimpleNamespace

import pytest
import torch

from llama_from_scratch.kernels.trial import timing


def test_the_time_is_the_median_with_its_fifths():
    time = timing._time([10.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 11.0], is_graph=False)
    assert time.median == 6 and time.p20 == pytest.approx(2.4) and time.p80 == pytest.approx(9.6)
    assert not time.is_graph


def test_the_floors_are_a_copy_and_a_product_of_random_numbers(monkeypatch):
    calls = []

    def timed(prepare):
        (call,) = prepare()
        calls.append(call())
        return timing.Time(median=10.0, p20=9.0, p80=11.0)

    monkeypatch.setattr(timing, "time_graph", timed)
    monkeypatch.setattr(timing, "COPY_BYTES", 1000)
    monkeypatch.setattr(timing, "PRODUCT_SIZE", 16)
    floors = timing.floors(torch.device("cpu"))
    assert floors.copy_bytes_per_s == pytest.approx(2 * 1000 / 10e-6)
    assert floors.product_operations_per_s == pytest.approx(2 * 16**3 / 10e-6)
    assert floors.sheet is None
    copied, product = calls
    assert len(copied.unique()) > 100 and product.dtype == torch.bfloat16
    assert product.float().std() > 1, "a GPU multiplies zeros faster"


def test_the_clocks_are_read_while_the_device_works(monkeypatch):
    queued = []
    monkeypatch.setattr(timing, "PRODUCT_SIZE", 8)
    monkeypatch.setattr(torch, "mm", lambda a, b: queued.append(a.shape))
    monkeypatch.setattr(timing, "clocks", lambda: {"seen": str(len(queued))})
    floors = timing.Floors(copy_bytes_per_s=1.0, product_operations_per_s=2 * 8**3 * 10.0,
                           sheet=None)
    assert timing.clocks_under_load(torch.device("cpu"), floors) == {"seen": "15"}


def test_the_versions_name_the_kernels_by_their_content(monkeypatch, tmp_path):
    first = timing.versions()
    assert len(first["kernels"]) == 12 and first["torch"] == torch.__version__
    (tmp_path / "a.cu").write_text("another kernel")
    monkeypatch.setattr(timing, "FOLDER", tmp_path)
    assert timing.versions()["kernels"] != first["kernels"]


def test_the_clocks_are_read_by_name_and_missing_without_nvidia_smi(monkeypatch):
    monkeypatch.setattr(timing.shutil, "which", lambda name: None)
    assert timing.clocks() == {}
    monkeypatch.setattr(timing.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    asked = []

    def answers(text):
        def run(command, **how):
            asked.append(command)
            return SimpleNamespace(stdout=text)
        return run

    monkeypatch.setattr(timing.subprocess, "run", answers(
        "1980 MHz, 3201 MHz, 1980 MHz, 412.3 W, 51, 0x0000000000000000\n"))
    found = timing.clocks()
    assert found["clocks.sm"] == "1980 MHz" and found["power.draw"] == "412.3 W"
    assert asked[0][2] == f"--query-gpu={','.join(timing.CLOCKS)}"
    monkeypatch.setattr(timing.subprocess, "run", answers("Field is not a valid field to query\n"))
    assert timing.clocks() == {}
    # An older driver, which knows one field less.
    monkeypatch.setattr(timing.subprocess, "run", lambda command, **how: SimpleNamespace(
        stdout="no such field" if "reasons" in command[2] else "1, 2, 3, 4, 5"))
    assert timing.clocks() == dict(zip(timing.CLOCKS[:-1], "12345", strict=True))

    def hangs(command, timeout, **how):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(timing.subprocess, "run", hangs)
    assert timing.clocks() == {}
