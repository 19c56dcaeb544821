// bench/fib.cpp - Fibonacci numbers by the definition, both halves of each step forked, and no cut-off; ns for each call.
//
// Nothing but forks: what it measures is the price of offering a function that mostly nobody takes.
#include "workers.hpp"

namespace {

long fib(long n) {
  if (n < 2) return n;
  long a = 0;
  long b = 0;
  concur::parallel_invoke([&] { a = fib(n - 1); }, [&] { b = fib(n - 2); });
  return a + b;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long n = arguments.number("--count", 36);
  // fib(n) and the number of calls that its definition takes, 2 fib(n + 1) - 1.
  long wanted = 0;
  long next = 1;
  for (long i = 0; i < n; ++i) {
    const long sum = wanted + next;
    wanted = next;
    next = sum;
  }
  const double calls = 2 * static_cast<double>(next) - 1;
  bench::with_workers(arguments.number("--workers", 1), [&] {
    fib(n - 4);
    long got = 0;
    bench::report("call", bench::elapsed_ns([&] { got = fib(n); }) / calls, "ns");
    bench::expect_sum("fib", got, wanted);
  });
}
