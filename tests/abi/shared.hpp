// tests/abi/shared.hpp - what the program and the shared object of these tests know of each other.
//
// All of it passes types of the header across the border: that is what must be one and the same thing on both sides.
#ifndef TESTS_ABI_SHARED_HPP
#define TESTS_ABI_SHARED_HPP

#include "concur.hpp"

#define ABI_EXPORT __attribute__((visibility("default")))

// In the other unit, or in the shared object.
ABI_EXPORT void other_fill(concur::channel<int> numbers, int count);     // parks in a fiber that the caller started
ABI_EXPORT int other_sum(concur::channel<int> numbers);                  // the other direction
ABI_EXPORT int other_run();                                              // a runtime of its own, from a plain thread
ABI_EXPORT bool other_sees_fiber(concur::fiber_id mine);                 // the same fiber on both sides of a call
ABI_EXPORT void other_throws_closed(concur::channel<int> closed);        // an exception across the border
ABI_EXPORT void other_goes(concur::channel<int> numbers, int count);     // a fiber started by the other side

#endif
