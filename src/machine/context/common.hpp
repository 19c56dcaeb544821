// machine/context/common.hpp - what a stopped context is, and how assembly text is put into a header.
//
// Each processor's file gives four things: switch_context in its inline form, the same as one function in assembly
// (the portable form), the entry thunk on which each context begins, and fpu_control. The thunk and the portable form
// are top-level assembly in a header that many translation units include, so the text must be allowed to occur many
// times:
//
//     .ifndef NAME      the same assembler run may see it twice (g++ -flto joins units before it assembles)
//     comdat, .weak     several objects carry it; the linker keeps one
//     .hidden           a shared object uses its own copy, and the address needs no table
//     name with ABI     two versions of concur in one program never take each other's
//
// The portable form is taken with -DCONCUR_PORTABLE_SWITCH, by all units of a program or by some: contexts stopped by
// either form are resumed by both. CONCUR_BOTH_SWITCHES keeps the inline form and adds the function, to compare them.
//
// .pushsection and .popsection leave the compiler where it was. The stack stays non-executable, because the compiler
// writes the note that says so for the whole unit.
#ifndef CONCUR_MACHINE_CONTEXT_COMMON_HPP
#define CONCUR_MACHINE_CONTEXT_COMMON_HPP

#include "base/config.hpp"

#include <cstddef>
#include <cstdint>

#define CONCUR_CONTEXT_NAME_(abi, role) concur_##abi##_context_##role
#define CONCUR_CONTEXT_NAME(abi, role) CONCUR_CONTEXT_NAME_(abi, role)
#define CONCUR_CONTEXT_ENTRY CONCUR_CONTEXT_NAME(CONCUR_ABI, entry)
#if defined(CONCUR_ARCH_ARM) && defined(__ARM_FP)
// It saves d8-d15: a unit compiled without them must not lend its own to this one.
#  define CONCUR_CONTEXT_SWITCH CONCUR_CONTEXT_NAME(CONCUR_ABI, switch_vfp)
#else
#  define CONCUR_CONTEXT_SWITCH CONCUR_CONTEXT_NAME(CONCUR_ABI, switch)
#endif

// In a function that has both over-aligned locals and alloca() or a variable-length array, clang reaches its locals
// through a "base" register, and does not see that assembly destroys it, whatever the clobber list says. So the inline
// form keeps that one register itself under clang: stored by the one that leaves, loaded on arrival. g++ copes.
#if defined(__clang__)
#  define CONCUR_SAVES_BASE 1
#else
#  define CONCUR_SAVES_BASE 0
#endif

#define CONCUR_ASM_TEXT_(...) #__VA_ARGS__
#define CONCUR_ASM_TEXT(...) CONCUR_ASM_TEXT_(__VA_ARGS__)
// C++ name -> assembler name: Mach-O puts an underscore in front.
#define CONCUR_ASM_NAME(name) CONCUR_ASM_TEXT(__USER_LABEL_PREFIX__) CONCUR_ASM_TEXT(name)

#if defined(__APPLE__)
#  define CONCUR_ASM_LOCAL "L"
#  define CONCUR_ASM_OPEN(name) \
    ".pushsection __TEXT,__text,regular,pure_instructions\n"              \
    ".private_extern " CONCUR_ASM_NAME(name) "\n"                         \
    ".globl " CONCUR_ASM_NAME(name) "\n"                                  \
    ".weak_definition " CONCUR_ASM_NAME(name) "\n"                        \
    ".p2align 4\n"                                                        \
    CONCUR_ASM_NAME(name) ":\n"
#  define CONCUR_ASM_CLOSE(name) ".popsection\n"
#else
// %progbits and %function, not @: on arm @ begins a comment, and % is understood everywhere.
#  define CONCUR_ASM_LOCAL ".L"
#  define CONCUR_ASM_OPEN(name) CONCUR_ASM_OPEN_IN_MODE(name, "")
// `mode` is what the assembler wants to hear directly before the label (ARM or Thumb).
#  define CONCUR_ASM_OPEN_IN_MODE(name, mode) \
    ".ifndef " CONCUR_ASM_NAME(name) "\n"                                                                           \
    ".pushsection .text." CONCUR_ASM_NAME(name) ",\"axG\",%progbits," CONCUR_ASM_NAME(name) ",comdat\n"             \
    ".weak " CONCUR_ASM_NAME(name) "\n"                                                                             \
    ".hidden " CONCUR_ASM_NAME(name) "\n"                                                                           \
    ".type " CONCUR_ASM_NAME(name) ", %function\n"                                                                  \
    ".p2align 4\n"                                                                                                  \
    mode CONCUR_ASM_NAME(name) ":\n"
#  define CONCUR_ASM_CLOSE(name) \
    ".size " CONCUR_ASM_NAME(name) ", . - " CONCUR_ASM_NAME(name) "\n"    \
    ".popsection\n"                                                       \
    ".endif\n"
#endif

CONCUR_NAMESPACE_BEGIN
namespace detail {

// A stopped context. Everything else that it needs lies on its stack. Assembly and the debugger's script know this
// layout.
struct context {
  void* sp;
  void* fp;
  void* pc;
  void* base;  // for units compiled by clang only; see CONCUR_SAVES_BASE
};

static_assert(offsetof(context, sp) == 0 && offsetof(context, fp) == sizeof(void*) &&
                  offsetof(context, pc) == 2 * sizeof(void*) && offsetof(context, base) == 3 * sizeof(void*),
              "the assembly in machine/context/ reads these offsets");

extern "C" {
// Where each context begins: passes the payload to the entry function. Ends every chain of frames and every
// unwinding.
void CONCUR_CONTEXT_ENTRY() __attribute__((visibility("hidden")));
// The portable form of switch_context.
void* CONCUR_CONTEXT_SWITCH(context* from, const context* to, void* payload) noexcept
    __attribute__((visibility("hidden")));
}

// The highest `words` words of a stack, the lowest of them aligned to 16 bytes, as every processor here demands at a
// call.
inline void** top_of_stack(void* low, std::size_t size, std::size_t words) noexcept {
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(low) + size;
  const std::uintptr_t sp = (end - words * sizeof(void*)) & ~std::uintptr_t{15};
  return reinterpret_cast<void**>(sp);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
