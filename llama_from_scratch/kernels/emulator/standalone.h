// The launcher of an executable build: reads one launch from a file, runs it, writes the tensors
// back.
//
// A sanitizer must run in a process from its first instruction, and in Python's it does not. So
// machine.py starts a program of its own: `program launch.bin fault.txt`. Each tensor is in a
// block of its own from malloc, where AddressSanitizer guards both its ends. The file: the entry
// point's name, then per argument its kind and size, then per argument its bytes.
#pragma once

struct Header {
    char entry[128];
    unsigned grid[3], block[3];
    unsigned long long shared_bytes;
    int order;
    unsigned seed, n_args, n_buffers;
};
struct Argument {   // a pointer into a buffer, or a number of up to 8 bytes
    long long buffer, offset;   // buffer -1: a number; -2: nullptr
    unsigned char number[8];
};

typedef const char* (*Emulate)(const unsigned*, const unsigned*, size_t, void**, int, int,
                               unsigned);
static const struct { const char* name; Emulate run; } entries[] = {EMU_ENTRIES};

template <class T> static T* read_items(FILE* file, size_t n) {
    T* items = (T*)__builtin_malloc(n * sizeof(T) ? n * sizeof(T) : 1);
    if (fread(items, sizeof(T), n, file) != n) __builtin_exit(3);
    return items;
}

#ifdef EMU_ASAN   // the end of the process frees what main allocates
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
    return "detect_leaks=0";
}
#endif

int main(int n_words, char** words) {
    FILE* file = n_words == 3 ? fopen(words[1], "r+b") : nullptr;
    if (!file) return 3;
    Header* header = read_items<Header>(file, 1);
    Argument* arguments = read_items<Argument>(file, header->n_args);
    unsigned long long* sizes = read_items<unsigned long long>(file, header->n_buffers);
    long begin = ftell(file);
    char** buffers = (char**)__builtin_malloc((header->n_buffers + 1) * sizeof(char*));
    for (unsigned i = 0; i < header->n_buffers; i++) buffers[i] = read_items<char>(file, sizes[i]);
    void** pointers = (void**)__builtin_malloc((header->n_args + 1) * sizeof(void*));
    void** args = (void**)__builtin_malloc((header->n_args + 1) * sizeof(void*));
    for (unsigned i = 0; i < header->n_args; i++) {
        Argument& argument = arguments[i];
        pointers[i] = argument.buffer < 0 ? nullptr : buffers[argument.buffer] + argument.offset;
        args[i] = argument.buffer == -1 ? (void*)argument.number : &pointers[i];
    }
    for (auto& entry : entries) {
        if (__builtin_strcmp(entry.name, header->entry)) continue;
        const char* message =
            entry.run(header->grid, header->block, header->shared_bytes, args, 1, header->order,
                      header->seed);
        fseek(file, begin, SEEK_SET);
        for (unsigned i = 0; i < header->n_buffers; i++) fwrite(buffers[i], 1, sizes[i], file);
        fclose(file);
        if (!message) return 0;
        FILE* fault = fopen(words[2], "w");
        if (!fault) return 3;
        fputs(message, fault);
        fclose(fault);
        return 2;
    }
    return 3;
}
