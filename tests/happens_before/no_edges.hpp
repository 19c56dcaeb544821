// tests/happens_before/no_edges.hpp - what is no edge. ThreadSanitizer must report each of them: that shows that the cases
// which are silent are so for the sake of their edge.
//
// All here are played by threads: the switches of a worker order the fibers that it runs. The steps come in an order in which no
// lock inside a primitive is let go by the first party after its access and taken by the second one before its own; where
// there is no such order the case stands in `left_out`, with the reason.
#ifndef CONCUR_TESTS_HAPPENS_BEFORE_NO_EDGES_HPP
#define CONCUR_TESTS_HAPPENS_BEFORE_NO_EDGES_HPP

#include "future_edges.hpp"
#include "stage.hpp"

namespace edges {

const edge_case no_channel_edges[] = {
    {"no/edge_at_all", threads,
     [](stage& s) {
       s.play([&] { s.touch(), s.arrive(1); }, [&] { s.await(1), s.touch(); });
     }},
    {"no/party_is_seen_parked", threads,
     [](stage& s) {
       concur::event end;
       s.play([&] { s.touch(), end.wait(); }, [&] { s.await_parked(0), s.touch(), end.set(); });
     }},
    {"no/after_send_after_recv", threads,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { ch.send(1), s.arrive(1), s.await(2), s.touch(), s.arrive(3); },
              [&] { s.await(1), MUST(ch.recv() == 1), s.arrive(2), s.await(3), s.touch(); });
     }},
    {"no/after_send_after_recv_that_waited", threads,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { s.await_parked(1), ch.send(1), s.touch(), s.arrive(1); },
              [&] { MUST(ch.recv() == 1), s.await(1), s.touch(); });
     }},
    {"no/recv_and_send_that_found_room", threads,
     [](stage& s) {
       concur::channel<int> ch(2);
       s.play([&] { s.await(1), s.touch(), MUST(ch.recv() == 1), s.arrive(2); },
              [&] { ch.send(1), ch.send(2), s.arrive(1), s.await(2), s.touch(); });
     }},
    {"no/recv_and_send_that_found_room_in_3", threads,
     [](stage& s) {
       concur::channel<int> ch(3);
       s.play([&] { s.await(1), s.touch(), MUST(ch.recv() == 1), s.touch(), MUST(ch.recv() == 2), s.arrive(2); },
              [&] { ch.send(1), ch.send(2), ch.send(3), s.arrive(1), s.await(2), s.touch(); });
     }},
    {"no/two_receivers_of_different_values", threads,
     [](stage& s) {
       concur::channel<int> ch(2);
       ch.send(1), ch.send(2);
       s.play([&] { MUST(ch.recv() == 1), s.touch(), s.arrive(1); },
              [&] { s.await(1), MUST(ch.recv() == 2), s.touch(); });
     }},
    {"no/two_senders", threads,
     [](stage& s) {
       concur::channel<int> ch(2);
       s.play([&] { ch.send(1), s.touch(), s.arrive(1); }, [&] { s.await(1), ch.send(2), s.touch(); });
     }},
    {"no/close_after_the_last_recv", threads,
     [](stage& s) {
       concur::channel<int> ch(1);
       ch.send(1);
       s.play([&] { s.await(1), s.touch(), ch.close(), s.arrive(2); },
              [&] { MUST(ch.recv() == 1), s.arrive(1), s.await(2), s.touch(); });
     }},
    {"no/failing_try_recv", threads,
     [](stage& s) {
       concur::channel<int> ch;
       s.play([&] { s.touch(), s.arrive(1), s.await(2), ch.close(); },
              [&] { s.await(1), MUST(!ch.try_recv()), s.touch(), s.arrive(2); });
     }},
    {"no/select_otherwise", threads,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { s.touch(), s.arrive(1), s.await(2), ch.send(1); },
              [&] {
                s.await(1);
                concur::select(concur::recv(ch, [](auto) { MUST(false); }), concur::otherwise([&] { s.touch(); }));
                s.arrive(2);
              });
     }},
    {"no/select_after", threads,
     [](stage& s) {
       concur::channel<int> ch(1);
       s.play([&] { s.touch(), s.arrive(1), s.await(2), ch.send(1); },
              [&] {
                s.await(1);
                concur::select(concur::recv(ch, [](auto) { MUST(false); }), concur::after(1ms, [&] { s.touch(); }));
                s.arrive(2);
              });
     }},
    {"no/select_of_another_channel", threads,
     [](stage& s) {
       concur::channel<int> ch;
       concur::channel<int> other(1);
       other.send(1);
       s.play([&] { s.touch(), s.arrive(1), s.await(2), ch.close(); },
              [&] {
                s.await(1);
                concur::select(concur::recv(ch, [](auto) { MUST(false); }),
                               concur::recv(other, [&](auto) { s.touch(); }));
                s.arrive(2);
              });
     }},
};

template <class Mutex>
void try_lock_false(stage& s) {
  Mutex m;
  s.play([&] { m.lock(), s.touch(), s.arrive(1), s.await(2), m.unlock(); },
         [&] { s.await(1), MUST(!m.try_lock()), s.touch(), s.arrive(2); });
}
template <class Mutex>
void lock_timed_out(stage& s) {
  Mutex m;
  s.play([&] { m.lock(), s.touch(), s.arrive(1), s.await(2), m.unlock(); },
         [&] { s.await(1), MUST(!m.try_lock_for(1ms)), s.touch(), s.arrive(2); });
}
template <class Mutex>
void after_unlock(stage& s) {
  Mutex m;
  s.play([&] { m.lock(), m.unlock(), s.touch(), s.arrive(1); }, [&] { s.await(1), m.lock(), s.touch(), m.unlock(); });
}

const edge_case no_lock_edges[] = {
    {"no/failing_try_lock", threads, try_lock_false<concur::mutex>},
    {"no/failing_try_lock_timed", threads, try_lock_false<concur::timed_mutex>},
    {"no/failing_try_lock_recursive", threads, try_lock_false<concur::recursive_mutex>},
    {"no/failing_try_lock_shared_mutex", threads, try_lock_false<concur::shared_mutex>},
    {"no/lock_timed_out", threads, lock_timed_out<concur::timed_mutex>},
    {"no/lock_timed_out_recursive", threads, lock_timed_out<concur::recursive_mutex>},
    {"no/lock_timed_out_shared_mutex", threads, lock_timed_out<concur::shared_mutex>},
    {"no/after_unlock", threads, after_unlock<concur::mutex>},
    {"no/after_unlock_shared_mutex", threads, after_unlock<concur::shared_mutex>},
    {"no/two_holders_of_a_shared_lock", threads,
     [](stage& s) {
       concur::shared_mutex m;
       s.play([&] { m.lock_shared(), s.touch(), s.arrive(1), s.await(2), m.unlock_shared(); },
              [&] { s.await(1), m.lock_shared(), s.touch(), m.unlock_shared(), s.arrive(2); });
     }},
    {"no/one_reader_after_another", threads,
     [](stage& s) {
       concur::shared_mutex m;
       s.play([&] { m.lock_shared(), m.unlock_shared(), s.touch(), s.arrive(1); },
              [&] { s.await(1), m.lock_shared(), s.touch(), m.unlock_shared(); });
     }},
    {"no/notification_that_nobody_waits_for", threads,
     [](stage& s) {
       concur::mutex m;
       concur::condition_variable changed;
       s.play([&] { s.touch(), changed.notify_one(), s.arrive(1); },
              [&] { s.await(1), m.lock(), s.touch(), m.unlock(); });
     }},
    {"no/condition_timed_out", threads,
     [](stage& s) {
       concur::mutex m;
       concur::condition_variable changed;
       s.play([&] { s.touch(), s.arrive(1), s.await(2), changed.notify_one(); },
              [&] {
                s.await(1), m.lock();
                MUST(changed.wait_for(m, 1ms) == concur::cv_status::timeout);
                s.touch(), m.unlock(), s.arrive(2);
              });
     }},
};

const edge_case no_gate_edges[] = {
    {"no/failing_try_acquire", threads,
     [](stage& s) {
       concur::counting_semaphore<> some(1);
       s.play([&] { some.acquire(), s.touch(), s.arrive(1), s.await(2), some.release(); },
              [&] { s.await(1), MUST(!some.try_acquire()), s.touch(), s.arrive(2); });
     }},
    {"no/failing_try_acquire_of_more", threads,
     [](stage& s) {
       concur::counting_semaphore<> some(0);
       s.play([&] { s.touch(), some.release(), s.arrive(1); },
              [&] { s.await(1), MUST(!some.try_acquire(2)), s.touch(); });
     }},
    {"no/two_holders_of_permits", threads,
     [](stage& s) {
       concur::counting_semaphore<> some(2);
       s.play([&] { some.acquire(), s.touch(), s.arrive(1), s.await(2), some.release(); },
              [&] { s.await(1), some.acquire(), s.touch(), some.release(), s.arrive(2); });
     }},
    {"no/acquire_timed_out", threads,
     [](stage& s) {
       concur::counting_semaphore<> some(0);
       s.play([&] { s.touch(), s.arrive(1), s.await(2), some.release(); },
              [&] { s.await(1), MUST(!some.try_acquire_for(1ms)), s.touch(), s.arrive(2); });
     }},
    {"no/latch_try_wait_false", threads,
     [](stage& s) {
       concur::latch door(1);
       s.play([&] { s.touch(), s.arrive(1), s.await(2), door.count_down(); },
              [&] { s.await(1), MUST(!door.try_wait()), s.touch(), s.arrive(2); });
     }},
    {"no/latch_timed_out", threads,
     [](stage& s) {
       concur::latch door(1);
       s.play([&] { s.touch(), s.arrive(1), s.await(2), door.count_down(); },
              [&] { s.await(1), MUST(!door.wait_for(1ms)), s.touch(), s.arrive(2); });
     }},
    {"no/after_count_down", threads,
     [](stage& s) {
       concur::latch door(1);
       s.play([&] { door.count_down(), s.touch(), s.arrive(1); }, [&] { s.await(1), door.wait(), s.touch(); });
     }},
    {"no/after_arrive", threads,
     [](stage& s) {
       concur::barrier<> all(2);
       s.play([&] { static_cast<void>(all.arrive()), s.touch(), s.arrive(1); },
              [&] { s.await(1), all.arrive_and_wait(), s.touch(); });
     }},
    {"no/event_is_not_set", threads,
     [](stage& s) {
       concur::event happened;
       s.play([&] { s.touch(), s.arrive(1), s.await(2), happened.set(); },
              [&] { s.await(1), MUST(!happened.is_set()), s.touch(), s.arrive(2); });
     }},
    {"no/event_timed_out", threads,
     [](stage& s) {
       concur::event happened;
       s.play([&] { s.touch(), s.arrive(1), s.await(2), happened.set(); },
              [&] { s.await(1), MUST(!happened.wait_for(1ms)), s.touch(), s.arrive(2); });
     }},
    {"no/after_set", threads,
     [](stage& s) {
       concur::event happened;
       s.play([&] { happened.set(), s.touch(), s.arrive(1); }, [&] { s.await(1), happened.wait(), s.touch(); });
     }},
    {"no/wait_group_timed_out", threads,
     [](stage& s) {
       concur::wait_group all;
       all.add();
       s.play([&] { s.touch(), s.arrive(1), s.await(2), all.done(); },
              [&] { s.await(1), MUST(!all.wait_for(1ms)), s.touch(), s.arrive(2); });
     }},
    {"no/wait_group_try_wait_false", threads,
     [](stage& s) {
       concur::wait_group all;
       all.add();
       s.play([&] { s.touch(), s.arrive(1), s.await(2), all.done(); },
              [&] { s.await(1), MUST(!all.try_wait()), s.touch(), s.arrive(2); });
     }},
    {"no/after_call_once", threads,
     [](stage& s) {
       concur::once_flag flag;
       s.play([&] { concur::call_once(flag, [] {}), s.touch(), s.arrive(1); },
              [&] { s.await(1), concur::call_once(flag, [] {}), s.touch(); });
     }},
    {"no/two_leases", threads,
     [](stage& s) {
       concur::resource_pool<int> pool(std::vector<int>{1, 2});
       s.play(
           [&] {
             auto mine = pool.acquire();
             s.touch(), s.arrive(1), s.await(2);
           },
           [&] {
             s.await(1);
             auto mine = pool.acquire();
             s.touch(), s.arrive(2);
           });
     }},
};

const edge_case no_future_edges[] = {
    {"no/after_go", threads,
     [](stage& s) {
       concur::runtime rt(with_workers(1));
       auto end = rt.go([&] { s.await(1), s.touch(), s.arrive(2); });
       s.touch(), s.arrive(1), s.await(2), end.get();
     }},
    {"no/future_not_ready", threads,
     [](stage& s) {
       result r;
       s.play([&] { s.touch(), s.arrive(1), s.await(2), r.made.set_value(1); },
              [&] { s.await(1), MUST(!r.wanted.ready()), s.touch(), s.arrive(2); });
     }},
    {"no/future_timed_out", threads,
     [](stage& s) {
       result r;
       s.play([&] { s.touch(), s.arrive(1), s.await(2), r.made.set_value(1); },
              [&] { s.await(1), MUST(!r.wanted.wait_for(1ms)), s.touch(), s.arrive(2); });
     }},
    {"no/future_dropped", threads,
     [](stage& s) {
       result r;
       s.play([&] { s.await(1), s.touch(), r.made.set_value(1), s.arrive(2); },
              [&] { r.wanted = concur::future<int>(), s.arrive(1), s.await(2), s.touch(); });
     }},
    {"no/after_set_value", threads,
     [](stage& s) {
       result r;
       s.play([&] { r.made.set_value(1), s.touch(), s.arrive(1); }, [&] { s.await(1), r.wanted.get(), s.touch(); });
     }},
    {"no/two_takers_of_a_shared_future", threads,
     [](stage& s) {
       result r;
       const concur::shared_future<int> all = r.wanted.share();
       r.made.set_value(1);
       s.play([&] { all.get(), s.touch(), s.arrive(1); }, [&] { s.await(1), all.get(), s.touch(); });
     }},
    {"no/when_any_and_who_comes_later", threads,
     [](stage& s) {
       result a;
       result b;
       s.play([&] { s.touch(), s.arrive(1), s.await(2), b.made.set_value(1); },
              [&] {
                s.await(1);
                a.made.set_value(1);
                MUST(concur::when_any(std::move(a.wanted), std::move(b.wanted)).get().index == 0);
                s.touch(), s.arrive(2);
              });
     }},
    {"no/two_threads_call_go", threads,
     [](stage& s) {
       concur::runtime rt(with_workers(1));
       s.play([&] { rt.go([] {}), s.touch(), s.arrive(1); }, [&] { s.await(1), s.touch(), rt.go([] {}); });
     }},
    {"no/counters_of_a_snapshot", threads,
     [](stage& s) {
       concur::runtime rt(with_workers(1));
       rt.go([&] { s.arrive(1), s.await(2), s.touch(); });
       s.await(1);  // the worker is busy: the next fiber is in its queue before this one ends
       auto end = rt.go([&] { s.await(3); });
       s.arrive(2);
       while (rt.snapshot().fibers_finished == 0) sched_yield();
       s.touch(), s.arrive(3), end.get();
     }},
};

// What stronger orders inside make silent, so that a report cannot be asked for. Nothing of it is promised.
const char* const left_out[] = {
    "channel::closed() and size(): each takes the channel's lock, which the last operation let go",
    "a select or try_recv that finds nothing after another's operation on the same channel: the same lock",
    ("latch::try_wait() and event::is_set() that say false after another's count_down() or reset(): they acquire what "
     "these released"),
    "wait_group::try_wait() that says false after another's done(): it takes the group's lock",
    "wait_for() that times out after another's operation: the waiter leaves its queue under the lock of the queue",
    "a future that is dropped behind its result: who goes last frees the memory, and so sees what the other did",
    "two fibers of one worker, whatever they do: it runs one after the other, and the tool knows that",
};

}  // namespace edges

#endif
