// tests/support/litmus.hpp - small programs on weak_memory, in all orders and with all picks.
//
// A program is a list of steps for each thread. It is run again and again from the start, each time with another
// sequence of choices: which thread takes its next step, and which of the stores that a load may see it sees. That goes
// on until all sequences were tried. What comes out is the set of outcomes: one digit for each register, in order, `-`
// for one that was not reached; then, if asked for, what each word holds in the end. A run with a data race counts as
// "race", whatever else came out. The thread that starts the others is number 0 to weak_memory, thread i number i + 1.
//
// To be included after concur.hpp, in a program with CONCUR_EXPLORE.
#ifndef CONCUR_TESTS_SUPPORT_LITMUS_HPP
#define CONCUR_TESTS_SUPPORT_LITMUS_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "concur.hpp"

namespace litmus {

using order = std::memory_order;
constexpr order rlx = std::memory_order_relaxed;
constexpr order acq = std::memory_order_acquire;
constexpr order rel = std::memory_order_release;
constexpr order acq_rel = std::memory_order_acq_rel;
constexpr order sc = std::memory_order_seq_cst;

constexpr int x = 0, y = 1, z = 2, w = 3;  // words; plain memory has the same names and is other memory
constexpr int words_max = 4;
constexpr int registers_max = 8;

enum class kind : unsigned char {
  store,
  load,
  exchange,
  add,
  compare,
  fence,
  fence_all,
  write,
  read,
  only_if,
  again_if
};

struct step {
  kind what;
  int word = 0;
  int value = 0;
  order with = rlx;
  int reg = -1;
  int wanted = 0;
  order failure = rlx;
};

using steps = std::vector<step>;
using program = std::vector<steps>;

inline step store(int word, int value, order with) { return {kind::store, word, value, with}; }
inline step load(int reg, int word, order with) { return {kind::load, word, 0, with, reg}; }
// Read-modify-writes; the register gets what was there.
inline step exchange(int reg, int word, int value, order with) { return {kind::exchange, word, value, with, reg}; }
inline step add(int reg, int word, int value, order with) { return {kind::add, word, value, with, reg}; }
inline step compare(int reg, int word, int expected, int wanted, order with, order failure) {
  return {kind::compare, word, expected, with, reg, wanted, failure};
}
inline step fence(order with) { return {kind::fence, 0, 0, with}; }
inline step fence_all() { return {kind::fence_all}; }
inline step write(int place) { return {kind::write, place}; }
inline step read(int place) { return {kind::read, place}; }
// The thread ends here unless the register has this value.
inline step only_if(int reg, int value) { return {kind::only_if, 0, value, rlx, reg}; }
// The thread takes its `back` last steps once more if the register has this value.
inline step again_if(int reg, int value, int back) { return {kind::again_if, back, value, rlx, reg}; }

// Adds the steps behind those that are there.
inline steps operator+(steps first, const steps& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// Goes through all sequences of choices, depth first.
class chooser {
 public:
  unsigned choose(unsigned count) {
    if (count == 1) return 0;
    if (at_ == path_.size()) path_.push_back({0, count});
    return path_[at_++].taken;
  }
  // The next sequence; false when there is none.
  bool next() {
    at_ = 0;
    while (!path_.empty() && path_.back().taken + 1 == path_.back().count) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().taken;
    return true;
  }

 private:
  struct fork {
    unsigned taken, count;
  };
  std::vector<fork> path_;
  std::size_t at_ = 0;
};

class runner {
 public:
  explicit runner(const program& what, bool with_ends = false) : program_(what), with_ends_(with_ends) {}

  std::set<std::string> outcomes() {
    std::set<std::string> found;
    do {
      found.insert(run());
      ++runs_;
    } while (choices_.next());
    return found;
  }
  std::size_t runs() const { return runs_; }

 private:
  std::string run() {
    memory_.reset();
    for (int i = 0; i < words_max; ++i) values_[i] = 0;
    for (int i = 0; i < registers_max; ++i) registers_[i] = -1;
    is_race_ = false;
    std::vector<std::size_t> at(program_.size(), 0);
    std::vector<std::size_t> ready;
    for (std::size_t i = 0; i < program_.size(); ++i) memory_.start_thread(0, static_cast<unsigned>(i) + 1);
    for (;;) {
      ready.clear();
      for (std::size_t i = 0; i < program_.size(); ++i) {
        if (at[i] < program_[i].size()) ready.push_back(i);
      }
      if (ready.empty()) break;
      const std::size_t who = ready[choices_.choose(static_cast<unsigned>(ready.size()))];
      const step& next = program_[who][at[who]];
      if (next.what == kind::only_if) {
        at[who] = registers_[next.reg] == next.value ? at[who] + 1 : program_[who].size();
      } else if (next.what == kind::again_if) {
        at[who] = registers_[next.reg] == next.value ? at[who] - static_cast<std::size_t>(next.word) : at[who] + 1;
      } else {
        take(next, static_cast<unsigned>(who) + 1);
        ++at[who];
      }
    }
    return is_race_ ? "race" : describe();
  }

  std::string describe() {
    std::string text;
    for (std::size_t i = 0; i < register_count(); ++i) {
      text += registers_[i] == -1 ? '-' : static_cast<char>('0' + registers_[i]);
    }
    if (!with_ends_) return text;
    text += ':';
    for (std::size_t i = 0; i < program_.size(); ++i) memory_.join_thread(0, static_cast<unsigned>(i) + 1);
    for (int i = 0; i < words_max; ++i) {
      // All threads have been joined, so there is no choice; `stale` would show.
      const std::uint64_t latest = memory_.load(0, &values_[i], values_[i], rlx, [](unsigned) { return 1U; });
      text += static_cast<char>('0' + latest);
    }
    return text;
  }

  std::size_t register_count() const {
    int count = 0;
    for (const steps& thread : program_) {
      for (const step& one : thread) count = one.reg + 1 > count ? one.reg + 1 : count;
    }
    return static_cast<std::size_t>(count);
  }

  void take(const step& s, unsigned me) {
    std::uint64_t* const word = &values_[s.word];
    const std::uint64_t old = *word;
    const auto value = static_cast<std::uint64_t>(s.value);
    std::uint64_t seen = old;
    switch (s.what) {
      case kind::store:
        *word = value;
        memory_.store(me, word, old, value, s.with);
        return;
      case kind::load:
        seen = memory_.load(me, word, old, s.with, [this](unsigned count) { return choices_.choose(count); });
        break;
      case kind::exchange:
      case kind::add:
        *word = s.what == kind::add ? old + value : value;
        memory_.update(me, word, old, *word, s.with);
        break;
      case kind::compare:
        if (old == value) {
          *word = static_cast<std::uint64_t>(s.wanted);
          memory_.update(me, word, old, *word, s.with);
        } else {
          memory_.load_newest(me, word, old, s.failure);
        }
        break;
      case kind::fence:
        memory_.fence(me, s.with);
        return;
      case kind::fence_all:
        memory_.fence_all(me);
        return;
      case kind::write:
        if (!memory_.plain_write(me, &places_[s.word])) is_race_ = true;
        return;
      case kind::read:
        if (!memory_.plain_read(me, &places_[s.word])) is_race_ = true;
        return;
      case kind::only_if:
      case kind::again_if:
        return;
    }
    if (s.reg >= 0) registers_[s.reg] = static_cast<int>(seen);
  }

  program program_;
  bool with_ends_;
  chooser choices_;
  concur::detail::weak_memory memory_;
  std::uint64_t values_[words_max] = {};
  char places_[words_max] = {};
  int registers_[registers_max] = {};
  bool is_race_ = false;
  std::size_t runs_ = 0;
};

// The outcomes, in order, with a space between them.
inline std::string outcomes(const program& what, bool with_ends = false) {
  std::string text;
  for (const std::string& one : runner(what, with_ends).outcomes()) text += (text.empty() ? "" : " ") + one;
  return text;
}

}  // namespace litmus

#endif
