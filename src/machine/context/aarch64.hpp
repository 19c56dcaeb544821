// machine/context/aarch64.hpp - the switch on 64-bit ARM (AAPCS64, Linux and Apple).
//
// The protocol of an arrival, shared by both forms and the thunk:
//
//     sp, x29      loaded from the context by the one that leaves
//     x0           the payload
//     x2           the address of the context that goes on
//     the rest     unspecified
//
// x29 is saved by hand, since it is the frame pointer. x18 belongs to the platform on Apple and Android and is an
// ordinary register elsewhere. Naming v0-v31 covers the scalable z registers that contain them; the predicates are
// named where SVE is on. A return address that was signed (PAC) stays valid: the signature depends on the stack
// pointer, and each context comes back to its own.
//
// With branch protection a page may demand that indirect jumps land on a mark. The jump goes through x16 and lands on
// `bti jc`, written as a hint, which is no operation to older processors and needs no newer assembler. FPCR is not
// saved (fpu_control).
#ifndef CONCUR_MACHINE_CONTEXT_AARCH64_HPP
#define CONCUR_MACHINE_CONTEXT_AARCH64_HPP

#include "base/config.hpp"

#if defined(CONCUR_ARCH_AARCH64)

#  include "machine/context/common.hpp"
#  include "machine/sanitizer.hpp"

#  include <cstddef>
#  include <cstdint>

#  if defined(__ILP32__)
#    error "concur: aarch64 with 32-bit pointers is not written"
#  endif

#  if defined(__APPLE__) || defined(__ANDROID__)
#    define CONCUR_CLOBBER_X18
#  else
#    define CONCUR_CLOBBER_X18 , "x18"
#  endif
#  if defined(__ARM_FP)
#    define CONCUR_CLOBBER_VECTOR                                                                                    \
      , "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", \
          "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"
#  else
#    define CONCUR_CLOBBER_VECTOR
#  endif
#  if defined(__clang__)
#    define CONCUR_CLOBBER_FFR  // clang does not know the name, and keeps nothing there
#  else
#    define CONCUR_CLOBBER_FFR , "ffr"
#  endif
#  if defined(__ARM_FEATURE_SVE)
#    define CONCUR_CLOBBER_SVE                                                                         \
      , "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "p10", "p11", "p12", "p13", "p14", \
          "p15" CONCUR_CLOBBER_FFR
#  else
#    define CONCUR_CLOBBER_SVE
#  endif

#  if CONCUR_SAVES_BASE
#    define CONCUR_STORE_BASE "str x19, [x1, #24]\n\t"
#    define CONCUR_LOAD_BASE "ldr x19, [x2, #24]\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "x19"
#  endif

#  define CONCUR_BTI_JC "hint #38\n"
#  if defined(__ARM_FEATURE_BTI_DEFAULT)
#    define CONCUR_LANDING CONCUR_BTI_JC
#  else
#    define CONCUR_LANDING
#  endif

// clang-format off
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_ENTRY)
    ".cfi_startproc\n"
    ".cfi_undefined 30\n"  // the return address: unwinding, backtraces and debuggers end here
    CONCUR_BTI_JC
    "ldr x1, [sp]\n"
    "blr x1\n"
    "brk #0\n"
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_SWITCH)
    ".cfi_startproc\n"
    CONCUR_BTI_JC
    "sub sp, sp, #160\n"
    ".cfi_def_cfa_offset 160\n"
    "stp x29, x30, [sp]\n"       ".cfi_offset 29, -160\n" ".cfi_offset 30, -152\n"
    "stp x19, x20, [sp, #16]\n"  ".cfi_offset 19, -144\n" ".cfi_offset 20, -136\n"
    "stp x21, x22, [sp, #32]\n"  ".cfi_offset 21, -128\n" ".cfi_offset 22, -120\n"
    "stp x23, x24, [sp, #48]\n"  ".cfi_offset 23, -112\n" ".cfi_offset 24, -104\n"
    "stp x25, x26, [sp, #64]\n"  ".cfi_offset 25, -96\n"  ".cfi_offset 26, -88\n"
    "stp x27, x28, [sp, #80]\n"  ".cfi_offset 27, -80\n"  ".cfi_offset 28, -72\n"
#    if defined(__ARM_FP)
    "stp d8, d9, [sp, #96]\n"
    "stp d10, d11, [sp, #112]\n"
    "stp d12, d13, [sp, #128]\n"
    "stp d14, d15, [sp, #144]\n"
#    endif
    "adr x3, 1f\n"
    "mov x4, sp\n"
    "stp x4, x29, [x0]\n"
    "str x3, [x0, #16]\n"
    "mov x0, x2\n"
    "mov x2, x1\n"
    "ldp x4, x29, [x2]\n"
    "ldr x16, [x2, #16]\n"
    "mov sp, x4\n"
    "br x16\n"
    "1:\n"
    CONCUR_BTI_JC
#    if defined(__ARM_FP)
    "ldp d8, d9, [sp, #96]\n"
    "ldp d10, d11, [sp, #112]\n"
    "ldp d12, d13, [sp, #128]\n"
    "ldp d14, d15, [sp, #144]\n"
#    endif
    "ldp x27, x28, [sp, #80]\n"
    "ldp x25, x26, [sp, #64]\n"
    "ldp x23, x24, [sp, #48]\n"
    "ldp x21, x22, [sp, #32]\n"
    "ldp x19, x20, [sp, #16]\n"
    "ldp x29, x30, [sp]\n"
    "add sp, sp, #160\n"
    ".cfi_def_cfa_offset 0\n"
    ".cfi_restore 19\n.cfi_restore 20\n.cfi_restore 21\n.cfi_restore 22\n.cfi_restore 23\n.cfi_restore 24\n"
    ".cfi_restore 25\n.cfi_restore 26\n.cfi_restore 27\n.cfi_restore 28\n.cfi_restore 29\n.cfi_restore 30\n"
    "ret\n"
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
  register void* value asm("x0") = payload;
  register context* leaving asm("x1") = &from;
  register const context* arriving asm("x2") = &to;
  // clang-format off
  asm volatile(
      "adr x3, " CONCUR_ASM_LOCAL "concur_resume_%=\n\t"
      "mov x4, sp\n\t"
      "stp x4, x29, [x1]\n\t"
      "str x3, [x1, #16]\n\t"
      CONCUR_STORE_BASE
      "ldp x4, x29, [x2]\n\t"
      "ldr x16, [x2, #16]\n\t"
      "mov sp, x4\n\t"
      "br x16\n"
      CONCUR_ASM_LOCAL "concur_resume_%=:\n\t"
      CONCUR_LANDING
      CONCUR_LOAD_BASE
      : "+r"(value), "+r"(leaving), "+r"(arriving)
      :
      : "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "x20",
        "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30", "cc", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_X18 CONCUR_CLOBBER_VECTOR CONCUR_CLOBBER_SVE);
  // clang-format on
  return value;
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

// Rounding and trap masks: what C's fesetround() and friends set. The default is what a process starts with.
struct fpu_control {
  std::uint64_t fpcr = 0;

  static fpu_control current() noexcept {
    fpu_control now;
#  if defined(__ARM_FP)
    asm volatile("mrs %0, fpcr" : "=r"(now.fpcr));
#  endif
    return now;
  }

  // Compares first: a write waits for the pipeline to drain.
  void apply() const noexcept {
#  if defined(__ARM_FP)
    if (current().fpcr != fpcr) {
      asm volatile("msr fpcr, %0" : : "r"(fpcr));
    }
#  endif
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept { return a.fpcr == b.fpcr; }
};

// True when the processor checks returns of this thread against a second stack (guarded control stack), which
// switch_context does not switch: the first return after a switch would kill the process. chkfeat clears bit 0 of x16
// when it is on, and does nothing on processors that have none.
inline bool shadow_stack_is_live() noexcept {
  register std::uint64_t features asm("x16") = 1;
  asm volatile("hint #40" : "+r"(features));  // chkfeat x16
  return features == 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
#endif
