// bench/switch.cpp - what a switch costs: two contexts that bounce, by the inline form and by the portable function.
//
// Nothing of the runtime takes part. A switch is one way, half a bounce.
#define CONCUR_BOTH_SWITCHES
#include "concur.hpp"

#include <cstddef>

#include "measure.hpp"

namespace {

namespace detail = concur::detail;

detail::context here, there;
alignas(16) char stack[65536];

void bounce_inline(void* payload) {
  for (;;) payload = detail::switch_context(there, here, payload);
}

void bounce_portable(void* payload) {
  for (;;) payload = detail::CONCUR_CONTEXT_SWITCH(&there, &here, payload);
}

void bounces_inline(long count) {
  void* payload = nullptr;
  for (long i = 0; i < count; ++i) payload = detail::switch_context(here, there, payload);
}

void bounces_portable(long count) {
  void* payload = nullptr;
  for (long i = 0; i < count; ++i) payload = detail::CONCUR_CONTEXT_SWITCH(&here, &there, payload);
}

void measure(const char* name, long switches, void (*other)(void*), void (*bounces)(long)) {
  detail::prepare_context(there, stack, sizeof stack, other);
  bounces(switches / 20 + 1);
  bench::report(name, bench::elapsed_ns([&] { bounces(switches / 2); }) / static_cast<double>(switches), "ns");
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--count"});
  const long switches = arguments.number("--count", 100000000);
  measure("switch", switches, &bounce_inline, &bounces_inline);
  measure("switch_portable", switches, &bounce_portable, &bounces_portable);
}
