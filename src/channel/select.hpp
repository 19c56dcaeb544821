// channel/select.hpp - waits for whichever of several things can happen first, and does exactly that one.
//
//     select(recv(requests, [&](std::optional<request> r) { ... }),
//            send(results, value, [&] { ... }),
//            after(1s, [&] { ... }));
//
// A select is one moment: with the locks of all its sites held it looks which cases could go, and takes one of them,
// each with the same chance. If none can it leaves a note at every site and parks once, under one claim, so that exactly
// one site can end the wait; then it takes the other notes away.
//
//   E1  Sites are locked in the order of their addresses, so that selects over the same channels cannot wait for each
//       other in a ring. Several cases of one site share its lock.
//   E2  While all locks are held nothing can become ready. What was ready may be gone by the time it is taken, because
//       somebody's wait was ended elsewhere; then the choice is made again among the rest. So `otherwise` runs only if
//       nothing was ready in that moment.
//   E3  All notes carry the same ticket. The claimer marks the one it claimed by (waiter.hpp, W5).
//   E4  Notes are put in only when no case can go: a select that sends to and receives from one channel cannot meet
//       itself.
//   E5  The notes are in the queues before the locks are dropped, and the locks are dropped after the switch, by way of a
//       chain in this frame (suspend.hpp, S6). The frame stays until they all are: the select takes each lock again to
//       remove its note, but that of the site that ended its wait, which can have been only after that lock was dropped.
//   E6  Who comes while the select waits takes the first of its notes in the queue. Where one channel stands in several
//       cases, that one is up to chance as well; select_ordered puts them in their order.
//
// After Go's selectgo, which goes back to Newsqueak and Hoare's guarded commands.
#ifndef CONCUR_CHANNEL_SELECT_HPP
#define CONCUR_CHANNEL_SELECT_HPP

#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "base/error.hpp"
#include "channel/select_case.hpp"
#include "channel/select_poll.hpp"
#include "runtime/forms.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

enum class select_order : unsigned char { random, first };

// The cases, and room for as many pointers.
struct select_list {
  select_case** cases;
  select_case** by_address;
  unsigned count;
  case_traits all;  // what the kinds of all cases come to
  int otherwise;    // the index of that case; -1: there is none
  select_order order;
  nanoseconds_t deadline_ns;  // of the whole; never
  bool may_park;              // false: as if there was an `otherwise`
  std::error_code* error;     // where a cancellation is told; null: it is thrown
};

// granted: `chosen` is the index of the case that went; its function has not run. timed_out: none could, and the deadline
// passed or it may not park. Or cancelled.
CONCUR_INLINE outcome run_select(const select_list& list, int& chosen);

// In either form: whether a case went. The checkpoint is run_select's own, which looks first whether it may park at all.
inline bool perform_select(const select_list& list, int& chosen) {
  const outcome result = run_select(list, chosen);
  return (list.error != nullptr ? or_tell(result, *list.error) : or_throw(result)) == outcome::granted;
}

// For who does not know them before.
inline void note_kinds(select_list& list) noexcept {
  for (unsigned i = 0; i < list.count; ++i) {
    const case_traits kind = list.cases[i]->kind;
    if (kind.is_otherwise) list.otherwise = static_cast<int>(i);
    list.all.prepares = list.all.prepares || kind.prepares;
    list.all.has_deadline = list.all.has_deadline || kind.has_deadline;
  }
}

template <class... Cases>
int select_now(select_order order, std::error_code* error, Cases&... cases) {
  static_assert((std::is_base_of<select_case, Cases>::value && ...), "select takes cases: recv(channel, f), send(...)");
  constexpr unsigned count = sizeof...(cases);
  constexpr case_traits all{false, (Cases::traits.prepares || ...), (Cases::traits.has_deadline || ...), false};
  int otherwise = -1;
  unsigned index = 0;
  ((Cases::traits.is_otherwise ? static_cast<void>(otherwise = static_cast<int>(index++)) : static_cast<void>(++index)),
   ...);
  select_case* list[count + 1] = {&cases..., nullptr};
  select_case* by_address[count + 1];
  int chosen = -1;
  if (!perform_select({list, by_address, count, all, otherwise, order, never, true, error}, chosen)) return -1;
  index = 0;
  ((static_cast<int>(index++) == chosen ? cases.run() : static_cast<void>(0)), ...);
  return chosen;
}

}  // namespace detail

// Parks until one of the cases can go, does it, runs its function, and returns its index; which one, if several could, is
// up to chance. Cases: recv(ch, f), send(ch, value, f), after(d, f), at(tp, f), ready(future, f), readable(fd, f),
// writable(fd, f), otherwise(f). With an `otherwise` it never parks. Without a case that can ever go it parks until it is
// cancelled. Throws `cancelled`, and then nothing was received or sent; channel_closed if the case that went is a send on
// a closed channel; what the function throws. The operands of a case are evaluated once; in which order is up to the
// compiler, as for all arguments (a selector with braces fixes it).
template <class... Cases>
int select(Cases&&... cases) {
  return detail::select_now(detail::select_order::random, nullptr, cases...);
}
// The same, but of several cases that can go it takes the first.
template <class... Cases>
int select_ordered(Cases&&... cases) {
  return detail::select_now(detail::select_order::first, nullptr, cases...);
}
// The same, but a cancellation is said in the code, and the index is -1 then. The code stands before the cases, and is set
// before the function of the one that went runs.
template <class... Cases>
int select(std::error_code& error, Cases&&... cases) {
  return detail::select_now(detail::select_order::random, &error, cases...);
}
template <class... Cases>
int select_ordered(std::error_code& error, Cases&&... cases) {
  return detail::select_now(detail::select_order::first, &error, cases...);
}

// Cases that belong to no channel. A duration counts from here.
template <class Rep, class Period, class F>
auto after(std::chrono::duration<Rep, Period> d, F&& f) {
  return detail::timed_case<std::decay_t<F>>(detail::deadline_after(d), std::decay_t<F>(std::forward<F>(f)));
}
template <class Clock, class Duration, class F>
auto at(const std::chrono::time_point<Clock, Duration>& tp, F&& f) {
  return detail::timed_case<std::decay_t<F>>(detail::deadline_at(tp), std::decay_t<F>(std::forward<F>(f)));
}
// Goes if no other case can now.
template <class F>
auto otherwise(F&& f) {
  return detail::otherwise_case<std::decay_t<F>>(std::decay_t<F>(std::forward<F>(f)));
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

inline bool is_below(const select_case* a, const select_case* b) noexcept {
#if defined(CONCUR_EXPLORE)
  if (driver* d = driver_or_null()) return d->rank(a->place) < d->rank(b->place);
#endif
  return reinterpret_cast<std::uintptr_t>(a->place) < reinterpret_cast<std::uintptr_t>(b->place);
}

// In place, for there is no memory to be asked for.
CONCUR_NOINLINE inline void heap_sort_sites(select_case** heap, unsigned count) noexcept {
  const auto sift = [&](unsigned root, unsigned end) {
    for (unsigned child = 2 * root + 1; child < end; child = 2 * root + 1) {
      if (child + 1 < end && is_below(heap[child], heap[child + 1])) ++child;
      if (!is_below(heap[root], heap[child])) return;
      std::swap(heap[root], heap[child]);
      root = child;
    }
  };
  for (unsigned root = count / 2; root-- > 0;) sift(root, count);
  for (unsigned end = count; end-- > 1;) {
    std::swap(heap[0], heap[end]);
    sift(0, end);
  }
}

// The steps of a select. Those that every select takes are inlined into it, which saves some 50 instructions each time; what
// they ask at each site is answered without a call (select_case.hpp), which saves 100 more and as many jumps to a table.

// The cases that have a site, sorted by its address.
CONCUR_FORCE_INLINE unsigned sort_sites(const select_list& list) noexcept {
  constexpr unsigned few = 8;
  select_case** const sorted = list.by_address;
  unsigned count = 0;
  for (unsigned i = 0; i < list.count; ++i) {
    select_case* const c = list.cases[i];
    if (c->place == nullptr) continue;
    unsigned at = count++;
    for (; list.count <= few && at != 0 && is_below(c, sorted[at - 1]); --at) sorted[at] = sorted[at - 1];
    sorted[at] = c;
  }
  if (list.count > few) heap_sort_sites(sorted, count);
  return count;
}

// The locks of all sites, for one moment (E1).
class held_sites {
 public:
  held_sites(worker* w, select_case** by_address, unsigned count) noexcept : served(w) {
    const void* before = nullptr;
    for (unsigned i = 0; i < count; ++i) {
      select_case& c = *by_address[i];
      if (c.place == before) {
        c.is_retired = by_address[i - 1]->is_retired;
        continue;
      }
      before = c.place;
      c.site.lock = c.lock_site(w);
      c.is_retired = c.site.lock == nullptr;
      if (c.is_retired) continue;
      c.site.next = chain_;
      chain_ = &c.site;
    }
  }
  ~held_sites() {
    if (is_kept_) return;
    unlock_chain(chain_);
    served.resume_it();
  }
  held_sites(const held_sites&) = delete;
  held_sites& operator=(const held_sites&) = delete;

  // The locks stay held, and are the caller's to hand on.
  lock_chain* keep() noexcept {
    is_kept_ = true;
    return chain_;
  }

  served_party served;

 private:
  lock_chain* chain_ = nullptr;
  bool is_kept_ = false;
};

struct answer {
  select_case* taken = nullptr;
  bool must_look_again = false;
};

inline unsigned pick(worker* w, unsigned count) noexcept {
  if (count == 1) return 0;
  if (w != nullptr) return seam_choose(w->random, choice::select_case, count);
  random_source own(thread_seed(&count));
  return seam_choose(own, choice::select_case, count);
}

// Under all locks: takes one of the cases that can go (E2).
CONCUR_FORCE_INLINE answer take_one(const select_list& list, worker* w, nanoseconds_t now, served_party& served) {
  unsigned candidates = 0;
  for (unsigned i = 0; i < list.count; ++i) {
    select_case& c = *list.cases[i];
    c.is_candidate = c.can_go(now);
    if (c.is_candidate) ++candidates;
    if (c.is_candidate && list.order == select_order::first) break;
  }
  while (candidates != 0) {
    unsigned skip = CONCUR_MUTANT_IS(162) ? 0 : pick(w, candidates);
    unsigned i = 0;
    while (!list.cases[i]->is_candidate || skip-- != 0) ++i;
    const attempt result = list.cases[i]->take(served);
    if (result == attempt::done) return {list.cases[i], false};
    if (result == attempt::again || list.order == select_order::first) return {nullptr, true};
    list.cases[i]->is_candidate = false;
    --candidates;
  }
  return {};
}

// Leaves a note at every site (E6).
CONCUR_FORCE_INLINE void enter_sites(const select_list& list, unsigned sites, party* who, worker* w) noexcept {
  if (list.order == select_order::random) {
    unsigned begin = 0;
    for (unsigned i = 1; i < sites; ++i) {
      if (list.by_address[i]->place != list.by_address[begin]->place) begin = i;
      if (begin != i && !CONCUR_MUTANT_IS(165))
        std::swap(list.by_address[i], list.by_address[begin + pick(w, i - begin + 1)]);
    }
  }
  const bool is_by_address = list.order == select_order::random;
  for (unsigned i = 0; i < (is_by_address ? sites : list.count); ++i) {
    select_case& c = is_by_address ? *list.by_address[i] : *list.cases[i];
    if (c.place == nullptr) continue;
    c.enter_queue(who);
  }
}

// The case by whose note the wait was ended. Marked before the resume; nobody else writes a mark of this wait.
CONCUR_FORCE_INLINE select_case* chosen_of(select_case* const* sites, unsigned count) noexcept {
  for (unsigned i = 0; i < count; ++i) {
    if (sites[i]->note.was_chosen()) return sites[i];
  }
  return nullptr;
}

// Takes the notes of the others away. The links of the chosen one may be those of a list of the claimed (ended_waits).
CONCUR_FORCE_INLINE void leave_sites(worker* w, select_case* const* sites, unsigned count,
                                     const select_case* chosen) noexcept {
  unsigned end = 0;
  for (unsigned begin = 0; begin < count; begin = end) {
    const void* const place = sites[begin]->place;
    for (end = begin + 1; end < count && sites[end]->place == place;) ++end;
    if (end == begin + 1 && sites[begin] == chosen) continue;
    if (CONCUR_MUTANT_IS(163)) continue;
    spin_lock* const held = sites[begin]->lock_site(w);
    if (held == nullptr) continue;
    for (unsigned i = begin; i < end; ++i) {
      if (sites[i] != chosen) sites[i]->leave_queue();
    }
    held->unlock();
  }
}

inline int index_of(const select_list& list, const select_case* c) noexcept {
  int i = 0;
  while (list.cases[i] != c) ++i;
  return i;
}

// Under all locks: when a wait must end at the latest.
inline nanoseconds_t soonest_deadline(const select_list& list) noexcept {
  nanoseconds_t soonest_ns = list.deadline_ns;
  if (CONCUR_LIKELY(!list.all.has_deadline)) return soonest_ns;
  for (unsigned i = 0; i < list.count; ++i) {
    const nanoseconds_t own_ns = list.cases[i]->deadline_ns();
    if (own_ns < soonest_ns) soonest_ns = own_ns;
  }
  return soonest_ns;
}

CONCUR_INLINE outcome run_select(const select_list& list, int& chosen_index) {
  const int otherwise = list.otherwise;
  const bool may_park = list.may_park && otherwise < 0;
  worker* w = nullptr;
  if (!may_park)
    w = this_worker();
  else if (list.error == nullptr)
    w = checkpoint();
  else if (!checkpoint_quietly(w))
    return outcome::cancelled;
  for (;; w = this_worker()) {
    std::optional<poll_room> in_poll;
    if (CONCUR_UNLIKELY(list.all.prepares)) {
      for (unsigned i = 0; i < list.count; ++i) list.cases[i]->prepare();
      if (w == nullptr && may_park) in_poll.emplace(list.cases, list.count);
    }
    const unsigned sites = sort_sites(list);  // a case may have found its site only now
    caller me(w);
    nanoseconds_t deadline_ns = never;
    lock_chain* locks = nullptr;
    {
      held_sites held(w, list.by_address, sites);
      deadline_ns = soonest_deadline(list);
      const nanoseconds_t now = deadline_ns != never ? now_ns() : long_ago;
      const answer found = take_one(list, w, now, held.served);
      if (found.taken != nullptr) {
        chosen_index = index_of(list, found.taken);
        return outcome::granted;
      }
      if (found.must_look_again) continue;
      chosen_index = otherwise;
      if (!may_park) return otherwise < 0 ? outcome::timed_out : outcome::granted;
      if (list.deadline_ns <= now) return outcome::timed_out;
      enter_sites(list, sites, me.who(), w);
      locks = held.keep();
    }
    const outcome result =
        in_poll ? in_poll->park(me.thread(), locks, deadline_ns) : me.park_at_all(locks, deadline_ns);
    select_case* const chosen = chosen_of(list.by_address, sites);
    leave_sites(me.at(), list.by_address, sites, chosen);
    if (result == outcome::cancelled) return result;
    if (chosen != nullptr && result != outcome::retry && (!chosen->kind.hears_end || chosen->end(result))) {
      chosen_index = index_of(list, chosen);
      return outcome::granted;
    }
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
