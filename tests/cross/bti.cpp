// tests/cross/bti.cpp - on pages that demand landing marks every jump of the switch lands on one.
//
// A program without a C library, so that all its code is ours and can be guarded: it sets PROT_BTI on its own text, then
// bounces between two contexts. An indirect jump to anything but a mark raises SIGILL from then on.
#include "machine/context.hpp"

namespace {

long system_call(long number, long a, long b, long c) {
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  asm volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}

[[noreturn]] void leave(int status) {
  for (;;) system_call(93, status, 0, 0);  // exit
}

concur::detail::context here, there;
alignas(16) char stack[16384];

void bounce(void* payload) {
  for (;;) payload = concur::detail::switch_context(there, here, static_cast<char*>(payload) + 1);
}

}  // namespace

extern "C" {
extern const char __executable_start[];
extern const char etext[];

[[noreturn]] void _start() {
  const long first = reinterpret_cast<long>(&__executable_start[0]) & -4096L;
  const long last = (reinterpret_cast<long>(&etext[0]) + 4095) & -4096L;
  if (system_call(226, first, last - first, 1 | 4 | 0x10) != 0) leave(2);  // mprotect: read, execute, BTI
  concur::detail::prepare_context(there, stack, sizeof stack, &bounce);
  for (char* sent = stack; sent < stack + 100; ++sent) {
    if (concur::detail::switch_context(here, there, sent) != sent + 1) leave(3);
  }
  leave(0);
}
}
