// observe/decisions.hpp - the answers of one schedule: where they come from, and what is kept of them.
//
// A schedule is a sequence of questions with a number of possible answers each. Given the answers, it is determined; so
// answers are all that must be kept to see it again. Nearly all of them are 0, the answer of a plain run; what is kept
// is the others, each with the number of its question.
//
//   D1  Questions are numbered from 1, in the order in which they are asked. One with a single answer is not counted.
//   D2  Given the same source, each question gets the same answer: the source sees nothing but the questions.
//   D3  A list of deviations that was shortened is still a schedule: questions that it does not name are answered by 0.
//   D4  Kinds that `costs` names are answered by 0 in an exhaustive search once `bound` of them were not; all others are
//       searched to the end.
//   D5  Priorities alone are unfair: who waits by looking again and again keeps those out for which it waits. So one
//       that was preferred very often falls behind, and so does who says that it spins.
#ifndef CONCUR_OBSERVE_DECISIONS_HPP
#define CONCUR_OBSERVE_DECISIONS_HPP

#include <cstdint>
#include <vector>

#include "base/config.hpp"
#include "base/driver.hpp"
#include "observe/strategy.hpp"
#include "observe/vector_clock.hpp"
#include "runtime/seam.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// One answer that was not 0.
struct deviation {
  std::uint64_t question;
  std::uint32_t answer;
};

using deviation_list = std::vector<deviation>;

class decisions {
 public:
  // The next schedule, by lot or by priorities. places: how many change_places() schedules of this program have, about.
  void begin_seeded(strategy how, std::uint64_t seed, std::uint64_t places);
  // By lot, and close to the plain run: few answers are not 0.
  void begin_calm(std::uint64_t seed);
  // The next one of a search; at first the plain run.
  void begin_search(unsigned bound);
  // Turns to the next one; false: all have been.
  bool advance_search();
  // The one that was recorded so.
  void begin_replay(const deviation* list, std::size_t count);

  std::uint32_t answer(choice what, std::uint32_t count);
  // The quick way past a question of kind preemption whose answer is 0; false: it is to be asked.
  bool passes(std::uint32_t count) {
    if (source_ == source::priorities) return false;
    if (source_ == source::lot) {
      if (gap_ <= 1) return false;
      --gap_;
    } else if (source_ == source::record) {
      if (record_ != record_end_ && record_->question == question_ + 1) return false;
    } else if (spent_ < bound_) {
      return false;
    }
    ++question_;
    mix(count);
    return true;
  }
  // The same where one of several threads is to run; ids[0] is the answer of a plain run.
  std::uint32_t answer_thread(choice what, const unsigned char* ids, std::uint32_t count);
  std::uint32_t answer_fiber(const std::uint64_t* ids, std::uint32_t count);
  // Whether a fiber that could go on lets others run.
  bool answer_interruption();
  // The thread gives way, and is not to be preferred to those it gives way to.
  void demote(unsigned thread) { thread_priorities_[thread] = --lowest_; }

  const std::vector<deviation>& deviations() const { return deviations_; }
  // How many places there were where a change of priorities could have been (pct).
  std::uint64_t change_places() const { return change_places_; }
  std::uint64_t hash() const { return hash_; }
  void mix(std::uint64_t what) { hash_ = (hash_ ^ what) * 0x100000001B3U; }

 private:
  enum class source : unsigned char { lot, priorities, search, record };
  struct branch {
    std::uint32_t count;
    std::uint32_t answer;
    bool has_cost;
  };

  static bool costs(choice what) {
    return what == choice::preemption || what == choice::spin_to || what == choice::victim ||
           what == choice::slice_end || what == choice::clock || what == choice::spurious;
  }
  std::uint32_t record(choice what, std::uint32_t count, std::uint32_t given);
  std::uint32_t by_lot(choice what, std::uint32_t count);
  std::uint32_t by_search(choice what, std::uint32_t count);
  std::uint32_t by_record();
  std::uint32_t below(std::uint32_t count) {
    return static_cast<std::uint32_t>((std::uint64_t{random_.next()} * count) >> 32);
  }
  bool is_change_point();

  source source_ = source::lot;
  random_source random_{1};
  std::uint64_t question_ = 0;
  std::uint64_t hash_ = 0;
  std::vector<deviation> deviations_;
  // lot: questions of kind preemption until one is answered otherwise than by 0.
  bool is_calm_ = false;
  std::uint32_t gap_mean_ = 8;
  std::uint32_t gap_ = 1;
  // priorities
  std::int64_t thread_priorities_[explored_threads_max] = {};
  std::uint64_t fiber_salt_ = 0;
  std::int64_t lowest_ = 0;
  std::uint64_t change_places_ = 0;
  std::vector<std::uint64_t> change_points_;  // the next one last
  std::vector<std::uint64_t> demoted_fibers_;
  std::uint64_t running_fiber_ = 0;
  // How often each was preferred to others (D5).
  unsigned thread_turns_[explored_threads_max] = {};
  struct turns {
    std::uint64_t fiber;
    unsigned count;
  };
  std::vector<turns> fiber_turns_;
  static constexpr unsigned thread_turns_max = 3000;
  static constexpr unsigned fiber_turns_max = 100;
  unsigned& turns_of(std::uint64_t fiber) {
    for (turns& one : fiber_turns_) {
      if (one.fiber == fiber) return one.count;
    }
    fiber_turns_.push_back({fiber, 0});
    return fiber_turns_.back().count;
  }
  // search
  std::vector<branch> path_;
  std::size_t depth_ = 0;
  unsigned bound_ = 0;
  unsigned spent_ = 0;
  // record
  const deviation* record_ = nullptr;
  const deviation* record_end_ = nullptr;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <algorithm>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void decisions::begin_seeded(strategy how, std::uint64_t seed, std::uint64_t places) {
  source_ = how.what() == strategy::kind::pct ? source::priorities : source::lot;
  random_ = random_source((seed + 1) * 0x9E3779B97F4A7C15U);
  is_calm_ = false;
  question_ = 0;
  hash_ = 0xCBF29CE484222325U;
  deviations_.clear();
#  if defined(CONCUR_EXPLORE)
  constexpr std::uint32_t means[] = {2, 6, 20, 60, 200};
#  else
  constexpr std::uint32_t means[] = {2, 4, 8, 16, 32};  // of places between parking operations
#  endif
  gap_mean_ = means[below(5)];
  gap_ = 1 + below(2 * gap_mean_);
  if (source_ != source::priorities) return;
  lowest_ = 0;
  for (std::int64_t& priority : thread_priorities_) priority = 1 + static_cast<std::int64_t>(random_.next());
  fiber_salt_ = (std::uint64_t{random_.next()} << 32) | random_.next();
  change_places_ = 0;
  demoted_fibers_.clear();
  running_fiber_ = 0;
  for (unsigned& count : thread_turns_) count = 0;
  fiber_turns_.clear();
  change_points_.clear();
  const std::uint32_t among = places < 0xFFFFFFFFU ? static_cast<std::uint32_t>(places) : 0xFFFFFFFFU;
  for (unsigned i = 1; i < how.parameter(); ++i) change_points_.push_back(1 + below(among != 0 ? among : 1));
  std::sort(change_points_.rbegin(), change_points_.rend());
}

CONCUR_INLINE void decisions::begin_calm(std::uint64_t seed) {
  begin_seeded(strategy::random, seed, 0);
  is_calm_ = true;
  constexpr std::uint32_t means[] = {10, 40, 160, 640};
  gap_mean_ = means[below(4)];
  gap_ = 1 + below(2 * gap_mean_);
}

CONCUR_INLINE void decisions::begin_search(unsigned bound) {
  source_ = source::search;
  bound_ = bound;
  spent_ = 0;
  depth_ = 0;
  question_ = 0;
  hash_ = 0xCBF29CE484222325U;
  deviations_.clear();
}

CONCUR_INLINE bool decisions::advance_search() {
  while (!path_.empty()) {
    branch& last = path_.back();
    if (last.answer + 1 < last.count) {
      ++last.answer;
      return true;
    }
    path_.pop_back();
  }
  return false;
}

CONCUR_INLINE void decisions::begin_replay(const deviation* list, std::size_t count) {
  source_ = source::record;
  record_ = list;
  record_end_ = list + count;
  question_ = 0;
  hash_ = 0xCBF29CE484222325U;
  deviations_.clear();
}

CONCUR_INLINE std::uint32_t decisions::record(choice what, std::uint32_t count, std::uint32_t given) {
  if (what == choice::preemption && given == 0)
    mix(count);  // as passes() does
  else
    mix((std::uint64_t{count} << 36) | (static_cast<std::uint64_t>(what) << 32) | given);
  if (given != 0) deviations_.push_back({question_, given});
  return given;
}

// How likely each kind departs from the plain run.
CONCUR_INLINE std::uint32_t decisions::by_lot(choice what, std::uint32_t count) {
  switch (what) {
    case choice::preemption:
      if (--gap_ != 0) return 0;
      gap_ = 1 + below(2 * gap_mean_);
      return count > 1 ? 1 + below(count - 1) : 0;
    case choice::slice_end:
    case choice::spurious:
    case choice::io_error:
      return below(8) == 0 ? below(count) : 0;
    case choice::clock:
      return below(16) == 0 ? below(count) : 0;
    case choice::stale_read:
      return below(4) == 0 ? below(count) : 0;
    default:
      return !is_calm_ || below(8) == 0 ? below(count) : 0;
  }
}

CONCUR_INLINE std::uint32_t decisions::by_search(choice what, std::uint32_t count) {
  const bool has_cost = costs(what);
  if (has_cost && spent_ >= bound_) return 0;
  if (depth_ == path_.size()) path_.push_back({count, 0, has_cost});
  const std::uint32_t given = path_[depth_++].answer;
  if (has_cost && given != 0) ++spent_;
  return given < count ? given : 0;
}

CONCUR_INLINE std::uint32_t decisions::by_record() {
  if (record_ == record_end_ || record_->question != question_) return 0;
  return record_++->answer;
}

CONCUR_INLINE std::uint32_t decisions::answer(choice what, std::uint32_t count) {
  if (count <= 1) return 0;
  ++question_;
  std::uint32_t given = 0;
  if (source_ == source::search) {
    given = by_search(what, count);
  } else if (source_ == source::record) {
    given = by_record();
    if (given >= count) given = 0;
  } else {
    given = by_lot(what, count);
  }
  return record(what, count, given);
}

CONCUR_INLINE bool decisions::is_change_point() {
  ++change_places_;
  if (change_points_.empty() || change_places_ < change_points_.back()) return false;
  change_points_.pop_back();
  return true;
}

CONCUR_INLINE std::uint32_t decisions::answer_thread(choice what, const unsigned char* ids, std::uint32_t count) {
  if (source_ != source::priorities) return answer(what, count);
  if (what == choice::preemption && is_change_point()) {
    demote(ids[0]);
    if (running_fiber_ != 0) demoted_fibers_.push_back(running_fiber_);
  }
  if (count <= 1) return 0;
  ++question_;
  std::uint32_t best = 0;
  for (std::uint32_t i = 1; i < count; ++i) {
    if (thread_priorities_[ids[i]] > thread_priorities_[ids[best]]) best = i;
  }
  if (++thread_turns_[ids[best]] % thread_turns_max == 0) demote(ids[best]);
  return record(what, count, best);
}

// With priorities it always does: and is the next one again, if its priority says so.
CONCUR_INLINE bool decisions::answer_interruption() {
  if (source_ != source::priorities) return answer(choice::preemption, 2) != 0;
  if (is_change_point()) demoted_fibers_.push_back(running_fiber_);
  return true;
}

CONCUR_INLINE std::uint32_t decisions::answer_fiber(const std::uint64_t* ids, std::uint32_t count) {
  std::uint32_t best = 0;
  if (source_ == source::priorities) {
    // Those that fell behind come last, the latest of them at the very end.
    const auto priority_of = [&](std::uint64_t id) {
      for (std::size_t i = demoted_fibers_.size(); i-- > 0;) {
        if (demoted_fibers_[i] == id) return -static_cast<std::int64_t>(i) - 1;
      }
      return static_cast<std::int64_t>(((id + fiber_salt_) * 0x9E3779B97F4A7C15U) >> 2);
    };
    for (std::uint32_t i = 1; i < count; ++i) {
      if (priority_of(ids[i]) > priority_of(ids[best])) best = i;
    }
    if (count > 1) {
      ++question_;
      record(choice::next_fiber, count, best);
      if (++turns_of(ids[best]) % fiber_turns_max == 0) demoted_fibers_.push_back(ids[best]);
    }
  } else {
    best = answer(choice::next_fiber, count);
  }
  running_fiber_ = ids[best];
  return best;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
