// Fibers: functions with a stack of their own, left and re-entered at will. Part of cuda_on_cpu.h.
#pragma once

#if defined(EMU_UCONTEXT) || !(defined(__x86_64__) || defined(__aarch64__))
#include <ucontext.h>
#endif

namespace emu {

#if defined(EMU_UCONTEXT) || !(defined(__x86_64__) || defined(__aarch64__))
// portable, but every switch is a system call: about five times slower
struct Context { ucontext_t registers; };
EMU_NO_TRACE static void switch_context(Context& from, Context& to) {
    swapcontext(&from.registers, &to.registers);
}
EMU_NO_TRACE static void make_context(Context& context, char* stack, size_t bytes,
                                      void (*start)()) {
    getcontext(&context.registers);
    context.registers.uc_stack.ss_sp = stack;
    context.registers.uc_stack.ss_size = bytes;
    context.registers.uc_link = nullptr;
    makecontext(&context.registers, start, 0);
}
#else
// The registers that a function must preserve are pushed onto the stack that is left and popped
// from the one entered, so a fiber at rest is nothing but a stack pointer.
struct Context { void* stack_pointer; };
extern "C" void emu_switch_stack(void** save_here, void* go_there) __asm("emu_switch_stack");
#if defined(__x86_64__)
// six registers, then the address to continue at
constexpr size_t SAVED_BYTES = 64, RETURN_AT = 48;
__asm(R"(
    .text
    emu_switch_stack:
        push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
        mov %rsp, (%rdi)
        mov %rsi, %rsp
        pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
        ret
)");
#else
// x19..x30 and d8..d15; x30 is the address to continue at
constexpr size_t SAVED_BYTES = 160, RETURN_AT = 88;
__asm(R"(
    .text
    .p2align 2
    emu_switch_stack:
        sub sp, sp, #160
        stp x19, x20, [sp]
        stp x21, x22, [sp, #16]
        stp x23, x24, [sp, #32]
        stp x25, x26, [sp, #48]
        stp x27, x28, [sp, #64]
        stp x29, x30, [sp, #80]
        stp d8, d9, [sp, #96]
        stp d10, d11, [sp, #112]
        stp d12, d13, [sp, #128]
        stp d14, d15, [sp, #144]
        mov x9, sp
        str x9, [x0]
        mov sp, x1
        ldp x19, x20, [sp]
        ldp x21, x22, [sp, #16]
        ldp x23, x24, [sp, #32]
        ldp x25, x26, [sp, #48]
        ldp x27, x28, [sp, #64]
        ldp x29, x30, [sp, #80]
        ldp d8, d9, [sp, #96]
        ldp d10, d11, [sp, #112]
        ldp d12, d13, [sp, #128]
        ldp d14, d15, [sp, #144]
        add sp, sp, #160
        ret
)");
#endif
EMU_NO_TRACE static void switch_context(Context& from, Context& to) {
    emu_switch_stack(&from.stack_pointer, to.stack_pointer);
}
EMU_NO_TRACE static void make_context(Context& context, char* stack, size_t bytes,
                                      void (*start)()) {
    char* saved = (char*)((size_t)(stack + bytes) & ~(size_t)15) - SAVED_BYTES;
    __builtin_memset(saved, 0, SAVED_BYTES);
    *(void**)(saved + RETURN_AT) = (void*)start;
    context.stack_pointer = saved;
}
#endif

}  // namespace emu
