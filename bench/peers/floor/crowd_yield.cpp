// bench/peers/floor/crowd_yield.cpp - what memory charges a crowd of contexts that take turns; ns a yield.
//
// Who yields is written down in the queue, and the next one there goes on. A fiber has a stack of its own, and whoever yields
// has called something: of each stack the line with that return address is touched, and of the rest of memory nothing but
// the queue, from one end to the other, which says in time whose stack to ask for. No fiber with a stack can do with less: what
// this takes longer among a million than among a thousand is what the machine charges. Workers are threads that share nothing.
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include "../../measure.hpp"
#include "bare_switch.hpp"
#include "stacks.hpp"

namespace {

constexpr std::size_t ahead = 4;  // whose stack is asked for; behind the queue are as many places that stay empty

// A thread's own. The queue is a ring with one empty place, which is where who yields is put; the next one is behind it.
thread_local bench::bare_context* first = nullptr;
thread_local bench::bare_context* last = nullptr;
thread_local bench::bare_context* empty = nullptr;
thread_local bench::bare_context home;
thread_local long each_yields = 0;
thread_local long alive = 0;
thread_local bool is_begun = false;
thread_local std::chrono::steady_clock::time_point begin;

inline __attribute__((always_inline)) bench::bare_context& take_next() {
  empty = empty == last ? first : empty + 1;
  __builtin_prefetch(empty[ahead].stack);
  return *empty;
}

__attribute__((noinline)) void yield_now() {
  bench::bare_context& self = *empty;
  bench::bare_switch(self, take_next());
}

// All have come when the first goes on.
[[noreturn]] void body() {
  yield_now();
  if (!is_begun) {
    is_begun = true;
    begin = std::chrono::steady_clock::now();
  }
  for (long k = 0; k < each_yields; ++k) yield_now();
  bench::bare_context unused;
  bench::bare_switch(unused, --alive == 0 ? home : take_next());
  std::abort();
}

double yields_ns(std::vector<bench::bare_context>& queue, const bench::stacks& room, long each) {
  is_begun = false;
  each_yields = each;
  const std::size_t fibers = queue.size() - ahead;
  alive = static_cast<long>(fibers);
  first = empty = queue.data();
  last = first + fibers - 1;
  for (std::size_t i = 0; i < fibers; ++i) {
    bench::prepare(queue[i], room.low(i), bench::stacks::size(i), &body);
  }
  bench::bare_switch(home, *first);
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
}

double mean_ns(long fibers, long each) {
  std::vector<bench::bare_context> queue(static_cast<std::size_t>(fibers) + ahead);
  const bench::stacks room(queue.size());
  yields_ns(queue, room, each / 10 + 1);
  return yields_ns(queue, room, each) / static_cast<double>(fibers * each);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--fibers"});
  const long workers = arguments.number("--workers", 1);
  const long fibers = arguments.number("--fibers", 2);
  const long each = arguments.number("--count", 10000000) / fibers;
  std::vector<double> means(static_cast<std::size_t>(workers));
  std::vector<std::thread> threads;
  for (double& mean : means) {
    threads.emplace_back([&mean, share = fibers / workers, each] { mean = mean_ns(share, each); });
  }
  for (std::thread& one : threads) one.join();
  bench::report("yield", bench::mean(means) / static_cast<double>(workers), "ns");
}
