"""What `start.py gpu` says without a GPU, and what only a real one can show: the sweep there,
graphs, streams, a fault.

`python3 start.py gpu --out results` runs the sweep and the timings on a machine that has a GPU, and
`python3 start.py test -m gpu` the tests that need one.
"""

import copy
import json
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.kernels.adamw import FusedAdamW
from llama_from_scratch.kernels.fuse import fuse
from llama_from_scratch.kernels.rms_norm import rms_norm
from llama_from_scratch.kernels.trial import compare, conformance, gpu, results, timing
from llama_from_scratch.kernels.trial.parts import Finding, TrialPart, TrialStep, carry_out
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.train.optimizer import decay_groups

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
NEEDS_GPU = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs an NVIDIA GPU; on a machine with one: python3 start.py gpu --out results")


def on_a_gpu(test):
    return pytest.mark.gpu(NEEDS_GPU(test))


@on_a_gpu
def test_every_kernel_is_right_at_every_size():
    wrong = [str(comparison) for comparison in compare.sweep(torch.device("cuda"), is_large=True)
             if not comparison.verdict.is_ok]
    assert not wrong, "\n".join(wrong)


@on_a_gpu
@pytest.mark.parametrize("operation", compare.OPERATIONS, ids=lambda operation: operation.name)
def test_the_gpu_and_the_emulator_agree(operation):
    for size in operation.sizes:
        for comparison in compare.compare_with_emulator(
            operation, size, dtype=torch.bfloat16, device=torch.device("cuda")):
            assert comparison.verdict.is_ok, str(comparison)


@on_a_gpu
@pytest.mark.parametrize("instruction", conformance.INSTRUCTIONS, ids=lambda each: each.name)
def test_instructions_do_what_the_documentation_says(instruction):
    device = torch.device("cuda")
    if why_not := conformance.why_not(instruction, device):
        pytest.skip(why_not)
    wrong, _ = conformance.tried(instruction, device=device)
    assert not wrong, "\n".join(wrong)


@on_a_gpu
def test_a_training_step_can_be_held_in_a_cuda_graph():
    torch.manual_seed(0)
    model = Llama(family.tiny("llama-3")).cuda()
    plain = copy.deepcopy(model)
    fuse(model)
    optimizer, reference = (FusedAdamW(decay_groups(each, weight_decay=0.1))
                            for each in (model, plain))
    ids = torch.randint(model.config.vocab_size, (2, 16), device="cuda")

    def step(model, optimizer):
        loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        for p in model.parameters():
            if p.grad is not None:
                p.grad.zero_()
        loss.backward()
        optimizer.step(lr=1e-3, max_norm=1.0)
        return loss

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(model, optimizer)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        loss = step(model, optimizer)
    for _ in range(2):
        graph.replay()
    for _ in range(5):
        expected = step(plain, reference)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert int(optimizer.n_steps) == 5


@on_a_gpu
def test_launches_go_to_the_current_stream():
    x, weight = torch.randn(4096, 4096, device="cuda"), torch.ones(4096, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x.mul_(0)
        y = rms_norm(x, weight, eps=1e-5)
    stream.synchronize()
    assert not y.any()


@on_a_gpu
def test_a_kernel_that_faults_says_so_and_says_that_the_process_is_lost():
    text = """
import torch
from llama_from_scratch.kernels.machinery.driver import CudaError
from llama_from_scratch.kernels.machinery.launch import launch
from llama_from_scratch.kernels.machinery.source import Program, Source
text = 'extern "C" __global__ void wild(float* x) { x[1ll << 45] = 1; }'
source = Source(name="wild", text=text, headers={})
program = Program(source=source, real=torch.float32)
x = torch.zeros(4, device="cuda")
launch(program, "wild", [x], grid=1, block=1)
try:
    torch.cuda.synchronize()
except RuntimeError:
    pass
try:
    launch(program, "wild", [x], grid=1, block=1)
except CudaError as error:
    print(error.is_sticky, error)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.stdout.startswith("True") and "is lost" in done.stdout, done.stdout + done.stderr


@NO_GPU
def test_without_a_gpu_the_check_says_so_and_fails(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "results")]) == 2
    assert "finds no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@NO_GPU
def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "llama_from_scratch.kernels.trial.gpu"],
                          capture_output=True, text=True)
    assert done.returncode == 2 and "--out" in done.stderr


def part(name, *steps):
    return TrialPart(name=name, what="for a test", minutes=1.0, step_seconds=60.0,
                steps=lambda device: [TrialStep(name=each, run=run) for each, run in steps])


class InProcess:
    """Carries out a part in this process where `gpu` would start a child."""

    def __init__(self, parts):
        self.parts, self.seconds = {each.name: each for each in parts}, []

    def __call__(self, name):
        def start(lines, done, seconds, errors):
            self.seconds.append(seconds)
            code = 0
            try:
                carry_out(self.parts[name].steps(torch.device("cpu")), into=lines, done=done,
                          seconds=seconds, say=print)
            except ValueError as error:
                print(f"ValueError: {error}", file=errors)
                code = 1
            return SimpleNamespace(poll=lambda: code, returncode=code, kill=lambda: None,
                                   wait=lambda timeout: code)
        return start


def run(parts, path, **how):
    how = {"minutes": None, "start": InProcess(parts), "machine": {"device": "NVIDIA H200"},
           "say": print, **how}
    return gpu.run(parts, path, **how)


ROW = {"kernel": "c", "dtype": "bfloat16", "size": [3], "rivals": [], "ratios": {}}


def fails(say):
    raise ValueError("the value")


def test_a_part_that_fails_does_not_stop_the_next_and_the_exit_code_says_so(tmp_path, capsys):
    path = tmp_path / "gpu.json"
    parts = [part("first", ("a", lambda say: Finding()), ("b", fails)),
             part("second", ("c", lambda say: Finding(data={"rows": [ROW]})))]
    assert run(parts, path) == 1
    text = capsys.readouterr().out
    assert "failed: b: its process ended with exit code 1: ValueError: the value" in text
    assert "first: 1 right, 1 failed, in" in text and "second: 1 right, in" in text
    assert results.rows(results.read(path)) == [ROW | {"versions": timing.versions()}]
    assert run(parts[1:], path) == 0, "what an earlier run found is not this run's failure"
    assert [*results.read(path)["parts"]] == ["first", "second"]
    assert run([part("third", ("d", lambda say: Finding(wrong=("d is off",))))], path) == 1
    assert "wrong: d is off" in capsys.readouterr().out


def test_minutes_limit_each_part_and_what_had_no_time_is_said(tmp_path, capsys):
    parts = [part("first", ("a", lambda say: time.sleep(0.02) or Finding()),
                  ("b", lambda say: Finding()))]
    start = InProcess(parts)
    assert run(parts, tmp_path / "gpu.json", minutes=0.01 / 60, start=start) == 0
    assert 0 < start.seconds[0] <= 0.01
    assert "not run: b, for lack of time" in capsys.readouterr().out


def test_ctrl_c_keeps_what_was_found(tmp_path, capsys):
    def interrupts(say):
        raise KeyboardInterrupt

    path = tmp_path / "gpu.json"
    parts = [part("first", ("a", lambda say: Finding())), part("second", ("b", interrupts)),
             part("third", ("c", lambda say: pytest.fail("it was stopped")))]
    assert run(parts, path) == 130
    found = results.read(path)["parts"]
    assert found["first"]["a"]["status"] == "right" and "third" not in found
    assert "stopped by Ctrl-C; what was found is in" in capsys.readouterr().out


def test_the_program_refuses_a_foreign_file_and_takes_a_request_to_end_as_ctrl_c(
    tmp_path, monkeypatch, capsys
):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(timing, "describe_machine", lambda: {"device": "NVIDIA H200"})
    monkeypatch.setattr(gpu, "run", lambda *_, **how: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(KeyboardInterrupt):
            gpu.main(["--out", str(tmp_path / "new")])
        (tmp_path / "gpu-nvidia-h200.json").write_text("[]")
        with pytest.raises(SystemExit):
            gpu.main(["--out", str(tmp_path)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "is not. Move it away" in capsys.readouterr().err


def test_parts_are_chosen_by_name_and_an_unknown_name_is_refused(tmp_path, capsys):
    names = [each.name for each in gpu.PARTS]
    assert [each.name for each in gpu.chosen(None)] == names
    assert [each.name for each in gpu.chosen("memory-bound, correctness,parallel")] == [
        name for name in names if name in ("correctness", "memory-bound")]
    assert {each.name for each in gpu.chosen(None, is_short=True)} <= {*gpu.CHECKS}
    with pytest.raises(SystemExit) as refused:
        gpu.main(["--out", str(tmp_path), "--only", "memory"])
    assert refused.value.code == 2
    assert "'memory': did you mean 'memory-bound'?" in capsys.readouterr().err
    assert gpu.main(["--out", str(tmp_path), "--only", "parallel"]) == 0
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), "--minutes", "0"])
    assert "--minutes must be above 0; got 0" in capsys.readouterr().err


def test_all_parts_together_fit_into_eight_minutes():
    training_on_all_gpus = 1.0
    assert sum(each.minutes for each in gpu.PARTS) + training_on_all_gpus <= 8


def test_the_child_of_a_part_is_this_program_and_carries_out_its_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PARTS", (part("first", ("a", lambda say: Finding()),
                                            ("b", lambda say: Finding())),))
    python, *program = gpu.child_command("first", tmp_path / "lines", ["a"], 5.0)
    assert python == sys.executable and program[:2] == ["-m", gpu.__spec__.name]
    monkeypatch.setattr(gpu, "chosen", partial(gpu.chosen, parts=gpu.PARTS))
    assert gpu.main(program[2:]) == 0
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert [*map(list, lines)] == [["plan"], ["begins"], ["ends", "outcome"]]
    assert lines[2]["ends"] == "b"
