// bench/peers/floor/yield.cpp - contexts in a linked queue that take turns, and nothing else; ns a yield.
//
// One thread and no locks: who yields puts itself behind the last and switches to the first. No fiber is made or joined by a
// runtime, none can wait for anything, and a single global tells who runs.
#include <cstdlib>
#include <memory>
#include <vector>

#include "../../measure.hpp"
#include "bare_switch.hpp"

namespace {

struct member {
  bench::bare_context context;
  member* next = nullptr;
};

constexpr std::size_t stack_bytes = 16384;

// The queue: its first member, and where the next to come is written. Two variables and no struct, for g++ stores a pair by
// one vector instruction, and whoever then loads a half of it waits several times as long.
member* first = nullptr;
member** behind_last = &first;

member home;
member* running = nullptr;
long each_yields = 0;
long alive = 0;

inline __attribute__((always_inline)) void push(member* one) {
  one->next = nullptr;
  *behind_last = one;
  behind_last = &one->next;
}

inline __attribute__((always_inline)) member* pop() {
  member* one = first;
  first = one->next;
  if (first == nullptr) behind_last = &first;
  return one;
}

// Inlined, so that each place that yields has a jump of its own.
inline __attribute__((always_inline)) void run_next(member* self) {
  running = pop();
  bench::bare_switch(self->context, running->context);
}

inline __attribute__((always_inline)) void yield_now() {
  push(running);
  run_next(running);
}

[[noreturn]] void body() {
  for (long k = 0; k < each_yields; ++k) yield_now();
  if (--alive == 0) push(&home);
  run_next(running);
  std::abort();
}

void yields(std::vector<member>& members, char* stacks, long each) {
  each_yields = each;
  alive = static_cast<long>(members.size());
  for (std::size_t i = 0; i < members.size(); ++i) {
    bench::prepare(members[i].context, stacks + i * stack_bytes, stack_bytes, &body);
    push(&members[i]);
  }
  run_next(&home);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--fibers"});
  if (arguments.number("--workers", 1) != 1) {
    std::fprintf(stderr, "there are no locks in it: one worker\n");
    return 2;
  }
  const long fibers = arguments.number("--fibers", 2);
  const long each = arguments.number("--count", 10000000) / fibers;
  std::vector<member> members(static_cast<std::size_t>(fibers));
  const std::unique_ptr<char[]> stacks(new char[members.size() * stack_bytes]);
  yields(members, stacks.get(), each / 10 + 1);
  const double ns = bench::elapsed_ns([&] { yields(members, stacks.get(), each); });
  bench::report("yield", ns / static_cast<double>(fibers * each), "ns");
}
