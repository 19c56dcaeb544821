// tests/happens_before/nursery_edges.hpp - the edges of nurseries, of what starts children together, and of tokens. All must
// be silent.
#ifndef CONCUR_TESTS_HAPPENS_BEFORE_NURSERY_EDGES_HPP
#define CONCUR_TESTS_HAPPENS_BEFORE_NURSERY_EDGES_HPP

#include "stage.hpp"

namespace edges {

// Runs body(s) as the first fiber.
template <void (*body)(stage&)>
void as_fiber(stage& s) {
  concur::run(with_workers(s.workers()), [&] { body(s); });
}

inline void to_the_child(stage& s) {
  concur::nursery n;
  s.touch();
  n.go([&] { s.touch(), s.arrive(1); });
  s.await(1);
  n.join();
}

inline void to_the_end(stage& s) {
  concur::nursery n;
  n.go([&] { s.touch(), s.arrive(1); });
  s.await(1), n.join(), s.touch();
}

inline void to_the_end_parked(stage& s) {
  concur::with_nursery([&](concur::nursery& n) {
    n.go([&] {
      concur::this_fiber::sleep_for(1ms);
      s.touch();
    });
  });
  s.touch();
}

inline void last_of_many(stage& s) {
  concur::with_nursery([&](concur::nursery& n) {
    n.go([&] { s.touch(0); });
    n.go([&] { s.touch(1); });
  });
  s.touch(0), s.touch(1);
}

inline void by_the_destructor(stage& s) {
  {
    concur::nursery n;
    n.go([&] { s.touch(), s.arrive(1); });
    s.await(1);
  }
  s.touch();
}

inline void a_failure(stage& s) {
  try {
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        s.touch();
        throw 1;
      });
    });
  } catch (int) {
    s.touch();
  }
}

inline void end_to_who_waits_for_room(stage& s) {
  concur::with_nursery([&](concur::nursery& n) {
    n.limit(1);
    n.go([&] {
      concur::this_fiber::sleep_for(1ms);
      s.touch();
    });
    n.go([&] { s.touch(); });
  });
}

inline void async_get(stage& s) {
  concur::with_nursery([&](concur::nursery& n) {
    auto result = n.async([&] { s.touch(), s.arrive(1); });
    s.await(1), result.get(), s.touch();
  });
}

inline void start_up(stage& s) {
  concur::with_nursery([&](concur::nursery& n) {
    s.touch();
    n.start([&](concur::started<int>& up) {
      s.touch();
      up.set_value(1);
    });
    s.touch();
  });
}

inline void all_results(stage& s) {
  s.touch(0), s.touch(1);
  concur::all([&] { s.touch(0); }, [&] { s.touch(1); });
  s.touch(0), s.touch(1);
}

inline void any_result(stage& s) {
  concur::any([&] { s.touch(); }, [] { concur::this_fiber::sleep_for(1h); });
  s.touch();
}

inline void race_result(stage& s) {
  concur::race([&] { s.touch(); }, [] { concur::this_fiber::sleep_for(1h); });
  s.touch();
}

const edge_case nursery_edges[] = {
    {"nursery/go_to_the_child", fibers, as_fiber<to_the_child>},
    {"nursery/child_to_join", fibers, as_fiber<to_the_end>},
    {"nursery/child_to_the_end_of_the_block", fibers, as_fiber<to_the_end_parked>},
    {"nursery/every_child_to_the_end", fibers, as_fiber<last_of_many>},
    {"nursery/child_to_the_destructor", fibers, as_fiber<by_the_destructor>},
    {"nursery/failing_child_to_the_end", fibers, as_fiber<a_failure>},
    {"nursery/child_to_who_waits_for_room", fibers, as_fiber<end_to_who_waits_for_room>},
    {"nursery/async_to_get", fibers, as_fiber<async_get>},
    {"nursery/start_there_and_back", fibers, as_fiber<start_up>},
    {"combine/all_there_and_back", fibers, as_fiber<all_results>},
    {"combine/any_winner", fibers, as_fiber<any_result>},
    {"combine/race_winner", fibers, as_fiber<race_result>},
    {"token/cancel_to_who_sees_it", everywhere,
     [](stage& s) {
       concur::cancel_source source;
       s.play([&] { s.touch(), source.cancel(); },
              [&] {
                while (!source.token().cancelled()) sched_yield();
                s.touch();
              });
     }},
};

}  // namespace edges

#endif
