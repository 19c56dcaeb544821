// tests/happens_before/parallel_edges.hpp - the edges of functions that may run at the same time. On one worker the second
// function runs where the first one waits; on two, whoever waits here waits for one that another worker has taken.
#ifndef CONCUR_TESTS_HAPPENS_BEFORE_PARALLEL_EDGES_HPP
#define CONCUR_TESTS_HAPPENS_BEFORE_PARALLEL_EDGES_HPP

#include "nursery_edges.hpp"
#include "stage.hpp"

namespace edges {

inline void to_each_function(stage& s) {
  s.touch(0), s.touch(1), s.touch(2);
  concur::parallel_invoke([&] { s.await(1), s.touch(0); }, [&] { s.touch(1), s.arrive(1); }, [&] { s.touch(2); });
}

inline void to_the_return(stage& s) {
  concur::parallel_invoke([&] { s.touch(0), s.await(1); }, [&] { s.touch(1), s.arrive(1); }, [&] { s.touch(2); });
  s.touch(0), s.touch(1), s.touch(2);
}

// The caller comes to the end of its own function while the other one still runs elsewhere, and parks.
inline void to_the_return_that_waits(stage& s) {
  const concur::detail::fiber* const caller = concur::detail::this_worker()->current;
  concur::parallel_invoke([&] { s.await(1); }, [&] { s.arrive(1), s.await_parked(*caller), s.touch(); });
  s.touch();
}

inline void a_failure_elsewhere(stage& s) {
  try {
    concur::parallel_invoke([&] { s.await(1); },
                            [&] {
                              s.touch();
                              s.arrive(1);
                              throw 1;
                            });
  } catch (int) {
    s.touch();
  }
}

inline void function_to_function(stage& s) {
  concur::parallel_invoke([&] { s.await(1), s.touch(), s.arrive(2); }, [&] { s.arrive(1), s.await(2), s.touch(); });
}

const edge_case parallel_edges[] = {
    {"parallel/before_to_each_function", fibers, as_fiber<to_each_function>},
    {"parallel/each_function_to_the_return", fibers, as_fiber<to_the_return>},
    {"parallel/function_to_the_return_that_waits", fibers, as_fiber<to_the_return_that_waits>},
    {"parallel/failing_function_to_who_catches_it", fibers, as_fiber<a_failure_elsewhere>},
};

// On two workers only: on one they take turns.
const edge_case no_parallel_edges[] = {
    {"no/function_to_function", fibers2, as_fiber<function_to_function>},
};

}  // namespace edges

#endif
