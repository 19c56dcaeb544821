// machine/context/x86_64.hpp - the switch on x86-64 (System V).
//
// The protocol of an arrival, shared by both forms and the thunk, so that objects built with either may meet:
//
//     rsp, rbp     loaded from the context by the one that leaves
//     rax          the payload
//     rsi          the address of the context that goes on
//     the rest     unspecified
//
// The inline form is one asm statement that lists every other register as clobbered. The compiler then saves just
// what is alive at this place, often nothing, where a function would save six registers always. It jumps instead of
// returning, because a return to another address than its call's is mispredicted, and so are those that follow.
// Inlined into each place that parks, each place has its own jump, and the branch predictor a history for each.
//
// rbp is saved by hand: it may not be named as clobbered while it is the frame pointer. Nothing is pushed, since a
// leaf function keeps locals in the 128 bytes below rsp. Not saved: MXCSR and the x87 control word (fpu_control), and
// fs, which belongs to the thread.
//
// Text inside a function is written in both dialects, {AT&T|Intel}, for -masm=intel. Outside functions the compilers
// do not choose between the two, so instructions there are spelled as bytes where the dialects differ, the
// instruction beside them.
#ifndef CONCUR_MACHINE_CONTEXT_X86_64_HPP
#define CONCUR_MACHINE_CONTEXT_X86_64_HPP

#include "base/config.hpp"

#if defined(CONCUR_ARCH_X86_64)

#  include "machine/context/common.hpp"
#  include "machine/sanitizer.hpp"

#  include <cstddef>
#  include <cstdint>

#  if defined(__SSE__)
#    define CONCUR_CLOBBER_SSE                                                                                     \
      , "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
          "xmm13", "xmm14", "xmm15"
#  else
#    define CONCUR_CLOBBER_SSE
#  endif
#  if defined(__AVX512F__)
#    define CONCUR_CLOBBER_AVX512                                                                                   \
      , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", \
          "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#  else
#    define CONCUR_CLOBBER_AVX512
#  endif
#  if defined(__APX_F__)
#    define CONCUR_CLOBBER_APX \
      , "r16", "r17", "r18", "r19", "r20", "r21", "r22", "r23", "r24", "r25", "r26", "r27", "r28", "r29", "r30", "r31"
#  else
#    define CONCUR_CLOBBER_APX
#  endif
// _SOFT_FLOAT: g++ was told to keep off the x87 (-mno-80387, -mgeneral-regs-only), and then refuses these names.
#  if defined(_SOFT_FLOAT)
#    define CONCUR_CLOBBER_X87
#  else
#    define CONCUR_CLOBBER_X87 , "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)"
#  endif
#  if defined(__MMX__)
#    define CONCUR_CLOBBER_MMX , "mm0", "mm1", "mm2", "mm3", "mm4", "mm5", "mm6", "mm7"
#  else
#    define CONCUR_CLOBBER_MMX
#  endif

#  if CONCUR_SAVES_BASE
#    define CONCUR_STORE_BASE "{movq %%rbx, 24(%%rdi)|mov QWORD PTR [rdi + 24], rbx}\n\t"
#    define CONCUR_LOAD_BASE "{movq 24(%%rsi), %%rbx|mov rbx, QWORD PTR [rsi + 24]}\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "rbx"
#  endif

// Where an indirect jump lands must be marked once the program promises so (-fcf-protection=branch).
#  if defined(__CET__) && (__CET__ & 1)
#    define CONCUR_LANDING "endbr64\n\t"
#  else
#    define CONCUR_LANDING
#  endif

// The entry function is jumped to, with its return address written by hand, where a call would do: it never returns, and the
// processor's own stack of return addresses would keep what the call put there. All returns of the context that is switched
// to from there would then be predicted wrong.
// clang-format off
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_ENTRY)
    ".cfi_startproc\n"
    ".cfi_undefined 16\n"            // the return address: unwinding, backtraces and debuggers end here
    ".byte 0xf3, 0x0f, 0x1e, 0xfa\n" // endbr64
    ".byte 0x48, 0x89, 0xc7\n"       // mov %rax, %rdi
    ".byte 0x58\n"                   // pop %rax
    ".byte 0x48, 0x8d, 0x15\n .long 1f - . - 4\n"  // lea 1f(%rip), %rdx
    ".byte 0x48, 0x89, 0x14, 0x24\n" // mov %rdx, (%rsp)
    ".byte 0xff, 0xe0\n"             // jmp *%rax
    "1: .byte 0x0f, 0x0b\n"          // ud2
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_SWITCH)
    ".cfi_startproc\n"
    ".byte 0xf3, 0x0f, 0x1e, 0xfa\n"                      // endbr64
    ".byte 0x53\n"       ".cfi_def_cfa_offset 16\n" ".cfi_offset 3, -16\n"   // push %rbx
    ".byte 0x41, 0x54\n" ".cfi_def_cfa_offset 24\n" ".cfi_offset 12, -24\n"  // push %r12
    ".byte 0x41, 0x55\n" ".cfi_def_cfa_offset 32\n" ".cfi_offset 13, -32\n"  // push %r13
    ".byte 0x41, 0x56\n" ".cfi_def_cfa_offset 40\n" ".cfi_offset 14, -40\n"  // push %r14
    ".byte 0x41, 0x57\n" ".cfi_def_cfa_offset 48\n" ".cfi_offset 15, -48\n"  // push %r15
    ".byte 0x48, 0x8d, 0x05\n .long 1f - . - 4\n"         // lea 1f(%rip), %rax
    ".byte 0x48, 0x89, 0x27\n"                            // mov %rsp, (%rdi)
    ".byte 0x48, 0x89, 0x6f, 0x08\n"                      // mov %rbp, 8(%rdi)
    ".byte 0x48, 0x89, 0x47, 0x10\n"                      // mov %rax, 16(%rdi)
    ".byte 0x48, 0x89, 0xd0\n"                            // mov %rdx, %rax
    ".byte 0x48, 0x8b, 0x26\n"                            // mov (%rsi), %rsp
    ".byte 0x48, 0x8b, 0x6e, 0x08\n"                      // mov 8(%rsi), %rbp
    ".byte 0xff, 0x66, 0x10\n"                            // jmp *16(%rsi)
    "1: .byte 0xf3, 0x0f, 0x1e, 0xfa\n"                   // endbr64
    ".byte 0x41, 0x5f\n" ".cfi_def_cfa_offset 40\n" ".cfi_restore 15\n"      // pop %r15
    ".byte 0x41, 0x5e\n" ".cfi_def_cfa_offset 32\n" ".cfi_restore 14\n"      // pop %r14
    ".byte 0x41, 0x5d\n" ".cfi_def_cfa_offset 24\n" ".cfi_restore 13\n"      // pop %r13
    ".byte 0x41, 0x5c\n" ".cfi_def_cfa_offset 16\n" ".cfi_restore 12\n"      // pop %r12
    ".byte 0x5b\n"       ".cfi_def_cfa_offset 8\n"  ".cfi_restore 3\n"       // pop %rbx
    ".byte 0xc3\n"                                        // ret
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_SWITCH));
#  endif
// clang-format on

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Stops here, stored in `from`, and goes on at `to`. Returns the payload of whoever later switches to `from`.
#  if defined(CONCUR_PORTABLE_SWITCH)
inline CONCUR_ALWAYS_INLINED CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                                        void* payload) noexcept {
  return CONCUR_CONTEXT_SWITCH(&from, &to, payload);
}
#  else
inline CONCUR_ALWAYS_INLINED CONCUR_UNINSTRUMENTED void* switch_context(context& from, const context& to,
                                                                        void* payload) noexcept {
  context* leaving = &from;
  const context* arriving = &to;
  // clang-format off
  asm volatile(
      "{leaq " CONCUR_ASM_LOCAL "concur_resume_%=(%%rip), %%rdx|lea rdx, " CONCUR_ASM_LOCAL "concur_resume_%=[rip]}\n\t"
      "{movq %%rsp, (%%rdi)|mov QWORD PTR [rdi], rsp}\n\t"
      "{movq %%rbp, 8(%%rdi)|mov QWORD PTR [rdi + 8], rbp}\n\t"
      "{movq %%rdx, 16(%%rdi)|mov QWORD PTR [rdi + 16], rdx}\n\t"
      CONCUR_STORE_BASE
      "{movq (%%rsi), %%rsp|mov rsp, QWORD PTR [rsi]}\n\t"
      "{movq 8(%%rsi), %%rbp|mov rbp, QWORD PTR [rsi + 8]}\n\t"
      "{jmpq *16(%%rsi)|jmp QWORD PTR [rsi + 16]}\n"
      CONCUR_ASM_LOCAL "concur_resume_%=:\n\t"
      CONCUR_LANDING
      CONCUR_LOAD_BASE
      : "+a"(payload), "+D"(leaving), "+S"(arriving)
      :
      : "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_X87 CONCUR_CLOBBER_MMX CONCUR_CLOBBER_SSE CONCUR_CLOBBER_AVX512
        CONCUR_CLOBBER_APX);
  // clang-format on
  return payload;
}
#  endif

// The first switch to `made` calls entry(payload) on the stack [low, low + size). entry never returns.
inline void prepare_context(context& made, void* low, std::size_t size, void (*entry)(void* payload)) noexcept {
  void** top = top_of_stack(low, size, 2);
  top[0] = reinterpret_cast<void*>(entry);
  top[1] = nullptr;
  made.sp = top;
  made.fp = nullptr;  // a debugger that follows frame pointers stops at zero
  made.base = nullptr;
  made.pc = reinterpret_cast<void*>(&CONCUR_CONTEXT_ENTRY);
}

// Rounding, exception masks and precision: what C's fesetround() and friends set. The default is what a process
// starts with.
struct fpu_control {
  std::uint32_t mxcsr = 0x1f80;
  std::uint16_t x87 = 0x037f;

  // The low six bits of MXCSR are sticky flags, which any inexact operation sets. They are no control.
  static constexpr std::uint32_t mxcsr_mask = ~std::uint32_t{0x3f};

  static fpu_control current() noexcept {
    fpu_control now;
#  if defined(__SSE__)
    asm volatile("{stmxcsr %0|stmxcsr %0}" : "=m"(now.mxcsr));
#  endif
    asm volatile("{fnstcw %0|fnstcw %0}" : "=m"(now.x87));
    return now;
  }

  // Compares first: loading costs more than tenfold what reading does.
  void apply() const noexcept {
    const fpu_control now = current();
#  if defined(__SSE__)
    if (((now.mxcsr ^ mxcsr) & mxcsr_mask) != 0) {
      const std::uint32_t wanted = (mxcsr & mxcsr_mask) | (now.mxcsr & ~mxcsr_mask);
      asm volatile("{ldmxcsr %0|ldmxcsr %0}" : : "m"(wanted));
    }
#  endif
    if (now.x87 != x87) {
      asm volatile("{fldcw %0|fldcw %0}" : : "m"(x87));
    }
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept {
    return ((a.mxcsr ^ b.mxcsr) & mxcsr_mask) == 0 && a.x87 == b.x87;
  }
};

// True when the processor checks returns of this thread against a second stack, which switch_context does not switch:
// the first return after a switch would kill the process. rdsspq does nothing on a thread that has none.
inline bool shadow_stack_is_live() noexcept {
  std::uintptr_t pointer = 0;
  asm volatile(".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8" : "+a"(pointer));  // rdsspq %rax
  return pointer != 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
#endif
