// tests/support/parking_sites.hpp - everything that parks, in its form with a std::error_code, as rows of one table.
//
// A row makes a site at which its operation has to wait. The site says how it is opened, and calls the operation. So a test
// of what is the same for all of them is one loop over the rows (test_status_forms.cpp).
#ifndef CONCUR_TESTS_SUPPORT_PARKING_SITES_HPP
#define CONCUR_TESTS_SUPPORT_PARKING_SITES_HPP

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>

#include "support/companion.hpp"
#include "support/tally.hpp"
#include "support/test.hpp"

namespace concur_test {
namespace parking {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using code = std::error_code;
using pointer = std::unique_ptr<int>;

enum class form { plain, with_duration, with_time_point };

// Which form of an operation to call, and with which limit.
struct how {
  form which;
  milliseconds limit;
  tally* held;

  template <class Plain, class For, class Until>
  bool call(Plain plain, For with_duration, Until with_time_point) const {
    if (which == form::plain) return plain();
    if (which == form::with_duration) return with_duration(limit);
    return with_time_point(steady_clock::now() + limit);
  }
};

struct site {
  std::function<bool(code&)> op;
  std::function<void()> open;
  std::function<bool()> is_whole;  // after a cancellation, instead of calling op again
};

enum trait : unsigned {
  lasts = 1,   // once open, it stays so for one op
  wakes = 2,   // opening it lets go who waits
  parks = 4,   // shut, it makes the operation wait
  timed = 8,   // the operation has forms with a limit
  looks = 16,  // open, it is a checkpoint
  usual = lasts | wakes | parks | timed | looks,
};

struct row {
  const char* name;
  unsigned traits;
  site (*make)(how);
  bool has(trait t) const { return (traits & t) != 0; }
};

inline constexpr auto ok = concur::status::ok;

// Waits, in all forms, for what has wait(ec), wait_for(d, ec) and wait_until(tp, ec).
template <class Waitable>
bool wait_at(Waitable& at, how h, code& error) {
  return h.call([&] { return at.wait(error); }, [&](auto d) { return at.wait_for(d, error); },
                [&](auto tp) { return at.wait_until(tp, error); });
}

// Held by who makes the site; the operation is somebody else's.
template <class Mutex>
site mutex_site(how h) {
  auto m = std::make_shared<Mutex>();
  m->lock();
  const auto op = [m, h](code& error) {
    const bool taken = h.call([&] { return m->lock(error); }, [&](auto d) { return m->try_lock_for(d, error); },
                              [&](auto tp) { return m->try_lock_until(tp, error); });
    if (taken) m->unlock();
    return taken;
  };
  return {op, [m] { m->unlock(); }, {}};
}

inline site plain_mutex_site(how) {
  auto m = std::make_shared<concur::mutex>();
  m->lock();
  const auto op = [m](code& error) {
    const bool taken = m->lock(error);
    if (taken) m->unlock();
    return taken;
  };
  return {op, [m] { m->unlock(); }, {}};
}

inline site shared_lock_site(how h) {
  auto m = std::make_shared<concur::shared_mutex>();
  m->lock();
  const auto op = [m, h](code& error) {
    const bool taken =
        h.call([&] { return m->lock_shared(error); }, [&](auto d) { return m->try_lock_shared_for(d, error); },
               [&](auto tp) { return m->try_lock_shared_until(tp, error); });
    if (taken) m->unlock_shared();
    return taken;
  };
  return {op, [m] { m->unlock(); }, {}};
}

inline site send_site(how h) {
  concur::channel<pointer> ch(1);
  ch.send(std::make_unique<int>(1));
  const auto op = [in = concur::sender<pointer>(ch), h](code& error) mutable {
    pointer value = std::make_unique<int>(2);
    const bool sent = h.call([&] { return in.send(std::move(value), error); },
                             [&](auto d) { return in.send_for(value, d, error) == ok; },
                             [&](auto tp) { return in.send_until(value, tp, error) == ok; });
    CONCUR_EXPECT(*h.held, sent == (value == nullptr));
    return sent;
  };
  return {op, [ch]() mutable { ch.try_recv(); }, {}};
}

inline site copying_send_site(how) {
  concur::channel<std::string> ch(1);
  ch.send("first");
  const auto op = [ch](code& error) mutable {
    const std::string text = "second";
    return ch.send(text, error);
  };
  return {op, [ch]() mutable { ch.try_recv(); }, {}};
}

inline site recv_site(how h) {
  concur::channel<pointer> ch(2);
  const auto op = [out = concur::receiver<pointer>(ch), h](code& error) mutable {
    pointer value;
    const bool came = h.call(
        [&] {
          if (std::optional<pointer> got = out.recv(error)) value = std::move(*got);
          return value != nullptr;
        },
        [&](auto d) { return out.recv_for(value, d, error) == ok; },
        [&](auto tp) { return out.recv_until(value, tp, error) == ok; });
    CONCUR_EXPECT(*h.held, came == (value != nullptr));
    return came;
  };
  return {op, [ch]() mutable { ch.send(std::make_unique<int>(3)); }, {}};
}

inline site signal_send_site(how h) {
  concur::channel<void> ch(1);
  ch.send();
  const auto op = [ch, h](code& error) mutable {
    return h.call([&] { return ch.send(error); }, [&](auto d) { return ch.send_for(d, error) == ok; },
                  [&](auto tp) { return ch.send_until(tp, error) == ok; });
  };
  return {op, [ch]() mutable { ch.try_recv(); }, {}};
}

inline site signal_recv_site(how h) {
  concur::channel<void> ch(1);
  const auto op = [ch, h](code& error) mutable {
    return h.call([&] { return ch.recv(error); }, [&](auto d) { return ch.recv_for(d, error) == ok; },
                  [&](auto tp) { return ch.recv_until(tp, error) == ok; });
  };
  return {op, [ch]() mutable { ch.send(); }, {}};
}

// Never goes, open or not.
inline site nil_site(how h) {
  concur::channel<void> ch(concur::nil);
  const auto op = [ch, h](code& error) mutable {
    return h.call([&] { return ch.recv(error); }, [&](auto d) { return ch.send_for(d, error) == ok; },
                  [&](auto tp) { return ch.recv_until(tp, error) == ok; });
  };
  return {op, [] {}, [] { return true; }};
}

inline site select_site(how) {
  concur::channel<int> ch(2);
  const auto op = [ch](code& error) {
    concur::channel<void> never;
    bool has_run = false;
    const int index = concur::select(error, concur::recv(never, [] {}), concur::recv(ch, [&] { has_run = true; }));
    return index == 1 && has_run;
  };
  return {op, [ch]() mutable { ch.send(1); }, {}};
}

// A value that is moved into a case that does not go stays with the caller.
inline site select_ordered_site(how h) {
  concur::channel<pointer> ch(1);
  ch.send(std::make_unique<int>(1));
  const auto op = [ch, h](code& error) {
    pointer value = std::make_unique<int>(2);
    const bool sent = concur::select_ordered(error, concur::send(ch, std::move(value), [] {})) == 0;
    CONCUR_EXPECT(*h.held, sent == (value == nullptr));
    return sent;
  };
  return {op, [ch]() mutable { ch.try_recv(); }, {}};
}

inline site selector_site(how h) {
  concur::channel<int> ch(2);
  const auto op = [ch, h](code& error) {
    concur::selector cases{concur::recv(ch, [] {})};
    return h.call([&] { return cases.wait(error) == 0; }, [&](auto d) { return cases.wait_for(d, error) == 0; },
                  [&](auto tp) { return cases.wait_until(tp, error) == 0; });
  };
  return {op, [ch]() mutable { ch.send(1); }, {}};
}

inline site ordered_selector_site(how) {
  concur::channel<int> ch(2);
  const auto op = [ch](code& error) { return concur::selector{concur::recv(ch, [] {})}.wait_ordered(error) == 0; };
  return {op, [ch]() mutable { ch.send(1); }, {}};
}

// A notification is not kept; so this one does not last.
inline site notified_site(how h) {
  struct shared {
    concur::mutex m;
    concur::condition_variable changed;
  };
  auto s = std::make_shared<shared>();
  const auto op = [s, h](code& error) {
    std::unique_lock<concur::mutex> lock(s->m, std::defer_lock);
    {
      const concur::detail::deaf_scope uncancelled;
      lock.lock();
    }
    constexpr auto in_time = concur::cv_status::no_timeout;
    return h.call([&] { return s->changed.wait(lock, error); },
                  [&](auto d) { return s->changed.wait_for(lock, d, error) == in_time; },
                  [&](auto tp) { return s->changed.wait_until(lock, tp, error) == in_time; });
    // Unlocking what is not held would throw here.
  };
  const auto open = [s] {
    const std::lock_guard<concur::mutex> held(s->m);
    s->changed.notify_one();
  };
  return {op, open, [s] { return s->m.try_lock() && (s->m.unlock(), true); }};
}

inline site condition_site(how h) {
  struct shared {
    concur::mutex m;
    concur::condition_variable changed;
    bool holds = false;
  };
  auto s = std::make_shared<shared>();
  const auto op = [s, h](code& error) {
    std::unique_lock<concur::mutex> lock(s->m, std::defer_lock);
    {
      const concur::detail::deaf_scope uncancelled;
      lock.lock();
    }
    const auto condition = [&] { return s->holds; };
    return h.call([&] { return s->changed.wait(lock, condition, error); },
                  [&](auto d) { return s->changed.wait_for(lock, d, condition, error); },
                  [&](auto tp) { return s->changed.wait_until(lock, tp, condition, error); });
  };
  const auto open = [s] {
    const std::lock_guard<concur::mutex> held(s->m);
    s->holds = true;
    s->changed.notify_all();
  };
  return {op, open, {}};
}

inline site semaphore_site(how h) {
  auto permits = std::make_shared<concur::counting_semaphore<>>(1);
  const auto op = [permits, h](code& error) {
    const bool taken = h.call([&] { return permits->acquire(2, error); },
                              [&](auto d) { return permits->try_acquire_for(d, 2, error); },
                              [&](auto tp) { return permits->try_acquire_until(tp, 2, error); });
    if (taken) permits->release(2);
    return taken;
  };
  return {op, [permits] { permits->release(); }, {}};
}

inline site binary_semaphore_site(how h) {
  auto permit = std::make_shared<concur::binary_semaphore>(0);
  const auto op = [permit, h](code& error) {
    return h.call([&] { return permit->acquire(error); }, [&](auto d) { return permit->try_acquire_for(d, error); },
                  [&](auto tp) { return permit->try_acquire_until(tp, error); });
  };
  return {op, [permit] { permit->release(); }, {}};
}

inline site latch_site(how h) {
  auto door = std::make_shared<concur::latch>(1);
  return {[door, h](code& error) { return wait_at(*door, h, error); }, [door] { door->count_down(); }, {}};
}

// The arrival counts, whatever becomes of the wait.
inline site arriving_latch_site(how) {
  auto door = std::make_shared<concur::latch>(3);
  const auto op = [door](code& error) { return door->arrive_and_wait(2, error); };
  return {op, [door] { door->count_down(); }, [door] { return door->try_wait(); }};
}

inline site lone_latch_site(how) {
  auto door = std::make_shared<concur::latch>(2);
  const auto op = [door](code& error) { return door->arrive_and_wait(error); };
  return {op, [door] { door->count_down(); }, [door] { return door->try_wait(); }};
}

inline site barrier_site(how h) {
  auto meet = std::make_shared<concur::barrier<>>(2);
  const auto token = meet->arrive();
  const auto op = [meet, token, h](code& error) {
    return h.call([&] { return meet->wait(token, error); }, [&](auto d) { return meet->wait_for(token, d, error); },
                  [&](auto tp) { return meet->wait_until(token, tp, error); });
  };
  return {op, [meet] { static_cast<void>(meet->arrive()); }, {}};
}

inline site arriving_barrier_site(how) {
  auto meet = std::make_shared<concur::barrier<>>(2);
  auto mine = std::make_shared<std::optional<concur::barrier<>::arrival_token>>();
  const auto op = [meet](code& error) { return meet->arrive_and_wait(error); };
  return {op, [meet, mine] { mine->emplace(meet->arrive()); }, [meet, mine] { return meet->try_wait(**mine); }};
}

inline site event_site(how h) {
  auto happened = std::make_shared<concur::event>();
  return {[happened, h](code& error) { return wait_at(*happened, h, error); }, [happened] { happened->set(); }, {}};
}

inline site wait_group_site(how h) {
  auto group = std::make_shared<concur::wait_group>();
  group->add();
  return {[group, h](code& error) { return wait_at(*group, h, error); }, [group] { group->done(); }, {}};
}

inline site future_site(how h) {
  auto made = std::make_shared<concur::promise<int>>();
  auto wanted = std::make_shared<concur::future<int>>(made->get_future());
  return {[wanted, h](code& error) { return wait_at(*wanted, h, error); }, [made] { made->set_value(1); }, {}};
}

inline site shared_future_site(how h) {
  auto made = std::make_shared<concur::promise<int>>();
  const concur::shared_future<int> wanted = made->get_future().share();
  return {[wanted, h](code& error) { return wait_at(wanted, h, error); }, [made] { made->set_value(1); }, {}};
}

inline site pool_site(how h) {
  using pool = concur::resource_pool<pointer>;
  auto things = std::make_shared<pool>(1);
  things->add(std::make_unique<int>(1));
  auto taken = std::make_shared<pool::lease>(things->acquire());
  const auto op = [things, h](code& error) {
    return h.call([&] { return static_cast<bool>(things->acquire(error)); },
                  [&](auto d) { return static_cast<bool>(things->acquire_for(d, error)); },
                  [&](auto tp) { return static_cast<bool>(things->acquire_until(tp, error)); });
  };
  return {op, [taken] { taken->give_back(); }, {}};
}

// Somebody else runs the function, until the site is opened.
inline site once_site(how) {
  struct shared {
    concur::once_flag flag;
    concur::event may_end;
    std::unique_ptr<companion> runner;
  };
  auto s = std::make_shared<shared>();
  s->runner = std::make_unique<companion>(kind::thread,
                                          [p = s.get()] { concur::call_once(p->flag, [p] { p->may_end.wait(); }); });
  s->runner->wait_until_parked();
  const auto op = [s](code& error) {
    return concur::call_once(
        s->flag, error, [](int, int) {}, 1, 2);
  };
  const auto open = [s] {
    s->may_end.set();
    s->runner->join();
  };
  return {op, open, {}};
}

inline site sleep_site(how h) {
  auto time = std::make_shared<std::atomic<milliseconds>>(milliseconds(hours(1)));
  const auto op = [time, h](code& error) {
    return h.call([&] { return concur::this_fiber::sleep_for(time->load(), error); },
                  [&](auto) { return concur::this_fiber::sleep_for(time->load(), error); },
                  [&](auto) { return concur::this_fiber::sleep_until(steady_clock::now() + time->load(), error); });
  };
  return {op, [time] { time->store(milliseconds(1)); }, {}};
}

inline site checkpoint_site(how) {
  return {[](code& error) { return concur::this_fiber::checkpoint(error); }, [] {}, {}};
}

struct connection {
  connection() {
    concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
    theirs = concur::tcp_stream::connect(listener.local_endpoint());
    ours = listener.accept();
  }
  concur::tcp_stream ours;
  concur::tcp_stream theirs;
};

inline site read_site(how) {
  auto c = std::make_shared<connection>();
  const auto op = [c](code& error) {
    char byte = 0;
    return c->ours.read_some(&byte, 1, error) == 1 && byte == 'x';
  };
  return {op, [c] { c->theirs.write_all("x"); }, {}};
}

// Both bytes are there at once, but only the first is asked for: the second lies in the stream's own store.
inline site read_line_site(how) {
  auto c = std::make_shared<connection>();
  const auto op = [c](code& error) { return c->ours.read_until("\n", 10, error) == "x\n"; };
  return {op, [c] { c->theirs.write_all("x\nx\n"); }, {}};
}

inline site write_site(how) {
  auto c = std::make_shared<connection>();
  return {[c](code& error) { return c->ours.write_all("x", error) == 1; }, [] {}, {}};
}

inline site accept_site(how) {
  struct house {
    concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0");
    concur::tcp_stream client;
  };
  auto s = std::make_shared<house>();
  const auto op = [s](code& error) { return s->listener.accept(error).is_open(); };
  return {op, [s] { s->client = concur::tcp_stream::connect(s->listener.local_endpoint()); }, {}};
}

inline site connect_site(how) {
  auto listener = std::make_shared<concur::tcp_listener>(concur::tcp_listener::bind("127.0.0.1:0"));
  const auto op = [listener](code& error) {
    return concur::tcp_stream::connect(listener->local_endpoint(), error).is_open();
  };
  return {op, [] {}, {}};
}

inline constexpr unsigned untimed = usual & ~unsigned{timed};

inline const row rows[] = {
    {"mutex", untimed, &plain_mutex_site},
    {"timed_mutex", usual, &mutex_site<concur::timed_mutex>},
    {"recursive_mutex", usual, &mutex_site<concur::recursive_mutex>},
    {"shared_mutex::lock", usual, &mutex_site<concur::shared_mutex>},
    {"shared_mutex::lock_shared", usual, &shared_lock_site},
    {"send", usual, &send_site},
    {"send of a copy", untimed, &copying_send_site},
    {"recv", usual, &recv_site},
    {"send of a signal", usual, &signal_send_site},
    {"recv of a signal", usual, &signal_recv_site},
    {"nil channel", parks | timed | looks, &nil_site},
    {"select", untimed, &select_site},
    {"select_ordered", untimed, &select_ordered_site},
    {"selector::wait", usual, &selector_site},
    {"selector::wait_ordered", untimed, &ordered_selector_site},
    {"condition_variable::wait", wakes | parks | timed | looks, &notified_site},
    {"condition_variable::wait, condition", usual, &condition_site},
    {"counting_semaphore", usual, &semaphore_site},
    {"binary_semaphore", usual, &binary_semaphore_site},
    {"latch::wait", usual, &latch_site},
    {"latch::arrive_and_wait, two", untimed, &arriving_latch_site},
    {"latch::arrive_and_wait", untimed, &lone_latch_site},
    {"barrier::wait", usual, &barrier_site},
    {"barrier::arrive_and_wait", untimed, &arriving_barrier_site},
    {"event", usual, &event_site},
    {"wait_group", usual, &wait_group_site},
    {"future", usual, &future_site},
    {"shared_future", usual, &shared_future_site},
    {"resource_pool", usual, &pool_site},
    {"call_once", lasts | wakes | parks, &once_site},
    {"sleep_for, sleep_until", lasts | parks | looks, &sleep_site},
    {"checkpoint", lasts | looks, &checkpoint_site},
    {"tcp_stream::read_some", untimed, &read_site},
    {"tcp_stream::read_until", untimed, &read_line_site},
    {"tcp_stream::write_all", lasts | looks, &write_site},
    {"tcp_listener::accept", untimed, &accept_site},
    {"tcp_stream::connect", lasts | looks, &connect_site},
};

}  // namespace parking
}  // namespace concur_test

#endif
