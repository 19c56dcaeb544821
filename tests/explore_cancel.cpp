// tests/explore_cancel.cpp - cancellations and limits under every kind of schedule (support/scenario.hpp).
//
// What must hold: who is below a cancelled scope is told, wherever it waits, and nobody else is; the scope that caused it
// catches it; who was told has got nothing, and who got something keeps it; and what a scope has set in motion is over when
// its block is left.
#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "support/scenario.hpp"

using namespace concur_test;
using concur::explore_expect;
using concur::detail::note_read;
using concur::detail::note_write;
using namespace std::chrono_literals;

namespace {

// The exploration's time, not the machine's.
std::chrono::steady_clock::time_point after(std::chrono::nanoseconds d) {
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(concur::detail::now_ns()) + d);
}

// One way to wait for something that there is once: take() waits for it, give() brings it, and has_left() says whether it is
// still there when both are over.
struct good {
  std::function<void()> take;
  std::function<void()> give;
  std::function<bool()> has_left;
};

struct kind_of_wait {
  const char* name;
  good (*make)();
};

good wait_for_channel() {
  auto ch = std::make_shared<concur::channel<int>>(1);
  return {[ch] { ch->recv(); }, [ch] { ch->send(1); }, [ch] { return ch->try_recv().has_value(); }};
}

good wait_for_sender() {
  auto ch = std::make_shared<concur::channel<int>>();
  auto was_sent = std::make_shared<bool>(false);
  return {[ch] { ch->recv(); },
          [ch, was_sent] {
            int value = 1;
            *was_sent = ch->send_for(value, 1s) == concur::status::ok;
          },
          [was_sent] { return !*was_sent; }};
}

good wait_for_select() {
  auto ch = std::make_shared<concur::channel<int>>(1);
  auto other = std::make_shared<concur::channel<int>>();
  return {[ch, other] { concur::select(concur::recv(*other, [] {}), concur::recv(*ch, [] {})); }, [ch] { ch->send(1); },
          [ch] { return ch->try_recv().has_value(); }};
}

good wait_for_semaphore() {
  auto permits = std::make_shared<concur::counting_semaphore<>>(0);
  return {[permits] { permits->acquire(); }, [permits] { permits->release(); },
          [permits] { return permits->try_acquire(); }};
}

template <class Mutex>
good wait_for_mutex() {
  struct shared {
    Mutex m;
    bool is_kept = false;
  };
  auto s = std::make_shared<shared>();
  s->m.lock();
  // Its owner is the fiber that makes it, which is the one that gives.
  return {[s] {
            s->m.lock();
            s->is_kept = true;
            s->m.unlock();
          },
          [s] { s->m.unlock(); },
          [s] {
            explore_expect(s->m.try_lock(), "a mutex stays locked though nobody holds it");
            s->m.unlock();
            return !s->is_kept;
          }};
}

good wait_for_pool() {
  using pool = concur::resource_pool<int>;
  auto things = std::make_shared<pool>(1);
  things->add(1);
  auto held = std::make_shared<pool::lease>(things->acquire());
  auto taken = std::make_shared<pool::lease>();
  return {[things, taken] { *taken = things->acquire(); }, [held] { held->give_back(); },
          [things, taken] { return static_cast<bool>(things->try_acquire()); }};
}

good wait_for_condition() {
  struct shared {
    concur::mutex m;
    concur::condition_variable changed;
    int goods = 0;
  };
  auto s = std::make_shared<shared>();
  return {[s] {
            std::unique_lock<concur::mutex> lock(s->m);
            s->changed.wait(lock, [&] { return s->goods != 0; });
            --s->goods;
          },
          [s] {
            {
              const std::lock_guard<concur::mutex> lock(s->m);
              ++s->goods;
            }
            s->changed.notify_one();
          },
          [s] { return s->goods == 1; }};
}

// What is not used up: an event, a latch, a barrier, a group, a result, room for a child.
template <class Gate>
good wait_for_gate(std::shared_ptr<Gate> gate, void (*open)(Gate&)) {
  auto has_passed = std::make_shared<bool>(false);
  return {[gate, has_passed] {
            gate->wait();
            *has_passed = true;
          },
          [gate, open] { open(*gate); },
          [gate, has_passed] {
            gate->wait();  // open for whoever comes
            return !*has_passed;
          }};
}
good wait_for_event() {
  return wait_for_gate<concur::event>(std::make_shared<concur::event>(), [](concur::event& e) { e.set(); });
}
good wait_for_latch() {
  return wait_for_gate<concur::latch>(std::make_shared<concur::latch>(1), [](concur::latch& e) { e.count_down(); });
}
good wait_for_group() {
  auto group = std::make_shared<concur::wait_group>();
  group->add();
  return wait_for_gate<concur::wait_group>(group, [](concur::wait_group& e) { e.done(); });
}
good wait_for_future() {
  auto made = std::make_shared<concur::promise<int>>();
  auto wanted = std::make_shared<concur::future<int>>(made->get_future());
  return {[wanted] { wanted->get(); }, [made] { made->set_value(1); }, [wanted] { return wanted->valid(); }};
}
good wait_for_once() {
  struct shared {
    concur::once_flag flag;
    bool has_run = false;
    concur::event begun;
  };
  auto s = std::make_shared<shared>();
  auto has_passed = std::make_shared<bool>(false);
  return {[s, has_passed] {
            concur::call_once(s->flag, [&] { s->has_run = true; });
            *has_passed = true;
          },
          [s] {
            concur::call_once(s->flag, [&] {
              concur::this_fiber::yield();
              s->has_run = true;
            });
          },
          [s, has_passed] {
            explore_expect(s->has_run, "call_once returned, and the function has not run");
            return !*has_passed;
          }};
}

constexpr kind_of_wait kinds[] = {
    {"a buffered channel", &wait_for_channel},
    {"a channel without a buffer", &wait_for_sender},
    {"a select", &wait_for_select},
    {"a semaphore", &wait_for_semaphore},
    {"a mutex", &wait_for_mutex<concur::mutex>},
    {"a shared_mutex", &wait_for_mutex<concur::shared_mutex>},
    {"a resource_pool", &wait_for_pool},
    {"a condition_variable", &wait_for_condition},
    {"an event", &wait_for_event},
    {"a latch", &wait_for_latch},
    {"a wait_group", &wait_for_group},
    {"a future", &wait_for_future},
    {"call_once", &wait_for_once},
};

// The default budget, divided among `parts`.
scenario_options share_of(std::size_t parts) {
  scenario_options wanted;
  wanted.schedules = (scenario_schedules() + parts - 1) / parts;
  return wanted;
}

}  // namespace

TEST_CASE("at every kind of wait who is cancelled has got nothing, and who got something keeps it") {
  const nothing_left_over guard;
  for (const kind_of_wait& kind : kinds) {
    CAPTURE(std::string(kind.name));
    hold(
        [&kind] {
          const good it = kind.make();
          bool has_returned = false;
          concur::cancel_scope s(concur::deferred);
          concur::event entered;
          concur::with_nursery([&](concur::nursery& n) {
            n.go([&] {
              has_returned = s.run([&] {
                entered.set();
                it.take();
              });
            });
            n.go([&] {
              concur::this_fiber::yield();
              s.cancel();
            });
            it.give();
          });
          explore_expect(it.has_left() == !has_returned, "a wait was cancelled and took, or was not, and took nothing");
        },
        share_of(4));
  }
}

TEST_CASE("at every kind of wait a limit that passes as it ends takes nothing away") {
  const nothing_left_over guard;
  for (const kind_of_wait& kind : kinds) {
    CAPTURE(std::string(kind.name));
    hold(
        [&kind] {
          const good it = kind.make();
          bool has_returned = false;
          concur::with_nursery([&](concur::nursery& n) {
            n.go([&] { has_returned = concur::move_on_after(1ms, [&] { it.take(); }); });
            concur::this_fiber::sleep_for(1ms);
            it.give();
          });
          explore_expect(it.has_left() == !has_returned, "a limit passed and the wait took, or neither");
        },
        share_of(4));
  }
}

TEST_CASE("a cancellation that a look sees, or a wait, is caught by the scope that it is for") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope s(concur::deferred);
    bool is_home = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        const bool returned = s.run([] {
          for (;;) concur::this_fiber::checkpoint();
        });
        concur::this_fiber::checkpoint();
        is_home = !returned && s.cancelled_caught();
      });
      n.go([&] { s.cancel(); });
    });
    explore_expect(is_home, "a cancellation came out of the scope that it was for");
  });
}

TEST_CASE("a plain thread cancels a fiber as it parks") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope s(concur::deferred);
    int data = 0;
    bool was_cancelled = false;
    const concur::cancel_token told = s.token();
    concur::explored_thread other([&] {
      note_write(&data, "what was done before the cancellation");
      s.cancel();
    });
    const bool returned = s.run([&] { was_cancelled = sleeps_until_cancelled(); });
    explore_expect(returned && was_cancelled, "a fiber sleeps in a scope that was cancelled");
    explore_expect(s.cancelled(), "a scope does not know that it was cancelled");
    if (told.cancelled()) note_read(&data, "what was done before the cancellation");
    other.join();
    explore_expect(told.cancelled(), "a token was not told");
  });
}

TEST_CASE("the scope that was cancelled catches, and none inside of it") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope outer(concur::deferred);
    concur::cancel_scope inner(concur::deferred);
    bool is_home = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        bool has_inner_returned = false;
        bool was_inner_caught = false;
        const bool returned = outer.run([&] {
          has_inner_returned = inner.run([] { concur::this_fiber::sleep_for(1h); });
          was_inner_caught = true;
          concur::this_fiber::sleep_for(1h);
        });
        explore_expect(!returned, "the outer scope did not catch its cancellation");
        explore_expect(!has_inner_returned, "a sleep came to its end in a cancelled scope");
        explore_expect(!was_inner_caught || inner.cancelled_caught(), "the inner scope kept what was not its own");
        is_home = true;
      });
      n.go([&] { inner.cancel(); });
      n.go([&] { outer.cancel(); });
    });
    explore_expect(is_home, "a cancellation came out of the scope that it was for");
  });
}

TEST_CASE("an inner scope does not catch what it did not cause") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope outer(concur::deferred);
    bool is_home = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        bool has_gone_on = false;
        const bool returned = outer.run([&] {
          concur::move_on_after(1h, [] { concur::this_fiber::sleep_for(1h); });
          has_gone_on = true;
        });
        explore_expect(!returned && !has_gone_on, "a limit that has not passed caught another's cancellation");
        is_home = true;
      });
      n.go([&] { outer.cancel(); });
    });
    explore_expect(is_home, "a cancellation came out of the scope that it was for");
  });
}

TEST_CASE("nested limits: the earliest passes, and its own block says so") {
  const nothing_left_over guard;
  hold([] {
    std::string who;
    int data = 0;
    try {
      concur::fail_after(2ms, [&] {
        const bool returned = concur::move_on_after(1ms, [&] {
          concur::with_nursery([&](concur::nursery& n) {
            n.go([&] {
              sleeps_until_cancelled();
              note_write(&data, "what a child wrote whose limit passed");
            });
          });
        });
        if (!returned) who += "inner ";
        concur::this_fiber::sleep_for(1h);
      });
    } catch (const concur::timed_out&) {
      who += "outer";
    }
    note_read(&data, "what a child wrote whose limit passed");
    explore_expect(who == "inner outer" || who == "outer", "a limit was taken for another");
  });
}

TEST_CASE("a shield keeps a cancellation off until it is left, and lets it in when it is taken away") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope s(concur::deferred);
    concur::cancel_scope screen(concur::deferred);
    screen.shield();
    bool was_cancelled = false;
    bool is_through = false;
    bool is_home = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        const bool returned = s.run([&] {
          concur::shield([&] {
            concur::this_fiber::sleep_for(1ms);
            is_through = true;
          });
          screen.run([&] { was_cancelled = sleeps_until_cancelled(); });
          concur::this_fiber::checkpoint();
        });
        is_home = !returned;
      });
      n.go([&] { s.cancel(); });
      n.go([&] { screen.shield(false); });
    });
    explore_expect(is_home, "a cancellation was lost under a shield, or came out of its scope");
    explore_expect(is_through, "a shield let a cancellation in");
    explore_expect(was_cancelled, "a shield was taken away, and who slept under it was not told");
  });
}

TEST_CASE("a scope that is cancelled while it is entered cancels what is inside, and tells its token") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope s(concur::deferred);
    const concur::cancel_token token = s.token();
    bool was_cancelled = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        s.run([&] { was_cancelled = sleeps_until_cancelled(); });
      });
      n.go([&] { s.cancel(); });
    });
    explore_expect(was_cancelled, "who entered a scope as it was cancelled sleeps on");
    explore_expect(token.cancelled(), "a token was not told");
  });
}

TEST_CASE("a scope that is entered in one that is being cancelled is cancelled too, and so is its token") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope inner(concur::deferred);
    const concur::cancel_token token = inner.token();
    bool was_cancelled = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { inner.run([&] { was_cancelled = sleeps_until_cancelled(); }); });
      concur::this_fiber::yield();
      n.cancel();
    });
    explore_expect(was_cancelled, "who entered a scope as its surroundings were cancelled sleeps on");
    explore_expect(token.cancelled(), "the token of a scope was not told of what surrounds it");
  });
}

TEST_CASE("a token cancels its scope, and does not come too late for the next one in its place") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_source source;
    int data = 0;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        std::optional<concur::cancel_scope> here;
        here.emplace(source.token());
        concur::this_fiber::yield();
        const bool was_first = here->cancelled();
        here.reset();
        here.emplace();
        concur::this_fiber::yield();
        explore_expect(!here->cancelled(), "a token cancelled the scope that came after its own");
        here.reset();
        here.emplace(source.token());
        const bool was_cancelled = sleeps_until_cancelled();
        explore_expect(was_cancelled, "the scope of a cancelled token is not");
        explore_expect(!was_first || source.cancelled(), "a scope was cancelled by nobody");
        if (source.cancelled()) note_read(&data, "what was done before a source was cancelled");
      });
      n.go([&] {
        note_write(&data, "what was done before a source was cancelled");
        source.cancel();
      });
    });
  });
}

TEST_CASE("a deadline that passes as its scope is left does not reach the next one in its place") {
  const nothing_left_over guard;
  hold([] {
    concur::with_nursery([&](concur::nursery& n) {
      for (int i = 0; i < 2; ++i) {
        n.go([&] {
          std::optional<concur::cancel_scope> here;
          here.emplace();
          here->deadline(after(200us));
          concur::shield([] { concur::this_fiber::sleep_for(100us); });
          here.reset();
          here.emplace();
          for (int k = 0; k < 3; ++k) concur::this_fiber::yield();
          explore_expect(!here->cancelled(), "a deadline cancelled the scope that came after its own");
        });
      }
    });
  });
}

TEST_CASE("a deadline that is moved by others counts where it was put last") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope s(concur::deferred);
    const auto soon = after(1ms);
    bool was_cancelled = false;
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] { s.run([&] { was_cancelled = sleeps_until_cancelled(); }); });
      n.go([&] {
        s.deadline(soon + 1h);
        s.deadline(soon);
      });
    });
    explore_expect(was_cancelled, "a deadline was put, and did not pass");
  });
}

TEST_CASE("two cancellations and a shield tell each token once, and nobody is left out") {
  const nothing_left_over guard;
  hold([] {
    concur::cancel_scope outer(concur::deferred);
    concur::cancel_scope inner(concur::deferred);
    const concur::cancel_token tokens[] = {outer.token(), inner.token()};
    concur::with_nursery([&](concur::nursery& n) {
      concur::cancel_scope heard(concur::deferred);
      n.go([&] {
        outer.run([&] { inner.run([] { concur::this_fiber::sleep_for(1h); }); });
      });
      n.go([&] { outer.cancel(); });
      n.go([&] {
        inner.shield(true);
        inner.shield(false);
      });
      n.go([&] {
        inner.shield(true);
        inner.shield(false);
      });
    });
    explore_expect(tokens[0].cancelled() && tokens[1].cancelled(), "a token was not told");
  });
}

TEST_CASE("destructors that run for unwinding may wait, and are not cancelled") {
  const nothing_left_over guard;
  hold([] {
    int said = 0;
    bool was_limited = false;
    struct session {
      int* said;
      bool* was_limited;
      ~session() {
        concur::this_fiber::sleep_for(1ms);
        ++*said;
        *was_limited = !concur::move_on_after(1ms, [] { concur::this_fiber::sleep_for(1h); });
        concur::with_nursery([&](concur::nursery& n) {
          n.go([s = said] {
            concur::this_fiber::sleep_for(1ms);
            ++*s;
          });
        });
      }
    };
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        const session mine{&said, &was_limited};
        concur::this_fiber::sleep_for(1h);
      });
      n.go([&] { n.cancel(); });
      n.go([&] {
        concur::this_fiber::yield();
        n.scope().shield(true);
        n.scope().shield(false);
      });
    });
    explore_expect(said == 0 || said == 2, "a destructor was cancelled half-way");
    explore_expect(said == 0 || was_limited, "a limit of its own did not end a wait in a destructor");
  });
}

TEST_CASE("two limits of two fibers pass at once, and each ends its own") {
  const nothing_left_over guard;
  hold([] {
    std::array<int, 3> passed{};
    concur::with_nursery([&](concur::nursery& n) {
      for (int& mine : passed) {
        n.go([&] {
          try {
            concur::fail_after(1ms, [&] {
              concur::move_on_after(1ms, [] { concur::this_fiber::sleep_for(1h); });
              concur::this_fiber::sleep_for(1h);
            });
          } catch (const concur::timed_out&) {
            ++mine;
          }
        });
      }
    });
    explore_expect(passed[0] == 1 && passed[1] == 1 && passed[2] == 1, "a limit passed, and its block did not say so");
  });
}

TEST_CASE("the end of a runtime is felt by whoever parks as it comes") {
  const nothing_left_over guard;
  scenario_options outside;
  outside.workers = 0;
  hold(
      [] {
        int cancelled = 0;
        int data = 0;
        concur::event begun;
        {
          concur::options two;
          two.workers = 2;
          concur::runtime rt(two);
          rt.go([&] {
            {
              // Children that have left it lead nowhere afterwards.
              const auto brief = std::make_unique<concur::nursery>();
              for (int i = 0; i < 3; ++i) brief->go([] { concur::this_fiber::yield(); });
              brief->join();
            }
            begun.set();
            note_write(&data, "what a fiber does before the end of its runtime");
            cancelled += sleeps_until_cancelled() ? 1 : 0;
            concur::go([&] { cancelled += sleeps_until_cancelled() ? 1 : 0; });
            concur::with_nursery([&](concur::nursery& n) {
              n.go([&] { cancelled += sleeps_until_cancelled() ? 1 : 0; });
            });
          });
          begun.wait();
        }
        note_write(&data, "what a fiber does before the end of its runtime");
        explore_expect(cancelled == 3, "a fiber sleeps though its runtime ends");
      },
      outside);
}

// --- trees ---

namespace {

// A tree of scopes and nurseries that a number describes, and a scope in it that is cancelled. Each leaf sleeps; those
// below the cancelled scope must be told, and nobody else.
class tree {
 public:
  explicit tree(unsigned number) : next_(number * 2654435761U + 1) {}

  void play() {
    victim_ = draw(4);
    concur::with_nursery([&](concur::nursery& n) {
      n.go([&] {
        grow(3, false);
        is_home_ = true;
        is_victim_there_.set();
      });
      n.go([&] {
        is_victim_there_.wait();
        if (cancel_victim_ != nullptr) cancel_victim_();
        is_struck_.count_down();
      });
    });
    explore_expect(is_home_, "a cancellation came out of the scope that it was for");
    explore_expect(told_ == below_, "who is below a cancelled scope was not told, or somebody else was");
  }

 private:
  std::uint32_t draw(std::uint32_t below) {
    next_ = next_ * 1664525U + 1013904223U;
    return (next_ >> 16) % below;
  }

  // Whether the scope with the next number is the one to be cancelled.
  template <class Scope>
  bool announce(Scope& s) {
    if (scopes_++ != victim_) return false;
    cancel_victim_ = [&s] { s.cancel(); };
    is_victim_there_.set();
    return true;
  }

  void leaf(bool is_below) {
    if (is_below) {
      ++below_;
      told_ += sleeps_until_cancelled() ? 1 : 0;
    } else {
      concur::this_fiber::sleep_for(1ms);
    }
  }

  void grow(unsigned depth, bool is_below) {
    if (depth == 0) return leaf(is_below);
    switch (draw(3)) {
      case 0: {
        concur::cancel_scope s(concur::deferred);
        const bool is_it = announce(s);
        s.run([&] { grow(depth - 1, is_below || is_it); });
        if (is_it) concur::shield([&] { is_struck_.wait(); });
        break;
      }
      case 1:
        concur::shield([&] { grow(depth - 1, false); });
        if (is_below) leaf(true);
        break;
      default: {
        concur::nursery n;
        const bool is_it = announce(n);
        const bool is_inside = is_below || is_it;
        try {
          n.run([&](concur::nursery&) {
            n.go([this, is_inside] { leaf(is_inside); });
            if (draw(2) == 0) n.go([this, is_inside] { leaf(is_inside); });
            grow(depth - 1, is_inside);
          });
        } catch (const concur::cancelled&) {
          explore_expect(is_below, "a cancellation came out of the nursery that it was for");
          throw;
        }
        if (is_it) concur::shield([&] { is_struck_.wait(); });
      }
    }
  }

  std::uint32_t next_;
  unsigned scopes_ = 0;
  unsigned victim_ = 0;
  int below_ = 0;
  int told_ = 0;
  bool is_home_ = false;
  std::function<void()> cancel_victim_;
  concur::event is_victim_there_;
  concur::latch is_struck_{1};
};

}  // namespace

TEST_CASE("in trees of scopes and nurseries a cancellation reaches what is below, and nothing else") {
  const nothing_left_over guard;
  constexpr unsigned count = 16;
  for (unsigned number = 0; number < count; ++number) {
    CAPTURE(number);
    hold(
        [number] {
          tree one(number);
          one.play();
        },
        share_of(count / 2));
  }
}
