// tests/happens_before/stage.hpp - where the cases of edges.cpp are played: two accesses of plain memory, and nothing that
// orders them but what the case is about.
//
// ThreadSanitizer keeps a clock for each thread and each fiber, and hears of every acquire and release. So a harness that
// coordinates its parties in the usual way would order everything, and every case would be silent. Here the parties see of
// each other only what relaxed atomics and /proc show, which make no edge:
//
//     s.touch()           an access (a write) of the plain memory
//     s.arrive(n)         says that step n is reached
//     s.await(n)          waits until it is
//     s.await_parked(i)   waits until party i, or the fiber with this block, is in its wait
//
// The parties are threads, or fibers, by the place:
//
//     place       party 0, 2        party 1              switches of a fiber order them
//     threads     a thread each     a thread             no
//     fibers1     fibers of one worker                   yes: one worker runs them in turn
//     fibers2     fibers of a runtime of two workers     two parties begin on different workers; three need not
//     mixed       fibers            a thread             no
//     runtimes    fibers of one     a fiber of another   no
#ifndef CONCUR_TESTS_HAPPENS_BEFORE_STAGE_HPP
#define CONCUR_TESTS_HAPPENS_BEFORE_STAGE_HPP

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "concur.hpp"

namespace edges {

using namespace std::chrono_literals;

enum place : unsigned { threads = 1, fibers1 = 2, fibers2 = 4, mixed = 8, runtimes = 16 };
constexpr unsigned fibers = fibers1 | fibers2;
constexpr unsigned everywhere = threads | fibers | mixed | runtimes;

// For what must hold that the case is the case at all.
#define MUST(condition) ::edges::must((condition), #condition, __LINE__)
inline void must(bool holds, const char* what, int line) {
  if (holds) return;
  std::fprintf(stderr, "line %d: not so: %s\n", line, what);
  std::_Exit(3);
}

inline concur::options with_workers(unsigned count) {
  concur::options wanted;
  wanted.workers = count;
  return wanted;
}

__attribute__((noinline)) inline void touch_memory(int& plain) { plain = plain + 1; }
__attribute__((noinline)) inline int look_at_memory(const int& plain) { return plain; }

class stage {
 public:
  explicit stage(place where) : where_(where) {}

  void touch(std::size_t which = 0) { touch_memory(plain_[which]); }
  void look(std::size_t which = 0) { seen_.store(look_at_memory(plain_[which]), std::memory_order_relaxed); }

  void arrive(int step) { step_.store(step, std::memory_order_relaxed); }
  bool has_arrived(int step) const { return step_.load(std::memory_order_relaxed) >= step; }
  void await(int step) const {
    while (!has_arrived(step)) pause();
  }
  void await_parked(std::size_t i) const {
    while (!is_parked(parties_[i])) pause();
  }
  void await_parked(const concur::detail::fiber& f) const {
    while (!is_parked(f)) pause();
  }

  // Runs the parties, and returns when all have ended.
  template <class... Parties>
  void play(Parties... all) {
    count_ = sizeof...(all);
    std::vector<std::function<void()>> list;
    (list.push_back(party_body(list.size(), std::move(all))), ...);
    switch (where_) {
      case threads:
        return play_apart(list, nullptr, nullptr);
      case mixed: {
        concur::runtime one(with_workers(1));
        return play_apart(list, &one, nullptr);
      }
      case runtimes: {
        concur::runtime one(with_workers(1));
        concur::runtime other(with_workers(1));
        return play_apart(list, &one, &other);
      }
      case fibers1:
      case fibers2: {
        concur::runtime one(with_workers(workers()));
        return play_apart(list, &one, &one);
      }
    }
  }

  unsigned workers() const { return where_ == fibers1 ? 1 : 2; }

  // Whether this is an address of the plain memory.
  bool has(const void* address) const {
    const auto begin = reinterpret_cast<std::uintptr_t>(plain_.data());
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    return at >= begin && at < begin + sizeof plain_;
  }

 private:
  struct party {
    std::atomic<concur::detail::fiber*> block{nullptr};
    std::atomic<long> number{0};
  };

  // A yield gives the worker to others, and that can order things; where each party has a worker to itself it spins. Three
  // parties have not: who spins there may keep from its worker the one that it waits for.
  void pause() const {
    if (where_ == fibers1 || (where_ != threads && count_ > 2))
      concur::this_fiber::yield();
    else
      sched_yield();
  }

  static bool is_parked(const party& one) {
    const long number = one.number.load(std::memory_order_relaxed);
    if (number == 0) return false;
    if (concur::detail::fiber* f = one.block.load(std::memory_order_relaxed)) return is_parked(*f);
    return is_asleep(number) && is_asleep(number);
  }
  // A look that the tool does not see: it would take the making of the block, which nothing orders before, for a race.
  CONCUR_UNINSTRUMENTED static bool is_parked(const concur::detail::fiber& f) {
    static_assert(sizeof f.state == 1, "looked at as a byte");
    return *reinterpret_cast<const volatile unsigned char*>(&f.state) ==
           static_cast<unsigned char>(concur::detail::fiber_state::parked);
  }
  static bool is_asleep(long number) {
    char state = 'R';
    const std::string path = "/proc/self/task/" + std::to_string(number) + "/stat";
    if (std::FILE* file = std::fopen(path.c_str(), "re")) {
      if (std::fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 'R';
      std::fclose(file);
    }
    return state == 'S';
  }

  template <class Party>
  std::function<void()> party_body(std::size_t i, Party body) {
    return [this, i, body = std::move(body)]() mutable {
      concur::detail::worker* w = concur::detail::this_worker();
      parties_[i].block.store(w != nullptr ? w->current : nullptr, std::memory_order_relaxed);
      parties_[i].number.store(static_cast<long>(::syscall(SYS_gettid)), std::memory_order_relaxed);
      if (where_ != fibers1 && count_ > 1 && i < 2) {  // side by side: neither waits here without a thread of its own
        met_.fetch_add(1, std::memory_order_relaxed);
        while (met_.load(std::memory_order_relaxed) < 2) pause();
      }
      body();
    };
  }

  static void play_apart(std::vector<std::function<void()>>& list, concur::runtime* even, concur::runtime* odd) {
    std::vector<std::thread> alone;
    std::vector<concur::future<void>> ends;
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (concur::runtime* home = i % 2 == 0 ? even : odd)
        ends.push_back(home->go(std::move(list[i])));
      else
        alone.emplace_back(std::move(list[i]));
    }
    for (auto& one : ends) one.get();
    for (std::thread& one : alone) one.join();
  }

  place where_;
  std::size_t count_ = 0;
  std::atomic<int> step_{0};
  std::atomic<int> met_{0};
  std::atomic<int> seen_{0};
  std::array<party, 4> parties_;
  struct alignas(64) apart {
    int value = 0;
    operator int&() { return value; }
    operator const int&() const { return value; }
  };
  std::array<apart, 4> plain_;
};

struct edge_case {
  const char* name;
  unsigned places;
  void (*run)(stage& s);
};

}  // namespace edges

#endif
