// runtime/reactor.hpp - fibers that wait for descriptors, and the memory that keeps old news from new owners.
//
// Blocking calls try the system call first; when it says "not now", the fiber waits here. Each descriptor number has
// a slot, made on first use and kept for ever, with two sides, reading and writing. The poller reports when a side
// becomes ready, once; the slot counts the news, and a call remembers how much there was before it was made.
//
//     news, nobody waits           counted
//     news, somebody waits         counted; the first one is woken and has the turn
//     "not now", news since        the system call is made again: the news may have come after it
//     "not now", no news since     the caller waits: behind the others, or before them if it had the turn
//
// A flag that the next caller takes back would not do: two that were told "not now" before a burst of connections come here
// after it, and the first would take the flag, and one connection; the second would wait with the others there.
//
//   G1  One registration per descriptor and runtime, made when a fiber first has to wait, removed before the
//       descriptor is closed.
//   G2  `generation` names one use of a number. News carries the generation it was registered with; news of another
//       is dropped. A call carries the one it began with, and ends as closed when it finds another: before it waits, and
//       when it was woken, since the number may have changed hands before it runs. No call begins while the kernel
//       closes the number, which still works then: it would wait for news that never comes. And the kernel closes it only
//       when no call that was woken is on its way to it: it would come to the next owner. (A call's first try is the
//       affair of its program, as it is among threads.)
//   G3  Waiters of one side go one at a time, in order: the one that was woken has the turn until its call is
//       through, and then passes it on (leave_turn). Who comes meanwhile queues behind. So a burst of connections
//       wakes one acceptor after another, and nobody is overtaken.
//   G4  Closing wakes every waiter of both sides with `closed` before the number can be used again.
//   G5  What a wake-up announced is taken as read by the one it wakes. And a stream that gave less than was asked for
//       is empty until there is news, unless its end was announced, which is not announced twice. Both save a system
//       call that could only say "not now".
//
// The slots belong to the process, as descriptors do. A descriptor that fibers of two runtimes wait for is registered
// with the first; waiters know themselves where they resume.
#ifndef CONCUR_RUNTIME_REACTOR_HPP
#define CONCUR_RUNTIME_REACTOR_HPP

#include <utility>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"
#include "runtime/descriptor_slot.hpp"
#include "runtime/scheduler.hpp"
#include "runtime/serve.hpp"
#include "runtime/suspend.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// Waits until `fd` may be ready, after a system call said that it is not. `granted`: try again, and call leave_turn
// when through, if it says has_turn. error: errno when the descriptor cannot be waited for (EPERM: always ready, EBADF,
// ENOMEM), and then no wait took place. Only on a fiber.
CONCUR_INLINE outcome wait_ready(descriptor_slot& slot, int fd, direction d, nanoseconds_t deadline_ns, side_use& use,
                                 int& error) noexcept;
// Waits until those that came before are through; like wait_ready otherwise.
CONCUR_INLINE outcome wait_turn(descriptor_slot& slot, direction d, nanoseconds_t deadline_ns, side_use& use) noexcept;
CONCUR_INLINE void leave_turn(descriptor_slot& slot, direction d, side_use& use) noexcept;

// The number was just given out by the kernel: whatever the slot remembers is of a former owner.
CONCUR_INLINE void adopt_descriptor(int fd, descriptor_kind kind) noexcept;
// The number is about to be closed, or is no longer ours to watch (G4).
CONCUR_INLINE void forget_descriptor(int fd) noexcept;
// Around the system call that closes it. What the first returns goes to the second.
CONCUR_INLINE std::uint32_t begin_close(int fd) noexcept;
CONCUR_INLINE void end_close(int fd, std::uint32_t generation) noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <cerrno>

CONCUR_NAMESPACE_BEGIN
namespace detail {

inline void note_busy(descriptor_side& side) noexcept {
  // relaxed: who looks without the lock takes it afterwards, or does no more than try its system call a little early.
  side.is_busy.store(side.has_turn || !side.waiting.is_empty(), std::memory_order_relaxed);
}

// The first that waits and can be claimed, by who runs on w; null: there is none. Most are alone with the site (serve.hpp),
// which saves an atomic for each wait.
inline party* claim_first(descriptor_side& side, const worker* w) noexcept {
  while (waiter* const note = side.waiting.pop_front()) {
    party* const who = note->who;
    const bool is_near = note->is_sole && w != nullptr && static_cast<fiber*>(who)->owner == w->sched;
    if (CONCUR_LIKELY(is_near ? claim_sole(*static_cast<fiber*>(who), note->ticket) : note->claim())) return who;
  }
  return nullptr;
}

// Under the slot's lock: gives the turn to the first waiter that is still to be had. Returns it, to be resumed
// without the lock.
CONCUR_NOINLINE inline party* pass_turn(descriptor_side& side) noexcept {
  party* const chosen = claim_first(side, this_worker());
  if (chosen != nullptr) chosen->result = outcome::granted;
  side.has_turn = chosen != nullptr;
  note_busy(side);
  return chosen;
}

// Under the slot's lock.
inline void note_news(descriptor_side& side) noexcept {
  const std::uint32_t news = side.news.load(std::memory_order_relaxed);  // relaxed: the lock is held
  side.news.store(news + 2, std::memory_order_release);  // release: publishes has_ended to readers that see the news
}

inline void resume_if(party* who) noexcept {
  if (who != nullptr) resume(who);
}

// Under the slot's lock: who is to be resumed for it.
CONCUR_FORCE_INLINE party* bring_news(descriptor_side& side) noexcept {
  note_news(side);
  return side.has_turn || side.waiting.is_empty() ? nullptr : pass_turn(side);
}

CONCUR_INLINE void dispatch_event(const poll_event& event) noexcept {
  descriptor_slot* slot = slot_of(static_cast<int>(event.slot));
  if (slot == nullptr) return;
  party* reader = nullptr;
  party* writer = nullptr;
  {
    lock_scope<spin_lock> held(slot->lock);
    if (slot->present_generation() != event.generation && !CONCUR_MUTANT_IS(9)) return;  // G2
    // relaxed: published with the news.
    if ((event.ready & bit(readiness::ended)) != 0) slot->has_ended.store(true, std::memory_order_relaxed);
    if ((event.ready & (bit(readiness::readable) | bit(readiness::failed))) != 0)
      reader = bring_news(slot->side(direction::reading));
    if ((event.ready & (bit(readiness::writable) | bit(readiness::failed))) != 0)
      writer = bring_news(slot->side(direction::writing));
  }
  resume_if(reader);
  resume_if(writer);
}

// Under the slot's lock. 0, or errno.
inline int watch_descriptor(descriptor_slot& slot, int fd, scheduler& s) noexcept {
  if (slot.watched_by != nullptr) return 0;
  if (const int error = s.open_watcher()) return error;
  const int error = s.watcher.add(fd, static_cast<std::uint32_t>(fd), slot.present_generation());
  if (error != 0) return error;
  slot.watched_by = &s;
  s.watched_count.fetch_add(1, std::memory_order_relaxed);  // relaxed: a hint for upkeep
  return 0;
}

// Under the slot's lock, with nobody waiting.
inline void unwatch_descriptor(descriptor_slot& slot, int fd, bool is_in_poller) noexcept {
  scheduler* s = slot.watched_by;
  if (s == nullptr) return;
  if (is_in_poller) s->watcher.remove(fd, static_cast<std::uint32_t>(fd));
  s->watched_count.fetch_sub(1, std::memory_order_relaxed);  // relaxed: a hint for upkeep
  slot.watched_by = nullptr;
}

// Under the lock: the number is looked at, and the system call comes, or has been made.
inline void begin_call(descriptor_side& side, side_use& use) noexcept {
  if (!std::exchange(use.is_calling, true)) ++side.calls;
}
inline void end_call(descriptor_side& side, side_use& use) noexcept {
  if (std::exchange(use.is_calling, false)) --side.calls;
}

// The common part of waiting: the lock is held, and park drops it. Afterwards the note is in no queue.
inline outcome wait_on_side(descriptor_slot& slot, direction d, nanoseconds_t deadline_ns, bool is_first,
                            side_use& use) noexcept {
  descriptor_side& side = slot.side(d);
  worker* w = this_worker();
  waiter note(w->current, nullptr, deadline_ns == never || CONCUR_MUTANT_IS(432));
  if (is_first)
    side.waiting.push_front(&note);
  else
    side.waiting.push_back(&note);
  note_busy(side);
  const outcome result =
      park_fiber(w, &slot.lock, deadline_ns, d == direction::reading ? wait_reason::readable : wait_reason::writable);
  if (result == outcome::closed) return result;
  lock_scope<spin_lock> held(slot.lock);
  if (CONCUR_LIKELY(result == outcome::granted)) {
    if (slot.is_outdated(use) && !CONCUR_MUTANT_IS(241)) return outcome::closed;
    use.has_turn = true;
    begin_call(side, use);
  } else {
    if (intrusive_list<waiter>::is_linked(&note)) side.waiting.erase(&note);
    note_busy(side);
  }
  return result;
}

CONCUR_INLINE outcome wait_ready(descriptor_slot& slot, int fd, direction d, nanoseconds_t deadline_ns, side_use& use,
                                 int& error) noexcept {
  error = 0;
  slot.lock.lock();
  descriptor_side& side = slot.side(d);
  if (slot.is_outdated(use) && !CONCUR_MUTANT_IS(242)) {
    slot.lock.unlock();
    return outcome::closed;
  }
  // Who has the turn passes it on, so that those behind try again then (G3).
  const bool is_next = use.has_turn || (!side.has_turn && side.waiting.is_empty());
  if (side.present_news() != use.news && is_next && !CONCUR_MUTANT_IS(245)) {
    begin_call(side, use);
    slot.lock.unlock();
    return outcome::granted;
  }
  scheduler* own = this_worker()->sched;
  error = watch_descriptor(slot, fd, *own);
  if (error != 0) {  // a turn stays, and is passed on
    if (CONCUR_MUTANT_IS(244)) use.has_turn = false;
    slot.lock.unlock();
    return outcome::granted;
  }
  const bool had_turn = std::exchange(use.has_turn, false);
  if (had_turn) side.has_turn = false;
  end_call(side, use);
  slot.watched_by->watcher.arm(fd, static_cast<std::uint32_t>(fd), d == direction::reading, d == direction::writing);
  return wait_on_side(slot, d, deadline_ns, had_turn, use);
}

CONCUR_INLINE outcome wait_turn(descriptor_slot& slot, direction d, nanoseconds_t deadline_ns, side_use& use) noexcept {
  slot.lock.lock();
  if (slot.is_outdated(use)) {
    slot.lock.unlock();
    return outcome::closed;
  }
  descriptor_side& side = slot.side(d);
  if (!side.has_turn && side.waiting.is_empty()) {
    slot.lock.unlock();
    return outcome::granted;
  }
  return wait_on_side(slot, d, deadline_ns, false, use);
}

CONCUR_INLINE void leave_turn(descriptor_slot& slot, direction d, side_use& use) noexcept {
  party* next = nullptr;
  {
    lock_scope<spin_lock> held(slot.lock);
    descriptor_side& side = slot.side(d);
    end_call(side, use);
    if (!use.has_turn || slot.is_outdated(use)) return;  // the turns of another use of the number
    if (CONCUR_LIKELY(side.waiting.is_empty())) {
      side.has_turn = false;
      note_busy(side);
      return;
    }
    next = pass_turn(side);
  }
  resume_if(next);
}

// Wakes everybody with `closed` and begins a new generation, which is returned.
inline std::uint32_t retire_slot(descriptor_slot& slot, int fd, descriptor_kind kind, bool is_in_poller,
                                 bool is_closing) noexcept {
  ended_waits woken;
  std::uint32_t next = 0;
  {
    lock_scope<spin_lock> held(slot.lock);
    unwatch_descriptor(slot, fd, is_in_poller);
    next = (slot.present_generation() | 1) + (is_closing ? 1 : 2);
    slot.generation.store(next, std::memory_order_release);  // release: comes after the last use of the number
    slot.has_ended.store(false, std::memory_order_relaxed);  // relaxed: the owner of the number orders its uses
    slot.kind.store(kind, std::memory_order_relaxed);        // relaxed: as above
    for (descriptor_side& side : slot.sides) {
      note_news(side);
      side.has_turn = false;
      woken.take_all(side.waiting, outcome::closed);
      note_busy(side);
    }
  }
  woken.resume_all();
  return next;
}

CONCUR_INLINE void adopt_descriptor(int fd, descriptor_kind kind) noexcept {
  descriptor_slot* slot = slot_of(fd);
  if (slot != nullptr) retire_slot(*slot, fd, kind, false, false);
}

CONCUR_INLINE void forget_descriptor(int fd) noexcept {
  descriptor_slot* slot = slot_of(fd);
  if (slot != nullptr) retire_slot(*slot, fd, descriptor_kind::unknown, true, false);
}

CONCUR_INLINE std::uint32_t begin_close(int fd) noexcept {
  descriptor_slot* slot = slot_of(fd);
  if (slot == nullptr) return 0;
  const std::uint32_t generation = retire_slot(*slot, fd, descriptor_kind::unknown, true, true);
  const auto is_called = [slot]() noexcept {
    lock_scope<spin_lock> held(slot->lock);
    return slot->sides[0].calls + slot->sides[1].calls != 0;
  };
  for (unsigned round = 0; is_called() && !CONCUR_MUTANT_IS(247);) spin_wait(round);
  return generation;
}

CONCUR_INLINE void end_close(int fd, std::uint32_t generation) noexcept {
  if (generation == 0) return;
  descriptor_slot& slot = *slot_of(fd);
  lock_scope<spin_lock> held(slot.lock);
  // Else the kernel has given the number out meanwhile, and its owner has begun a generation.
  if (slot.present_generation() == generation)
    slot.generation.store(generation + 1, std::memory_order_release);  // release: as in retire_slot
}

// Waiters of other runtimes are woken: they find "not now" again, and register with their own.
inline void forget_watch(descriptor_slot& slot, int fd, scheduler& s) noexcept {
  party* chosen[2] = {nullptr, nullptr};
  {
    lock_scope<spin_lock> held(slot.lock);
    if (slot.watched_by != &s) return;
    unwatch_descriptor(slot, fd, true);
    for (unsigned i = 0; i < 2; ++i) chosen[i] = pass_turn(slot.sides[i]);
  }
  resume_if(chosen[0]);
  resume_if(chosen[1]);
}

CONCUR_INLINE void forget_scheduler(scheduler& s) noexcept {
  for (unsigned block = 0; block < slot_blocks; ++block) {
    descriptor_slot* first = slot_table[block].load(std::memory_order_acquire);  // acquire: pairs with grow_slots
    if (first == nullptr) continue;
    for (std::uint32_t i = 0; i < (64u << block); ++i)
      forget_watch(first[i], static_cast<int>((64u << block) + i - 64), s);
  }
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
