// machine/context/arm.hpp - the switch on 32-bit ARM (AAPCS; ARM and Thumb-2 code, hard and soft float).
//
// The protocol of an arrival, shared by both forms and the thunk:
//
//     sp           loaded from the context by the one that leaves
//     r0           the payload
//     r1           the address of the context that goes on, from which it loads its own frame pointer
//     the rest     unspecified
//
// The frame pointer is r11 in ARM code and r7 in Thumb code, and a program may mix both. The one that leaves cannot
// know what the other was compiled as, so here the arriving side loads it. For the same reason the address to go on
// at has its lowest bit set when it is Thumb code, and the jump is bx.
//
// FPSCR is not saved (fpu_control). Thumb-1 (ARMv5 or ARMv6 with -mthumb) cannot name the high registers and is
// refused.
#ifndef CONCUR_MACHINE_CONTEXT_ARM_HPP
#define CONCUR_MACHINE_CONTEXT_ARM_HPP

#include "base/config.hpp"

#if defined(CONCUR_ARCH_ARM)

#  include "machine/context/common.hpp"
#  include "machine/sanitizer.hpp"

#  include <cstddef>
#  include <cstdint>

#  if defined(__thumb__) && !defined(__thumb2__)
#    error "concur: Thumb-1 code is not supported; compile with -marm, or for ARMv7 or later"
#  endif
#  if defined(__FDPIC__)
#    error "concur: FDPIC is not supported"
#  endif

#  if defined(__thumb__)
#    define CONCUR_ARM_MODE ".syntax unified\n.thumb\n.thumb_func\n"
#    define CONCUR_ARM_FRAME "r7"
#    define CONCUR_ARM_NO_FRAME "r11"
// adr counts from the program counter rounded down to four, which is only known where the section is aligned to four;
// the compiler is content with two.
#    define CONCUR_ARM_ADDRESS(label) ".p2align 2\n\tadr.w r3, " label "\n\tadd r3, r3, #1\n\t"
#  else
#    define CONCUR_ARM_MODE ".syntax unified\n.arm\n"
#    define CONCUR_ARM_FRAME "r11"
#    define CONCUR_ARM_NO_FRAME "r7"
#    define CONCUR_ARM_ADDRESS(label) "adr r3, " label "\n\t"
#  endif

#  if CONCUR_SAVES_BASE
#    define CONCUR_STORE_BASE "str r6, [r1, #12]\n\t"
#    define CONCUR_LOAD_BASE "ldr r6, [r1, #12]\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "r6"
#  endif

// No macro tells whether there are d16-d31, so they are named whenever there may be: naming too many costs nothing.
#  if defined(__ARM_FP)
#    define CONCUR_CLOBBER_VECTOR                                                                                    \
      , "d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d10", "d11", "d12", "d13", "d14", "d15", "d16", \
          "d17", "d18", "d19", "d20", "d21", "d22", "d23", "d24", "d25", "d26", "d27", "d28", "d29", "d30", "d31"
#  else
#    define CONCUR_CLOBBER_VECTOR
#  endif

// clang-format off
asm(CONCUR_ASM_OPEN_IN_MODE(CONCUR_CONTEXT_ENTRY, CONCUR_ARM_MODE)
    ".fnstart\n"
    ".cantunwind\n"  // unwinding ends here
    "mov r7, #0\n"   // and so does following frame pointers
    "mov r11, #0\n"
    "ldr r2, [sp]\n"
    "blx r2\n"
    "1: b 1b\n"
    ".fnend\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN_IN_MODE(CONCUR_CONTEXT_SWITCH, CONCUR_ARM_MODE)
    ".fnstart\n"
    "push {r4-r11, lr}\n"
    ".save {r4-r11, lr}\n"
    "sub sp, sp, #4\n"
    ".pad #4\n"
#    if defined(__ARM_FP)
    "vpush {d8-d15}\n"
    ".vsave {d8-d15}\n"
#    endif
    CONCUR_ARM_ADDRESS("1f")
    "mov r12, sp\n"
    "str r12, [r0]\n"
    "str " CONCUR_ARM_FRAME ", [r0, #4]\n"
    "str r3, [r0, #8]\n"
    "mov r0, r2\n"
    "ldr r12, [r1]\n"
    "ldr r3, [r1, #8]\n"
    "mov sp, r12\n"
    "bx r3\n"
    "1:\n"
#    if defined(__ARM_FP)
    "vpop {d8-d15}\n"
#    endif
    "add sp, sp, #4\n"
    "pop {r4-r11, pc}\n"
    ".fnend\n"
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
  register void* value asm("r0") = payload;
  register context* leaving asm("r1") = &from;
  register const context* arriving asm("r2") = &to;
  // clang-format off
#    if defined(__clang__)
#      pragma clang diagnostic push
#      pragma clang diagnostic ignored "-Winline-asm"  // d16-d31 on a processor without them
#    endif
  asm volatile(
      CONCUR_ARM_ADDRESS(".Lconcur_resume_%=")
      "mov r12, sp\n\t"
      "str r12, [r1]\n\t"
      "str " CONCUR_ARM_FRAME ", [r1, #4]\n\t"
      "str r3, [r1, #8]\n\t"
      CONCUR_STORE_BASE
      "mov r1, r2\n\t"
      "ldr r12, [r1]\n\t"
      "ldr r3, [r1, #8]\n\t"
      "mov sp, r12\n\t"
      "bx r3\n"
      ".Lconcur_resume_%=:\n\t"
      "ldr " CONCUR_ARM_FRAME ", [r1, #4]\n\t"
      CONCUR_LOAD_BASE
      : "+r"(value), "+r"(leaving), "+r"(arriving)
      :
      : "r3", "r4", "r5", CONCUR_ARM_NO_FRAME, "r8", "r9", "r10", "r12", "lr", "cc", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_VECTOR);
#    if defined(__clang__)
#      pragma clang diagnostic pop
#    endif
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
  made.fp = nullptr;
  made.base = nullptr;
  made.pc = reinterpret_cast<void*>(&CONCUR_CONTEXT_ENTRY);
}

// Rounding, flush to zero and trap masks. The default is what a process starts with.
struct fpu_control {
  std::uint32_t fpscr = 0;

  // The other bits of FPSCR are condition flags and sticky flags.
  static constexpr std::uint32_t fpscr_mask = 0x07f79f00;

  static fpu_control current() noexcept {
    fpu_control now;
#  if defined(__ARM_FP)
    asm volatile("vmrs %0, fpscr" : "=r"(now.fpscr));
#  endif
    return now;
  }

  void apply() const noexcept {
#  if defined(__ARM_FP)
    const std::uint32_t now = current().fpscr;
    if (((now ^ fpscr) & fpscr_mask) != 0) {
      const std::uint32_t wanted = (fpscr & fpscr_mask) | (now & ~fpscr_mask);
      asm volatile("vmsr fpscr, %0" : : "r"(wanted));
    }
#  endif
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept {
    return ((a.fpscr ^ b.fpscr) & fpscr_mask) == 0;
  }
};

// No 32-bit ARM processor has a shadow stack.
inline bool shadow_stack_is_live() noexcept { return false; }

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
#endif
