// bench/peers/floor/bare_switch.hpp - the least a switch between two stacks can be.
//
// Stack pointer, base pointer and address of one side are written down, those of the other loaded, and the last instruction
// jumps there. No other register is saved by hand: they are named as clobbered, so that the compiler keeps what it still needs,
// often nothing. (Without the base pointer it is slower: a loop that switches then counts in memory.) There is no payload,
// nothing for a sanitizer, and nothing that the one who arrives must do.
#ifndef CONCUR_BENCH_BARE_SWITCH_HPP
#define CONCUR_BENCH_BARE_SWITCH_HPP

#if !defined(__x86_64__)
#  error "the bare switch is written for x86-64 alone"
#endif

#include <cstddef>
#include <cstdint>

namespace bench {

struct bare_context {
  void* stack = nullptr;
  void* base = nullptr;
  void* resume = nullptr;
};

// Nothing is pushed, for the 128 bytes below the stack pointer belong to the function this is inlined into.
inline __attribute__((always_inline)) void bare_switch(bare_context& from, bare_context& to) {
  bare_context* saved = &from;
  bare_context* loaded = &to;
  asm volatile(
      "leaq 1f(%%rip), %%rax\n\t"
      "movq %%rsp, (%[saved])\n\t"
      "movq %%rbp, 8(%[saved])\n\t"
      "movq %%rax, 16(%[saved])\n\t"
      "movq (%[loaded]), %%rsp\n\t"
      "movq 8(%[loaded]), %%rbp\n\t"
      "jmpq *16(%[loaded])\n"
      "1:"
      : [saved] "+D"(saved), [loaded] "+S"(loaded)
      :
      : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2",
        "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
        "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", "cc", "memory");
}

// The first switch to it enters `body`, which never returns and finds nothing in its registers. At the beginning of a function
// the stack is one word off a multiple of 16, where a call would have left its return address.
inline void prepare(bare_context& one, void* stack, std::size_t size, void (*body)()) {
  const auto top = (reinterpret_cast<std::uintptr_t>(stack) + size) / 16 * 16;
  one.stack = reinterpret_cast<void*>(top - 8);
  one.resume = reinterpret_cast<void*>(body);
}

}  // namespace bench

#endif
