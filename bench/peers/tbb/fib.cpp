// bench/peers/tbb/fib.cpp - fork-join: fib by parallel_invoke without a cut-off; ns a call.
//
// A task_group for one half, with the other in the caller, takes as long.
#include <tbb/parallel_invoke.h>

#include "../../measure.hpp"
#include "arena.hpp"

namespace {

long fib(long n) {
  if (n < 2) return n;
  long one = 0, other = 0;
  tbb::parallel_invoke([&] { one = fib(n - 1); }, [&] { other = fib(n - 2); });
  return one + other;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long n = arguments.number("--count", 32);
  long result = 0, next = 1;
  for (long i = 0; i < n; ++i) {
    const long sum = result + next;
    result = next;
    next = sum;
  }
  const double calls = 2.0 * static_cast<double>(next) - 1;
  bench::with_workers(arguments.number("--workers", 1), [&] {
    fib(n - 4);
    long got = 0;
    bench::report("call", bench::elapsed_ns([&] { got = fib(n); }) / calls, "ns");
    bench::expect_sum("fib", got, result);
  });
}
