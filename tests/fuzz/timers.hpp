// tests/fuzz/timers.hpp - any sequence of operations on the timer wheel, against a sorted list.
//
//     B<moment>   the wheel begins here (0, when the first operation is another)
//     s<moment>   a wait with this deadline is set
//     l<moment>   the same, of a fiber that is still leaving; `p` publishes the oldest of them
//     a<moment>   an alarm is set
//     c<number>   the wait or alarm of this number, counted from the oldest, is called off
//     e<number>   somebody else ends the wait and leaves it in the wheel
//     f<moment>   the clock comes to this moment, and what is due is fired
//     o<moment>   a thread that read the clock at this moment, and was late, fires
//     n           the clock comes to next_ns(), and what is due is fired
//
// A moment begins with n (now), z (0), m (never), p (long ago), d (the earliest deadline), x (next_ns()), and goes on with
// +number or -number, each perhaps with ^shift: `sn+3^16-1` is a wait for three ticks, less a nanosecond.
//
//   M1  Nothing fires before its deadline. What is due is fired by the first look that comes a tick later.
//   M2  next_ns() is not later than the tick in which the earliest deadline is due, and following it reaches every timer in a
//       few looks.
//   M3  size() is what is set, less what has ended. Who was ended by somebody else is not touched any more.
#ifndef CONCUR_TESTS_FUZZ_TIMERS_HPP
#define CONCUR_TESTS_FUZZ_TIMERS_HPP

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "concur.hpp"
#include "fuzz/words.hpp"

namespace fuzz {

class timers_case {
 public:
  explicit timers_case(std::string_view input) : words_(input) {}
  ~timers_case() {
    for (auto& each : set_) {
      wheel_.call_off(each.second->entry());
    }
  }

  std::string run() {
    if (words_.take_if('B')) clock_ = (std::max)(nanoseconds_t{0}, moment());  // steady clocks begin at zero
    wheel_.start(clock_);
    expect(wheel_.next_ns() == never, "an empty wheel has a next moment");
    for (unsigned steps = 0; !words_.is_over() && steps < 400 && finding_.empty(); ++steps) {
      step(words_.take());
      look();
    }
    if (finding_.empty()) follow();
    if (finding_.empty()) call_off_rest();
    return finding_;
  }

 private:
  using nanoseconds_t = concur::detail::nanoseconds_t;
  using outcome = concur::detail::outcome;
  static constexpr nanoseconds_t never = concur::detail::never;
  static constexpr nanoseconds_t tick_ns = nanoseconds_t{1} << 16;

  struct ringing : concur::detail::alarm {
    ringing() noexcept : alarm([](alarm* self) noexcept { ++static_cast<ringing*>(self)->rung; }) {}
    int rung = 0;
  };

  // A timer and what the list knows of it.
  struct timer {
    concur::detail::thread_party who;
    concur::detail::timer_entry wait;
    ringing alarm;
    bool is_alarm = false;
    bool is_leaving = false;
    bool is_ended = false;    // by somebody else
    nanoseconds_t since = 0;  // it cannot fire before the tick that begins behind this moment

    concur::detail::timer_entry& entry() { return is_alarm ? static_cast<concur::detail::timer_entry&>(alarm) : wait; }
    nanoseconds_t deadline() { return entry().deadline_ns; }
    bool has_fired() const {
      if (is_alarm) return alarm.rung > 0;
      return (who.word.load() & 1) == 0 && !is_leaving && who.result == outcome::timed_out;
    }
  };
  using timers = std::multimap<nanoseconds_t, std::unique_ptr<timer>>;

  void expect(bool holds, const char* what) {
    if (!holds && finding_.empty()) finding_ = what;
  }

  nanoseconds_t moment() {
    nanoseconds_t at = clock_;
    switch (words_.peek()) {
      case 'n':
        words_.take();
        break;
      case 'z':
        words_.take(), at = 0;
        break;
      case 'm':
        words_.take(), at = never;
        break;
      case 'p':
        words_.take(), at = concur::detail::long_ago;
        break;
      case 'd':
        words_.take(), at = set_.empty() ? clock_ : set_.begin()->first;
        break;
      case 'x':
        words_.take(), at = wheel_.next_ns();
        break;
      default:
        break;
    }
    while (words_.peek() == '+' || words_.peek() == '-') {
      const bool is_plus = words_.take() == '+';
      nanoseconds_t by = words_.number(1);
      if (words_.take_if('^')) {
        const unsigned shift = words_.small_number(0, 63);
        by = by > (never >> shift) ? never : by << shift;
      }
      at = concur::detail::saturating_add(at, is_plus ? by : -by);
    }
    return at;
  }

  void step(char what) {
    switch (what) {
      case 's':
      case 'l':
      case 'a':
        set(what, moment());
        break;
      case 'p':
        publish();
        break;
      case 'c':
        call_off(words_.small_number(0, 1000));
        break;
      case 'e':
        end_from_outside(words_.small_number(0, 1000));
        break;
      case 'f':
        fire((std::max)(clock_, moment()));
        break;
      case 'o':
        fire((std::min)(clock_, moment()));
        break;
      case 'n':
        if (wheel_.next_ns() != never) fire((std::max)(clock_, wheel_.next_ns()));
        break;
      default:
        break;
    }
  }

  void set(char kind, nanoseconds_t deadline) {
    if (set_.size() >= 64) return;
    auto one = std::make_unique<timer>();
    one->is_alarm = kind == 'a';
    one->is_leaving = kind == 'l';
    one->since = clock_;
    one->entry().deadline_ns = deadline;
    if (!one->is_alarm) {
      one->wait.who = &one->who;
      one->wait.ticket = one->who.next_ticket();
      one->who.word.store(one->wait.ticket - (one->is_leaving ? 1 : 0));
    }
    wheel_.set(one->entry());
    set_.emplace(deadline, std::move(one));
  }

  void publish() {
    for (auto& each : set_) {
      if (!each.second->is_leaving) continue;
      each.second->is_leaving = false;
      each.second->since = clock_;
      each.second->who.word.store(each.second->wait.ticket);
      return;
    }
  }

  timers::iterator chosen(unsigned number) {
    return std::next(set_.begin(), static_cast<std::ptrdiff_t>(number % set_.size()));
  }

  void call_off(unsigned number) {
    if (set_.empty()) return;
    const auto place = chosen(number);
    timer& one = *place->second;
    if (one.is_alarm) {
      concur::detail::timer_wheel::call_off_alarm(one.alarm);
      expect(one.alarm.rung == 0, "M3: an alarm rings as it is called off");
    } else {
      if (!one.is_leaving && !one.is_ended)
        expect(concur::detail::claim(one.who, one.wait.ticket), "M3: a wait has ended that nobody has ended");
      wheel_.call_off(one.wait);
    }
    set_.erase(place);
  }

  void end_from_outside(unsigned number) {
    if (set_.empty()) return;
    timer& one = *chosen(number)->second;
    if (one.is_alarm || one.is_leaving || one.is_ended) return;
    expect(concur::detail::claim(one.who, one.wait.ticket), "M3: a wait has ended that nobody has ended");
    one.who.result = outcome::closed;
    one.is_ended = true;
  }

  // D1 of the wheel, in numbers: the last moment at which a look may find nothing yet.
  static bool must_have_fired(nanoseconds_t deadline, nanoseconds_t since, nanoseconds_t now) {
    const nanoseconds_t due = (std::max)(deadline, since);
    return due <= never - tick_ns && due + tick_ns <= now;
  }

  void fire(nanoseconds_t now) {
    const std::size_t before = wheel_.size();
    const std::size_t fired = wheel_.fire(now);
    clock_ = (std::max)(clock_, now);
    std::size_t seen = 0;
    std::size_t gone = 0;  // of those ended by somebody else
    for (auto each = set_.begin(); each != set_.end();) {
      timer& one = *each->second;
      if (one.is_ended) {
        expect(one.who.result == outcome::closed, "M3: a wait is touched that somebody else has ended");
        const bool is_linked = concur::detail::intrusive_list<concur::detail::timer_entry>::is_linked(&one.wait);
        gone += is_linked ? 0 : 1;
        if (!is_linked) expect(one.deadline() <= now, "M1: a wait that has ended is dropped before its deadline");
        each = is_linked ? std::next(each) : set_.erase(each);
        continue;
      }
      const bool has_fired = one.has_fired();
      if (has_fired) expect(one.deadline() <= now, "M1: a timer fires before its deadline");
      if (has_fired && one.is_alarm) expect(one.alarm.rung == 1, "M1: an alarm rings twice");
      if (one.is_leaving) {
        one.since = clock_;
      } else if (!has_fired) {
        expect(!must_have_fired(one.deadline(), one.since, now), "M1: a timer is due, and does not fire");
      }
      seen += has_fired ? 1 : 0;
      each = has_fired ? set_.erase(each) : std::next(each);
    }
    expect(fired == seen, "M1: fire() says another number than have fired");
    expect(wheel_.size() + seen + gone == before, "M3: a look changes the size by another number than have ended");
  }

  // M2 and M3, after every step.
  void look() {
    expect(wheel_.size() == set_.size(), "M3: the size is not what is set");
    const nanoseconds_t next = wheel_.next_ns();
    for (const auto& each : set_) {
      timer& one = *each.second;
      if (one.is_ended || one.deadline() > never - 2 * tick_ns || one.since > never - 2 * tick_ns) continue;
      const nanoseconds_t rounded = (std::max)(one.deadline(), nanoseconds_t{0}) + tick_ns - 1;
      const nanoseconds_t due = (std::max)(rounded, (std::max)(one.since, nanoseconds_t{0}) + tick_ns);
      expect(next <= due, "M2: the next moment is later than a deadline");
    }
  }

  // Goes on as the sleeper in the poller would, until nothing can be due any more.
  void follow() {
    while (std::any_of(set_.begin(), set_.end(), [](const auto& each) { return each.second->is_leaving; })) publish();
    unsigned looks = 0;
    while (finding_.empty() && wheel_.next_ns() < never - tick_ns && clock_ < never - tick_ns) {
      fire((std::max)(concur::detail::saturating_add(clock_, 1), wheel_.next_ns()));
      look();
      expect(++looks < 64 * 80, "M2: the next moments do not lead to the timers");
    }
    for (const auto& each : set_) {
      timer& one = *each.second;
      if (!one.is_ended && clock_ < never - 2 * tick_ns)
        expect(one.deadline() > never - 2 * tick_ns, "M2: a timer is lost");
    }
  }

  void call_off_rest() {
    while (!set_.empty()) call_off(0);
    expect(wheel_.size() == 0, "M3: an empty wheel has a size");
    expect(wheel_.next_ns() == never, "M2: an empty wheel has a next moment");
  }

  words words_;
  concur::detail::timer_wheel wheel_;
  nanoseconds_t clock_ = 0;  // the latest that anybody has fired with
  timers set_;               // by deadline
  std::string finding_;
};

inline std::string try_timers(std::string_view input) { return timers_case(input).run(); }

}  // namespace fuzz

#endif
