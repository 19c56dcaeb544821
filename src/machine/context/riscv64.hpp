// machine/context/riscv64.hpp - the switch on 64-bit RISC-V (lp64 and lp64d).
//
// The protocol of an arrival, shared by both forms and the thunk:
//
//     sp, s0       loaded from the context by the one that leaves
//     a0           the payload
//     a2           the address of the context that goes on
//     the rest     unspecified
//
// The jump goes through t1: a jump through ra or t0 counts as a return for the branch predictor. gp and tp belong to
// the program and the thread and are left alone. fcsr is not saved (fpu_control).
#ifndef CONCUR_MACHINE_CONTEXT_RISCV64_HPP
#define CONCUR_MACHINE_CONTEXT_RISCV64_HPP

#include "base/config.hpp"

#if defined(CONCUR_ARCH_RISCV64)

#  include "machine/context/common.hpp"
#  include "machine/sanitizer.hpp"

#  include <cstddef>
#  include <cstdint>

#  if defined(__riscv_zicfilp) || defined(__riscv_zicfiss)
#    error "concur: landing pads and shadow stacks of RISC-V are not written; compile without -fcf-protection"
#  endif

#  if defined(__riscv_flen)
#    define CONCUR_CLOBBER_FLOAT                                                                                     \
      , "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",     \
          "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", \
          "ft10", "ft11"
#  else
#    define CONCUR_CLOBBER_FLOAT
#  endif
#  if defined(__clang__)
#    define CONCUR_CLOBBER_VECTOR_LENGTH  // clang sets both anew after any assembly
#  else
#    define CONCUR_CLOBBER_VECTOR_LENGTH , "vl", "vtype"
#  endif
#  if defined(__riscv_vector)
#    define CONCUR_CLOBBER_VECTOR                                                                                    \
      , "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", \
          "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",          \
          "v31" CONCUR_CLOBBER_VECTOR_LENGTH
#  else
#    define CONCUR_CLOBBER_VECTOR
#  endif

#  if CONCUR_SAVES_BASE
#    define CONCUR_STORE_BASE "sd s1, 24(a1)\n\t"
#    define CONCUR_LOAD_BASE "ld s1, 24(a2)\n\t"
#    define CONCUR_CLOBBER_BASE
#  else
#    define CONCUR_STORE_BASE
#    define CONCUR_LOAD_BASE
#    define CONCUR_CLOBBER_BASE , "s1"
#  endif

// clang-format off
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_ENTRY)
    ".cfi_startproc\n"
    ".cfi_undefined 1\n"  // ra: unwinding, backtraces and debuggers end here
    "ld t1, 0(sp)\n"
    "jalr t1\n"
    "ebreak\n"
    ".cfi_endproc\n"
    CONCUR_ASM_CLOSE(CONCUR_CONTEXT_ENTRY));

#  if defined(CONCUR_PORTABLE_SWITCH) || defined(CONCUR_BOTH_SWITCHES)
asm(CONCUR_ASM_OPEN(CONCUR_CONTEXT_SWITCH)
    ".cfi_startproc\n"
    "addi sp, sp, -208\n"
    ".cfi_def_cfa_offset 208\n"
    "sd ra, 200(sp)\n"  ".cfi_offset 1, -8\n"
    "sd s0, 192(sp)\n"  ".cfi_offset 8, -16\n"
    "sd s1, 184(sp)\n"  ".cfi_offset 9, -24\n"
    "sd s2, 176(sp)\n"  ".cfi_offset 18, -32\n"
    "sd s3, 168(sp)\n"  ".cfi_offset 19, -40\n"
    "sd s4, 160(sp)\n"  ".cfi_offset 20, -48\n"
    "sd s5, 152(sp)\n"  ".cfi_offset 21, -56\n"
    "sd s6, 144(sp)\n"  ".cfi_offset 22, -64\n"
    "sd s7, 136(sp)\n"  ".cfi_offset 23, -72\n"
    "sd s8, 128(sp)\n"  ".cfi_offset 24, -80\n"
    "sd s9, 120(sp)\n"  ".cfi_offset 25, -88\n"
    "sd s10, 112(sp)\n" ".cfi_offset 26, -96\n"
    "sd s11, 104(sp)\n" ".cfi_offset 27, -104\n"
#    if defined(__riscv_flen)
    "fsd fs0, 96(sp)\n fsd fs1, 88(sp)\n fsd fs2, 80(sp)\n fsd fs3, 72(sp)\n"
    "fsd fs4, 64(sp)\n fsd fs5, 56(sp)\n fsd fs6, 48(sp)\n fsd fs7, 40(sp)\n"
    "fsd fs8, 32(sp)\n fsd fs9, 24(sp)\n fsd fs10, 16(sp)\n fsd fs11, 8(sp)\n"
#    endif
    "lla t1, 1f\n"
    "sd sp, 0(a0)\n"
    "sd s0, 8(a0)\n"
    "sd t1, 16(a0)\n"
    "mv a0, a2\n"
    "mv a2, a1\n"
    "ld sp, 0(a2)\n"
    "ld s0, 8(a2)\n"
    "ld t1, 16(a2)\n"
    "jr t1\n"
    "1:\n"
#    if defined(__riscv_flen)
    "fld fs0, 96(sp)\n fld fs1, 88(sp)\n fld fs2, 80(sp)\n fld fs3, 72(sp)\n"
    "fld fs4, 64(sp)\n fld fs5, 56(sp)\n fld fs6, 48(sp)\n fld fs7, 40(sp)\n"
    "fld fs8, 32(sp)\n fld fs9, 24(sp)\n fld fs10, 16(sp)\n fld fs11, 8(sp)\n"
#    endif
    "ld ra, 200(sp)\n ld s0, 192(sp)\n ld s1, 184(sp)\n ld s2, 176(sp)\n ld s3, 168(sp)\n ld s4, 160(sp)\n"
    "ld s5, 152(sp)\n ld s6, 144(sp)\n ld s7, 136(sp)\n ld s8, 128(sp)\n ld s9, 120(sp)\n ld s10, 112(sp)\n"
    "ld s11, 104(sp)\n"
    "addi sp, sp, 208\n"
    ".cfi_def_cfa_offset 0\n"
    ".cfi_restore 1\n.cfi_restore 8\n.cfi_restore 9\n.cfi_restore 18\n.cfi_restore 19\n.cfi_restore 20\n"
    ".cfi_restore 21\n.cfi_restore 22\n.cfi_restore 23\n.cfi_restore 24\n.cfi_restore 25\n.cfi_restore 26\n"
    ".cfi_restore 27\n"
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
  register void* value asm("a0") = payload;
  register context* leaving asm("a1") = &from;
  register const context* arriving asm("a2") = &to;
  // clang-format off
  asm volatile(
      "lla t1, .Lconcur_resume_%=\n\t"
      "sd sp, 0(a1)\n\t"
      "sd s0, 8(a1)\n\t"
      "sd t1, 16(a1)\n\t"
      CONCUR_STORE_BASE
      "ld sp, 0(a2)\n\t"
      "ld s0, 8(a2)\n\t"
      "ld t1, 16(a2)\n\t"
      "jr t1\n"
      ".Lconcur_resume_%=:\n\t"
      CONCUR_LOAD_BASE
      : "+r"(value), "+r"(leaving), "+r"(arriving)
      :
      : "ra", "t0", "t1", "t2", "t3", "t4", "t5", "t6", "a3", "a4", "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6",
        "s7", "s8", "s9", "s10", "s11", "memory"
        CONCUR_CLOBBER_BASE CONCUR_CLOBBER_FLOAT CONCUR_CLOBBER_VECTOR);
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

// The rounding mode: what C's fesetround() sets. The default is what a process starts with.
struct fpu_control {
  unsigned long rounding = 0;

  static fpu_control current() noexcept {
    fpu_control now;
#  if defined(__riscv_flen)
    asm volatile("frrm %0" : "=r"(now.rounding));
#  endif
    return now;
  }

  void apply() const noexcept {
#  if defined(__riscv_flen)
    if (current().rounding != rounding) {
      asm volatile("fsrm %0" : : "r"(rounding));
    }
#  endif
  }

  friend bool operator==(const fpu_control& a, const fpu_control& b) noexcept { return a.rounding == b.rounding; }
};

// Programs with a shadow stack are refused by the compiler check above.
inline bool shadow_stack_is_live() noexcept { return false; }

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
#endif
