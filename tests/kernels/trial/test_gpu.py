"""What `start.py gpu` says without a GPU, and what only a real one can show: the sweep there,
graphs, streams, a fault.

`python3 start.py gpu --out results` runs the sweep and the timings on a machine that has a GPU, and
`python3 start.py test -m gpu` the tests that need one.
"""

import copy
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.kernels.adamw import FusedAdamW
from llama_from_scratch.kernels.fuse import fuse
from llama_from_scratch.kernels.rms_norm import rms_norm
from llama_from_scratch.kernels.trial import compare, gpu
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


def test_the_whole_sweep_passes_on_the_emulator_and_names_what_is_wrong(monkeypatch, capsys):
    found = gpu.sweep(torch.device("cpu"), is_large=False)
    assert found["n_comparisons"] > 200
    assert not found["wrong"] and not found["differ_from_emulator"], capsys.readouterr().out
    broken = {**vars(compare.OPERATIONS[3]), "sizes": ((3, 5),),
              "fused": lambda gate, up, emulate: (gate * up,)}
    monkeypatch.setattr(compare, "OPERATIONS", (compare.Operation(**broken),))
    wrong = gpu.sweep(torch.device("cpu"), is_large=False)["wrong"]
    assert any(line.startswith("swiglu (3, 5) float32 output 0") for line in wrong)
