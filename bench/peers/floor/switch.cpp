// bench/peers/floor/switch.cpp - two stacks hand the processor back and forth by the bare switch; ns for one.
#include "bare_switch.hpp"

#include "../../measure.hpp"

namespace {

bench::bare_context here, there;
alignas(16) char stack[65536];

void bounce() {
  for (;;) bench::bare_switch(there, here);
}

void bounces(long count) {
  for (long i = 0; i < count; ++i) bench::bare_switch(here, there);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--count"});
  const long switches = arguments.number("--count", 100000000);
  bench::prepare(there, stack, sizeof stack, &bounce);
  bounces(switches / 20 + 1);
  bench::report("switch", bench::elapsed_ns([&] { bounces(switches / 2); }) / static_cast<double>(switches), "ns");
}
