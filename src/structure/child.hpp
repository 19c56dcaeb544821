// structure/child.hpp - a function becomes a fiber that belongs to a nursery.
//
// The payload of such a fiber is its place in the nursery's list, and its function. A child whose result is wanted has a
// result besides (future_state.hpp), which may be asked for when nursery and child are long gone.
//
//   Z1  A child's function, and its fiber_locals, are destroyed, its failure is noted, its result can be had, before it
//       leaves the nursery.
//   Z2  The memory of a child with a result is held by the child, until it has left, and by the result.
#ifndef CONCUR_STRUCTURE_CHILD_HPP
#define CONCUR_STRUCTURE_CHILD_HPP

#include <system_error>
#include <type_traits>
#include <utility>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "structure/future_state.hpp"
#include "structure/nursery_core.hpp"
#include "structure/spawn.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

inline nursery_core& nursery_of(const member& child) noexcept { return static_cast<nursery_core&>(*child.home); }

CONCUR_INLINE failure no_stack_failure(const fiber* f, int error) noexcept;
// Notes the failure, if it is one. The nursery is still there afterwards.
CONCUR_INLINE void report_child(member& child, failure&& what) noexcept;

template <class F>
class child : public member {
 public:
  template <class G>
  child(fiber* host, G&& function) : closure_(std::forward<G>(function)) {
    who = host;
  }
  void* as_payload() noexcept { return static_cast<member*>(this); }
  child* result() noexcept { return this; }

  static worker* run(fiber* f, int refusal) noexcept {
    child* self = static_cast<child*>(static_cast<member*>(f->payload));
    failure what;
    if (CONCUR_UNLIKELY(refusal != 0)) {
      self->closure_.destroy();
      what = no_stack_failure(f, refusal);
    } else {
      what = failure_of([self]() -> decltype(auto) { return self->closure_.call(); });
      end_locals(f);
    }
    f->set_state(fiber_state::finished);
    report_child(*self, std::move(what));
    nursery_of(*self).dismiss(*self);
    free_payload(self, f);
    return this_worker();
  }
  // It was prepared, and will not be launched.
  void discard() noexcept {
    closure_.destroy();
    free_payload(this, who);
  }

 private:
  closure_room<F> closure_;
};

template <class F>
class child_with_result : public member, public result_state<result_of<F>> {
  using R = result_of<F>;

 public:
  template <class G>
  child_with_result(fiber* host, G&& function) : closure_(std::forward<G>(function)) {
    who = host;
    this->release = [](future_state* state) noexcept { static_cast<child_with_result*>(state)->let_go(); };
  }
  void* as_payload() noexcept { return static_cast<member*>(this); }
  result_state<R>* result() noexcept { return this; }

  static worker* run(fiber* f, int refusal) noexcept {
    child_with_result* self = static_cast<child_with_result*>(static_cast<member*>(f->payload));
    failure what;
    if (CONCUR_UNLIKELY(refusal != 0)) {
      self->closure_.destroy();
      what = no_stack_failure(f, refusal);
      self->set_error(what.error);
    } else {
      keep_outcome(*self, [self]() -> decltype(auto) { return self->closure_.call(); });
      if (self->has_failed()) {
        if (self->is_reported) what.error = self->error;
      } else if constexpr (std::is_same<R, std::error_code>::value) {
        what.set_code(self->get());
      }
      end_locals(f);
    }
    self->is_reported = false;  // the nursery tells of it
    f->set_state(fiber_state::finished);
    report_child(*self, std::move(what));
    due_list due;
    if (!self->complete(due)) self->let_go();
    if (CONCUR_UNLIKELY(!due.is_empty())) run_due_after_end(due);
    nursery_of(*self).dismiss(*self);
    self->let_go();
    return this_worker();
  }
  void discard() noexcept {
    closure_.destroy();
    free_payload(this, who);
  }

 private:
  void let_go() noexcept {
    // acq_rel: publishes what was done with it to who frees it, and sees what the other did.
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    this->destroy();
    free_payload(this, who);
  }

  atomic<std::uint32_t> holders_{2};  // Z2
  closure_room<F> closure_;
};

// Makes `function` a child of n. Null: the caller was cancelled, and n has a limit.
template <template <class> class Payload, class F>
auto start_child(nursery_core& n, F&& function) {
  using payload = Payload<std::decay_t<F>>;
  struct discard_at_end {
    payload* unlaunched;
    ~discard_at_end() {
      if (unlaunched != nullptr) unlaunched->discard();
    }
  };
  discard_at_end owner{prepare_payload<payload>(n.new_child(), std::forward<F>(function))};
  auto* const result = owner.unlaunched->result();
  if (!n.admit(*owner.unlaunched, owner.unlaunched->who)) return static_cast<decltype(result)>(nullptr);
  owner.unlaunched = nullptr;
  return result;
}

// For who has no other way to say that there is no child. Without exceptions there simply is none.
inline void must_have_started([[maybe_unused]] const void* child) {
#if CONCUR_EXCEPTIONS
  if (CONCUR_UNLIKELY(child == nullptr)) fail_cancelled();
#endif
}

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <cerrno>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE failure no_stack_failure(const fiber* f, int error) noexcept {
  failure what;
  what.error = no_stack_error(f, error);
  what.code = std::error_code(error, std::system_category());
  return what;
}

CONCUR_INLINE void report_child(member& child, failure&& what) noexcept {
  if (CONCUR_UNLIKELY(static_cast<bool>(what))) nursery_of(child).fail(std::move(what));
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
