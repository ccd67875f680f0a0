"""The launcher against a libcuda of our own that records every call: no GPU is needed to see what a
GPU would be told."""

import ctypes
import re
import struct
import threading
import time

import pytest
import torch

from llama_from_scratch.kernels.machinery import driver
from llama_from_scratch.kernels.machinery.driver import CudaError, Driver, libcuda
from llama_from_scratch.kernels.machinery.source import Program, Source, pack
from llama_from_scratch.kernels.machinery.tensor_map import N_BYTES, TensorMap

TEXT = """extern "C" __global__ void __launch_bounds__(256) scale(
    const real* x, float* sums_or_null, int n, float eps) {}
extern "C" __global__ void other(real* y) {}"""
PROGRAM = Program(source=Source(name="example", text=TEXT, headers={}), real=torch.bfloat16)
X, SUMS = torch.arange(8).bfloat16(), torch.zeros(4)


@pytest.fixture
def cuda(fake):
    made = Driver(fake, cubin=lambda program, capability: b"\x7fELF%d%d" % capability)
    fake.fake_forget()
    return made


def calls(fake):
    """What the driver was asked since the last time."""
    lines = fake.fake_log().decode().splitlines()
    fake.fake_forget()
    return lines


def launch(
    cuda, entry="scale", args=(X, SUMS, 8, 0.5), *, grid=(3, 2, 1), block=(64, 2, 1), **more
):
    cuda.launch(PROGRAM, entry, pack(PROGRAM, entry, args), grid=grid, block=block, **more)


def test_a_launch_is_six_integers_shared_bytes_a_stream_and_the_arguments_bytes(cuda, fake):
    fake.fake_expect((ctypes.c_int * 4)(8, 8, 4, 4), 4)
    launch(cuda, shared_bytes=1024, stream=0x7F00DEADBEE0)
    (line,) = [call for call in calls(fake) if call.startswith("cuLaunchKernel")]
    assert line == ("cuLaunchKernel 0xe000000073 grid 3 2 1 block 64 2 1 shared 1024 "
                    "stream 0x7f00deadbee0 extra (nil)")
    assert bytes(fake.fake_arguments()[:24]) == struct.pack(
        "QQif", X.data_ptr(), SUMS.data_ptr(), 8, 0.5)


def test_none_reaches_the_kernel_as_a_null_pointer(cuda, fake):
    fake.fake_expect((ctypes.c_int * 4)(8, 8, 4, 4), 4)
    launch(cuda, args=(X, None, 8, 0.5))
    assert bytes(fake.fake_arguments()[:16]) == struct.pack("QQ", X.data_ptr(), 0)


def test_the_first_launch_loads_in_the_devices_own_context_and_lets_a_capture_live(cuda, fake):
    launch(cuda, device=1)
    assert calls(fake) == [
        "cuDeviceGet 1", "cuDevicePrimaryCtxRetain 1",
        "cuDeviceGetAttribute 75 1", "cuDeviceGetAttribute 76 1", "cuDeviceGetAttribute 97 1",
        "cuCtxPushCurrent 0xc000000001", "cuThreadExchangeStreamCaptureMode 2",
        "cuModuleLoadData \x7fELF90", "cuModuleGetFunction 0xd000000000 scale",
        "cuFuncGetAttribute 1 0xe000000073", "cuFuncGetAttribute 0 0xe000000073",
        "cuThreadExchangeStreamCaptureMode 0", "cuCtxPopCurrent",
        "cuCtxPushCurrent 0xc000000001",
        "cuLaunchKernel 0xe000000073 grid 3 2 1 block 64 2 1 shared 0 stream 0 extra (nil)",
        "cuCtxPopCurrent"]


def test_every_later_launch_makes_three_calls_none_of_which_waits_or_allocates(cuda, fake):
    launch(cuda)
    calls(fake)
    launch(cuda)
    assert [call.split()[0] for call in calls(fake)] == [
        "cuCtxPushCurrent", "cuLaunchKernel", "cuCtxPopCurrent"]


def test_one_module_serves_all_entry_points_of_a_program_and_equal_programs(cuda, fake):
    launch(cuda)
    launch(cuda, "other", (X,))
    twin = Program(source=Source(name="example", text=TEXT, headers={}), real=torch.bfloat16)
    cuda.launch(twin, "scale", pack(twin, "scale", (X, None, 8, 0.5)), grid=(1, 1, 1),
                block=(32, 1, 1))
    assert sum(call.startswith("cuModuleLoadData") for call in calls(fake)) == 1


@pytest.mark.parametrize("other", [
    dict(device=1), dict(text=TEXT + "// changed"), dict(real=torch.float16)],
                         ids=["device", "text", "dtype"])
def test_another_device_text_or_dtype_is_another_module(cuda, fake, other):
    launch(cuda)
    source = Source(name="example", text=other.get("text", TEXT), headers={})
    program = Program(source=source, real=other.get("real", torch.bfloat16))
    args = pack(program, "scale", (X.to(program.real), None, 8, 0.5))
    cuda.launch(program, "scale", args, grid=(1, 1, 1), block=(32, 1, 1),
                device=other.get("device", 0))
    assert sum(call.startswith("cuModuleLoadData") for call in calls(fake)) == 2


def test_threads_that_launch_for_the_first_time_at_once_load_once_in_contexts_of_their_own(fake):
    started, loads = threading.Barrier(4, timeout=30), []

    def cubin(program, capability):
        loads.append(capability)
        time.sleep(0.1)   # long enough for the other threads to find nothing loaded yet
        return b"\x7fELF"

    cuda = Driver(fake, cubin=cubin)
    threads = [threading.Thread(target=lambda: (started.wait(), launch(cuda))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [(9, 0)] and fake.fake_context_depth() == 0
    assert sum(call.startswith("cuLaunchKernel") for call in calls(fake)) == 4


def test_above_48_kb_of_shared_memory_the_driver_is_told_once_and_again_only_for_more(cuda, fake):
    fake.fake_gpu(90, 1024, 1024, 232448)   # 1 KB of static shared memory counts, too
    asked = []
    for n_bytes in (47 * 1024, 47 * 1024 + 16, 47 * 1024 + 16, 100_000, 50_000, 100_000):
        launch(cuda, shared_bytes=n_bytes)
        asked += [call for call in calls(fake) if call.startswith("cuFuncSetAttribute")]
    assert asked == ["cuFuncSetAttribute 0xe000000073 8 48144", "cuFuncSetAttribute 0xe000000073 8 "
                                                                "100000"]


@pytest.mark.parametrize("change, message", [
    (dict(grid=(0, 1, 1)), r"grid of a launch must be 1 to .* scale got \(0, 1, 1\).*empty tensor"),
    (dict(grid=(2**31, 1, 1)), "grid of a launch"),
    (dict(grid=(1, 65536, 1)), "grid of a launch"),
    (dict(block=(32, 1, 65)), "block of a launch"),
    (dict(block=(0, 1, 1)), "block of a launch"),
    (dict(block=(512, 1, 1)), r"at most 256 threads on this GPU \(256 by its declaration in line "
                              r"1\); got 512"),
    (dict(shared_bytes=232448 - 1024 + 1), "must be 0 to 231424 on this GPU, .* declares 1024 "
                                           "more; got 231425"),
    (dict(shared_bytes=-1), "shared_bytes of scale"),
])
def test_a_launch_that_no_gpu_would_take_is_refused_before_it_is_asked(cuda, fake, change, message):
    fake.fake_gpu(90, 1024, 1024, 232448)
    launch(cuda, grid=(2**31 - 1, 65535, 65535), block=(1, 4, 64))
    calls(fake)
    with pytest.raises(ValueError, match=message):
        launch(cuda, **change)
    assert calls(fake) == []


def test_registers_can_allow_fewer_threads_than_the_declaration(cuda, fake):
    fake.fake_gpu(90, 128, 0, 232448)
    with pytest.raises(ValueError,
                       match=r"at most 128 threads on this GPU \(256 by its declaration"):
        launch(cuda, block=(256, 1, 1))


STICKY = {700, 702, 710, 714, 715, 716, 717, 718, 719}


@pytest.mark.parametrize("code", sorted(driver.MEANINGS))
def test_an_error_of_a_launch_says_what_the_driver_says_and_what_it_means(cuda, fake, code):
    fake.fake_fail(b"cuLaunchKernel", code)
    with pytest.raises(CudaError) as caught:
        launch(cuda)
    message = str(caught.value)
    assert message.startswith("the launch of scale with (3, 2, 1) blocks of (64, 2, 1) threads "
                              "failed with ")
    assert f"CUDA_ERROR_NUMBER_{code} ({code}): a sentence of the driver. " in message
    assert driver.MEANINGS[code] in message
    assert caught.value.code == code and caught.value.is_sticky is (code in STICKY)
    assert ("lost, so every later CUDA call fails" in message) is (code in STICKY)


def test_an_error_that_even_the_driver_does_not_know_is_reported_by_its_number(cuda, fake):
    fake.fake_fail(b"cuLaunchKernel", 77777)
    with pytest.raises(CudaError, match=r"failed with unknown \(77777\)"):
        launch(cuda)


def test_after_a_refused_launch_the_next_one_runs_and_no_context_is_left_behind(cuda, fake):
    fake.fake_fail(b"cuLaunchKernel", 701)
    with pytest.raises(CudaError, match="fewer threads per block"):
        launch(cuda)
    fake.fake_fail(b"", 0)
    launch(cuda)
    assert fake.fake_context_depth() == 0


@pytest.mark.parametrize("step", ["cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuDeviceGetAttribute",
                                  "cuCtxPushCurrent",
                                  "cuModuleLoadData", "cuModuleGetFunction", "cuFuncGetAttribute",
                                  "cuFuncSetAttribute"])
def test_a_failure_at_any_step_names_the_step_and_can_be_tried_again(cuda, fake, step):
    fake.fake_fail(step.encode(), 2)
    with pytest.raises(CudaError, match=f"{step} failed .*memory is full"):
        launch(cuda, shared_bytes=60_000)
    assert fake.fake_context_depth() == 0
    fake.fake_fail(b"", 0)
    calls(fake)
    launch(cuda, shared_bytes=60_000)
    assert "cuLaunchKernel" in calls(fake)[-2]


def test_a_source_that_does_not_compile_leaves_the_driver_usable(fake):
    broken = [True]

    def cubin(program, capability):
        if broken:
            raise RuntimeError("example.cu(7): error")
        return b"\x7fELF"

    cuda = Driver(fake, cubin=cubin)
    with pytest.raises(RuntimeError, match=r"example.cu\(7\)"):
        launch(cuda)
    assert fake.fake_context_depth() == 0
    broken.clear()
    launch(cuda)


def test_a_driver_without_a_gpu_says_so(fake):
    fake.fake_fail(b"cuInit", 100)
    with pytest.raises(CudaError,
                       match="cuInit failed .*There is no GPU that this process may use"):
        Driver(fake, cubin=lambda program, capability: b"")


def test_a_tensor_map_is_encoded_by_the_driver_and_reaches_the_kernel_by_value(cuda, fake):
    x = torch.zeros(2, 9, 3, 128, dtype=torch.bfloat16)[:, :7]
    tile = TensorMap(tensor=x, box=(1, 4, 1, 64))
    encoded = cuda.encode(tile)
    assert calls(fake) == [
        f"cuTensorMapEncodeTiled aligned 1 dtype 9 base {x.data_ptr():#x} sizes 128 3 7 2 "
        "strides 256 768 6912 box 64 1 4 1 steps 1 1 1 1 axes 4 interleave 0 swizzle 3 "
        "promotion 3 fill 0"]
    assert encoded == bytes(3 * i % 256 for i in range(N_BYTES))
    source = Source(name="tiles", headers={}, text='''extern "C" __global__ void tiles(
        const real* y, const __grid_constant__ TensorMap x, int n) {}''')
    program = Program(source=source, real=torch.bfloat16)
    fake.fake_expect((ctypes.c_int * 3)(8, N_BYTES, 4), 3)
    cuda.launch(program, "tiles", pack(program, "tiles", (X, tile, 5), encode=cuda.encode),
                grid=(1, 1, 1), block=(32, 1, 1))
    assert bytes(fake.fake_arguments()[:8 + N_BYTES + 4]) == (
        struct.pack("Q", X.data_ptr()) + encoded + struct.pack("i", 5))


def test_a_tensor_map_that_the_driver_refuses_is_reported_with_its_shape_and_box(cuda, fake):
    fake.fake_fail(b"cuTensorMapEncodeTiled", 1)
    x = torch.zeros(1, 8, 1, 64, dtype=torch.float16)
    with pytest.raises(CudaError, match=r"cuTensorMapEncodeTiled of \(1, 8, 1, 64\) in boxes of "
                                        r"\(1, 8, 1, 64\) failed .*out of its range"):
        cuda.encode(TensorMap(tensor=x, box=(1, 8, 1, 64)))


def test_a_machine_without_a_driver_says_what_to_do(monkeypatch):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(driver.ctypes, "CDLL", absent)
    with pytest.raises(RuntimeError, match=r"no NVIDIA driver was found .*libcuda.so.1: cannot "
                                           r"open.*emulate=True"):
        libcuda.__wrapped__()


def test_the_error_numbers_with_a_meaning_are_told_apart():
    assert {code for code, meaning in driver.MEANINGS.items()
            if re.search("is lost", meaning)} == STICKY
