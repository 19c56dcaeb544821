// tests/explore_select.cpp - select, selectors and tickers under every kind of schedule (support/scenario.hpp).
//
// What must hold: exactly one case goes, its value is neither lost nor doubled, the others leave no trace; selects over the
// same channels do not wait for each other in a ring; and "nothing is ready" is true at one moment, of all channels.
#include "support/scenario.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

using namespace concur_test;
using namespace std::chrono_literals;
using concur::explore_expect;

namespace {

// Whether anybody waits at the channel.
template <class T>
bool has_waiting(const concur::channel<T>& ch) {
  auto* const core = concur::detail::channel_access::core_of(ch);
  const concur::detail::channel_lock_scope held(core->state().lock, concur::detail::this_worker());
  return !core->state().senders.is_empty() || !core->state().receivers.is_empty();
}

}  // namespace

// --- two selects ---

TEST_CASE("two selects over two channels in opposite order: no ring, no value lost") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> a;
    concur::channel<int> b;
    int sent = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        for (int k = 0; k < 2; ++k)
          concur::select(concur::recv(a, [&](std::optional<int> v) { received += *v; }),
                         concur::recv(b, [&](std::optional<int> v) { received += *v; }));
      });
      n.go([&] {
        for (int k = 1; k <= 2; ++k)
          concur::select(concur::send(b, k, [&] { sent += k; }), concur::send(a, 10 * k, [&] { sent += 10 * k; }));
      });
    });
    explore_expect(sent == received && sent != 0, "sent and received do not agree");
    explore_expect(!has_waiting(a) && !has_waiting(b), "a select left a note behind");
  });
}

TEST_CASE("selects that send and receive meet each other, and never themselves") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    int sent = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      for (int who = 1; who <= 2; ++who) {
        n.go([&, who] {
          concur::select(concur::send(ch, who, [&] { sent += who; }),
                         concur::recv(ch, [&](std::optional<int> v) {
                           explore_expect(*v != who, "a select met itself");
                           received += *v;
                         }));
        });
      }
    });
    explore_expect(sent == received && sent != 0, "sent and received do not agree");
  });
}

TEST_CASE("a select alone on both sides of a channel waits until its time is up") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch;
    int which = -1;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        which = concur::select(concur::send(ch, 1, [] {}), concur::recv(ch, [](std::optional<int>) {}),
                               concur::after(1ms, [] {}));
      });
    });
    explore_expect(which == 2, "a select met itself");
    explore_expect(!has_waiting(ch), "a select left a note behind");
  });
}

TEST_CASE("three selects in a ring of three channels") {
  const nothing_left_over guard;
  scenario_options wanted;
  wanted.workers = 3;
  wanted.schedules /= 2;
  hold(
      [] {
        concur::channel<int> ring[3];
        int sent = 0;
        int received = 0;
        concur::with_nursery([&](concur::nursery& n) {
          for (int i = 0; i < 3; ++i) {
            n.go([&, i] {
              concur::select(concur::send(ring[i], 1, [&] { ++sent; }),
                             concur::recv(ring[(i + 1) % 3], [&](std::optional<int> v) { received += *v; }),
                             concur::after(1ms, [] {}));
            });
          }
        });
        explore_expect(sent == received, "sent and received do not agree");
        for (const auto& ch : ring) explore_expect(!has_waiting(ch), "a select left a note behind");
      },
      wanted);
}

// --- limits, otherwise, closing, cancelling ---

TEST_CASE("a select whose time is up against a send whose time is up") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> a;
    concur::channel<int> b;
    int sent = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::select(concur::recv(a, [&](std::optional<int> v) { received += *v; }),
                       concur::recv(b, [&](std::optional<int> v) { received += *v; }), concur::after(1ms, [] {}));
      });
      n.go([&] {
        int value = 1;
        sent += a.send_for(value, 1ms) == concur::status::ok ? 1 : 0;
      });
      n.go([&] {
        int value = 2;
        concur::this_fiber::sleep_for(1ms);
        sent += b.try_send(value) ? 2 : 0;
      });
    });
    explore_expect(sent == received, "sent and received do not agree");
    explore_expect(!has_waiting(a) && !has_waiting(b), "a select left a note behind");
  });
}

TEST_CASE("otherwise goes only if in one moment no channel was ready") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> a(2);
    concur::channel<int> b(2);
    a.send(1);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        b.send(2);
        static_cast<void>(a.recv());
        a.send(3);
        static_cast<void>(b.recv());
      });
      n.go([&] {
        for (int k = 0; k < 2; ++k)
          concur::select(concur::recv(a, [&](std::optional<int> v) { a.send(*v); }),
                         concur::recv(b, [&](std::optional<int> v) { b.send(*v); }),
                         concur::otherwise([] { explore_expect(false, "a value lay in one of them all the time"); }));
      });
    });
  });
}

TEST_CASE("a select hears of each close, in receiving and in sending") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> a;
    concur::channel<int> b;
    concur::channel<int> c;
    int ended = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::select(concur::recv(a, [&](std::optional<int> v) { ended += v ? 0 : 1; }),
                       concur::recv(b, [&](std::optional<int> v) { ended += v ? 0 : 1; }));
      });
      n.go([&] {
        try {
          concur::select(concur::send(c, 1, [] { explore_expect(false, "nobody received"); }),
                         concur::recv(b, [&](std::optional<int> v) { ended += v ? 0 : 1; }));
        } catch (const concur::channel_closed&) {
          ++ended;
        }
      });
      n.go([&] { b.close(); });
      n.go([&] { c.close(); });
    });
    explore_expect(ended == 2, "a select did not hear of the close");
  });
}

TEST_CASE("a cancelled select has neither sent nor received") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<std::unique_ptr<int>> a;
    concur::channel<int> b;
    int sent = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::select(concur::recv(a, [&](std::optional<std::unique_ptr<int>> v) { received += **v; }),
                       concur::send(b, 10, [&] { sent += 10; }));
      });
      n.go([&] {
        concur::select(concur::send(a, std::make_unique<int>(1), [&] { ++sent; }),
                       concur::recv(b, [&](std::optional<int> v) { received += *v; }));
      });
      n.go([&] { n.cancel(); });
    });
    explore_expect(sent == received, "sent and received do not agree");
    explore_expect(!has_waiting(a) && !has_waiting(b), "a select left a note behind");
  });
}

TEST_CASE("the notes of the cases that lost are gone when select returns") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> a;
    concur::channel<int> b;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::select(concur::recv(a, [](std::optional<int>) {}), concur::recv(b, [](std::optional<int>) {}),
                       concur::recv(b, [](std::optional<int>) {}));
        explore_expect(!has_waiting(a) && !has_waiting(b), "a select left a note behind");
        int value = 1;
        explore_expect(!b.try_send(value) && !a.try_send(value), "somebody took a value who was gone");
      });
      n.go([&] { a.send(1); });
    });
  });
}

// --- other kinds of cases ---

TEST_CASE("a result, a value and a limit of time: one of them") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> ch(1);
    concur::promise<int> result;
    concur::future<int> coming = result.get_future();
    int went = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::select(concur::ready(coming, [&] { ++went; }), concur::recv(ch, [&](std::optional<int>) { ++went; }),
                       concur::after(1ms, [&] { ++went; }));
      });
      n.go([&] { result.set_value(7); });
      n.go([&] { ch.send(1); });
    });
    explore_expect(went == 1, "no case went, or several");
    explore_expect(coming.get() == 7, "the result is another");
  });
}

TEST_CASE("a ticker against its end") {
  const nothing_left_over guard;
  hold([] {
    concur::ticker ticks(1ms);
    concur::channel<int> ch;
    int ended = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        while (ticks.recv()) {
        }
        ++ended;
      });
      n.go([&] {
        for (bool is_on = true; is_on;)
          concur::select(concur::recv(ticks, [&](std::optional<concur::time_point> t) { is_on = t.has_value(); }),
                         concur::recv(ch, [](std::optional<int>) {}));
        ++ended;
      });
      n.go([&] {
        concur::this_fiber::sleep_for(2ms);
        ticks.stop();
      });
    });
    explore_expect(ended == 2, "who waited for ticks did not hear that there are no more");
  });
}

TEST_CASE("a ticker that is set to another time, while somebody waits") {
  const nothing_left_over guard;
  hold([] {
    concur::ticker ticks(24h);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        const auto began = concur::detail::now_ns();
        static_cast<void>(ticks.recv());
        explore_expect(concur::detail::now_ns() - began < 3'600'000'000'000, "the new time was not heard");
      });
      n.go([&] { ticks.reset(1ms); });
    });
  });
}

TEST_CASE("a selector whose cases come and go") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> a;
    concur::channel<int> b;
    int sent = 0;
    int received = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        concur::selector all;
        int first = -1;
        first = all.add(concur::recv(a, [&](std::optional<int> v) {
          received += *v;
          all.remove(first);
        }));
        all.add(concur::recv(b, [&](std::optional<int> v) { received += *v; }));
        while (all.wait_for(2ms) != -1) {
        }
      });
      n.go([&] {
        for (int value : {1, 2}) {
          const int mine = value;
          sent += a.send_for(value, 1ms) == concur::status::ok ? mine : 0;
        }
      });
      n.go([&] {
        int value = 10;
        sent += b.send_for(value, 1ms) == concur::status::ok ? 10 : 0;
      });
    });
    explore_expect(sent == received, "sent and received do not agree");
    explore_expect(!has_waiting(a) && !has_waiting(b), "a selector left a note behind");
  });
}

TEST_CASE("a thread outside selects, fibers send and close") {
  const nothing_left_over guard;
  hold([] {
    concur::channel<int> a;
    concur::channel<int> b;
    int received = 0;
    concur::explored_thread outside([&] {
      for (bool is_on = true; is_on;)
        concur::select(concur::recv(a, [&](std::optional<int> v) { received += v.value_or(0); is_on = v.has_value(); }),
                       concur::recv(b, [&](std::optional<int> v) { received += *v; }));
    });
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { a.send(1); });
      n.go([&] { b.send(2); });
    });
    a.close();
    outside.join();
    explore_expect(received == 3, "a value is lost");
  });
}
