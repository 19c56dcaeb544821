// bench/peers/tbb/fib.cpp - fork-join: fib by parallel_invoke without a cut-off; ns a call.
//
// --task-group is the other way TBB has: one half in a task_group, the other by the caller itself.
#include <tbb/parallel_invoke.h>
#include <tbb/task_group.h>

#include "../../measure.hpp"
#include "arena.hpp"

namespace {

long fib(long n) {
  if (n < 2) return n;
  long one = 0, other = 0;
  tbb::parallel_invoke([&] { one = fib(n - 1); }, [&] { other = fib(n - 2); });
  return one + other;
}

long fib_by_group(long n) {
  if (n < 2) return n;
  long other = 0;
  tbb::task_group group;
  group.run([&] { other = fib_by_group(n - 2); });
  const long one = fib_by_group(n - 1);
  group.wait();
  return one + other;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count", "--task-group"});
  const long n = arguments.number("--count", 32);
  long result = 0, next = 1;
  for (long i = 0; i < n; ++i) {
    const long sum = result + next;
    result = next;
    next = sum;
  }
  const double calls = 2.0 * static_cast<double>(next) - 1;
  bench::with_workers(arguments.number("--workers", 1), [&] {
    const auto once = [&] { bench::expect_sum("fib", arguments.has("--task-group") ? fib_by_group(n) : fib(n), result); };
    once();
    bench::report("call", bench::elapsed_ns(once) / calls, "ns");
  });
}
