// tests/happens_before/lock_edges.hpp - the edges of the mutexes and of condition_variable. All must be silent.
#ifndef CONCUR_TESTS_HAPPENS_BEFORE_LOCK_EDGES_HPP
#define CONCUR_TESTS_HAPPENS_BEFORE_LOCK_EDGES_HPP

#include "stage.hpp"

namespace edges {

template <class Mutex>
void lock_free_again(stage& s) {
  Mutex m;
  s.play([&] { m.lock(), s.touch(), m.unlock(), s.arrive(1); }, [&] { s.await(1), m.lock(), s.touch(), m.unlock(); });
}

template <class Mutex>
void try_lock_true(stage& s) {
  Mutex m;
  s.play([&] { m.lock(), s.touch(), m.unlock(), s.arrive(1); },
         [&] { s.await(1), MUST(m.try_lock()), s.touch(), m.unlock(); });
}

template <class Mutex>
void lock_waits(stage& s) {
  Mutex m;
  s.play([&] { m.lock(), s.arrive(1), s.await_parked(1), s.touch(), m.unlock(); },
         [&] { s.await(1), m.lock(), s.touch(), m.unlock(); });
}

template <class Mutex>
void lock_with_limit_waits(stage& s) {
  Mutex m;
  s.play([&] { m.lock(), s.arrive(1), s.await_parked(1), s.touch(), m.unlock(); },
         [&] { s.await(1), MUST(m.try_lock_for(10s)), s.touch(), m.unlock(); });
}

// The first party takes the mutex again and again before the other one gets to it, until that one is handed it.
template <class Mutex>
void lock_handed_over(stage& s) {
  Mutex m;
  s.play(
      [&] {
        m.lock(), s.arrive(1), s.await_parked(1);
        while (!s.has_arrived(2)) {
          const auto end = std::chrono::steady_clock::now() + 2ms;
          while (std::chrono::steady_clock::now() < end) concur::this_fiber::yield();
          s.touch(), m.unlock(), m.lock();
        }
        m.unlock();
      },
      [&] { s.await(1), m.lock(), s.arrive(2), s.touch(), m.unlock(); });
}

const edge_case mutex_edges[] = {
    {"mutex/lock", everywhere, lock_free_again<concur::mutex>},
    {"mutex/try_lock", everywhere, try_lock_true<concur::mutex>},
    {"mutex/lock_waits", everywhere, lock_waits<concur::mutex>},
    {"mutex/handed_over", everywhere, lock_handed_over<concur::mutex>},
    {"timed_mutex/lock", everywhere, lock_free_again<concur::timed_mutex>},
    {"timed_mutex/try_lock", everywhere, try_lock_true<concur::timed_mutex>},
    {"timed_mutex/lock_waits", everywhere, lock_waits<concur::timed_mutex>},
    {"timed_mutex/try_lock_for", everywhere, lock_with_limit_waits<concur::timed_mutex>},
    {"timed_mutex/handed_over", everywhere, lock_handed_over<concur::timed_mutex>},
    {"recursive_mutex/lock", everywhere, lock_free_again<concur::recursive_mutex>},
    {"recursive_mutex/try_lock", everywhere, try_lock_true<concur::recursive_mutex>},
    {"recursive_mutex/lock_waits", everywhere, lock_waits<concur::recursive_mutex>},
    {"recursive_mutex/try_lock_for", everywhere, lock_with_limit_waits<concur::recursive_mutex>},
    {"recursive_mutex/handed_over", everywhere, lock_handed_over<concur::recursive_mutex>},
    {"shared_mutex/lock", everywhere, lock_free_again<concur::shared_mutex>},
    {"shared_mutex/try_lock", everywhere, try_lock_true<concur::shared_mutex>},
    {"shared_mutex/lock_waits", everywhere, lock_waits<concur::shared_mutex>},
    {"shared_mutex/try_lock_for", everywhere, lock_with_limit_waits<concur::shared_mutex>},
};

const edge_case shared_edges[] = {
    {"shared_mutex/unlock_lock_shared", everywhere,
     [](stage& s) {
       concur::shared_mutex m;
       s.play([&] { m.lock(), s.touch(), m.unlock(), s.arrive(1); },
              [&] { s.await(1), m.lock_shared(), s.look(), m.unlock_shared(); });
     }},
    {"shared_mutex/unlock_lock_shared_waits", everywhere,
     [](stage& s) {
       concur::shared_mutex m;
       s.play([&] { m.lock(), s.arrive(1), s.await_parked(1), s.touch(), m.unlock(); },
              [&] { s.await(1), m.lock_shared(), s.look(), m.unlock_shared(); });
     }},
    {"shared_mutex/unlock_try_lock_shared", everywhere,
     [](stage& s) {
       concur::shared_mutex m;
       s.play([&] { m.lock(), s.touch(), m.unlock(), s.arrive(1); },
              [&] { s.await(1), MUST(m.try_lock_shared()), s.look(), m.unlock_shared(); });
     }},
    {"shared_mutex/unlock_shared_lock", everywhere,
     [](stage& s) {
       concur::shared_mutex m;
       s.play([&] { m.lock_shared(), s.look(), m.unlock_shared(), s.arrive(1); },
              [&] { s.await(1), m.lock(), s.touch(), m.unlock(); });
     }},
    {"shared_mutex/unlock_shared_lock_waits", everywhere,
     [](stage& s) {
       concur::shared_mutex m;
       s.play([&] { m.lock_shared(), s.arrive(1), s.await_parked(1), s.look(), m.unlock_shared(); },
              [&] { s.await(1), m.lock(), s.touch(), m.unlock(); });
     }},
    {"shared_mutex/two_readers_then_a_writer", everywhere,
     [](stage& s) {
       concur::shared_mutex m;
       s.play([&] { m.lock_shared(), s.look(), s.arrive(1), s.await(2), m.unlock_shared(), s.arrive(3); },
              [&] { s.await(4), m.lock(), s.touch(), m.unlock(); },
              [&] { s.await(1), m.lock_shared(), s.look(), s.arrive(2), s.await(3), m.unlock_shared(), s.arrive(4); });
     }},
    {"shared_mutex/two_readers_let_a_writer_in", everywhere,
     [](stage& s) {
       concur::shared_mutex m;
       s.play([&] { m.lock_shared(), s.arrive(1), s.await(2), s.await_parked(1), s.look(), m.unlock_shared(),
                    s.arrive(3); },
              [&] { s.await(2), m.lock(), s.touch(), m.unlock(); },
              [&] { s.await(1), m.lock_shared(), s.arrive(2), s.look(), s.await(3), m.unlock_shared(); });
     }},
};

// Its unlock() comes back when the other party has notified: the note is in the queue, and its owner not yet in its wait.
struct slow_lock {
  void lock() {}
  void unlock() { s.arrive(1), s.await(2); }
  stage& s;
};

const edge_case condition_edges[] = {
    {"condition_variable/through_its_lock", everywhere,
     [](stage& s) {
       concur::mutex m;
       concur::condition_variable changed;
       bool is_set = false;
       s.play([&] { s.await_parked(1), m.lock(), s.touch(), is_set = true, changed.notify_one(), m.unlock(); },
              [&] {
                std::unique_lock<concur::mutex> held(m);
                changed.wait(held, [&] { return is_set; });
                s.touch();
              });
     }},
    {"condition_variable/unlock_then_notify_all", everywhere,
     [](stage& s) {
       concur::mutex m;
       concur::condition_variable changed;
       bool is_set = false;
       s.play([&] { s.await_parked(1), m.lock(), s.touch(), is_set = true, m.unlock(), changed.notify_all(); },
              [&] {
                std::unique_lock<concur::mutex> held(m);
                MUST(changed.wait_for(held, 10s, [&] { return is_set; }));
                s.touch();
              });
     }},
    {"condition_variable/unlock_as_the_wait_begins", everywhere,
     [](stage& s) {
       concur::mutex m;
       concur::condition_variable changed;
       s.play([&] { s.await_parked(1), m.lock(), s.touch(), m.unlock(), changed.notify_one(); },
              [&] { m.lock(), s.touch(), changed.wait(m), s.touch(), m.unlock(); });
     }},
    {"condition_variable/notification_without_lock", everywhere,
     [](stage& s) {
       concur::mutex m;
       concur::condition_variable changed;
       s.play([&] { s.await_parked(1), s.touch(), changed.notify_one(); },
              [&] { m.lock(), changed.wait(m), s.touch(), m.unlock(); });
     }},
    {"condition_variable/notification_that_comes_early", everywhere,
     [](stage& s) {
       slow_lock lock{s};
       concur::condition_variable changed;
       s.play([&] { s.await(1), s.touch(), changed.notify_one(), s.arrive(2); },
              [&] { changed.wait(lock), s.touch(); });
     }},
};

}  // namespace edges

#endif
