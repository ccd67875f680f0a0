"""Kernels whose traces are the source of the pictures of the emulated machine."""

import torch

from llama_from_scratch.kernels.emulator.trace import trace

SUM = """
constexpr int THREADS = 64;

extern "C" __global__ void block_sum(const float* x, float* sums) {
    __shared__ float part[THREADS];
    int t = threadIdx.x;
    part[t] = x[blockIdx.x * THREADS + t];
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0) sums[blockIdx.x] = part[0];
}
extern "C" __global__ void copy(const float* x, float* y, int stride, int offset) {
    y[threadIdx.x] = x[threadIdx.x * stride + offset];
}
extern "C" __global__ void turn(const float* x, float* y, int width) {
    __shared__ float tile[32 * 40];
    int t = threadIdx.x;
    for (int row = 0; row < 32; row++) tile[row * width + t] = x[row * 32 + t];
    __syncthreads();
    for (int row = 0; row < 32; row++) y[row * 32 + t] = tile[t * width + row];
}
extern "C" __global__ void few(float* y) {
    __shared__ int grid[2][3];
    if (threadIdx.x < 2) grid[1][threadIdx.x] = 7 + threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = grid[1][threadIdx.x % 2];
}
"""


def copied(program, stride, offset):
    return trace(program, "copy", [torch.zeros(1100), torch.zeros(32), stride, offset], grid=1,
                 block=32)


def turned(program, width):
    return trace(program, "turn", [torch.zeros(1024), torch.zeros(1024), width], grid=1, block=32)


def words_in(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]
