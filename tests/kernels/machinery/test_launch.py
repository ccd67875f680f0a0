"""One call, two machines: CPU tensors to the emulator, CUDA tensors to the driver, with the same
arguments."""

import ctypes
import struct
import subprocess
import sys
import threading
import warnings

import pytest
import torch

from llama_from_scratch.kernels.emulator.machine import KernelFault
from llama_from_scratch.kernels.machinery import launch as launching
from llama_from_scratch.kernels.machinery import nvrtc
from llama_from_scratch.kernels.machinery.driver import CudaError, Driver
from llama_from_scratch.kernels.machinery.launch import launch, program
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source

TEXT = """#include "common.cuh"
extern "C" __global__ void __launch_bounds__(64) add_number(
    const real* x, real* y, int n, float number)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = narrow(widen(x[i]) + number);
}
extern "C" __global__ void __launch_bounds__(64) write_nowhere(real* y, long long far) {
    y[far] = narrow(1.0f);
}
"""
HEADERS = {"common.cuh": (FOLDER / "common.cuh").read_text()}
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU; on a machine with one: python3 "
                                          "start.py gpu --out DIR")]


def on_a_gpu(test):
    for mark in on_gpu:
        test = mark(test)
    return test


def example(real=torch.bfloat16, text=TEXT):
    return Program(source=Source(name="example", text=text, headers=HEADERS), real=real)


def add(x, y, *, number=1.0, grid=None, block=64, real=torch.bfloat16):
    launch(example(real), "add_number", [x, y, x.numel(), number], grid=grid or -(-x.numel() // 64),
           block=block)


class PretendCuda(torch.Tensor):
    """A tensor that says it is on a GPU; its address is one of the CPU, which the recording driver
    does not mind."""

    @staticmethod
    def __new__(cls, memory, device="cuda:1"):
        made = torch.Tensor._make_wrapper_subclass(
            cls, memory.shape, dtype=memory.dtype, device=device)
        made.memory = memory
        return made

    def data_ptr(self):
        return self.memory.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"a launch must not run {function}, which could wait for the GPU")


@pytest.fixture
def pretended(fake, monkeypatch):
    """The recording driver in place of this machine's, and a stream for each device."""
    class Stream:
        def __init__(self, device):
            self.cuda_stream = 0x5000 + device.index

    made = Driver(fake, cubin=lambda program, capability: b"\x7fELF")
    monkeypatch.setattr(launching, "gpu", lambda: made)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    return fake


def test_the_program_of_a_kernel_is_read_once_per_dtype():
    name = sorted(path.stem for path in FOLDER.glob("*.cu"))[0]
    assert program(name, torch.float32) is program(name, torch.float32)
    assert program(name, torch.float32).real != program(name, torch.bfloat16).real
    with pytest.raises(ValueError, match="a kernel source must be one of"):
        program("no_such_kernel", torch.float32)


@pytest.mark.parametrize("real", [torch.float32, torch.bfloat16, torch.float16, torch.float64],
                         ids=str)
def test_cpu_tensors_run_on_the_emulator(real):
    x = torch.randn(100).to(real)
    y = torch.full_like(x, torch.nan)
    add(x, y, real=real)
    torch.testing.assert_close(y, x + 1, rtol=0, atol=0)


def test_cuda_tensors_go_to_the_driver_on_their_device_and_its_current_stream(pretended):
    x, y = (PretendCuda(torch.zeros(100, dtype=torch.bfloat16)) for _ in range(2))
    pretended.fake_expect((ctypes.c_int * 4)(8, 8, 4, 4), 4)
    add(x, y, number=0.5)
    log = pretended.fake_log().decode()
    assert "cuCtxPushCurrent 0xc000000001\ncuLaunchKernel" in log
    assert "grid 2 1 1 block 64 1 1 shared 0 stream 0x5001" in log
    assert bytes(pretended.fake_arguments()[:24]) == struct.pack(
        "QQif", x.data_ptr(), y.data_ptr(), 100, 0.5)


def test_grids_and_blocks_may_have_one_two_or_three_sizes(pretended):
    x = PretendCuda(torch.zeros(64, dtype=torch.bfloat16))
    for grid, block, told in ((5, 32, "grid 5 1 1 block 32 1 1"),
                              ((5, 4), (8, 2), "grid 5 4 1 block 8 2 1"),
                              ((5, 4, 3), (4, 4, 2), "grid 5 4 3 block 4 4 2")):
        add(x, x, grid=grid, block=block)
        assert told in pretended.fake_log().decode()
    for device in (x, torch.zeros(64, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="grid must have 1 to 3 sizes"):
            add(device, device, grid=(1, 1, 1, 1))


def test_tensors_on_two_devices_are_refused(pretended):
    x = torch.zeros(64, dtype=torch.bfloat16)
    for other in (x, PretendCuda(x, device="cuda:0")):
        with pytest.raises(ValueError, match="all tensors of a launch must be on one device; "
                                             "add_number got"):
            add(PretendCuda(x), other)


def test_tensors_of_another_kind_of_device_are_refused():
    x = torch.zeros(64, dtype=torch.bfloat16, device="meta")
    with pytest.raises(ValueError, match="NVIDIA GPUs and on the CPU; add_number got tensors on "
                                         "meta"):
        add(x, x)


@pytest.mark.parametrize("change, message", [
    (dict(block=65), "at most 64 threads"), (dict(block=(64, 2)), "at most 64 threads"),
    (dict(grid=(1, 70000)), "grid"),
    (dict(block=-1), "block"), (dict(real=torch.float32), "x of add_number must be torch.float32")])
def test_both_machines_refuse_the_same_mistakes(pretended, change, message):
    x = torch.zeros(64, dtype=torch.bfloat16)
    for tensor in (x, PretendCuda(x)):
        with pytest.raises(ValueError, match=message):
            add(tensor, tensor, **change)
    assert "cuLaunchKernel" not in pretended.fake_log().decode()


def test_a_fault_on_the_gpu_is_an_error_of_the_driver_with_what_to_do(pretended):
    x = PretendCuda(torch.zeros(64, dtype=torch.bfloat16))
    pretended.fake_fail(b"cuLaunchKernel", 700)
    with pytest.raises(CudaError, match="start Python again.*compute-sanitizer") as caught:
        add(x, x)
    assert caught.value.is_sticky
    y = torch.zeros(64, dtype=torch.bfloat16)
    add(y, y)   # the process lives, and the CPU with it
    assert y.sum() == 64


def test_a_fault_on_the_emulator_leaves_the_process_usable():
    barrier = TEXT + """extern "C" __global__ void stuck(real* y) {
    if (threadIdx.x < 40) __syncthreads();
    y[0] = narrow(0.0f);
}"""
    y = torch.zeros(64, dtype=torch.bfloat16)
    with pytest.raises(KernelFault):
        launch(example(text=barrier), "stuck", [y], grid=1, block=64)
    add(y, y)
    assert y.sum() == 64


def test_the_gpus_machine_code_comes_from_nvrtc_for_its_capability(fake, monkeypatch, tmp_path):
    """The whole path but the GPU: source, NVRTC, disk cache, and the cubin as cuModuleLoadData
    receives it."""
    try:
        compiler = nvrtc.compiler()
    except RuntimeError as error:
        pytest.skip(str(error))
    asked = []
    monkeypatch.setattr(launching, "libcuda", lambda: fake)
    monkeypatch.setattr(launching, "compiler", lambda: compiler)
    monkeypatch.setattr(compiler, "cubin",
                        lambda program, architecture: asked.append(architecture) or
                        nvrtc.Compiler.cubin(compiler, program, architecture, folder=tmp_path))
    monkeypatch.setattr(launching, "gpu", launching.gpu.__wrapped__)
    monkeypatch.setattr(torch.cuda, "current_stream",
                        lambda device: type("Stream", (), {"cuda_stream": 0}))
    fake.fake_gpu(86, 1024, 0, 101376)
    x = PretendCuda(torch.zeros(64, dtype=torch.bfloat16))
    add(x, x)
    assert asked == ["sm_86"] and "cuModuleLoadData \x7fELF" in fake.fake_log().decode()
    assert len(list(tmp_path.glob("*.cubin"))) == 1

    fake.fake_gpu(70, 1024, 0, 98304)
    with pytest.raises(ValueError, match="it has 7.0. Install a PyTorch built for an older CUDA"):
        add(x, x)
    fake.fake_gpu(90, 1024, 0, 232448)
    with pytest.raises(nvrtc.CompileError, match=r"example.cu\(6\): error"):
        launch(example(text=TEXT.replace("y[i] =", "z[i] =")), "add_number", [x, x, 64, 1.0],
               grid=1, block=64)


def test_a_launch_without_an_nvidia_driver_says_so(monkeypatch):
    def absent():
        raise RuntimeError("no NVIDIA driver was found")

    monkeypatch.setattr(launching, "libcuda", absent)
    monkeypatch.setattr(launching, "gpu", launching.gpu.__wrapped__)
    x = PretendCuda(torch.zeros(64, dtype=torch.bfloat16))
    with pytest.raises(RuntimeError, match="no NVIDIA driver was found"):
        add(x, x)


# ---- on a real GPU -------------------------------------------------------------------------------


@on_a_gpu
@pytest.mark.parametrize("real", [torch.float32, torch.bfloat16, torch.float16, torch.float64],
                         ids=str)
def test_a_gpu_computes_what_the_emulator_computes(real):
    x = torch.randn(1000).to(real)
    here, there = torch.zeros_like(x), torch.zeros_like(x, device="cuda")
    add(x, here, real=real, number=0.3)
    add(x.cuda(), there, real=real, number=0.3)
    assert torch.equal(here, there.cpu())


@on_a_gpu
def test_a_launch_is_ordered_on_the_current_stream():
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        x = torch.ones(1 << 20, device="cuda")
        y = torch.empty_like(x)
        add(x, y, real=torch.float32)
        z = y * 2
    stream.synchronize()
    assert (z == 4).all()


@on_a_gpu
def test_a_launch_is_captured_in_a_cuda_graph_even_when_it_is_the_programs_first():
    x, y = torch.ones(64, device="cuda"), torch.zeros(64, device="cuda")
    fresh = example(torch.float32, TEXT + "// this text was never loaded before")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch(fresh, "add_number", [x, y, 64, 1.0], grid=1, block=64)
    assert (y == 0).all(), "a capture runs nothing"
    for value in (5.0, 7.0):
        x.fill_(value)
        graph.replay()
        assert (y == value + 1).all()


@on_a_gpu
def test_a_thread_that_made_no_cuda_call_yet_can_launch():
    x, y = torch.ones(64, device="cuda"), torch.zeros(64, device="cuda")
    errors = []

    def run():
        try:
            add(x, y, real=torch.float32)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not errors and (y == 2).all()


@on_a_gpu
def test_more_than_48_kb_of_shared_memory_can_be_had():
    text = """#include "common.cuh"
extern "C" __global__ void reverse(const real* x, real* y, int n) {
    DYNAMIC_SHARED(real, all);
    for (int i = threadIdx.x; i < n; i += blockDim.x) all[i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = all[n - 1 - i];
}"""
    x = torch.randn(15_000, device="cuda")
    y = torch.zeros_like(x)
    launch(example(torch.float32, text), "reverse", [x, y, 15_000], grid=1, block=256,
           shared_bytes=60_000)
    assert torch.equal(y, x.flip(0))


@on_a_gpu
def test_a_launch_refused_for_its_shape_leaves_the_gpu_usable():
    x = torch.ones(64, device="cuda")
    with pytest.raises(ValueError, match="at most 64 threads"):
        add(x, x, block=128, real=torch.float32)
    with pytest.raises(ValueError, match="shared_bytes of add_number must be 0 to"):
        launch(example(torch.float32), "add_number", [x, x, 64, 1.0], grid=1, block=64,
               shared_bytes=2**20)
    add(x, x, real=torch.float32)
    assert (x == 2).all()


@on_a_gpu
def test_a_kernel_that_faults_is_reported_and_the_process_lives_on_with_its_cpu_tensors():
    script = f"""
import torch
from llama_from_scratch.kernels.machinery.driver import CudaError
from llama_from_scratch.kernels.machinery.launch import launch
from llama_from_scratch.kernels.machinery.source import Program, Source
source = Source(name="example", text={TEXT!r}, headers={HEADERS!r})
program = Program(source=source, real=torch.float32)
x = torch.zeros(64, device="cuda")
try:
    launch(program, "write_nowhere", [x, 2**45], grid=1, block=1)
    torch.cuda.synchronize()
except Exception as error:
    print("PyTorch:", error)
try:
    launch(program, "add_number", [x, x, 64, 1.0], grid=1, block=64)
except CudaError as error:
    print("ours:", error.is_sticky, error)
print("alive", torch.ones(3).sum().item())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          timeout=120)
    said = done.stdout + done.stderr
    assert "illegal memory access" in done.stdout.lower() and "ours: True" in done.stdout, said
    assert "alive 3.0" in done.stdout


@on_a_gpu
def test_a_warm_launch_neither_waits_for_the_gpu_nor_allocates():
    x = torch.ones(64, device="cuda")
    add(x, x, real=torch.float32)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.cuda._sleep(100_000_000)
            busy = torch.cuda.Event()
            busy.record()
            add(x, x, real=torch.float32)
            assert not busy.query(), "the launch must return while the GPU is still busy"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
