// structure/nursery_core.hpp - the part of a nursery that does not depend on what its children do.
//
// A nursery is a scope (cancel_scope.hpp) below which fibers live, the number of them, and what went wrong. It begins with
// its block and ends with it, and never before its last child:
//
//     stage     children        next
//     open      come and go     ended, when the host found none left in wait_for_children
//     ended     none, ever      -
//
//   Y1  running_ counts the children that have not ended and the places that were promised to who waits for room; it and the
//       list of members change under the gate's lock. It is the ending child's last touch: whoever finds it 0 under the lock
//       may let the nursery go.
//   Y2  The host waits for its children deaf to cancellation: the cancellation reaches the children, and it is their end that
//       wakes the host.
//   Y3  A child's failure is written down, and the siblings are cancelled, before the child leaves.
//   Y4  With a limit, a place that becomes free goes to who has waited for one the longest. Who is cancelled while it waits
//       takes none: the place is promised by the claim.
#ifndef CONCUR_STRUCTURE_NURSERY_CORE_HPP
#define CONCUR_STRUCTURE_NURSERY_CORE_HPP

#include <exception>
#include <system_error>
#include <utility>
#include <vector>

#include "base/config.hpp"
#include "base/error.hpp"
#include "runtime/cancel.hpp"
#include "structure/cancel_scope.hpp"
#include "structure/spawn.hpp"

CONCUR_NAMESPACE_BEGIN

// What becomes of its siblings when a child fails.
enum class on_failure : unsigned char {
  cancel_siblings,  // they are not wanted any more
  keep_going,       // they go on; the failure is told when all have ended
};

namespace detail {

// How a child ended that did not do what it was for: by an exception, or by the std::error_code that it returned.
struct failure {
  std::exception_ptr error;
  std::error_code code;

  explicit operator bool() const noexcept { return error != nullptr || code; }
  void set_code(std::error_code returned) noexcept;
};

// Calls make(), and says how that failed. What was only cancelled did not.
template <class F>
failure failure_of(F&& make) noexcept {
  failure result;
  const auto call = [&] {
    using R = std::decay_t<std::invoke_result_t<F>>;
    if constexpr (std::is_same<R, std::error_code>::value)
      result.set_code(make());
    else
      static_cast<void>(make());
  };
#if CONCUR_EXCEPTIONS
  try {
    call();
  } catch (const cancelled&) {
  } catch (...) {
    result.error = std::current_exception();
  }
#else
  call();
#endif
  return result;
}

class nursery_core : public nursery_part {
 public:
  // Entered by the calling fiber. Throws std::logic_error outside of one.
  nursery_core(on_failure policy, const char* what);
  // Cancels and waits, unless ended. Failures that nobody was told of go to the runtime.
  ~nursery_core();
  nursery_core(const nursery_core&) = delete;
  nursery_core& operator=(const nursery_core&) = delete;

  // --- children ---

  // A block for a child; null when memory is exhausted.
  fiber* new_child() noexcept { return home_->new_fiber(own_worker()); }
  // Makes the prepared fiber a member and launches it; parks while there are as many as the limit. False: the caller was
  // cancelled, before or while it waited. Throws std::logic_error when the nursery has ended.
  bool admit(member& child, fiber* f);
  // A child's last step: the nursery may be gone afterwards.
  void dismiss(member& child) noexcept;
  // Y3. From a child, or from the host for its body.
  void fail(failure&& what) noexcept;

  void limit(std::size_t n);
  std::size_t size() const noexcept;
  std::vector<std::exception_ptr> failures() const;

  // --- the end, by the host ---

  // Throws std::logic_error unless the caller is the host, in no scope that it has entered since, and the nursery is open.
  void must_be_host(const char* what) const;
  // Y2; then the host is out of the scope. Returns whether what surrounds the nursery is cancelled.
  bool finish() noexcept;
  bool has_failed() const noexcept { return last_ != nullptr; }
  // Throws the first failure, as it was thrown. Returns when there is none, or, with `only_code`, when it has a code, which
  // is put there.
  void tell(std::error_code* only_code);

  cancel_scope scope;

 private:
  struct failure_note {
    failure what;
    failure_note* next = nullptr;
  };
  static constexpr std::size_t no_limit = static_cast<std::size_t>(-1);

  spin_lock& gate_lock() const noexcept { return const_cast<nursery_core*>(this)->gate.lock; }
  worker* own_worker() const noexcept {
    worker* const w = this_worker();
    return w != nullptr && w->sched == home_ && w->current != nullptr ? w : nullptr;
  }
  void wait_for_children() noexcept;
  [[noreturn]] void fail_ended();

  scheduler* home_;
  fiber* host_;
  on_failure policy_;
  bool is_ended_ = false;  // from here on under the gate's lock
  bool is_told_ = false;   // somebody was told of the failures
  std::size_t running_ = 0;
  std::size_t limit_ = no_limit;
  waiter* host_note_ = nullptr;  // null, or it waits for the last child
  failure_note first_;           // so that the first failure needs no memory
  failure_note* last_ = nullptr;
  std::size_t failure_count_ = 0;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <new>
#  include <string>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE void failure::set_code(std::error_code returned) noexcept {
  if (!returned || returned == std::errc::operation_canceled) return;
  code = returned;
#  if CONCUR_EXCEPTIONS
  error = std::make_exception_ptr(std::system_error(returned, "concur::nursery: a child returned an error"));
#  endif
}

CONCUR_INLINE nursery_core::nursery_core(on_failure policy, const char* what)
    : scope(static_cast<nursery_part&>(*this), what),
      home_(this_worker()->sched),
      host_(this_worker()->current),
      policy_(policy) {}

CONCUR_INLINE nursery_core::~nursery_core() {
  if (!is_ended_) {
    scope.cancel();
    finish();
  }
  if (has_failed() && !is_told_ && first_.what.error != nullptr) home_->keep_exception(first_.what.error);
  while (failure_note* const note = first_.next) {
    first_.next = note->next;
    delete note;
  }
}

// --- children ---

CONCUR_INLINE void nursery_core::fail_ended() {
  fail_logic("concur::nursery::go: the nursery has ended; start children while its block runs, or from its children");
}

CONCUR_INLINE bool nursery_core::admit(member& child, fiber* f) {
  spin_lock& lock = gate.lock;
  lock.lock();
  if (limit_ != no_limit) {
    lock.unlock();
    worker* w = nullptr;
    if (!checkpoint_quietly(w)) return false;
    lock.lock();
  }
  if (CONCUR_UNLIKELY(is_ended_)) {
    lock.unlock();
    fail_ended();
  }
  if (CONCUR_UNLIKELY(running_ >= limit_)) {
    caller me(this_worker());
    if (gate.wait(me, nullptr, never, wait_reason::nursery_room) == outcome::cancelled) return false;  // Y4
    if (worker* w = nullptr; CONCUR_MUTANT_IS(294) && !checkpoint_quietly(w)) return false;
    lock.lock();
  } else {
    ++running_;
  }
  child.who = f;
  join_nursery(child, *this);
  lock.unlock();
  home_->launch(own_worker(), f);
  return true;
}

CONCUR_INLINE void nursery_core::dismiss(member& child) noexcept {
  party* next = nullptr;
  {
    lock_scope<spin_lock> held(gate.lock);
    if (!CONCUR_MUTANT_IS(293)) leave_nursery(child);
    waiter* note = running_ <= limit_ && !CONCUR_MUTANT_IS(212) ? pop_claimed(gate.parties) : nullptr;
    if (note == nullptr && --running_ == 0 && host_note_ != nullptr) {
      // Taken away as it is claimed: the host gives it up before it has the lock, and a child may begin and end meanwhile.
      waiter* const host = CONCUR_MUTANT_IS(232) ? host_note_ : std::exchange(host_note_, nullptr);
      if (host->claim()) note = host;
    }
    if (note != nullptr) {
      next = note->who;
      next->result = outcome::granted;
    }
  }
  if (next != nullptr) resume(next);
  if (CONCUR_MUTANT_IS(293)) {
    lock_scope<spin_lock> held(gate.lock);
    leave_nursery(child);
  }
}

CONCUR_INLINE void nursery_core::fail(failure&& what) noexcept {
  failure_note* fresh = new (std::nothrow) failure_note();
  {
    lock_scope<spin_lock> held(gate.lock);
    ++failure_count_;
    if (last_ == nullptr) {
      last_ = &first_;
      last_->what = std::move(what);
    } else if (fresh != nullptr) {
      fresh->what = std::move(what);
      last_->next = fresh;
      last_ = std::exchange(fresh, nullptr);
    }
  }
  delete fresh;
  if (policy_ == on_failure::cancel_siblings && !CONCUR_MUTANT_IS(210)) scope.cancel();
}

CONCUR_INLINE void nursery_core::limit(std::size_t n) {
  if (n == 0)
    fail_argument("concur::nursery::limit", "n", "0", "every go() would wait for ever; set no limit to have none");
  ended_waits woken;
  {
    lock_scope<spin_lock> held(gate.lock);
    limit_ = n;
    while (running_ < limit_) {
      waiter* const note = pop_claimed(gate.parties);
      if (note == nullptr) break;
      ++running_;
      woken.add(note, outcome::granted);
    }
  }
  woken.resume_all();
}

CONCUR_INLINE std::size_t nursery_core::size() const noexcept {
  lock_scope<spin_lock> held(gate_lock());
  return running_;
}

CONCUR_INLINE std::vector<std::exception_ptr> nursery_core::failures() const {
  std::size_t count = 0;
  {
    lock_scope<spin_lock> held(gate_lock());
    count = failure_count_;
  }
  std::vector<std::exception_ptr> all;
  all.reserve(count);
  lock_scope<spin_lock> held(gate_lock());
  if (last_ == nullptr) return all;
  for (const failure_note* note = &first_; note != nullptr && all.size() < count; note = note->next)
    all.push_back(note->what.error);
  return all;
}

// --- the end ---

CONCUR_INLINE void nursery_core::must_be_host(const char* what) const {
  worker* const w = this_worker();
  if (w == nullptr || w->current != host_)
    fail_logic(std::string(what) + ": only the fiber that made the nursery may end it");
  if (is_ended_) fail_logic(std::string(what) + ": the nursery has ended; it ends once");
  if (host_->innermost() != &scope.core_)
    fail_logic(std::string(what) + ": a scope or nursery that was entered later is still open; end that first");
}

CONCUR_INLINE void nursery_core::wait_for_children() noexcept {
  worker* w = this_worker();
  for (;;) {
    gate.lock.lock();
    if (running_ == 0 || (CONCUR_MUTANT_IS(211) && scope.cancelled())) break;
    waiter note(host_, nullptr);
    host_note_ = &note;
    park_fiber(w, &gate.lock, never, wait_reason::nursery_join);
  }
  host_note_ = nullptr;
  is_ended_ = true;
  gate.lock.unlock();
}

CONCUR_INLINE bool nursery_core::finish() noexcept {
  ++host_->shield_depth;
  wait_for_children();
  --host_->shield_depth;
  const bool is_outside_cancelled = scope.core_.surroundings_cancelled();
  scope.leave();
  return is_outside_cancelled;
}

CONCUR_INLINE void nursery_core::tell(std::error_code* only_code) {
  is_told_ = true;
  if (!has_failed()) return;
  if (only_code != nullptr && first_.what.code)
    *only_code = first_.what.code;
  else
    rethrow(first_.what.error);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
