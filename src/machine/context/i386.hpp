// machine/context/i386.hpp - the switch on 32-bit x86 (System V).
//
// The protocol of an arrival, shared by both forms and the thunk:
//
//     esp, ebp     loaded from the context by the one that leaves
//     eax          the payload
//     ecx          the address of the context that goes on
//     the rest     unspecified
//
// It differs from x86-64 in one point. There is no address relative to the program counter, so the place to go on at
// is found by a call of three bytes that reads its own return address: a call with its return, which keeps the
// predictor of returns in step, where the usual call-and-pop would not. There is no red zone either, so the call may
// use the stack.
//
// Doubles live in the x87 registers here; they are clobbered as all others are. Assembly outside functions is spelled
// as bytes where the AT&T and Intel dialects differ (machine/context/x86_64.hpp says why).
#ifndef CONCUR_MACHINE_CONTEXT_I386_HPP
#define CONCUR_MACHINE_CONTEXT_I386_HPP

#include "base/config.hpp"

#if defined(CONCUR_ARCH_I386)

#  include "machine/context/common.hpp"
#  include "machine/sanitizer.hpp"

#  include <cstddef>
#  include <cstdint>

#  if defined(__SSE__)
#    define CONCUR_CLOBBER_SSE , "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7"
#  else
#    define CONCUR_CLOBBER_SSE
#  endif
#  if defined(__AVX512F__)
#    define CONCUR_CLOBBER_AVX512 , "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#  else
#    define CONCUR_CLOBBER_AVX512
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
#    define CONCUR_STORE_BASE "{movl %%esi, 12(%%edi)|mov DWORD PTR [edi + 12], esi}\n\t"
#    define CONCUR_LOAD_BASE "{movl 12(%%ecx), %%esi|mov esi, DWORD PTR [ecx + 12]}\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "esi"
#  endif

// Where an indirect jump lands must be marked once the program promises so (-fcf-protection=branch).
#  if defined(__CET__) && (__CET__ & 1)
#    define CONCUR_LANDING "endbr32\n\t"
#  else
#    define CONCUR_LANDING
#  endif

#  define CONCUR_CONTEXT_HERE CONCUR_CONTEXT_NAME(CONCUR_ABI, here)

// clang-format off
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_ENTRY)
    ".cfi_startproc\n"
    ".cfi_undefined 8\n"              // the return address: unwinding, backtraces and debuggers end here
    ".byte 0xf3, 0x0f, 0x1e, 0xfb\n"  // endbr32
    ".byte 0x89, 0x04, 0x24\n"        // mov %eax, (%esp)
    ".byte 0xff, 0x54, 0x24, 0x04\n"  // call *4(%esp)
    ".byte 0x0f, 0x0b\n"              // ud2
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

// Returns its return address in edx.
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_HERE)
    ".cfi_startproc\n"
    ".byte 0x8b, 0x14, 0x24\n"        // mov (%esp), %edx
    ".byte 0xc3\n"                    // ret
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_HERE));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_SWITCH)
    ".cfi_startproc\n"
    ".byte 0xf3, 0x0f, 0x1e, 0xfb\n"                     // endbr32
    "call " CONCUR_ASM_NAME(CONCUR_CONTEXT_HERE) "\n"
    "2: .byte 0x81, 0xc2\n .long 1f - 2b\n"              // add $(1f - 2b), %edx
    ".byte 0x8b, 0x44, 0x24, 0x04\n"                     // mov 4(%esp), %eax
    ".byte 0x8b, 0x4c, 0x24, 0x08\n"                     // mov 8(%esp), %ecx
    ".byte 0x53\n" ".cfi_def_cfa_offset 8\n"  ".cfi_offset 3, -8\n"   // push %ebx
    ".byte 0x56\n" ".cfi_def_cfa_offset 12\n" ".cfi_offset 6, -12\n"  // push %esi
    ".byte 0x57\n" ".cfi_def_cfa_offset 16\n" ".cfi_offset 7, -16\n"  // push %edi
    ".byte 0x89, 0x20\n"                                 // mov %esp, (%eax)
    ".byte 0x89, 0x68, 0x04\n"                           // mov %ebp, 4(%eax)
    ".byte 0x89, 0x50, 0x08\n"                           // mov %edx, 8(%eax)
    ".byte 0x8b, 0x44, 0x24, 0x18\n"                     // mov 24(%esp), %eax
    ".byte 0x8b, 0x21\n"                                 // mov (%ecx), %esp
    ".byte 0x8b, 0x69, 0x04\n"                           // mov 4(%ecx), %ebp
    ".byte 0xff, 0x61, 0x08\n"                           // jmp *8(%ecx)
    "1: .byte 0xf3, 0x0f, 0x1e, 0xfb\n"                  // endbr32
    ".byte 0x5f\n" ".cfi_def_cfa_offset 12\n" ".cfi_restore 7\n"      // pop %edi
    ".byte 0x5e\n" ".cfi_def_cfa_offset 8\n"  ".cfi_restore 6\n"      // pop %esi
    ".byte 0x5b\n" ".cfi_def_cfa_offset 4\n"  ".cfi_restore 3\n"      // pop %ebx
    ".byte 0xc3\n"                                       // ret
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
      "call " CONCUR_ASM_NAME(CONCUR_CONTEXT_HERE) "\n"
      ".Lconcur_here_%=:\n\t"
      ".byte 0x81, 0xc2\n\t.long .Lconcur_resume_%= - .Lconcur_here_%=\n\t"  // add $(resume - here), %edx
      "{movl %%esp, (%%edi)|mov DWORD PTR [edi], esp}\n\t"
      "{movl %%ebp, 4(%%edi)|mov DWORD PTR [edi + 4], ebp}\n\t"
      "{movl %%edx, 8(%%edi)|mov DWORD PTR [edi + 8], edx}\n\t"
      CONCUR_STORE_BASE
      "{movl (%%ecx), %%esp|mov esp, DWORD PTR [ecx]}\n\t"
      "{movl 4(%%ecx), %%ebp|mov ebp, DWORD PTR [ecx + 4]}\n\t"
      "{jmpl *8(%%ecx)|jmp DWORD PTR [ecx + 8]}\n"
      ".Lconcur_resume_%=:\n\t"
      CONCUR_LANDING
      CONCUR_LOAD_BASE
      : "+a"(payload), "+D"(leaving), "+c"(arriving)
      :
      : "ebx", "edx", "cc", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_X87 CONCUR_CLOBBER_MMX CONCUR_CLOBBER_SSE CONCUR_CLOBBER_AVX512);
  // clang-format on
  return payload;
}
#  endif

// The first switch to `made` calls entry(payload) on the stack [low, low + size). entry never returns.
inline void prepare_context(context& made, void* low, std::size_t size, void (*entry)(void* payload)) noexcept {
  void** top = top_of_stack(low, size, 4);
  top[0] = nullptr;  // the argument goes here
  top[1] = reinterpret_cast<void*>(entry);
  top[2] = nullptr;
  top[3] = nullptr;
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
    asm volatile("stmxcsr %0" : "=m"(now.mxcsr));
#  endif
    asm volatile("fnstcw %0" : "=m"(now.x87));
    return now;
  }

  // Compares first: loading costs more than tenfold what reading does.
  void apply() const noexcept {
    const fpu_control now = current();
#  if defined(__SSE__)
    if (((now.mxcsr ^ mxcsr) & mxcsr_mask) != 0) {
      const std::uint32_t wanted = (mxcsr & mxcsr_mask) | (now.mxcsr & ~mxcsr_mask);
      asm volatile("ldmxcsr %0" : : "m"(wanted));
    }
#  endif
    if (now.x87 != x87) {
      asm volatile("fldcw %0" : : "m"(x87));
    }
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept {
    return ((a.mxcsr ^ b.mxcsr) & mxcsr_mask) == 0 && a.x87 == b.x87;
  }
};

// True when the processor checks returns of this thread against a second stack, which switch_context does not switch:
// the first return after a switch would kill the process. rdsspd does nothing on a thread that has none.
inline bool shadow_stack_is_live() noexcept {
  std::uintptr_t pointer = 0;
  asm volatile(".byte 0xf3, 0x0f, 0x1e, 0xc8" : "+a"(pointer));  // rdsspd %eax
  return pointer != 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
#endif
