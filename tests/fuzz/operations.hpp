// tests/fuzz/operations.hpp - any program of fibers that operations_text.hpp can say, under an explored schedule.
//
// A program may do what it likes: wait for what never comes, close what others use, fail, cancel. So that it ends all the
// same, its root waits until nothing moves any more (time is virtual: an hour's sleep ends when everybody else waits), looks
// at who waits for what, cancels the whole if the program says so, looks again, and then closes, sets and releases
// everything. What must hold:
//
//   O1  Values are conserved: what was sent was received once or is left over. What was not sent stays with its sender.
//   O2  What one fiber sends to one channel comes out in that order.
//   O3  Who still waits when nothing moves has a reason: no receiver waits at a channel that has a value, a sender or is
//       closed, nobody waits for a mutex that nobody holds, and so on. Nobody waits in a scope that is cancelled, and is not
//       shielded.
//   O4  A wait ends for the reason it gives: `cancelled` only where this_fiber::cancelled() says so and for as long as the
//       scope is not left, a limit not before its time.
//   O5  One fiber at a time holds a mutex; permits are conserved; a select runs one case; a result is the one that was given.
//   O6  No child outlives its nursery, and a nursery throws the failure of a child if there was one.
//   O7  When everything is open everything ends, and nothing is left over: fibers, timers, values.
#ifndef CONCUR_TESTS_FUZZ_OPERATIONS_HPP
#define CONCUR_TESTS_FUZZ_OPERATIONS_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "concur.hpp"
#include "fuzz/operations_text.hpp"

namespace fuzz {

// A value that can be in one place only.
class parcel {
 public:
  parcel() = default;
  parcel(int id, int& alive) : id_(id), alive_(&alive) { ++alive; }
  parcel(parcel&& other) noexcept : id_(std::exchange(other.id_, -1)), alive_(other.alive_) {}
  parcel& operator=(parcel&& other) noexcept {
    parcel taken(std::move(other));
    std::swap(id_, taken.id_);
    std::swap(alive_, taken.alive_);
    return *this;
  }
  ~parcel() {
    if (id_ >= 0) --*alive_;
  }
  int id() const { return id_; }

 private:
  int id_ = -1;
  int* alive_ = nullptr;
};

struct planned_failure : std::runtime_error {
  planned_failure() : std::runtime_error("planned") {}
};

// One thread plays all (driver.hpp, D1), and is interrupted only inside the library. So the books are plain variables.
class operations_run {
 public:
  explicit operations_run(const operations_program& program) : program_(program) {}

  void run() {
    try {
      const auto policy = program_.keeps_going ? concur::on_failure::keep_going : concur::on_failure::cancel_siblings;
      concur::with_nursery(policy, [this](concur::nursery& n) { run_root(n); });
    } catch (const planned_failure&) {
    } catch (const concur::cancelled&) {
      expect(is_cancelled_, "O4: the whole is cancelled, and nobody has cancelled it");
    }
  }
  // After everything has ended.
  std::string judge() {
    balance_values();
    expect(children_ == 0, "O6: a child has outlived its nursery");
    expect(alive_ == 0, "O7: a value is left over");
    return finding_;
  }

 private:
  using nanoseconds_t = concur::detail::nanoseconds_t;
  static constexpr std::chrono::microseconds unit{300};
  static constexpr unsigned channel_count = 4;
  static constexpr unsigned mutex_count = 2;
  static constexpr unsigned event_count = 2;
  static constexpr unsigned result_count = 3;
  static constexpr unsigned fibers_max = 24;

  struct nursery_note {
    concur::nursery* home = nullptr;
    int host = 0;
    unsigned limit = 0;
    unsigned running = 0;
    bool keeps_going = false;
    bool has_failed = false;
  };

  // What cancels whatever runs inside: a nursery, a limit; or keeps it off: a shield.
  struct scope_note {
    const scope_note* above = nullptr;
    const nursery_note* home = nullptr;
    nanoseconds_t until = concur::detail::never;
    bool is_shield = false;

    bool is_cancelled() const {
      if (home != nullptr && (home->home->cancelled() || (home->has_failed && !home->keeps_going))) return true;
      if (until <= concur::detail::now_ns()) return true;
      return !is_shield && above != nullptr && above->is_cancelled();
    }
  };

  struct fiber_note {
    int number = 0;
    const scope_note* scope = nullptr;
    nursery_note* nursery = nullptr;
    const operation* waits_for = nullptr;  // null: it is not waiting
    std::vector<std::pair<concur::future<int>, int>> results;
    std::vector<std::vector<int>> last_seen;  // for each channel and sender, O2
  };

  // A fiber is at an operation that may wait.
  class waiting {
   public:
    waiting(fiber_note& me, const operation& at) : me_(me), before_(std::exchange(me.waits_for, &at)) {}
    ~waiting() { me_.waits_for = before_; }
    waiting(const waiting&) = delete;
    waiting& operator=(const waiting&) = delete;

   private:
    fiber_note& me_;
    const operation* before_;
  };

  // Counts a child from the call that starts it until its function is gone.
  class child_count {
   public:
    child_count(operations_run& all, nursery_note* home) : all_(&all), home_(home) {
      ++all_->children_;
      if (home_ != nullptr) ++home_->running;
    }
    child_count(child_count&& other) noexcept : all_(std::exchange(other.all_, nullptr)), home_(other.home_) {}
    child_count& operator=(child_count&&) = delete;
    ~child_count() {
      if (all_ == nullptr) return;
      --all_->children_;
      if (home_ != nullptr) --home_->running;
    }

   private:
    operations_run* all_;
    nursery_note* home_;
  };

  struct sent_note {
    unsigned channel = 0;
    int sender = 0;
    bool is_sent = false;
    int received = 0;
  };

  void expect(bool holds, const char* what) {
    if (!holds && finding_.empty()) finding_ = what;
  }

  // --- the root ---

  void run_root(concur::nursery& n) {
    nursery_note home;
    home.home = &n;
    home.keeps_going = program_.keeps_going;
    scope_note scope;
    scope.home = &home;
    for (const operations& each : program_.fibers) {
      n.go([this, &each, &home, &scope, count = child_count(*this, nullptr)] { run_child(each, home, &scope, 0); });
    }
    settle("O3: waits without a reason: ");
    if (program_.is_cancelled) {
      is_cancelled_ = true;
      n.cancel();
      settle("O3: waits without a reason after all was cancelled: ");
    }
    open_all();
    settle("O7: does not end though everything is open: ");
    expect(fibers_.empty() || !finding_.empty(), "O7: a fiber does not end though everything is open");
    is_cancelled_ = is_cancelled_ || n.cancelled();
  }

  // Until nothing moves any more.
  void settle(const char* what) {
    concur::shield([] { concur::this_fiber::sleep_for(std::chrono::hours(1)); });
    for (const fiber_note* each : fibers_) {
      if (has_reason(*each) || !finding_.empty()) continue;
      const char* at = each->waits_for != nullptr ? &each->waits_for->what : "-";
      finding_ = what + std::string(at, 1) + " of fiber " + std::to_string(each->number);
    }
  }

  void open_all() {
    is_open_ = true;
    for (auto& each : channels_) each.try_close();
    for (auto& each : events_) each.set();
    for (unsigned i = 0; i < result_count; ++i) give_result(i);
    permits_ += 1000;
    semaphore_.release(1000);
  }

  // --- O3 ---

  bool has_reason(const fiber_note& fiber) const {
    if (fiber.waits_for == nullptr) return false;
    const operation& at = *fiber.waits_for;
    // Who waits for children is not cancelled: they are.
    if (at.what == 'n' || at.what == 'N') return fiber.nursery != nullptr && fiber.nursery->running > 0;
    if (fiber.scope->is_cancelled()) return false;
    switch (at.what) {
      case 's': return !can_send(fiber, at.which);
      case 'r': return !can_receive(fiber, at.which);
      case 'b': return !can_receive(fiber, at.which) && !can_send(fiber, at.number);
      case 'q':
      case 'Q':
        return std::none_of(at.cases.begin(), at.cases.end(), [&](const operation& each) {
          if (each.what == 's') return can_send(fiber, each.which);
          if (each.what == 'r') return can_receive(fiber, each.which);
          return each.what == 'z' || is_given_[each.which % result_count];
        });
      case 'l': return owners_[at.which % mutex_count] != 0 && owners_[at.which % mutex_count] != fiber.number;
      case 'a':  // those behind a large request wait with it
        return std::any_of(fibers_.begin(), fibers_.end(), [&](const fiber_note* other) {
          const operation* const theirs = other->waits_for;
          return theirs != nullptr && theirs->what == 'a' && permits_of(*theirs) > permits_;
        });
      case 'e': return !events_[at.which % event_count].is_set();
      case 'g': return !is_given_[at.which % result_count];
      case 'F': return !fiber.results.empty() && !fiber.results.front().first.ready();
      case 'o':
      case 'f': return fiber.nursery->limit != 0 && fiber.nursery->home->size() >= fiber.nursery->limit;
      default: return false;  // all others have an end
    }
  }

  bool can_send(const fiber_note& fiber, unsigned which) const {
    const auto& ch = channels_[which];
    return ch.closed() || ch.size() < ch.capacity() || is_met(fiber, which, 'r');
  }
  bool can_receive(const fiber_note& fiber, unsigned which) const {
    const auto& ch = channels_[which];
    return ch.closed() || ch.size() > 0 || is_met(fiber, which, 's');
  }
  // Another fiber waits on the other side.
  bool is_met(const fiber_note& fiber, unsigned which, char side) const {
    return std::any_of(fibers_.begin(), fibers_.end(), [&](const fiber_note* other) {
      if (other == &fiber || other->waits_for == nullptr) return false;
      const operation& at = *other->waits_for;
      if (at.what == side) return at.which == which;
      if (at.what == 'b') return (side == 'r' ? at.which : at.number) == which;
      if (at.what != 'q' && at.what != 'Q') return false;
      return std::any_of(at.cases.begin(), at.cases.end(),
                         [&](const operation& each) { return each.what == side && each.which == which; });
    });
  }

  // --- fibers ---

  // Returns its result; throws what ends a child.
  int run_child(const operations& list, nursery_note& home, const scope_note* scope, int result) {
    fiber_note me;
    me.number = ++last_number_;
    me.scope = scope;
    me.nursery = &home;
    me.last_seen.resize(channel_count);
    fibers_.push_back(&me);
    struct leaving {
      operations_run& all;
      fiber_note& me;
      ~leaving() { all.fibers_.erase(std::find(all.fibers_.begin(), all.fibers_.end(), &me)); }
    } const at_end{*this, me};
    try {
      run_list(me, list);
    } catch (const planned_failure&) {
      home.has_failed = true;
      throw;
    }
    return result;
  }

  void run_list(fiber_note& me, const operations& list) {
    for (const operation& each : list) {
      if (++steps_ > 200) return;
      try {
        run_one(me, each);
      } catch (const concur::channel_closed&) {
        expect(is_about_sending(each), "O4: channel_closed from an operation that does not send");
      } catch (const concur::cancelled&) {
        expect(concur::this_fiber::cancelled() || each.what == 'F', "O4: `cancelled` where nothing is cancelled");
        expect(me.scope->is_cancelled() || each.what == 'F', "O4: `cancelled` outside of all that is cancelled");
        if (concur::this_fiber::cancelled()) throw;
      }
    }
  }
  static bool is_about_sending(const operation& at) { return std::string_view("sSbqQ").find(at.what) < 5; }

  void run_one(fiber_note& me, const operation& at) {
    switch (at.what) {
      case 's':
      case 't':
      case 'S': send(me, at); break;
      case 'r':
      case 'u':
      case 'R': receive(me, at); break;
      case 'c': channels_[at.which].try_close(); break;
      case 'b': select_two(me, at); break;
      case 'q':
      case 'Q': select_many(me, at); break;
      case 'y': concur::this_fiber::yield(); break;
      case 'X': concur::this_fiber::checkpoint(); break;
      case 'z': sleep(me, at); break;
      case 'l':
      case 'T': with_mutex(me, at); break;
      case 'a':
      case 'A': acquire(me, at); break;
      case 'v':
        ++permits_;
        semaphore_.release();
        break;
      case 'e':
      case 'E': wait_for_event(me, at); break;
      case 'i': events_[at.which % event_count].set(); break;
      case 'j':
        if (!is_open_) events_[at.which % event_count].reset();
        break;
      case 'p': give_result(at.which % result_count); break;
      case 'g':
      case 'G': wait_for_result(me, at); break;
      default: run_scope(me, at); break;
    }
  }

  void run_scope(fiber_note& me, const operation& at) {
    switch (at.what) {
      case 'n':
      case 'N': open_nursery(me, at); break;
      case 'o':
      case 'f':
      case 'd': start_child(me, at); break;
      case 'F': take_result(me, at); break;
      case 'x':
        if (me.nursery->home != nullptr) me.nursery->home->cancel();
        break;
      case '!': throw planned_failure();
      case 'm': with_limit(me, at); break;
      case 'h': {
        scope_note scope;
        scope.is_shield = true;
        inside(me, scope, [&] { concur::shield([&] { run_list(me, at.parts[0]); }); });
        break;
      }
      case 'k': run_and_look(me, at); break;
      case '*':
        for (unsigned i = 0; i < at.number; ++i) run_list(me, at.parts[0]);
        break;
      default: break;
    }
  }

  // --- channels ---

  parcel next_parcel(const fiber_note& me, unsigned channel) {
    sent_note note;
    note.channel = channel;
    note.sender = me.number;
    sent_.push_back(note);
    return parcel(static_cast<int>(sent_.size()) - 1, alive_);
  }

  void send(fiber_note& me, const operation& at) {
    const waiting note(me, at);
    auto& ch = channels_[at.which];
    parcel value = next_parcel(me, at.which);
    const int id = value.id();
    bool is_sent = false;
    const nanoseconds_t begin = concur::detail::now_ns();
    try {
      if (at.what == 's') {
        ch.send(std::move(value));
        is_sent = true;
      } else if (at.what == 't') {
        is_sent = ch.try_send(value);
      } else {
        const concur::status result = ch.send_for(value, at.number * unit);
        is_sent = result == concur::status::ok;
        expect(result != concur::status::timeout || has_passed(begin, at.number), "O4: send_for ends before its time");
        expect(result != concur::status::closed || ch.closed(), "O4: send_for says that an open channel is closed");
      }
    } catch (...) {
      expect(value.id() == id, "O1: a value that was not sent is gone");
      throw;
    }
    expect(value.id() == (is_sent ? -1 : id), "O1: a value is in two places, or in none");
    sent_[static_cast<std::size_t>(id)].is_sent = is_sent;
  }

  void receive(fiber_note& me, const operation& at) {
    const waiting note(me, at);
    auto& ch = channels_[at.which];
    if (at.what != 'R') {
      std::optional<parcel> value = at.what == 'r' ? ch.recv() : ch.try_recv();
      if (at.what == 'r' && !value) expect(ch.closed(), "O4: recv returns nothing from an open channel");
      if (value) take_in(me, at.which, *value);
      return;
    }
    parcel value;
    const nanoseconds_t begin = concur::detail::now_ns();
    const concur::status result = ch.recv_for(value, at.number * unit);
    expect(result != concur::status::timeout || has_passed(begin, at.number), "O4: recv_for ends before its time");
    expect(result != concur::status::closed || ch.closed(), "O4: recv_for says that an open channel is closed");
    if (result == concur::status::ok)
      take_in(me, at.which, value);
    else
      expect(value.id() == -1, "O1: a value comes from a receive that failed");
  }

  void take_in(fiber_note& me, unsigned channel, const parcel& value) {
    expect(value.id() >= 0, "O1: a value comes that nobody sent");
    if (value.id() < 0) return;
    sent_note& note = sent_[static_cast<std::size_t>(value.id())];
    ++note.received;
    expect(note.received == 1, "O1: a value is received twice");
    expect(note.channel == channel, "O1: a value comes out of another channel");
    std::vector<int>& last = me.last_seen[channel];
    const std::size_t sender = static_cast<std::size_t>(note.sender);
    if (last.size() <= sender) last.resize(sender + 1, -1);
    expect(last[sender] < value.id(), "O2: two values of one sender change places");
    last[sender] = value.id();
  }

  void select_two(fiber_note& me, const operation& at) {
    const waiting note(me, at);
    parcel value = next_parcel(me, at.number);
    const auto id = static_cast<std::size_t>(value.id());
    int ran = 0;
    int which = -1;
    const int index = concur::select(concur::recv(channels_[at.which],
                                                  [&](std::optional<parcel> got) {
                                                    ++ran;
                                                    which = 0;
                                                    if (got) take_in(me, at.which, *got);
                                                  }),
                                     concur::send(channels_[at.number], std::move(value), [&] {
                                       ++ran;
                                       which = 1;
                                       sent_[id].is_sent = true;
                                     }));
    expect(ran == 1 && which == index, "O5: a select runs not just the case that it names");
  }

  void select_many(fiber_note& me, const operation& at) {
    if (at.cases.empty()) return;
    const waiting note(me, at);
    concur::selector list;
    int ran = 0;
    int which = -1;
    const nanoseconds_t begin = concur::detail::now_ns();
    for (std::size_t i = 0; i < at.cases.size(); ++i) {
      const operation& each = at.cases[i];
      const auto done = [&ran, &which, i] {
        ++ran;
        which = static_cast<int>(i);
      };
      if (each.what == 's') {
        parcel value = next_parcel(me, each.which);
        const auto id = static_cast<std::size_t>(value.id());
        list.add(concur::send(channels_[each.which], std::move(value), [this, id, done] {
          done();
          sent_[id].is_sent = true;
        }));
      } else if (each.what == 'r') {
        list.add(concur::recv(channels_[each.which], [this, &me, &each, done](std::optional<parcel> got) {
          done();
          if (got) take_in(me, each.which, *got);
        }));
      } else if (each.what == 'z') {
        list.add(concur::after(each.number * unit, [this, begin, &each, done] {
          done();
          expect(has_passed(begin, each.number), "O4: a time in a select comes too early");
        }));
      } else {
        list.add(concur::ready(results_[each.which % result_count], done));
      }
    }
    const int index = at.what == 'q' ? list.wait() : list.wait_ordered();
    expect(ran == 1 && which == index, "O5: a select runs not just the case that it names");
  }

  void balance_values() {
    std::vector<int> least_left(static_cast<std::size_t>(last_number_ + 1) * channel_count, INT32_MAX);
    const auto place = [](const sent_note& note) {
      return static_cast<std::size_t>(note.sender) * channel_count + note.channel;
    };
    std::vector<int> newest_left(least_left.size(), -1);
    std::vector<bool> is_left(sent_.size());
    for (auto& ch : channels_) {
      while (std::optional<parcel> value = ch.try_recv()) {
        const auto id = static_cast<std::size_t>(value->id());
        expect(id < sent_.size() && !is_left[id], "O1: what is left over is nobody's, or is left twice");
        if (!finding_.empty()) return;
        is_left[id] = true;
        const std::size_t at = place(sent_[id]);
        expect(newest_left[at] < value->id(), "O2: two values of one sender change places");
        newest_left[at] = value->id();
        least_left[at] = (std::min)(least_left[at], value->id());
      }
    }
    for (std::size_t id = 0; id < sent_.size(); ++id) {
      const sent_note& note = sent_[id];
      const int seen = note.received + (is_left[id] ? 1 : 0);
      expect(seen <= 1, "O1: a value that was received is also left over");
      expect(!note.is_sent || seen == 1, "O1: a value is lost");
      expect(note.is_sent || seen == 0, "O1: a value comes that was not sent");
      if (note.received > 0)
        expect(static_cast<int>(id) < least_left[place(note)], "O2: a younger value is received before an older");
    }
  }

  // --- time and locks ---

  static bool has_passed(nanoseconds_t begin, unsigned units) {
    return concur::detail::now_ns() - begin >= concur::detail::to_ns(units * unit);
  }

  void sleep(fiber_note& me, const operation& at) {
    const waiting note(me, at);
    const nanoseconds_t begin = concur::detail::now_ns();
    concur::this_fiber::sleep_for(at.number * unit);
    expect(has_passed(begin, at.number), "O4: a sleep is too short");
  }

  void with_mutex(fiber_note& me, const operation& at) {
    const std::size_t which = at.which % mutex_count;
    if (owners_[which] == me.number) return;
    if (at.what == 'l') {
      const waiting note(me, at);
      mutexes_[which].lock();
    } else if (!mutexes_[which].try_lock()) {
      return;
    }
    expect(owners_[which] == 0, "O5: two hold a mutex");
    owners_[which] = me.number;
    struct unlocking {
      operations_run& all;
      std::size_t which;
      int me;
      ~unlocking() {
        all.expect(all.owners_[which] == me, "O5: two hold a mutex");
        all.owners_[which] = 0;
        all.mutexes_[which].unlock();
      }
    } const at_end{*this, which, me.number};
    run_list(me, at.parts[0]);
  }

  void acquire(fiber_note& me, const operation& at) {
    const waiting note(me, at);
    const nanoseconds_t begin = concur::detail::now_ns();
    bool has_acquired = true;
    if (at.what == 'a')
      semaphore_.acquire(permits_of(at));
    else
      has_acquired = semaphore_.try_acquire_for(at.number * unit, permits_of(at));
    expect(has_acquired || has_passed(begin, at.number), "O4: a wait for a permit ends before its time");
    if (!has_acquired) return;
    permits_ -= permits_of(at);
    expect(permits_ >= 0, "O5: a permit is taken twice");
  }
  static std::ptrdiff_t permits_of(const operation& at) {
    return at.what == 'a' ? static_cast<std::ptrdiff_t>((at.number + 2) % 3 + 1) : 2;
  }

  void wait_for_event(fiber_note& me, const operation& at) {
    const waiting note(me, at);
    concur::event& chosen = events_[at.which % event_count];
    const nanoseconds_t begin = concur::detail::now_ns();
    if (at.what == 'e')
      chosen.wait();
    else if (!chosen.wait_for(at.number * unit))
      expect(has_passed(begin, at.number), "O4: a wait for an event ends before its time");
  }

  void give_result(std::size_t which) {
    if (std::exchange(is_given_[which], true)) return;
    promises_[which].set_value(static_cast<int>(which) + 100);
  }

  void wait_for_result(fiber_note& me, const operation& at) {
    const waiting note(me, at);
    const std::size_t which = at.which % result_count;
    const nanoseconds_t begin = concur::detail::now_ns();
    if (at.what == 'G' && !results_[which].wait_for(at.number * unit)) {
      expect(has_passed(begin, at.number), "O4: a wait for a result ends before its time");
      return;
    }
    expect(results_[which].get() == static_cast<int>(which) + 100, "O5: a result is not the one that was given");
    expect(is_given_[which], "O5: a result comes that nobody gave");
  }

  // --- scopes ---

  template <class F>
  static void inside(fiber_note& me, scope_note& scope, F&& f) {
    scope.above = me.scope;
    me.scope = &scope;
    struct leaving {
      fiber_note& me;
      const scope_note* before;
      ~leaving() { me.scope = before; }
    } const at_end{me, scope.above};
    f();
  }

  void with_limit(fiber_note& me, const operation& at) {
    scope_note scope;
    const nanoseconds_t begin = concur::detail::now_ns();
    scope.until = begin + concur::detail::to_ns(at.number * unit);
    bool has_returned = false;
    inside(me, scope, [&] {
      const bool is_through = concur::move_on_after(at.number * unit, [&] {
        run_list(me, at.parts[0]);
        has_returned = true;
      });
      expect(is_through == has_returned, "O4: move_on_after does not say whether its function returned");
      expect(is_through || has_passed(begin, at.number), "O4: a limit passes before its time");
    });
  }

  void run_and_look(fiber_note& me, const operation& at) {
    try {
      run_list(me, at.parts[0]);
    } catch (const concur::cancelled&) {
      bool is_thrown_again = false;
      try {
        concur::this_fiber::yield();
        concur::this_fiber::checkpoint();
      } catch (const concur::cancelled&) {
        is_thrown_again = true;
      }
      expect(is_thrown_again, "O4: a cancellation is delivered once only");
      throw;
    }
  }

  void open_nursery(fiber_note& me, const operation& at) {
    nursery_note home;
    home.limit = at.number;
    home.host = me.number;
    home.keeps_going = at.what == 'N';
    scope_note scope;
    nursery_note* const before = me.nursery;
    bool has_thrown_failure = false;
    struct leaving {
      fiber_note& me;
      nursery_note* before;
      const operation* waited_for;
      ~leaving() {
        me.nursery = before;
        me.waits_for = waited_for;
      }
    } const at_end{me, before, me.waits_for};
    try {
      inside(me, scope, [&] {
        const auto policy = home.keeps_going ? concur::on_failure::keep_going : concur::on_failure::cancel_siblings;
        concur::with_nursery(policy, [&](concur::nursery& n) {
          home.home = &n;
          scope.home = &home;
          me.nursery = &home;
          if (home.limit != 0) n.limit(home.limit);
          run_body(me, at, home);
          me.waits_for = &at;  // its children, from here on
        });
      });
    } catch (const planned_failure&) {
      has_thrown_failure = true;
    } catch (...) {
      expect(home.running == 0, "O6: a child has outlived its nursery");
      expect(!home.has_failed, "O6: a failure is not thrown by its nursery");
      throw;
    }
    expect(home.running == 0, "O6: a child has outlived its nursery");
    expect(has_thrown_failure == home.has_failed, "O6: a nursery throws other than its children did");
  }

  void run_body(fiber_note& me, const operation& at, nursery_note& home) {
    struct leaving {  // also by an exception
      fiber_note& me;
      const operation& at;
      ~leaving() { me.waits_for = &at; }
    } const at_end{me, at};
    try {
      for (std::size_t i = 1; i < at.parts.size(); ++i) {
        operation start;
        start.what = 'o';
        start.parts = {at.parts[i]};
        kept_.push_back(start);
        start_child(me, kept_.back());
      }
      run_list(me, at.parts[0]);
    } catch (const planned_failure&) {
      home.has_failed = true;
      throw;
    }
  }

  void start_child(fiber_note& me, const operation& at) {
    if (children_ >= static_cast<int>(fibers_max)) return;
    const waiting note(me, at);
    const operations& list = at.parts[0];
    if (at.what == 'd') {
      concur::go([this, &list, count = child_count(*this, nullptr)] {
        try {
          run_child(list, nobody_, &everything_, 0);
        } catch (const planned_failure&) {
        }
      });
      return;
    }
    nursery_note& home = *me.nursery;
    if (home.home == nullptr) return;
    if (home.limit != 0 && home.host != me.number) return;  // children that wait for room would wait for themselves
    const scope_note* const scope = scope_of(me, home);
    if (at.what == 'o') {
      home.home->go(
          [this, &list, &home, scope, count = child_count(*this, &home)] { run_child(list, home, scope, 0); });
    } else {
      const int result = ++last_result_;
      auto child = [this, &list, &home, scope, result, count = child_count(*this, &home)] {
        return run_child(list, home, scope, result);
      };
      me.results.emplace_back(home.home->async(std::move(child)), result);
    }
  }

  // The nursery's own scope, which may lie outside of others that the fiber is in.
  static const scope_note* scope_of(const fiber_note& me, const nursery_note& home) {
    const scope_note* scope = me.scope;
    while (scope->home != &home) scope = scope->above;
    return scope;
  }

  void take_result(fiber_note& me, const operation& at) {
    if (me.results.empty()) return;
    const waiting note(me, at);
    struct leaving {
      fiber_note& me;
      ~leaving() { me.results.erase(me.results.begin()); }
    } const at_end{me};
    try {
      expect(me.results.front().first.get() == me.results.front().second, "O5: a child's result is not its own");
    } catch (const planned_failure&) {
    }
  }

  const operations_program& program_;
  std::string finding_;
  concur::channel<parcel> channels_[channel_count] = {concur::channel<parcel>(0), concur::channel<parcel>(1),
                                                      concur::channel<parcel>(2), concur::channel<parcel>(5)};
  concur::mutex mutexes_[mutex_count];
  int owners_[mutex_count] = {};
  concur::counting_semaphore<> semaphore_{1};
  std::ptrdiff_t permits_ = 1;
  concur::event events_[event_count];
  concur::promise<int> promises_[result_count];
  concur::shared_future<int> results_[result_count] = {
      promises_[0].get_future().share(), promises_[1].get_future().share(), promises_[2].get_future().share()};
  bool is_given_[result_count] = {};

  std::vector<fiber_note*> fibers_;  // that have not ended
  std::vector<sent_note> sent_;
  std::deque<operation> kept_;
  nursery_note nobody_;
  scope_note everything_;
  int last_number_ = 0;
  int last_result_ = 0;
  int children_ = 0;
  int alive_ = 0;
  unsigned steps_ = 0;
  bool is_open_ = false;
  bool is_cancelled_ = false;
};

inline std::string run_operations(const operations_program& program) {
  concur::explore_options wanted;
  wanted.schedules = 1;
  wanted.seed = program.seed;
  wanted.workers = program.workers;
  wanted.shrink = 0;
  if (program.priorities != 0) wanted.strategy = concur::strategy::pct(program.priorities);
#if defined(CONCUR_EXPLORE)
  wanted.weak_memory = program.has_weak_memory;
#endif
  // Judged outside: what belongs to nobody ends with the runtime.
  std::unique_ptr<operations_run> run;
  const concur::explore_report report = concur::try_explore(
      [&] {
        run = std::make_unique<operations_run>(program);
        run->run();
      },
      wanted);
  if (!report.ok) {
    static_cast<void>(run.release());  // its fibers are left where they are
    return report.what;
  }
  return run->judge();
}

inline std::string try_operations(std::string_view input) { return run_operations(operations_parser(input).parse()); }

}  // namespace fuzz

#endif
