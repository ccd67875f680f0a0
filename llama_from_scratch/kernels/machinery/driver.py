"""Kernels on a GPU through the CUDA driver's C functions: load, find an entry point, launch.

A launch is six integers (how many blocks, how many threads in each, along three axes), a number of
bytes of shared memory, a stream, and a list of pointers to the arguments. It only queues work.
Nothing here waits for the GPU or allocates, so launches can be captured in a CUDA graph. For the
same reason, a fault inside a kernel appears only later, at the next call that waits for the GPU.

Notebook 30. Source: NVIDIA, "CUDA Driver API", sections 6.10 to 6.22.
"""

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence

from llama_from_scratch.config import record
from llama_from_scratch.kernels.machinery.source import Arguments, EntryPoint, Program
from llama_from_scratch.kernels.machinery.tensor_map import TensorMap

# Along x, y, z, on every GPU since 2012.
MAX_GRID, MAX_BLOCK = (2**31 - 1, 65535, 65535), (1024, 1024, 64)
SHARED_BYTES_WITHOUT_ASKING = 48 * 1024

# Numbers from cuda.h: attributes of a device and of a function.
_MAX_SHARED_BYTES_OF_A_BLOCK, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 97, 75, 76
_MAX_THREADS, _STATIC_SHARED_BYTES, _MAX_DYNAMIC_SHARED_BYTES = 0, 1, 8
_CAPTURE_MODE_RELAXED = 2

_LOST = ("The GPU's state in this process is lost, so every later CUDA call fails too. Save what "
         "is in CPU memory and start Python again. Launches are asynchronous, so an earlier kernel "
         "may have caused the error; with CUDA_LAUNCH_BLOCKING=1 set, or under compute-sanitizer, "
         "the error is raised at its cause")
MEANINGS = {
    1: "A number or pointer passed to the driver is out of its range",
    2: "The GPU's memory is full; torch.cuda.empty_cache() frees what PyTorch holds unused",
    34: "The loader found the stub of libcuda from a CUDA toolkit instead of the driver's; remove "
        "the stub's folder from its path",
    100: "There is no GPU that this process may use",
    201: "No context is current, or the context of another device",
    209: "The machine code is for another GPU than this one",
    500: "The machine code has no entry point of that name",
    701: "A block needs more registers or shared memory than a processor has; launch fewer threads "
         "per block",
    803: "The driver and its library have different versions: reboot after an update of the "
         "driver",
    804: "This driver is too old for the CUDA that PyTorch was built for; update it",
    900: "The stream is being captured, and this operation cannot be part of a CUDA graph",
    999: "The driver gives no reason",
} | dict.fromkeys((700, 702, 710, 714, 715, 716, 717, 718, 719), _LOST)


class CudaError(RuntimeError):
    """An error code of the driver; `is_sticky` if no later CUDA call of the process can succeed."""

    def __init__(self, message: str, *, code: int, is_sticky: bool) -> None:
        super().__init__(message)
        self.code, self.is_sticky = code, is_sticky


@record
class Function:
    """An entry point in a GPU's memory, ready to be launched."""

    handle: ctypes.c_void_p
    context: ctypes.c_void_p
    entry: EntryPoint
    max_threads: int           # of a block, by its declaration and the GPU's registers
    static_bytes: int          # of shared memory, declared in the kernel
    max_dynamic_bytes: int     # of shared memory, that a launch may request in addition


class Driver:
    """Launches programs through one libcuda, and keeps what it loaded until the process ends.

    `cubin(program, capability)` returns a program's machine code for a GPU of that compute
    capability.
    """

    def __init__(
        self, library: ctypes.CDLL, *, cubin: Callable[[Program, tuple[int, int]], bytes]
    ) -> None:
        self._library, self._cubin = library, cubin
        self._functions: dict[tuple[str, str, int], Function] = {}
        self._modules: dict[tuple[str, int], ctypes.c_void_p] = {}
        self._allowed_shared_bytes: dict[tuple[str, str, int], int] = {}
        self._loading = threading.RLock()
        library.cuLaunchKernel.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 7,
                                           *[ctypes.c_void_p] * 3]
        library.cuCtxPushCurrent_v2.argtypes = [ctypes.c_void_p]
        library.cuCtxPopCurrent_v2.argtypes = [ctypes.c_void_p]
        self._popped = ctypes.byref(ctypes.c_void_p())
        self._call("cuInit", 0)

    def launch(
        self, program: Program, entry: str, arguments: Arguments, *, grid: Sequence[int],
        block: Sequence[int], shared_bytes: int = 0, device: int = 0, stream: int = 0,
    ) -> None:
        """Queues one launch on a stream (its address) of a device (its number).

        grid, block: along x, y, z. Raises ValueError for a grid, block or shared memory that this
        GPU cannot launch, and CudaError for an error that the driver reports.
        """
        key = (program.key, entry, device)
        function = self._functions.get(key) or self._load(program, entry, device)
        grid_x, grid_y, grid_z = grid
        x, y, z = block
        if not (0 < grid_x <= MAX_GRID[0] and 0 < grid_y <= MAX_GRID[1]
                and 0 < grid_z <= MAX_GRID[2] and 0 < x <= MAX_BLOCK[0] and 0 < y <= MAX_BLOCK[1]
                and 0 < z <= MAX_BLOCK[2]
                and x * y * z <= function.max_threads
                and 0 <= shared_bytes <= function.max_dynamic_bytes):
            _refuse_shape(function, grid, block, shared_bytes)
        library = self._library
        # The context, not PyTorch's current device: a thread without a CUDA call has no context.
        if status := library.cuCtxPushCurrent_v2(function.context):
            self._fail(status, "cuCtxPushCurrent")
        try:
            if shared_bytes + function.static_bytes > SHARED_BYTES_WITHOUT_ASKING:
                self._allow_shared_bytes(key, function, shared_bytes)
            if status := library.cuLaunchKernel(
                function.handle, grid_x, grid_y, grid_z, x, y, z, shared_bytes, stream,
                arguments.pointers, None):
                self._fail(status, f"the launch of {entry} with {tuple(grid)} blocks of "
                                   f"{tuple(block)} threads")
        finally:
            library.cuCtxPopCurrent_v2(self._popped)

    def encode(self, tensor_map: TensorMap) -> bytes:
        """Returns the 128 bytes by which a kernel knows a tensor map.

        Raises CudaError for a tensor or box that the driver refuses.
        """
        status, data = tensor_map.encoded(self._library)
        if status:
            self._fail(status, f"cuTensorMapEncodeTiled of {tuple(tensor_map.tensor.shape)} in "
                               f"boxes of {tensor_map.box}")
        return data

    def _load(self, program: Program, name: str, device: int) -> Function:
        entry = program.entry(name)
        with self._loading:
            ordinal, context = ctypes.c_int(), ctypes.c_void_p()
            self._call("cuDeviceGet", ctypes.byref(ordinal), device)
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ordinal)
            asked = (_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _MAX_SHARED_BYTES_OF_A_BLOCK)
            major, minor, max_shared_bytes = [self._number("cuDeviceGetAttribute", each, ordinal)
                                              for each in asked]
            self._call("cuCtxPushCurrent_v2", context)
            # Loading allocates, which must not end a graph capture on another stream.
            mode = ctypes.c_int(_CAPTURE_MODE_RELAXED)
            self._call("cuThreadExchangeStreamCaptureMode", ctypes.byref(mode))
            try:
                if (program.key, device) not in self._modules:
                    module = ctypes.c_void_p()
                    self._call("cuModuleLoadData", ctypes.byref(module),
                               self._cubin(program, (major, minor)))
                    self._modules[program.key, device] = module
                handle = ctypes.c_void_p()
                self._call("cuModuleGetFunction", ctypes.byref(handle),
                           self._modules[program.key, device], name.encode())
                static_bytes = self._number("cuFuncGetAttribute", _STATIC_SHARED_BYTES, handle)
                function = Function(
                    handle=handle, context=context, entry=entry, static_bytes=static_bytes,
                    max_dynamic_bytes=max_shared_bytes - static_bytes,
                    max_threads=min(entry.max_threads,
                                    self._number("cuFuncGetAttribute", _MAX_THREADS, handle)))
            finally:
                self._library.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))
                self._library.cuCtxPopCurrent_v2(self._popped)
            self._functions[program.key, name, device] = function
            return function

    def _allow_shared_bytes(
        self, key: tuple[str, str, int], function: Function, shared_bytes: int
    ) -> None:
        """Allows a function more than 48 KB of shared memory, which the driver requires once."""
        if shared_bytes > self._allowed_shared_bytes.get(key, 0):
            self._call("cuFuncSetAttribute", function.handle, _MAX_DYNAMIC_SHARED_BYTES,
                       shared_bytes)
            self._allowed_shared_bytes[key] = shared_bytes

    def _number(self, function: str, attribute: int, of: ctypes.c_int | ctypes.c_void_p) -> int:
        number = ctypes.c_int()
        self._call(function, ctypes.byref(number), attribute, of)
        return number.value

    def _call(self, function: str, *args: object) -> None:
        if status := getattr(self._library, function)(*args):
            self._fail(status, function.removesuffix("_v2"))

    def _fail(self, status: int, doing: str) -> None:
        texts = []
        for getter in ("cuGetErrorName", "cuGetErrorString"):
            text = ctypes.c_char_p()
            getattr(self._library, getter)(status, ctypes.byref(text))
            texts.append(text.value.decode() if text.value else "unknown")
        meaning = MEANINGS.get(status, "")
        message = f"{doing} failed with {texts[0]} ({status}): {texts[1]}. {meaning}"
        raise CudaError(message.rstrip(), code=status, is_sticky=meaning is _LOST)


def _refuse_shape(
    function: Function, grid: Sequence[int], block: Sequence[int], shared_bytes: int
) -> None:
    name = function.entry.name
    for what, sizes, most in (("grid", grid, MAX_GRID), ("block", block, MAX_BLOCK)):
        if not all(0 < size <= limit for size, limit in zip(sizes, most, strict=True)):
            raise ValueError(f"the {what} of a launch must be 1 to {most} along x, y and z; {name} "
                             f"got {tuple(sizes)}. For an empty tensor, launch nothing")
    n_threads = block[0] * block[1] * block[2]
    if n_threads > function.max_threads:
        raise ValueError(f"a block of {name} must have at most {function.max_threads} threads on "
                         f"this GPU ({function.entry.max_threads} by its declaration in line "
                         f"{function.entry.line}); got {n_threads}")
    raise ValueError(f"shared_bytes of {name} must be 0 to {function.max_dynamic_bytes} on this "
                     f"GPU, because the kernel declares {function.static_bytes} more; got "
                     f"{shared_bytes}")


@functools.cache
def libcuda() -> ctypes.CDLL:
    """Returns the driver's library, which is installed with the driver.

    Raises RuntimeError, with the cure, if there is none.
    """
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeError(f"no NVIDIA driver was found on this machine ({error}). Kernels run on "
                           "an NVIDIA GPU with its driver installed (on Windows, in WSL); "
                           "elsewhere, use CPU tensors and emulate=True") from error
