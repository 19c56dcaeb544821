// bench/peers/boost_context/switch.cpp - two contexts hand control back and forth; ns for one switch.
//
// Twice: through boost::context::fiber, which users write, and through the fcontext jump under it, which is what a runtime
// would build on.
#include <boost/context/detail/fcontext.hpp>
#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <utility>

#include "../../measure.hpp"

namespace {

namespace context = boost::context;

void bounce(context::detail::transfer_t from) {
  for (;;) from = context::detail::jump_fcontext(from.fctx, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments arguments(argc, argv, {"--workers", "--count"});
  const long round_trips = arguments.number("--count", 50000000) / 2;
  const double switches = static_cast<double>(round_trips) * 2;

  context::fixedsize_stack allocator;
  context::stack_context stack = allocator.allocate();
  context::detail::transfer_t other{context::detail::make_fcontext(stack.sp, stack.size, bounce), nullptr};
  const auto jumps = [&](long count) {
    for (long i = 0; i < count; ++i) other = context::detail::jump_fcontext(other.fctx, nullptr);
  };
  jumps(round_trips / 10);
  bench::report("switch", bench::elapsed_ns([&] { jumps(round_trips); }) / switches, "ns");
  allocator.deallocate(stack);

  bool is_over = false;
  context::fiber fiber{[&is_over](context::fiber&& caller) {
    while (!is_over) caller = std::move(caller).resume();
    return std::move(caller);
  }};
  const auto resumes = [&](long count) {
    for (long i = 0; i < count; ++i) fiber = std::move(fiber).resume();
  };
  resumes(round_trips / 10);
  bench::report("switch_fiber", bench::elapsed_ns([&] { resumes(round_trips); }) / switches, "ns");
  is_over = true;
  fiber = std::move(fiber).resume();
}
