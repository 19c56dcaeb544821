// runtime/waiter.hpp - who waits, and the one claim by which a wait ends.
//
// A channel, a lock, a timer, a socket and a cancellation may all want to end the same wait, at the same time, from
// different threads. Exactly one may. And who waits may be a fiber or a plain thread (or, later, a coroutine):
// whoever ends the wait must not care. Two small things answer both needs:
//
//     party    who waits: a fiber, or a thread inside a blocking call. Holds the wait word and what ended the wait.
//     waiter   one note "this party waits here", linked into one site's queue. A select leaves several with one party.
//
// The wait word counts waits: even values mean "not waiting", odd ones "in wait number word/2".
//
//     value    meaning                    next     written by
//     2n       runs, or is ready to       2n+1     the party, in its commit, as it stops     (park)
//     2n+1     waits                      2n+2     the one that ends the wait                (claim)
//
//   W1  A wait ends by exactly one successful claim: a compare-exchange from 2n+1 to 2n+2. Who fails has nothing to
//       do with this wait any more. (Where a site has one rival only, it needs no exchange: serve.hpp.)
//   W2  The claimer writes `result`, reads what it needs from the note, then resumes the party, and touches neither
//       party nor note afterwards: both may be gone. A fiber's own block stays readable (its pool never unmaps while
//       in use); a thread's not.
//   W3  A site's queue is guarded by the site's lock. The claimer that found the note in a queue unlinks it under
//       that lock. A party ended by anybody else unlinks its own notes, under that lock, before it leaves the wait.
//   W4  Values move under the site's lock, by the claimer, after the claim: who timed out has lost nothing, because
//       nothing was given.
#ifndef CONCUR_RUNTIME_WAITER_HPP
#define CONCUR_RUNTIME_WAITER_HPP

#include "atomic/backoff.hpp"
#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What ended a wait. Written by the claimer before it resumes the party.
enum class outcome : unsigned char {
  granted,    // what was waited for happened; a value or a lock, if any, was handed over
  closed,     // the site was closed
  retry,      // what was offered went back; the party looks again
  timed_out,  // the deadline passed
  cancelled,  // the scope was cancelled
};

// Why a party waits; what dumps print.
enum class wait_reason : unsigned char {
  none,
  sleep,
  channel_send,
  channel_recv,
  select,
  mutex_lock,
  shared_lock,
  condition_wait,
  semaphore_acquire,
  latch_wait,
  barrier_wait,
  event_wait,
  once_wait,
  pool_acquire,
  wait_group_wait,
  future_get,
  nursery_join,
  nursery_room,
  parallel_join,
  readable,
  writable,
};
CONCUR_INLINE const char* to_string(wait_reason reason) noexcept;

enum class party_kind : unsigned char { fiber, thread };

struct party {
  explicit party(party_kind kind_in) noexcept : kind(kind_in) {}

  atomic<std::uint32_t> word{0};
  outcome result = outcome::granted;
  party_kind kind;

  // The value that the word has during the next wait. Only for the party itself, while it runs.
  std::uint32_t next_ticket() const noexcept {
    return word.load(std::memory_order_relaxed) + 1;  // relaxed: only this party changes it while it is even
  }
};

// W1. True for exactly one caller per wait.
inline bool claim(party& who, std::uint32_t ticket) noexcept {
  std::uint32_t expected = ticket;
  if (CONCUR_MUTANT_IS(2)) {  // two may win, because looking and taking are two steps
    if (who.word.load(std::memory_order_acquire) != ticket) return false;  // acquire: mutant
    who.word.store(ticket + 1, std::memory_order_release);                 // release: mutant
    return (expected & 1) != 0;
  }
  // acq_rel: sees what the party did before it waited, and publishes the claimer's writes to whoever loses and looks
  // again. relaxed on failure: the loser reads nothing of the party's.
  return who.word.compare_exchange_strong(expected, ticket + 1, std::memory_order_acq_rel, std::memory_order_relaxed);
}

struct waiter {
  waiter() noexcept = default;
  explicit waiter(party* who_in, void* value_in, bool is_sole_in = false) noexcept
      : who(who_in), value(value_in), ticket(who_in->next_ticket()), is_sole(is_sole_in) {}
  waiter(const waiter&) = delete;
  waiter& operator=(const waiter&) = delete;

  // For a note that is used for one wait after another.
  void begin(party* who_in) noexcept {
    who = who_in;
    ticket = who_in->next_ticket();
  }

  // W1, W5.
  bool claim() noexcept {
    if (!detail::claim(*who, ticket)) return false;
    ticket = chosen;
    return true;
  }
  // Whether a claim would succeed now. Somebody else may still win it before.
  bool is_claimable() const noexcept {
    return who->word.load(std::memory_order_relaxed) == ticket;  // relaxed: the claim decides
  }
  bool was_chosen() const noexcept { return ticket == chosen; }

  waiter* next = nullptr;  // the site's queue
  waiter* prev = nullptr;
  party* who = nullptr;
  void* value = nullptr;  // where a value comes from or goes to; its type is known to the site
  std::uint32_t ticket = 0;
  bool is_sole = false;  // a fiber's only note, and no deadline: but for a cancellation nobody else ends this wait

 private:
  static constexpr std::uint32_t chosen = 0;  // even: never the ticket of a wait
};

// Makes a claimed party go on. Defined by the scheduler; W2 holds from here.
CONCUR_INLINE void resume(party* who) noexcept;
CONCUR_INLINE void resume_thread(party* who) noexcept;  // the half of it for plain threads (caller.hpp)

// Claims the party and ends its wait with `result`: both steps, for who has no value to hand over.
inline bool end_wait(party& who, std::uint32_t ticket, outcome result) noexcept {
  if (!claim(who, ticket)) return false;
  who.result = result;
  resume(&who);
  return true;
}

// The first waiter of a site's queue whose wait nobody else has ended: unlinked and claimed. Under the site's lock.
inline waiter* pop_claimed(intrusive_list<waiter>& queue) noexcept {
  while (waiter* note = queue.pop_front()) {
    if (CONCUR_LIKELY(note->claim())) return note;
  }
  return nullptr;
}

// Whether somebody in the queue can be claimed: who cannot, because its wait was ended elsewhere, is unlinked on the way.
// Under the site's lock.
inline bool has_claimable(intrusive_list<waiter>& queue) noexcept {
  while (waiter* note = queue.front()) {
    if (CONCUR_LIKELY(note->is_claimable())) return true;
    queue.erase(note);
  }
  return false;
}

// Parties whose waits a site ended all at once: claimed under its lock, resumed without it, in the order of their queue.
// The chain runs through the notes, which stay as long as their parties are not resumed (W2). So a note that was chosen may
// look linked.
class ended_waits {
 public:
  ended_waits() noexcept = default;
  ended_waits(const ended_waits&) = delete;
  ended_waits& operator=(const ended_waits&) = delete;

  // Ends the wait of a note that has just been taken off its queue and claimed. Under the site's lock.
  void add(waiter* note, outcome result) noexcept {
    note->who->result = result;
    *end_ = note;
    end_ = &note->next;
  }
  // Ends every wait in the queue, and returns how many there were. Under the site's lock.
  std::ptrdiff_t take_all(intrusive_list<waiter>& queue, outcome result) noexcept {
    std::ptrdiff_t count = 0;
    while (waiter* note = pop_claimed(queue)) {
      add(note, result);
      ++count;
    }
    return count;
  }
  void resume_all() noexcept {
    while (first_ != nullptr) {
      party* who = first_->who;
      waiter* const here = first_;
      first_ = first_->next;  // read before the resume (W2)
      resume(who);
      if (CONCUR_MUTANT_IS(285)) {
        for (unsigned round = 0; round < 3;) spin_wait(round);
        first_ = here->next;
      }
    }
  }

 private:
  waiter* first_ = nullptr;
  waiter** end_ = &first_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES
CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE const char* to_string(wait_reason reason) noexcept {
  switch (reason) {
    case wait_reason::none:
      return "nothing";
    case wait_reason::sleep:
      return "sleep";
    case wait_reason::channel_send:
      return "channel send";
    case wait_reason::channel_recv:
      return "channel receive";
    case wait_reason::select:
      return "select";
    case wait_reason::mutex_lock:
      return "mutex lock";
    case wait_reason::shared_lock:
      return "shared_mutex lock_shared";
    case wait_reason::condition_wait:
      return "condition_variable wait";
    case wait_reason::semaphore_acquire:
      return "semaphore acquire";
    case wait_reason::latch_wait:
      return "latch wait";
    case wait_reason::barrier_wait:
      return "barrier wait";
    case wait_reason::event_wait:
      return "event wait";
    case wait_reason::once_wait:
      return "call_once";
    case wait_reason::pool_acquire:
      return "resource_pool acquire";
    case wait_reason::wait_group_wait:
      return "wait_group wait";
    case wait_reason::future_get:
      return "future";
    case wait_reason::nursery_join:
      return "end of a nursery";
    case wait_reason::nursery_room:
      return "room in a nursery";
    case wait_reason::parallel_join:
      return "part of a parallel_invoke";
    case wait_reason::readable:
      return "readable descriptor";
    case wait_reason::writable:
      return "writable descriptor";
  }
  return "unknown";
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
