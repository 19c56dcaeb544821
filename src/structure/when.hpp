// structure/when.hpp - one future for several: when_all of them have a result, or when_any has.
//
// Both give the futures back, so that each result, or exception, is taken from its own. They need no fiber, and nobody
// waits meanwhile: each future gets a note (a continuation), and the notes count.
//
//     who counts down `missing`           when_all                    when_any
//     each note, as its result comes      1                           the first one: 1
//     the start, behind the last note     1                           1
//     so it begins at                     number of futures + 1       2
//
//   G1  Who brings `missing` to zero has the futures to himself, and completes. Notes are attached before that, so the
//       futures stay where they are until all are.
//   G2  The memory is held by the result and by each note that somebody may still run. When any has one, the notes of the
//       others are taken off: a future that is asked in one when_any after another gathers no notes.
#ifndef CONCUR_STRUCTURE_WHEN_HPP
#define CONCUR_STRUCTURE_WHEN_HPP

#include <iterator>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "structure/continuation.hpp"
#include "structure/future.hpp"
#include "structure/shared_future.hpp"

CONCUR_NAMESPACE_BEGIN

// What when_any found: which one had a result first, and all of them. index is std::size_t(-1) if there were none.
template <class Sequence>
struct when_any_result {
  std::size_t index;
  Sequence futures;
};

namespace detail {

template <class T>
struct is_any_future : std::false_type {};
template <class R>
struct is_any_future<future<R>> : std::true_type {};
template <class R>
struct is_any_future<shared_future<R>> : std::true_type {};

inline constexpr std::size_t no_index = static_cast<std::size_t>(-1);

// The part that does not depend on types.
class gathering {
 public:
  gathering(std::size_t count, bool wants_all);
  gathering(const gathering&) = delete;
  gathering& operator=(const gathering&) = delete;

  // For each future in turn; then start(). False: enough is known already.
  bool add(future_state& source) noexcept;
  void start(due_list& due) noexcept;

 protected:
  ~gathering() = default;
  // The last to hold the memory lets go.
  void let_go(std::size_t holds) noexcept {
    // acq_rel: publishes what was done here to who frees it, and sees what the others did.
    if (holders_.fetch_sub(holds, std::memory_order_acq_rel) == holds) free_this_(this);
  }

  // Moves the futures into the result, and completes.
  void (*finish_)(gathering*, std::size_t winner, due_list&) noexcept = nullptr;
  void (*free_this_)(gathering*) noexcept = nullptr;

 private:
  struct note : continuation {
    note() noexcept : continuation(&gathering::come_due) {}
    gathering* whole = nullptr;
    future_state* source = nullptr;
  };

  static void come_due(continuation* due, due_list& more) noexcept;
  void count_down(due_list& more) noexcept;

  std::vector<note> notes_;
  std::size_t added_ = 0;
  atomic<std::size_t> winner_{no_index};
  bool wants_all_;
  atomic<std::size_t> missing_;
  atomic<std::size_t> holders_;
};

// Sequence: a tuple or vector of futures. Result: that, or a when_any_result of it.
template <class Sequence, class Result>
class gathered : public result_state<Result>, public gathering {
  static constexpr bool wants_all = std::is_same<Sequence, Result>::value;

 public:
  gathered(std::size_t count, Sequence&& futures) : gathering(count, wants_all), futures_(std::move(futures)) {
    this->release = [](future_state* state) noexcept { static_cast<gathered*>(state)->let_go(1); };
    finish_ = &finish;
    free_this_ = [](gathering* self) noexcept {
      static_cast<gathered*>(self)->destroy();
      delete static_cast<gathered*>(self);
    };
  }
  Sequence& futures() noexcept { return futures_; }

 private:
  static void finish(gathering* whole, [[maybe_unused]] std::size_t winner, due_list& due) noexcept {
    gathered* self = static_cast<gathered*>(whole);
    if constexpr (wants_all)
      self->set(std::move(self->futures_));
    else
      self->set(Result{winner, std::move(self->futures_)});
    if (!self->complete(due)) self->let_go(1);
  }

  Sequence futures_;
};

template <class Future>
future_state& state_to_gather(const Future& one) {
  if (!one.valid()) fail_no_state();
  return step_source<Future>::state(one);
}

template <class Result, class... Futures>
future<Result> gather(std::tuple<Futures...>&& futures) {
  std::apply([](const auto&... one) { (static_cast<void>(state_to_gather(one)), ...); }, futures);
  auto* whole = new gathered<std::tuple<Futures...>, Result>(sizeof...(Futures), std::move(futures));
  future<Result> result(whole);
  std::apply([whole](const auto&... one) { static_cast<void>((whole->add(state_to_gather(one)) && ...)); },
             whole->futures());
  due_list due;
  whole->start(due);
  run_due(due);
  return result;
}

template <class Result, class Future>
future<Result> gather(std::vector<Future>&& futures) {
  for (const Future& one : futures) state_to_gather(one);
  auto* whole = new gathered<std::vector<Future>, Result>(futures.size(), std::move(futures));
  future<Result> result(whole);
  for (const Future& one : whole->futures()) {
    if (!whole->add(state_to_gather(one))) break;
  }
  due_list due;
  whole->start(due);
  run_due(due);
  return result;
}

template <class... Futures>
using if_futures = std::enable_if_t<(is_any_future<std::decay_t<Futures>>::value && ...), int>;
template <class Iterator>
using moved_from = std::vector<typename std::iterator_traits<Iterator>::value_type>;
template <class Iterator>
using if_iterator = std::enable_if_t<is_any_future<typename std::iterator_traits<Iterator>::value_type>::value, int>;

template <class Iterator>
moved_from<Iterator> move_out(Iterator first, Iterator last) {
  for (Iterator one = first; one != last; ++one) state_to_gather(*one);
  moved_from<Iterator> all;
  for (; first != last; ++first) all.push_back(std::move(*first));
  return all;
}

}  // namespace detail

// A future that is ready when all of these are; it holds them, in their order, each with its own value or exception. The
// futures given are empty afterwards; shared ones may be copied in. Of none: ready at once. Never holds an exception of its
// own. Throws std::future_error (no_state), and takes nothing, if one is empty; std::bad_alloc. Two allocations.
template <class... Futures, detail::if_futures<Futures...> = 0>
auto when_all(Futures&&... futures) -> future<std::tuple<std::decay_t<Futures>...>> {
  using sequence = std::tuple<std::decay_t<Futures>...>;
  (static_cast<void>(detail::state_to_gather(futures)), ...);
  return detail::gather<sequence>(sequence(std::forward<Futures>(futures)...));
}
template <class Future>
auto when_all(std::vector<Future>&& futures) -> future<std::vector<Future>> {
  return detail::gather<std::vector<Future>>(std::move(futures));
}
template <class Iterator, detail::if_iterator<Iterator> = 0>
auto when_all(Iterator first, Iterator last) -> future<detail::moved_from<Iterator>> {
  return concur::when_all(detail::move_out(first, last));
}

// A future that is ready when one of these is; it holds all of them, and says which one it was. The others go on, and can be
// waited for, and given to another when_any. Of none: ready at once, with index std::size_t(-1). Else as when_all.
template <class... Futures, detail::if_futures<Futures...> = 0>
auto when_any(Futures&&... futures) -> future<when_any_result<std::tuple<std::decay_t<Futures>...>>> {
  using sequence = std::tuple<std::decay_t<Futures>...>;
  (static_cast<void>(detail::state_to_gather(futures)), ...);
  return detail::gather<when_any_result<sequence>>(sequence(std::forward<Futures>(futures)...));
}
template <class Future>
auto when_any(std::vector<Future>&& futures) -> future<when_any_result<std::vector<Future>>> {
  return detail::gather<when_any_result<std::vector<Future>>>(std::move(futures));
}
template <class Iterator, detail::if_iterator<Iterator> = 0>
auto when_any(Iterator first, Iterator last) -> future<when_any_result<detail::moved_from<Iterator>>> {
  return concur::when_any(detail::move_out(first, last));
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE gathering::gathering(std::size_t count, bool wants_all)
    : notes_(count),
      wants_all_(wants_all),
      missing_(wants_all ? count + 1 : count == 0 ? 1 : 2),
      holders_(count + 1) {
  for (note& one : notes_) one.whole = this;
}

CONCUR_INLINE bool gathering::add(future_state& source) noexcept {
  // relaxed: a look; whoever wins later takes off what was attached in vain.
  if (!wants_all_ && winner_.load(std::memory_order_relaxed) != no_index) return false;
  note& one = notes_[added_++];
  one.source = &source;
  if (!source.attach(&one)) {
    due_list due;
    due.push(&one);
    run_due(due);
  }
  return true;
}

// The caller holds the result, which holds the memory.
CONCUR_INLINE void gathering::start(due_list& due) noexcept {
  if (const std::size_t never_attached = notes_.size() - added_) let_go(never_attached);
  count_down(due);
}

CONCUR_INLINE void gathering::come_due(continuation* due, due_list& more) noexcept {
  note* one = static_cast<note*>(due);
  gathering* self = one->whole;
  std::size_t none = no_index;
  const std::size_t index = static_cast<std::size_t>(one - self->notes_.data());
  // relaxed, both: counting down publishes it.
  if (self->winner_.compare_exchange_strong(none, index, std::memory_order_relaxed, std::memory_order_relaxed) ||
      self->wants_all_)
    self->count_down(more);
  self->let_go(1);
}

CONCUR_INLINE void gathering::count_down(due_list& more) noexcept {
  // acq_rel: publishes this one's result to who finishes, who sees all of them.
  if (missing_.fetch_sub(1, std::memory_order_acq_rel) != 1 && !CONCUR_MUTANT_IS(147)) return;
  std::size_t taken_off = 0;
  if (!wants_all_ && !CONCUR_MUTANT_IS(148)) {
    for (std::size_t i = 0; i < added_; ++i) {
      if (notes_[i].source->detach(&notes_[i]) || CONCUR_MUTANT_IS(297)) ++taken_off;
    }
  }
  finish_(this, winner_.load(std::memory_order_relaxed), more);  // relaxed: counting down published it
  if (taken_off != 0) let_go(taken_off);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
