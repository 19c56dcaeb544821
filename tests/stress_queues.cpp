// stress_queues.cpp - storms on the stand-alone queues: every value arrives once, whatever throws, and however often the
// indices wrap in between.
//
// Each round draws from its seed: the capacity, where the indices begin (mostly so that they wrap while the storm is on), how
// many push and pop, and what each does next. A value that is being moved may throw, or let others run. In the end each number
// must have arrived exactly once; only mpmc_queue loses a value whose move out throws, and then exactly that one.
#include "support/queues.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace concur_test;

namespace {

constexpr std::size_t each = CONCUR_TSAN || CONCUR_ASAN ? 1'000 : 6'000;
constexpr int rounds = 12 * CONCUR_TEST_SCALE;

// Counts in how many places each number ended.
class account {
 public:
  explicit account(std::size_t size) : places_(size) {}
  void enter(std::size_t number) { ++places_[number]; }
  void settle(std::size_t lost_by_intent) const {
    std::size_t lost = 0;
    std::size_t doubled = 0;
    for (const auto& one : places_) {
      lost += one == 0 ? 1 : 0;
      doubled += one > 1 ? 1 : 0;
    }
    CHECK(lost == lost_by_intent);
    CHECK(doubled == 0);
  }

 private:
  std::vector<std::atomic<unsigned char>> places_;
};

// Owns its number. Throws, or gives the core away, as `mood` has it. Moves throw where MovesThrow.
template <bool MovesThrow>
class restless {
 public:
  restless() = default;
  restless(std::size_t number, unsigned mood) : restless(number, mood, std::make_unique<std::size_t>(number)) {}
  restless(restless&& other) noexcept(!MovesThrow) {
    other.act();
    owned_ = std::move(other.owned_);
    mood_ = other.mood_;
  }
  restless& operator=(restless&& other) noexcept(!MovesThrow) {
    other.act();
    owned_ = std::move(other.owned_);
    mood_ = other.mood_;
    return *this;
  }
  bool has_number() const { return owned_ != nullptr; }
  std::size_t number() const { return *owned_; }

 private:
  restless(std::size_t number, unsigned mood, std::unique_ptr<std::size_t> owned)
      : owned_(std::move(owned)), mood_(mood) {
    if (mood_ % 16 == 1) throw std::out_of_range(std::to_string(number));
  }
  void act() {
    if (mood_ % 64 == 2) std::this_thread::yield();
    if constexpr (MovesThrow) {
      // Once: afterwards it can be moved.
      if (mood_ % 32 == 3) {
        mood_ = 0;
        throw std::runtime_error("a move");
      }
    }
  }

  std::unique_ptr<std::size_t> owned_;
  unsigned mood_ = 0;
};

template <class Queue>
class storm {
 public:
  using value = typename Queue::value_type;

  // keeps: a value whose move out throws is still the oldest.
  storm(unsigned seed, unsigned pushers_max, unsigned poppers_max, bool keeps)
      : random_(seed),
        pushers_(1 + random_() % pushers_max),
        poppers_(1 + random_() % poppers_max),
        keeps_(keeps),
        book_(pushers_ * each),
        queue_(capacity(), SIZE_MAX - random_() % (pushers_ * each)) {}

  void run() {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < pushers_; ++i) threads.emplace_back([this, i, seed = random_()] { push(i * each, seed); });
    for (unsigned i = 0; i < poppers_; ++i) threads.emplace_back([this, seed = random_()] { pop(seed); });
    for (std::thread& one : threads) one.join();
    CHECK_FALSE(queue_.try_pop().has_value());
    CHECK(queue_.size_approx() == 0);
    book_.settle(keeps_ ? 0 : failed_pops_.load());
  }

 private:
  std::size_t capacity() {
    constexpr std::size_t choices[] = {1, 2, 3, 4, 6, 16, 31, 500};
    return choices[random_() % 8];
  }

  void push(std::size_t first, std::mt19937::result_type seed) {
    std::mt19937 random(seed);
    unsigned round = 0;
    for (std::size_t number = first; number < first + each;) {
      const auto mood = static_cast<unsigned>(random());
      bool went = false;
      try {
        if (random() % 2 == 0) {
          went = queue_.try_emplace(number, mood);
        } else {
          value made(number, mood);
          try {
            went = queue_.try_push(std::move(made));
          } catch (const std::runtime_error&) {
            went = queue_.try_push(std::move(made));
          }
        }
      } catch (const std::out_of_range&) {
        book_.enter(number++);  // it never was
        continue;
      }
      if (went)
        ++number, round = 0;
      else
        concur::detail::spin_wait(round);
    }
    ++ended_;
  }

  void pop(std::mt19937::result_type seed) {
    std::mt19937 random(seed);
    unsigned round = 0;
    for (;;) {
      const bool is_last_look = ended_ == pushers_;
      value got;
      try {
        if (random() % 2 == 0) {
          queue_.try_pop(got);
        } else if (auto oldest = queue_.try_pop()) {
          got = std::move(*oldest);
        }
      } catch (const std::runtime_error&) {
        ++failed_pops_;
        continue;
      }
      if (got.has_number()) {
        book_.enter(got.number());
        round = 0;
      } else if (is_last_look) {
        return;
      } else {
        concur::detail::spin_wait(round);
      }
    }
  }

  std::mt19937 random_;
  const unsigned pushers_;
  const unsigned poppers_;
  const bool keeps_;
  account book_;
  std::atomic<unsigned> ended_{0};
  std::atomic<std::size_t> failed_pops_{0};
  starting_at<Queue> queue_;
};

template <template <class> class Queue>
void weather(unsigned pushers_max, unsigned poppers_max, bool keeps) {
  for (int i = 0; i < rounds; ++i) {
    const unsigned seed = 1000 + static_cast<unsigned>(i);
    CAPTURE(seed);
    storm<Queue<restless<false>>>(seed, pushers_max, poppers_max, keeps).run();
    storm<Queue<restless<true>>>(seed, pushers_max, poppers_max, keeps).run();
  }
}

}  // namespace

TEST_CASE("one to one") {
  const nothing_left_over guard;
  weather<concur::spsc_queue>(1, 1, true);
}

TEST_CASE("many to one") {
  const nothing_left_over guard;
  weather<concur::mpsc_queue>(5, 1, true);
}

TEST_CASE("many to many") {
  const nothing_left_over guard;
  weather<concur::mpmc_queue>(5, 4, false);
}
