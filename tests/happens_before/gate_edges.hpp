// tests/happens_before/gate_edges.hpp - the edges of semaphore, latch, barrier, event, wait_group, call_once and
// resource_pool. All must be silent.
#ifndef CONCUR_TESTS_HAPPENS_BEFORE_GATE_EDGES_HPP
#define CONCUR_TESTS_HAPPENS_BEFORE_GATE_EDGES_HPP

#include "stage.hpp"

namespace edges {

using permits = concur::counting_semaphore<>;

const edge_case semaphore_edges[] = {
    {"semaphore/acquire", everywhere,
     [](stage& s) {
       permits some(0);
       s.play([&] { s.touch(), some.release(), s.arrive(1); }, [&] { s.await(1), some.acquire(), s.touch(); });
     }},
    {"semaphore/acquire_waits", everywhere,
     [](stage& s) {
       permits some(0);
       s.play([&] { s.await_parked(1), s.touch(), some.release(); }, [&] { some.acquire(), s.touch(); });
     }},
    {"semaphore/try_acquire", everywhere,
     [](stage& s) {
       permits some(0);
       s.play([&] { s.touch(), some.release(), s.arrive(1); },
              [&] { s.await(1), MUST(some.try_acquire()), s.touch(); });
     }},
    {"semaphore/try_acquire_for_waits", everywhere,
     [](stage& s) {
       concur::binary_semaphore one(0);
       s.play([&] { s.await_parked(1), s.touch(), one.release(); },
              [&] { MUST(one.try_acquire_for(10s)), s.touch(); });
     }},
    {"semaphore/two_releases_one_acquire", everywhere,
     [](stage& s) {
       permits some(0);
       s.play([&] { s.touch(0), some.release(), s.arrive(1); },
              [&] { s.await(2), some.acquire(2), s.touch(0), s.touch(1); },
              [&] { s.await(1), s.touch(1), some.release(), s.arrive(2); });
     }},
    {"semaphore/the_second_release_lets_go", everywhere,
     [](stage& s) {
       permits some(0);
       s.play([&] { s.touch(0), some.release(), s.arrive(1); },
              [&] { s.await(1), some.acquire(2), s.touch(0), s.touch(1); },
              [&] { s.await_parked(1), s.await(1), s.touch(1), some.release(); });
     }},
    {"semaphore/the_rest_is_for_the_next", everywhere,
     [](stage& s) {
       permits some(0);
       s.play([&] { s.await_parked(1), s.touch(), some.release(2), s.arrive(1); }, [&] { some.acquire(), s.look(); },
              [&] { s.await(1), some.acquire(), s.look(); });
     }},
};

const edge_case latch_edges[] = {
    {"latch/wait", everywhere,
     [](stage& s) {
       concur::latch door(1);
       s.play([&] { s.touch(), door.count_down(), s.arrive(1); }, [&] { s.await(1), door.wait(), s.touch(); });
     }},
    {"latch/wait_waits", everywhere,
     [](stage& s) {
       concur::latch door(1);
       s.play([&] { s.await_parked(1), s.touch(), door.count_down(); }, [&] { door.wait(), s.touch(); });
     }},
    {"latch/try_wait", everywhere,
     [](stage& s) {
       concur::latch door(1);
       s.play([&] { s.touch(), door.count_down(), s.arrive(1); },
              [&] { s.await(1), MUST(door.try_wait()), s.touch(); });
     }},
    {"latch/each_count_down", everywhere,
     [](stage& s) {
       concur::latch door(2);
       s.play([&] { s.touch(0), door.count_down(), s.arrive(1); }, [&] { door.wait(), s.touch(0), s.touch(1); },
              [&] { s.await(1), s.touch(1), door.count_down(); });
     }},
    {"latch/arrive_and_wait", everywhere,
     [](stage& s) {
       concur::latch door(2);
       s.play([&] { s.touch(0), door.arrive_and_wait(), s.touch(1); },
              [&] { s.touch(1), s.await_parked(0), door.arrive_and_wait(), s.touch(0); });
     }},
};

const edge_case barrier_edges[] = {
    {"barrier/arrival_completion_return", everywhere,
     [](stage& s) {
       const auto completion = [&s]() noexcept { s.touch(0), s.touch(1), s.touch(2); };
       concur::barrier<decltype(completion)> all(2, completion);
       s.play([&] { s.touch(0), all.arrive_and_wait(), s.look(2), s.touch(0); },
              [&] { s.touch(1), s.await_parked(0), all.arrive_and_wait(), s.look(2), s.touch(1); });
     }},
    {"barrier/arrival_return", everywhere,
     [](stage& s) {
       concur::barrier<> all(2);
       s.play([&] { s.touch(0), all.arrive_and_wait(), s.touch(1); },
              [&] { s.touch(1), s.await_parked(0), all.arrive_and_wait(), s.touch(0); });
     }},
    {"barrier/token_waited_for_later", everywhere,
     [](stage& s) {
       concur::barrier<> all(2);
       s.play([&] { s.touch(), static_cast<void>(all.arrive()), s.arrive(1); },
              [&] { all.wait(all.arrive()), s.touch(); });
     }},
    {"barrier/try_wait", everywhere,
     [](stage& s) {
       concur::barrier<> all(2);
       s.play(
           [&] {
             const auto token = all.arrive();
             s.arrive(1), s.await(2), MUST(all.try_wait(token)), s.touch();
           },
           [&] { s.await(1), s.touch(), static_cast<void>(all.arrive()), s.arrive(2); });
     }},
    {"barrier/arrive_and_drop", everywhere,
     [](stage& s) {
       concur::barrier<> all(2);
       s.play([&] { s.await_parked(1), s.touch(), all.arrive_and_drop(); },
              [&] { all.arrive_and_wait(), s.touch(); });
     }},
};

const edge_case event_edges[] = {
    {"event/wait", everywhere,
     [](stage& s) {
       concur::event happened;
       s.play([&] { s.touch(), happened.set(), s.arrive(1); }, [&] { s.await(1), happened.wait(), s.touch(); });
     }},
    {"event/wait_waits", everywhere,
     [](stage& s) {
       concur::event happened;
       s.play([&] { s.await_parked(1), s.touch(), happened.set(); }, [&] { happened.wait(), s.touch(); });
     }},
    {"event/is_set", everywhere,
     [](stage& s) {
       concur::event happened;
       s.play([&] { s.touch(), happened.set(), s.arrive(1); },
              [&] { s.await(1), MUST(happened.is_set()), s.touch(); });
     }},
    {"event/set_when_it_is_set", everywhere,
     [](stage& s) {
       concur::event happened(true);
       s.play([&] { s.touch(), happened.set(), s.arrive(1); }, [&] { s.await(1), happened.wait(), s.touch(); });
     }},
    {"event/two_sets", everywhere,
     [](stage& s) {
       concur::event happened;
       s.play([&] { s.touch(0), happened.set(), s.arrive(1); },
              [&] { s.await(2), MUST(happened.try_wait()), s.touch(0), s.touch(1); },
              [&] { s.await(1), s.touch(1), happened.set(), s.arrive(2); });
     }},
    {"event/set_and_reset_while_it_waits", everywhere,
     [](stage& s) {
       concur::event happened;
       s.play([&] { s.await_parked(1), s.touch(), happened.set(), happened.reset(); },
              [&] { MUST(happened.wait_for(10s)), s.touch(); });
     }},
};

const edge_case group_edges[] = {
    {"wait_group/wait", everywhere,
     [](stage& s) {
       concur::wait_group all;
       all.add();
       s.play([&] { s.touch(), all.done(), s.arrive(1); }, [&] { s.await(1), all.wait(), s.touch(); });
     }},
    {"wait_group/wait_waits", everywhere,
     [](stage& s) {
       concur::wait_group all;
       all.add();
       s.play([&] { s.await_parked(1), s.touch(), all.done(); }, [&] { all.wait(), s.touch(); });
     }},
    {"wait_group/try_wait", everywhere,
     [](stage& s) {
       concur::wait_group all;
       all.add();
       s.play([&] { s.touch(), all.done(), s.arrive(1); }, [&] { s.await(1), MUST(all.try_wait()), s.touch(); });
     }},
    {"wait_group/each_done", everywhere,
     [](stage& s) {
       concur::wait_group all;
       all.add(2);
       s.play([&] { s.touch(0), all.done(), s.arrive(1); }, [&] { all.wait(), s.touch(0), s.touch(1); },
              [&] { s.await(1), s.touch(1), all.done(); });
     }},
};

const edge_case once_edges[] = {
    {"call_once/found_done", everywhere,
     [](stage& s) {
       concur::once_flag flag;
       s.play([&] { concur::call_once(flag, [&] { s.touch(); }), s.arrive(1); },
              [&] { s.await(1), concur::call_once(flag, [] { MUST(false); }), s.touch(); });
     }},
    {"call_once/waits", everywhere,
     [](stage& s) {
       concur::once_flag flag;
       s.play([&] { concur::call_once(flag, [&] { s.arrive(1), s.await_parked(1), s.touch(); }); },
              [&] { s.await(1), concur::call_once(flag, [] { MUST(false); }), s.touch(); });
     }},
    {"call_once/after_a_failure", everywhere,
     [](stage& s) {
       concur::once_flag flag;
       const auto failing = [&] {
         try {
           concur::call_once(flag, [&] { s.arrive(1), s.await_parked(1), s.touch(), throw 1; });
         } catch (int) {
         }
       };
       s.play(failing, [&] { s.await(1), concur::call_once(flag, [&] { s.touch(); }); });
     }},
};

const edge_case pool_edges[] = {
    {"resource_pool/acquire", everywhere,
     [](stage& s) {
       concur::resource_pool<int> pool(std::vector<int>{0});
       s.play(
           [&] {
             auto mine = pool.acquire();
             s.touch(), touch_memory(*mine), mine.give_back(), s.arrive(1);
           },
           [&] {
             s.await(1);
             auto mine = pool.acquire();
             s.touch(), touch_memory(*mine);
           });
     }},
    {"resource_pool/acquire_waits", everywhere,
     [](stage& s) {
       concur::resource_pool<int> pool(std::vector<int>{0});
       s.play(
           [&] {
             auto mine = pool.acquire();
             s.arrive(1), s.await_parked(1), s.touch(), touch_memory(*mine), mine.give_back();
           },
           [&] {
             s.await(1);
             auto mine = pool.acquire();
             s.touch(), touch_memory(*mine);
           });
     }},
    {"resource_pool/try_acquire", everywhere,
     [](stage& s) {
       concur::resource_pool<int> pool(std::vector<int>{0});
       s.play(
           [&] {
             auto mine = pool.acquire();
             s.touch(), mine.give_back(), s.arrive(1);
           },
           [&] {
             s.await(1);
             auto mine = pool.try_acquire();
             MUST(bool(mine)), s.touch();
           });
     }},
    {"resource_pool/add", everywhere,
     [](stage& s) {
       concur::resource_pool<int> pool(1);
       s.play([&] { s.await_parked(1), s.touch(), pool.add(1); },
              [&] {
                auto mine = pool.acquire();
                s.touch(), touch_memory(*mine);
              });
     }},
};

}  // namespace edges

#endif
