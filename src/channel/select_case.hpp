// channel/select_case.hpp - one case of a select, as the select sees it.
//
// A select waits at several sites at once: channels, futures, descriptors. Each has a lock and a queue of waiters; what
// else it is, the select does not know. A case answers four questions, all under its site's lock: could you go now, go
// (unless somebody else was faster), wait in your queue, leave it.
//
//   X1  A case moves a value, or takes one, in take(), or by the hand of whoever claimed its note; never otherwise. So
//       the operands of a case that loses are untouched.
//   X2  A case is for one select at a time, and lives on the stack of who selects, or in a selector.
#ifndef CONCUR_CHANNEL_SELECT_CASE_HPP
#define CONCUR_CHANNEL_SELECT_CASE_HPP

#include "atomic/retirable_lock.hpp"
#include "base/config.hpp"
#include "base/time.hpp"
#include "channel/channel_core.hpp"
#include "runtime/caller.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What there is to ask a case of its kind; most are asked nothing of it. A select whose cases the compiler knows asks it.
struct case_traits {
  bool is_otherwise = false;
  bool prepares = false;      // prepare() does something
  bool has_deadline = false;  // deadline_ns() is not always never
  bool hears_end = false;     // end() does something
};

class select_case {
 public:
  explicit select_case(case_traits kind_in = {}) noexcept : kind(kind_in) {}
  select_case& operator=(const select_case&) = delete;
  virtual ~select_case() = default;

  // Before each round, without any lock. What it finds must be looked at again under the lock.
  virtual void prepare() {}
  // Whether it could go now. `now` is the time, if the case has a deadline. Not asked where there is a `state`.
  virtual bool is_ready(nanoseconds_t now) noexcept = 0;
  // Goes. done; or blocked: somebody was faster; or again. `served` is to be resumed when the locks are dropped.
  virtual attempt take(served_party& served) = 0;
  // Puts the note, which has its party, into the queue; and takes it out, if it is there still. Not asked where there is a
  // `queue`.
  virtual void enter() noexcept {}
  virtual void leave() noexcept {}
  // Somebody claimed the note, with this outcome: granted or closed. Without any lock. False: it was for nothing, and the
  // select begins again.
  virtual bool end(outcome) { return true; }
  // The user's function, with what was received.
  virtual void run() = 0;
  // After it went: it is not to go again.
  virtual bool is_spent() const noexcept { return false; }
  // The case outlives the expression that made it: it takes what it refers to.
  virtual void own() {}

  // When it may become ready by itself.
  virtual nanoseconds_t deadline_ns() const noexcept { return never; }

  // The lock of its site, of one kind or the other; none for a case that waits at no site, or is never ready.
  void set_site_lock(retirable_lock* lock) noexcept {
    place = retirable = lock;
  }
  void set_site_lock(channel_lock& lock) noexcept { place = channel = &lock; }
  // The three questions that a select asks at each site, answered here for channels: a call through a table costs as much as
  // the answer.
  CONCUR_FORCE_INLINE bool can_go(nanoseconds_t now) noexcept {
    if (CONCUR_UNLIKELY(state == nullptr)) return is_ready(now);
    return is_sending ? state->can_send() : state->can_receive();
  }
  CONCUR_FORCE_INLINE void enter_queue(party* who) noexcept {
    note.begin(who);
    if (CONCUR_UNLIKELY(queue == nullptr)) return enter();
    queue->push_back(&note);
  }
  CONCUR_FORCE_INLINE void leave_queue() noexcept {
    if (CONCUR_UNLIKELY(queue == nullptr)) return leave();
    if (intrusive_list<waiter>::is_linked(&note)) queue->erase(&note);
  }

  // Takes it. Null: it was retired.
  CONCUR_FORCE_INLINE spin_lock* lock_site(worker* w) noexcept {
    if (CONCUR_LIKELY(channel != nullptr)) return &channel->lock(w);
    return retirable->lock_unless_retired() == 0 ? retirable : nullptr;
  }

  const void* place = nullptr;  // the site's lock, by which sites are told apart; null: no site
  channel_lock* channel = nullptr;
  retirable_lock* retirable = nullptr;
  channel_state* state = nullptr;
  intrusive_list<waiter>* queue = nullptr;
  lock_chain site;          // while it is held
  waiter note;              // while the select waits
  bool is_retired = false;  // the lock can no longer be had: what it guarded has happened
  bool is_candidate = false;
  bool is_sending = false;  // what is done to `state`
  case_traits kind;
  int descriptor = -1;  // what a plain thread has to watch, for a case without a site
  bool is_for_writing = false;

 protected:
  // A copy is a case that waits nowhere.
  select_case(const select_case& other) noexcept
      : kind(other.kind), descriptor(other.descriptor), is_for_writing(other.is_for_writing) {
    place = other.place;
    channel = other.channel;
    retirable = other.retirable;
    state = other.state;
    queue = other.queue;
    is_sending = other.is_sending;
  }
};

// A case without a site, that is ready from some moment on.
template <class F>
class timed_case final : public select_case {
 public:
  static constexpr case_traits traits{false, false, true, false};

  timed_case(nanoseconds_t deadline, F&& handler)
      : select_case(traits), deadline_ns_(deadline), handler_(std::move(handler)) {}

  bool is_ready(nanoseconds_t now) noexcept override { return deadline_ns_ <= now; }
  attempt take(served_party&) override { return attempt::done; }
  void run() override { handler_(); }
  bool is_spent() const noexcept override { return true; }
  nanoseconds_t deadline_ns() const noexcept override { return deadline_ns_; }

 private:
  nanoseconds_t deadline_ns_;
  F handler_;
};

template <class F>
class otherwise_case final : public select_case {
 public:
  static constexpr case_traits traits{true, false, false, false};

  explicit otherwise_case(F&& handler) : select_case(traits), handler_(std::move(handler)) {}

  bool is_ready(nanoseconds_t) noexcept override { return false; }
  attempt take(served_party&) override { return attempt::done; }
  void run() override { handler_(); }

 private:
  F handler_;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
