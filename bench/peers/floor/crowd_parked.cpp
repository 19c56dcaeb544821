// bench/peers/floor/crowd_parked.cpp - what memory charges for a crowd that is made and parked, then woken and ended; ns each.
//
// Each context begins on a stack of its own, which others have used before it, calls something, and is written down in the
// list of those that wait. To wake them makes the list the queue of those that are ready; each goes on, returns from what it had
// called, and ends, and its stack is free again. Of each stack the lines with those two frames are touched; lists and queue are
// walked from one end to the other, and tell in time whose stack to ask for. No fiber with a stack can do with less.
#include <cstdlib>
#include <vector>

#include "../../measure.hpp"
#include "bare_switch.hpp"
#include "stacks.hpp"

namespace {

constexpr std::size_t ahead = 4;  // whose stack is asked for; behind the lists are as many places that stay empty

struct crowd {
  explicit crowd(std::size_t count) : waiting(count + ahead), free_stacks(count + ahead), room(count) {
    for (std::size_t i = 0; i < count; ++i) free_stacks[i] = i;
  }

  std::vector<bench::bare_context> waiting;
  std::vector<std::size_t> free_stacks;
  bench::stacks room;
};

bench::bare_context home;
bench::bare_context* next_place = nullptr;  // where who parks is written down, or who goes on is found
bench::bare_context* end_of_crowd = nullptr;
long gone = 0;

__attribute__((noinline)) void park() {
  bench::bare_context& self = *next_place++;
  bench::bare_switch(self, home);
}

inline __attribute__((always_inline)) bench::bare_context& take_ready() {
  if (next_place == end_of_crowd) return home;
  __builtin_prefetch(next_place[ahead].stack);
  return *next_place++;
}

[[noreturn]] void body() {
  park();
  ++gone;
  bench::bare_context unused;
  bench::bare_switch(unused, take_ready());
  std::abort();
}

void* top_of(const crowd& one, std::size_t stack) {
  return static_cast<char*>(one.room.low(stack)) + bench::stacks::size(stack) - 64;
}

void park_all(crowd& one, std::size_t count) {
  next_place = one.waiting.data();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t stack = one.free_stacks[i];
    __builtin_prefetch(top_of(one, one.free_stacks[i + ahead]), 1);
    bench::bare_context fresh;
    bench::prepare(fresh, one.room.low(stack), bench::stacks::size(stack), &body);
    bench::bare_switch(home, fresh);
  }
}

void wake_all(crowd& one, std::size_t count) {
  next_place = one.waiting.data();
  end_of_crowd = next_place + count;
  bench::bare_switch(home, take_ready());
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--rounds"});
  if (arguments.number("--workers", 1) != 1) {
    std::fprintf(stderr, "there are no locks in it: one worker\n");
    return 2;
  }
  const long count = arguments.number("--count", 1000000);
  const long rounds = arguments.number("--rounds", 1);
  const auto size = static_cast<std::size_t>(count);
  crowd all(size);
  double create_ns = 0, wake_ns = 0;
  for (long i = 0; i <= rounds; ++i) {
    const double create = bench::elapsed_ns([&] { park_all(all, size); });
    const double wake = bench::elapsed_ns([&] { wake_all(all, size); });
    if (i == 0) continue;  // on stacks that nobody had touched
    create_ns += create;
    wake_ns += wake;
  }
  bench::expect_sum("gone", gone, (rounds + 1) * count);
  const double each = static_cast<double>(count) * static_cast<double>(rounds);
  bench::report("create_again", create_ns / each, "ns");
  bench::report("wake_again", wake_ns / each, "ns");
}
