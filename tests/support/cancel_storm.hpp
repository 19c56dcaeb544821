// tests/support/cancel_storm.hpp - operations in scopes that are really cancelled: by a deadline, by hand, by a token, as
// children of a nursery, in advance; in the middle of a crowd that does the same.
//
// A party is a fiber of the storm. attempt(op) calls op in surroundings that it draws, and says whether op returned. What op
// does behind its parking operation it does before it returns; so a count that is kept there is exact. Scopes and nurseries
// that are open are known to the strikers, a plain thread and a fiber, which cancel them at any moment.
#ifndef CONCUR_TESTS_SUPPORT_CANCEL_STORM_HPP
#define CONCUR_TESTS_SUPPORT_CANCEL_STORM_HPP

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <thread>

#include "support/crew.hpp"

namespace concur_test {

// Where a striker finds what one party has open.
class strike_target {
 public:
  template <class Cancellable>
  class opened {
   public:
    opened(strike_target& where, Cancellable& what) : where_(where) {
      const locked held(where_.lock_);
      where_.what_ = &what;
      where_.cancel_ = [](void* raw) { static_cast<Cancellable*>(raw)->cancel(); };
    }
    ~opened() {
      const locked held(where_.lock_);
      where_.what_ = nullptr;
    }
    opened(const opened&) = delete;
    opened& operator=(const opened&) = delete;

   private:
    strike_target& where_;
  };

  // Whether there was something.
  bool strike() {
    const locked held(lock_);
    if (what_ == nullptr) return false;
    cancel_(what_);
    return true;
  }

 private:
  using locked = concur::detail::lock_scope<concur::spin_lock>;

  concur::spin_lock lock_;  // so that what is open stays so while it is cancelled
  void* what_ = nullptr;
  void (*cancel_)(void*) = nullptr;
};

// What a storm came to.
struct storm_figures {
  std::atomic<long> operations{0};
  std::atomic<long> cut_short{0};  // of them, by a cancellation or a limit
  std::atomic<long> strikes{0};    // that met an open scope
};

class party {
 public:
  party(unsigned number_in, unsigned seed, strike_target& where, storm_figures& figures)
      : number(number_in), where_(where), figures_(figures), random_(seed) {}

  // What is drawn, below n.
  unsigned draw(unsigned n) { return static_cast<unsigned>(random_() >> 8) % n; }
  bool one_in(unsigned n) { return draw(n) == 0; }
  std::chrono::nanoseconds some_limit() { return std::chrono::nanoseconds(draw(60000)); }

  // Op may wait for ever, as far as the party is concerned: the crowd ends the wait.
  template <class Op>
  bool attempt(Op&& op) {
    return attempt_as(draw(16), op);
  }
  // Op waits for ever, unless it is cancelled.
  template <class Op>
  bool attempt_in_vain(Op&& op) {
    return attempt_as(draw(kinds_of_cancellation), op);
  }

  const unsigned number;

 private:
  static constexpr unsigned kinds_of_cancellation = 11;

  template <class Op>
  bool attempt_as(unsigned kind, Op& op) {
    figures_.operations.fetch_add(1, std::memory_order_relaxed);
    const bool has_returned = surround(kind, op);
    if (!has_returned) figures_.cut_short.fetch_add(1, std::memory_order_relaxed);
    return has_returned;
  }

  template <class Op>
  bool surround(unsigned kind, Op& op) {
    switch (kind) {
      case 0:
      case 1:
      case 2:
        return concur::move_on_after(some_limit(), op);
      case 3:
      case 4:
      case 5: {
        concur::cancel_scope scope(concur::deferred);
        const strike_target::opened<concur::cancel_scope> found(where_, scope);
        return scope.run(op);
      }
      case 6: {
        concur::cancel_source source;
        const strike_target::opened<concur::cancel_source> found(where_, source);
        concur::cancel_scope scope(source.token());
        return scope.run(op);
      }
      case 7:
        return within_limit(op);
      case 8:
        return in_two_scopes(op);
      case 9:
        return as_child(op);
      case 10: {
        concur::cancel_scope scope;
        scope.cancel();
        return scope.run(op);
      }
      case kinds_of_cancellation:
        return concur::move_on_after(some_limit(), [&] { concur::shield(op); });
      default:
        op();
        return true;
    }
  }
  template <class Op>
  bool within_limit(Op& op) {
    try {
      concur::fail_after(some_limit(), op);
      return true;
    } catch (const concur::timed_out&) {
      return false;
    }
  }
  template <class Op>
  bool in_two_scopes(Op& op) {
    bool has_returned = false;
    static_cast<void>(concur::move_on_after(some_limit(), [&] {
      concur::cancel_scope scope(concur::deferred);
      const strike_target::opened<concur::cancel_scope> found(where_, scope);
      has_returned = scope.run(op);
    }));
    return has_returned;
  }
  template <class Op>
  bool as_child(Op& op) {
    bool has_returned = false;
    concur::nursery below;
    const strike_target::opened<concur::nursery> found(where_, below);
    below.go([&] {
      op();
      has_returned = true;
    });
    below.join();
    return has_returned;
  }

  strike_target& where_;
  storm_figures& figures_;
  std::minstd_rand random_;
};

// Runs life(party&) in each of `fibers` parties on so many workers, with both strikers.
template <unsigned fibers, class Life>
void cancel_storm(unsigned workers, storm_figures& figures, Life life) {
  std::array<strike_target, fibers> targets;
  std::atomic<unsigned> left{fibers};
  // One that has something open, and a pause that is as long as a few operations take.
  const auto strike = [&](std::minstd_rand& random) {
    unsigned at = static_cast<unsigned>(random() >> 8) % fibers;
    for (unsigned i = 0; i < fibers; ++i, at = (at + 1) % fibers) {
      if (!targets[at].strike()) continue;
      figures.strikes.fetch_add(1, std::memory_order_relaxed);
      break;
    }
    for (unsigned i = static_cast<unsigned>(random() >> 8) % 256; i > 0; --i) concur::detail::cpu_relax();
  };
  std::atomic<bool> is_over{false};
  std::thread outside([&] {
    std::minstd_rand random(workers);
    while (!is_over) {
      strike(random);
      if ((random() >> 8) % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  });
  concur::run(with_workers(workers), [&] {
    concur::with_nursery([&](concur::nursery& crowd) {
      for (unsigned i = 0; i < fibers; ++i) {
        crowd.go([&, i] {
          party one(i, (i + 1) * 7919 + workers, targets[i], figures);
          life(one);
          --left;
        });
      }
      crowd.go([&] {
        std::minstd_rand random(workers + 1);
        while (left != 0) {
          strike(random);
          concur::this_fiber::yield();
        }
      });
    });
  });
  is_over = true;
  outside.join();
}

}  // namespace concur_test

using concur_test::cancel_storm;
using concur_test::party;
using concur_test::storm_figures;

#endif
