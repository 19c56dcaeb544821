// runtime/pace.hpp - how long a worker needs for what waits in its ring: the measure of whether help is worth its price.
//
// Help is dear. A sleeping core takes some 50 us to come, and the one that calls it pays a system call; a thief stops its
// victim for the 10 us of a heavy fence (fence.hpp). A hundred fibers that only add up a number are over in 4 us, a
// hundred that parse a request are not. Nothing about a fiber says beforehand which kind it is, but a worker's last ones
// say it well enough: so each worker keeps the mean time from one pick to the next, and what waits is worth that mean
// times their number.
//
//     backlog           who calls a sleeper                 who is awake and has nothing to do
//     at_once_ns        at once                             robs at once
//     lasting_ns        -                                   robs, if it stayed above that for as long as the thief looked
//     less              once in a while (often_ns)          robs only what does not move (scheduler::search)
//
// The mean errs: a fiber that spawns for 40 ms makes the ones it has spawned look long. So who helps learns from what came of
// it: if what it took by force was over within enough_ns, less than a few fences, it takes nothing by force for often_ns,
// and if there is something to take, sleeps no longer than that.
// And a worker calls once in a tenth of that, at most.
//
//   P1  All of it is about speed. A worker that is wrong about its pace is helped late: by the rule of the third line within
//       often_ns, and where it does not even come to that, by the monitor.
//   P2  One clock reading at each upkeep, and two each time a worker runs out of work; none on any other path. Time without
//       work does not count. Where fibers run long, upkeep comes after fewer picks, so that it comes every 200 us: at 50
//       us an HTTP server answers 5 % fewer requests, for it looks at its poller that often.
//   P3  Nothing is known yet: fibers are taken for long ones. A mean over some hundred picks forgets slowly in that
//       direction and at once in the other: one fiber of 10 ms makes all the rest look long for a while. That is the side on
//       which an error costs least.
//   P4  One writer, the worker; the monitor may overwrite the mean when it sees the worker stuck. Others read it.
//
// What it saves: with every burst calling for help, a child of a nursery of 100 took 3,600 ns on two workers, and 44 on
// one; two workers that shared 8 fibers and a channel lost to one by a factor of five.
#ifndef CONCUR_RUNTIME_PACE_HPP
#define CONCUR_RUNTIME_PACE_HPP

#include <atomic>
#include <utility>

#include "base/config.hpp"
#include "base/time.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

class work_pace {
 public:
  static constexpr std::uint64_t at_once_ns = 50'000;
  static constexpr std::uint64_t lasting_ns = 2'000;
  static constexpr nanoseconds_t often_ns = 1'000'000;
  static constexpr nanoseconds_t enough_ns = 50'000;

  // The worker has work (again). `picks` counts on.
  void begin(nanoseconds_t now, std::size_t picks) noexcept {
    last_ns_ = now;
    last_picks_ = picks;
  }
  // It had work from `begin` to now, and has from here on.
  void measure(nanoseconds_t now, std::size_t picks) noexcept {
    const std::size_t count = picks - last_picks_;
    if (count != 0 && now > last_ns_) {
      busy_ns_ += static_cast<std::uint64_t>(now - last_ns_);
      busy_picks_ += count;
      while (busy_picks_ > memory) {
        busy_picks_ /= 2;
        busy_ns_ /= 2;
      }
      set(busy_ns_ / busy_picks_);
    }
    begin(now, picks);
    decide();
  }
  // How many picks `ns` takes, from 1 to `most`.
  unsigned picks_in(nanoseconds_t ns, unsigned most) const noexcept {
    const std::uint64_t count = static_cast<std::uint64_t>(ns) / (busy_ns_ / busy_picks_ + 1);
    return count < 1 ? 1 : count < most ? static_cast<unsigned>(count) : most;
  }
  // The mean is at least this (P4).
  void hear(std::uint64_t ns) noexcept { set(ns); }

  // What `count` fibers take. Any thread.
  std::uint64_t time_of(std::uint32_t count) const noexcept {
    return std::uint64_t{mean_ns_.load(std::memory_order_relaxed)} * count;  // relaxed: a hint (P1)
  }

  // How many must wait for the worker to call for help; at each spawn one comparison.
  std::uint32_t help_from() const noexcept { return help_from_; }
  void note_call() noexcept {
    last_call_ns_ = last_ns_;
    decide();
  }

  // Something was taken by force.
  void note_loot(nanoseconds_t now) noexcept { loot_ns_ = now; }
  // It has come to an end.
  void judge_loot(nanoseconds_t now) noexcept {
    if (loot_ns_ != 0 && now - loot_ns_ < enough_ns && !CONCUR_MUTANT_IS(462)) no_force_before_ns_ = now + often_ns;
    loot_ns_ = 0;
  }
  // When to look again, because something was left alone only for that; never: there was nothing.
  void leave_for_later() noexcept { look_again_ns_ = no_force_before_ns_; }
  nanoseconds_t take_look_again() noexcept { return std::exchange(look_again_ns_, never); }
  // Whether force is worth while; reads the clock only when it was not, some time ago.
  bool may_use_force() const noexcept { return no_force_before_ns_ == 0 || now_ns() >= no_force_before_ns_; }

 private:
  static constexpr std::size_t memory = 256;  // picks; half of them are forgotten then
  static constexpr std::uint32_t unknown_ns = 50'000;

  void set(std::uint64_t ns) noexcept {
    constexpr std::uint64_t most = ~std::uint32_t{0};
    mean_ns_.store(static_cast<std::uint32_t>(ns < most ? ns : most), std::memory_order_relaxed);  // relaxed: a hint
  }

  void decide() noexcept {
    const nanoseconds_t since = last_ns_ - last_call_ns_;
    std::uint64_t needed = at_once_ns / (busy_ns_ / busy_picks_ + 1) + 1;
    if (since >= often_ns && needed > often_from) needed = often_from;
    help_from_ = since < often_ns / 10 ? never_from : static_cast<std::uint32_t>(needed);
  }

  static constexpr std::uint32_t never_from = ~std::uint32_t{0};
  static constexpr std::uint32_t often_from = 2;  // a single one is the worker's next, unless the mean is long

  std::uint64_t busy_ns_ = unknown_ns;
  std::size_t busy_picks_ = 1;
  nanoseconds_t last_ns_ = 0;
  nanoseconds_t last_call_ns_ = 0;
  nanoseconds_t loot_ns_ = 0;  // when it was taken; 0: there is none
  nanoseconds_t look_again_ns_ = never;
  nanoseconds_t no_force_before_ns_ = 0;  // 0: any time
  std::size_t last_picks_ = 0;
  std::uint32_t help_from_ = often_from;
  std::atomic<std::uint32_t> mean_ns_{unknown_ns};  // std::atomic: a figure; a driver has its own rule
};

}  // namespace detail
CONCUR_NAMESPACE_END
#endif
