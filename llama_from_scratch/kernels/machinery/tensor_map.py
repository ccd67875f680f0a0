"""Describes a tensor to the TMA, the unit of a Hopper GPU that copies whole boxes of it.

A kernel that copies tiles gets a `TensorMap` in place of a pointer: where the tensor is, how its
axes are strided, and how large a box is. On a GPU the driver encodes it into 128 opaque bytes. The
emulator reads the same facts from a struct of the same size (emulator/hopper.h).

Notebook 33. Source: NVIDIA, "CUDA Driver API", section "Tensor Map Object Management".
"""

import ctypes
import struct

import torch
from torch import Tensor

from llama_from_scratch.config import record

N_BYTES = 128
MAX_BOX = 256          # elements along one axis
ROW_BYTES = 128        # of a box: the width of the swizzle
_DTYPES = {torch.bfloat16: 9, torch.float16: 6}   # as in cuda.h, CUtensorMapDataType
_SWIZZLE_128B, _PROMOTE_TO_256B = 3, 3
_ALIGNMENT = 64        # of the 128 bytes


@record
class TensorMap:
    """A tensor with 4 axes, the last without gaps, and the size of a box along each axis.

    Raises ValueError for a tensor or a box that the TMA cannot copy.
    """

    tensor: Tensor
    box: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        x, box = self.tensor, self.box
        if x.dtype not in _DTYPES or x.ndim != 4 or len(box) != 4 or not x.numel():
            raise ValueError(f"a tensor map needs 4 axes, no empty one, and one of the dtypes "
                             f"{', '.join(map(str, _DTYPES))}; got {x.dtype} of shape "
                             f"{tuple(x.shape)} with a box of {box}")
        if any(not 1 <= size <= MAX_BOX for size in box) or box[3] * x.itemsize != ROW_BYTES:
            raise ValueError(f"a box must have 1 to {MAX_BOX} elements along each axis and rows of "
                             f"{ROW_BYTES} bytes; got {box} of {x.dtype}")
        if x.data_ptr() % 16 or x.stride(3) != 1 or any(n % 16 for n in self._stride_bytes):
            raise ValueError("the TMA copies rows without gaps that begin at multiples of 16 bytes;"
                             f" got strides {x.stride()} from address {x.data_ptr():#x}. Pass "
                             "tensor.contiguous()")

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The sizes of the axes, innermost first, as the kernel counts its coordinates."""
        return tuple(reversed(self.tensor.shape))

    @property
    def _stride_bytes(self) -> list[int]:
        """The strides of all axes but the innermost, innermost first.

        Nothing reads the stride of an axis with one element. PyTorch may give it any number, so
        that of a tensor without gaps stands for it.
        """
        x, strides = self.tensor, []
        whole = x.shape[3] * x.itemsize
        for axis in (2, 1, 0):
            stride = x.stride(axis) * x.itemsize if x.shape[axis] > 1 else -(-whole // 16) * 16
            strides.append(stride)
            whole = max(whole, stride * x.shape[axis])
        return strides

    def readable(self) -> bytes:
        """Returns the struct TensorMap of the emulator."""
        data = struct.pack("=Q4Q3Q4I2I", self.tensor.data_ptr(), *self.sizes, *self._stride_bytes,
                           *reversed(self.box), 4, self.tensor.itemsize)
        return data.ljust(N_BYTES, b"\0")

    def encoded(self, library: ctypes.CDLL) -> tuple[int, bytes]:
        """Returns the status of the driver's encoder, which is 0 without an error, and its bytes.

        `library` is libcuda. Rows are swizzled in 128 bytes, and what is outside the tensor is 0.
        """
        room = ctypes.create_string_buffer(N_BYTES + _ALIGNMENT)
        start = -(-ctypes.addressof(room) // _ALIGNMENT) * _ALIGNMENT
        status = library.cuTensorMapEncodeTiled(
            ctypes.c_void_p(start), _DTYPES[self.tensor.dtype], ctypes.c_uint32(4),
            ctypes.c_void_p(self.tensor.data_ptr()), (ctypes.c_uint64 * 4)(*self.sizes),
            (ctypes.c_uint64 * 3)(*self._stride_bytes), (ctypes.c_uint32 * 4)(*reversed(self.box)),
            (ctypes.c_uint32 * 4)(1, 1, 1, 1), 0, _SWIZZLE_128B, _PROMOTE_TO_256B, 0)
        return status, ctypes.string_at(start, N_BYTES)
