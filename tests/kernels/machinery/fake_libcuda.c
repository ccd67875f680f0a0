// A libcuda that runs nothing: it records what it is asked and answers as it was told to. For tests of the launcher.
//
// The log is one line per call, with the arguments that matter. A launch also copies the bytes of its arguments, as the
// driver does, so that a test sees them after the launcher's own buffers are gone. Several threads may call at once, as
// ctypes lets go of Python's lock while a call runs.
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define API __attribute__((visibility("default")))

static char log_text[1 << 16];
static int log_length, is_logging = 1;
static char failing[64];           // the function that fails,
static int failing_code;           // with this code
static int static_shared, most_threads = 1024, most_shared = 232448, capability = 90;
static int sizes[64], n_sizes;     // of the arguments of the next launch
static unsigned char argument_bytes[1024];
static _Atomic int context_depth;
static pthread_mutex_t recording = PTHREAD_MUTEX_INITIALIZER;

static int record(const char* function, const char* format, ...) {
    int fails = !strcmp(failing, function);
    if (!is_logging) return fails ? failing_code : 0;
    va_list values;
    va_start(values, format);
    pthread_mutex_lock(&recording);
    log_length += snprintf(log_text + log_length, sizeof log_text - log_length, "%s", function);
    log_length += vsnprintf(log_text + log_length, sizeof log_text - log_length, format, values);
    log_length += snprintf(log_text + log_length, sizeof log_text - log_length, "\n");
    pthread_mutex_unlock(&recording);
    va_end(values);
    return fails ? failing_code : 0;
}

API const char* fake_log(void) { return log_text; }
API void fake_forget(void) { log_text[log_length = 0] = 0; }
API void fake_logging(int on) { is_logging = on; }
API void fake_fail(const char* function, int code) {
    snprintf(failing, sizeof failing, "%s", function);
    failing_code = code;
}
API void fake_gpu(int cc, int threads, int statics, int shared) {
    capability = cc; most_threads = threads; static_shared = statics; most_shared = shared;
}
API void fake_expect(const int* of, int n) { memcpy(sizes, of, n * sizeof *sizes); n_sizes = n; }
API const unsigned char* fake_arguments(void) { return argument_bytes; }
API int fake_context_depth(void) { return context_depth; }

API int cuInit(unsigned flags) { return record("cuInit", " %u", flags); }
API int cuDeviceGet(int* device, int number) { *device = number; return record("cuDeviceGet", " %d", number); }
API int cuDevicePrimaryCtxRetain(uintptr_t* context, int device) {
    *context = 0xc000000000 + device;   // wider than 32 bits, as real ones are
    return record("cuDevicePrimaryCtxRetain", " %d", device);
}
API int cuDeviceGetAttribute(int* value, int attribute, int device) {
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : attribute == 97 ? most_shared : -1;
    return record("cuDeviceGetAttribute", " %d %d", attribute, device);
}
API int cuCtxPushCurrent_v2(uintptr_t context) {
    int status = record("cuCtxPushCurrent", " %#lx", (long)context);
    context_depth += !status;
    return status;
}
API int cuCtxPopCurrent_v2(uintptr_t* context) {
    context_depth--;
    *context = 0;
    return record("cuCtxPopCurrent", "");
}
API int cuThreadExchangeStreamCaptureMode(int* mode) {
    static int current;
    int wanted = *mode;
    *mode = current;
    current = wanted;
    return record("cuThreadExchangeStreamCaptureMode", " %d", wanted);
}
API int cuModuleLoadData(uintptr_t* module, const char* image) {
    *module = 0xd000000000;
    return record("cuModuleLoadData", " %.8s", image);
}
API int cuModuleGetFunction(uintptr_t* function, uintptr_t module, const char* name) {
    *function = 0xe000000000 + name[0];
    return record("cuModuleGetFunction", " %#lx %s", (long)module, name);
}
API int cuFuncGetAttribute(int* value, int attribute, uintptr_t function) {
    *value = attribute == 0 ? most_threads : attribute == 1 ? static_shared : -1;
    return record("cuFuncGetAttribute", " %d %#lx", attribute, (long)function);
}
API int cuFuncSetAttribute(uintptr_t function, int attribute, int value) {
    return record("cuFuncSetAttribute", " %#lx %d %d", (long)function, attribute, value);
}
API int cuLaunchKernel(uintptr_t function, unsigned gx, unsigned gy, unsigned gz, unsigned x, unsigned y, unsigned z,
                       unsigned shared, uintptr_t stream, void** arguments, void** extra) {
    unsigned char* to = argument_bytes;
    for (int i = 0; i < n_sizes; to += sizes[i++]) memcpy(to, arguments[i], sizes[i]);
    return record("cuLaunchKernel", " %#lx grid %u %u %u block %u %u %u shared %u stream %#lx extra %p", (long)function, gx, gy, gz,
                  x, y, z, shared, (long)stream, (void*)extra);
}
API int cuTensorMapEncodeTiled(unsigned char* map, int dtype, unsigned n_axes, uintptr_t base, const uint64_t* sizes,
                               const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave,
                               int swizzle, int promotion, int fill) {
    for (int i = 0; i < 128; i++) map[i] = (unsigned char)(3 * i);
    return record("cuTensorMapEncodeTiled",
                  " aligned %d dtype %d base %#lx sizes %lu %lu %lu %lu strides %lu %lu %lu box %u %u %u %u steps %u %u %u %u "
                  "axes %u interleave %d swizzle %d promotion %d fill %d", (int)((uintptr_t)map % 64 == 0), dtype, (long)base,
                  sizes[0], sizes[1], sizes[2], sizes[3], strides[0], strides[1], strides[2], box[0], box[1], box[2], box[3],
                  steps[0], steps[1], steps[2], steps[3], n_axes, interleave, swizzle, promotion, fill);
}
API int cuGetErrorName(int code, const char** text) {
    static char name[64];
    snprintf(name, sizeof name, "CUDA_ERROR_NUMBER_%d", code);
    *text = code == 77777 ? 0 : name;
    return code == 77777;
}
API int cuGetErrorString(int code, const char** text) {
    *text = code == 77777 ? 0 : "a sentence of the driver";
    return code == 77777;
}
