// model_idle.cpp - the sleep protocol of idle.hpp in every order in which its steps can take effect.
//
// A stress test may run a million times past a window of nanoseconds. Here the protocol is written down as a few steps on
// shared words, and all interleavings are gone through, on a machine with store buffers: a store takes effect in memory
// some time after it was made, in order for each thread, and a thread sees its own stores at once. A fence, and a
// read-modify-write, wait until the thread's stores are in memory. That is x86, and any machine with weaker order has
// these behaviours too.
//
// The state in which no step is left is bad if work lies in a queue and everybody who could run it sleeps.
//
//   L1  With both fences there is no bad end.
//   L2  Without either of them there is one: the model sees what it is made to see.
#include "concur.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <cstddef>
#include <set>
#include <string>
#include <vector>

namespace {

enum class kind : unsigned char {
  store,         // word = value, into the buffer
  load,          // found = word, from the own buffer or memory
  exchange,      // word += value, in memory at once; waits for the own stores
  fence,         // waits for the own stores
  skip_if_zero,  // goes on `value` steps further if found is 0
  skip_if_any,   // the same if it is not
  sleep_until,   // waits until the word is not 0
};

struct step {
  kind what;
  unsigned char word = 0;
  int value = 0;
};
using program = std::vector<step>;

constexpr std::size_t word_count = 8;

struct pending {
  unsigned char word;
  signed char value;
};

struct thread_state {
  unsigned char at = 0;
  signed char found = 0;
  std::vector<pending> buffer;
};

struct machine_state {
  std::array<signed char, word_count> memory{};
  std::vector<thread_state> threads;

  // For telling states apart.
  std::string key() const {
    std::string text(reinterpret_cast<const char*>(memory.data()), memory.size());
    for (const thread_state& one : threads) {
      text += static_cast<char>(one.at);
      text += static_cast<char>(one.found);
      text += static_cast<char>(one.buffer.size());
      for (const pending& each : one.buffer) {
        text += static_cast<char>(each.word);
        text += static_cast<char>(each.value);
      }
    }
    return text;
  }
};

class explorer {
 public:
  // is_bad: looks at the memory of an end, and at which threads sleep in it.
  using verdict = bool (*)(const machine_state& end, const std::vector<bool>& sleeps);

  explorer(std::vector<program> programs, verdict is_bad) : programs_(std::move(programs)), is_bad_(is_bad) {}

  // How many bad ends there are, from words that are all 0 but those given.
  std::size_t bad_ends(const std::array<signed char, word_count>& memory) {
    machine_state first;
    first.memory = memory;
    first.threads.resize(programs_.size());
    visit(first);
    return bad_;
  }
  std::size_t states() const { return seen_.size(); }

 private:
  void visit(const machine_state& now) {
    if (!seen_.insert(now.key()).second) return;
    bool can_go_on = false;
    for (std::size_t i = 0; i < now.threads.size(); ++i) {
      if (!now.threads[i].buffer.empty()) {
        machine_state next = now;
        const pending oldest = next.threads[i].buffer.front();
        next.threads[i].buffer.erase(next.threads[i].buffer.begin());
        next.memory[oldest.word] = oldest.value;
        can_go_on = true;
        visit(next);
      }
      machine_state next = now;
      if (take_step(next, i)) {
        can_go_on = true;
        visit(next);
      }
    }
    if (can_go_on) return;
    std::vector<bool> sleeps;
    for (std::size_t i = 0; i < now.threads.size(); ++i) sleeps.push_back(now.threads[i].at < programs_[i].size());
    if (is_bad_(now, sleeps)) ++bad_;
  }

  // False: the thread is through, or must wait.
  bool take_step(machine_state& now, std::size_t i) const {
    thread_state& self = now.threads[i];
    if (self.at >= programs_[i].size()) return false;
    const step& next = programs_[i][self.at];
    const auto value = static_cast<signed char>(next.value);
    int further = 0;
    switch (next.what) {
      case kind::store:
        self.buffer.push_back({next.word, value});
        break;
      case kind::load:
        self.found = now.memory[next.word];
        for (const pending& own : self.buffer) {
          if (own.word == next.word) self.found = own.value;
        }
        break;
      case kind::exchange:
        if (!self.buffer.empty()) return false;
        now.memory[next.word] = static_cast<signed char>(now.memory[next.word] + value);
        break;
      case kind::fence:
        if (!self.buffer.empty()) return false;
        break;
      case kind::skip_if_zero:
        further = self.found == 0 ? next.value : 0;
        break;
      case kind::skip_if_any:
        further = self.found != 0 ? next.value : 0;
        break;
      case kind::sleep_until:
        if (!self.buffer.empty() || now.memory[next.word] == 0) return false;
        break;
    }
    self.at = static_cast<unsigned char>(self.at + 1 + further);
    return true;
  }

  std::vector<program> programs_;
  verdict is_bad_;
  std::set<std::string> seen_;
  std::size_t bad_ = 0;
};

// The words of the protocol.
enum word : unsigned char { queue, idle_a, idle_b, searchers, token_a, token_b, timer, poll_until };

struct fences {
  bool submitter = !CONCUR_MUTANT_IS(3);  // F1
  bool sleeper = !CONCUR_MUTANT_IS(4);    // F2
  bool poller = !CONCUR_MUTANT_IS(57);    // I5
};

void append(program& to, const program& more) { to.insert(to.end(), more.begin(), more.end()); }

// announce(): W1, F1, R1, and the wake-up. It takes one of two sleepers off the list, which an exchange under the list's
// lock stands for. The list is looked at again there: who has left it by himself is not woken.
program submit(const fences& with) {
  program steps = {{kind::store, queue, 1}};
  if (with.submitter) steps.push_back({kind::fence});
  append(steps, {
                    {kind::load, idle_a},
                    {kind::skip_if_any, 0, 2},
                    {kind::load, idle_b},
                    {kind::skip_if_zero, 0, 8},
                    {kind::load, searchers},
                    {kind::skip_if_any, 0, 6},
                    {kind::fence},  // the lock
                    {kind::load, idle_a},
                    {kind::skip_if_zero, 0, 2},
                    {kind::exchange, token_a, 1},
                    {kind::skip_if_any, 0, 1},
                    {kind::exchange, token_b, 1},
                });
  return steps;
}

// sleep(): W2, F2, R2, and the bed. has_token: it searched before, and gives that up first (I2).
program lie_down(const fences& with, word idle, word token, bool has_token) {
  program steps;
  if (has_token) append(steps, {{kind::load, queue}, {kind::skip_if_any, 0, 7}, {kind::exchange, searchers, -1}});
  steps.push_back({kind::store, static_cast<unsigned char>(idle), 1});
  steps.push_back(with.sleeper ? step{kind::fence} : step{kind::load, queue});
  append(steps, {
                    {kind::load, queue},
                    {kind::skip_if_any, 0, 1},
                    {kind::sleep_until, static_cast<unsigned char>(token)},
                    {kind::store, static_cast<unsigned char>(idle), 0},
                });
  return steps;
}

// Work that lies there while all workers, the threads behind the first one, sleep.
bool is_lost(const machine_state& end, const std::vector<bool>& sleeps) {
  bool all_sleep = true;
  for (std::size_t i = 1; i < sleeps.size(); ++i) all_sleep = all_sleep && sleeps[i];
  return all_sleep && end.memory[queue] != 0;
}

std::size_t lost_with_one_worker(const fences& with) {
  explorer all({submit(with), lie_down(with, idle_a, token_a, false)}, is_lost);
  return all.bad_ends({});
}

// Worker a lies down while b, the only searcher, gives up and lies down too.
std::size_t lost_with_a_searcher(const fences& with) {
  explorer all({submit(with), lie_down(with, idle_a, token_a, false), lie_down(with, idle_b, token_b, true)}, is_lost);
  std::array<signed char, word_count> memory{};
  memory[searchers] = 1;
  const std::size_t bad = all.bad_ends(memory);
  MESSAGE(all.states(), " states with a searcher");
  return bad;
}

// I5: one sleeps in the poller without limit, unless it sees a timer; the other lies down having set one, and wakes the
// poller, here token_a, unless that sleeps no longer than it must. poll_until is 1 for a sleep without limit.
std::size_t late_timers(const fences& with) {
  program poller = {{kind::store, poll_until, 1}};
  if (with.poller) poller.push_back({kind::fence});
  append(poller, {{kind::load, timer}, {kind::skip_if_any, 0, 1}, {kind::sleep_until, token_a}});
  program worker = {{kind::store, timer, 1}};
  if (with.sleeper) worker.push_back({kind::fence});
  append(worker, {{kind::load, poll_until}, {kind::skip_if_zero, 0, 1}, {kind::exchange, token_a, 1}});
  explorer all({worker, poller}, [](const machine_state& end, const std::vector<bool>& sleeps) {
    return sleeps[1] && end.memory[timer] != 0;
  });
  return all.bad_ends({});
}

fences without(bool fences::*which) {
  fences some;
  some.submitter = some.sleeper = some.poller = true;
  some.*which = false;
  return some;
}

}  // namespace

TEST_CASE("work that is announced is not slept over by one worker") { CHECK(lost_with_one_worker(fences()) == 0); }

TEST_CASE("nor by two, of which one was searching when it came") { CHECK(lost_with_a_searcher(fences()) == 0); }

TEST_CASE("a timer of a worker that lies down reaches the one that sleeps in the poller") {
  CHECK(late_timers(fences()) == 0);
}

TEST_CASE("each fence is needed: without it the model finds the end in which work is lost") {
  CHECK(lost_with_one_worker(without(&fences::submitter)) > 0);
  CHECK(lost_with_one_worker(without(&fences::sleeper)) > 0);
  CHECK(lost_with_a_searcher(without(&fences::submitter)) > 0);
  CHECK(lost_with_a_searcher(without(&fences::sleeper)) > 0);
  CHECK(late_timers(without(&fences::sleeper)) > 0);
  CHECK(late_timers(without(&fences::poller)) > 0);
}
