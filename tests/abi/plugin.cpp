// tests/abi/plugin.cpp - the other side again, under names that dlsym finds.
#include "other.cpp"

#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wreturn-type-c-linkage"

extern "C" {
ABI_EXPORT int plugin_run() { return other_run(); }
ABI_EXPORT void plugin_fill(concur::channel<int> numbers, int count) { other_fill(numbers, count); }
ABI_EXPORT int plugin_sum(concur::channel<int> numbers) { return other_sum(numbers); }
ABI_EXPORT bool plugin_sees_fiber(concur::fiber_id mine) { return other_sees_fiber(mine); }
ABI_EXPORT void plugin_throws_closed(concur::channel<int> closed) { other_throws_closed(closed); }
ABI_EXPORT void plugin_goes(concur::channel<int> numbers, int count) { other_goes(numbers, count); }
}
