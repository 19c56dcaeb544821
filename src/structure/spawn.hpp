// structure/spawn.hpp - a function becomes a fiber.
//
// The fiber's block has room for a small closure and its result; a large one gets memory of its own. The closure is
// destroyed as soon as it has returned, and then the fiber's fiber_locals, before the result is published: who waits for
// the fiber may rely on what it held being gone.
#ifndef CONCUR_STRUCTURE_SPAWN_HPP
#define CONCUR_STRUCTURE_SPAWN_HPP

#include <exception>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

#include "base/config.hpp"
#include "base/error.hpp"
#include "runtime/scheduler.hpp"
#include "structure/fiber_local.hpp"
#include "structure/future.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The error of a fiber for which there was no stack.
CONCUR_INLINE std::exception_ptr no_stack_error(const fiber* f, int error) noexcept;
// An exception that nobody took goes to the fiber's runtime, if that is still there.
CONCUR_INLINE void hand_on_exception(fiber* f, std::exception_ptr error) noexcept;
[[noreturn]] CONCUR_INLINE void fail_no_fiber();
// Runs what came due by the end of a fiber, whose block may be another's by now.
CONCUR_INLINE void run_due_after_end(due_list& due) noexcept;

template <class F>
using result_of = std::invoke_result_t<F>;

// A function until it has been called.
template <class F>
class closure_room {
 public:
  template <class G>
  explicit closure_room(G&& function) {
    ::new (static_cast<void*>(room_)) F(std::forward<G>(function));
  }
  closure_room(const closure_room&) = delete;
  closure_room& operator=(const closure_room&) = delete;

  F& function() noexcept { return *std::launder(reinterpret_cast<F*>(room_)); }
  void destroy() noexcept { function().~F(); }
  // The function is destroyed when it has returned, or thrown.
  decltype(auto) call() {
    const struct closure_end {
      closure_room& room;
      ~closure_end() { room.destroy(); }
    } end{*this};
    return std::move(function())();
  }

 private:
  alignas(F) unsigned char room_[sizeof(F)];
};

// Whether it fits into the fiber's block. Else it gets memory of its own.
template <class Payload>
inline constexpr bool is_in_block = sizeof(Payload) <= fiber_room_bytes && alignof(Payload) <= 16;

// The block, and what its payload needed besides, go home.
template <class Payload>
void free_payload(Payload* payload, fiber* host) noexcept {
  payload->~Payload();
  if constexpr (!is_in_block<Payload>)
    ::operator delete(static_cast<void*>(payload), std::align_val_t(alignof(Payload)));
  free_fiber(host);
}

inline void end_locals(fiber* f) noexcept {
  if (CONCUR_UNLIKELY(f->has_belongings) && !CONCUR_MUTANT_IS(134)) destroy_locals(f);
}

// The payload of a fiber: closure and result.
template <class F>
class spawned : public result_state<result_of<F>> {
 public:
  template <class G>
  spawned(fiber* host, G&& function) : host_(host), closure_(std::forward<G>(function)) {
    this->release = &release_spawned;
  }
  void* as_payload() noexcept { return this; }

  static worker* run(fiber* f, int refusal) noexcept {
    spawned* self = static_cast<spawned*>(f->payload);
    if (CONCUR_UNLIKELY(refusal != 0)) {
      self->closure_.destroy();
      self->set_error(no_stack_error(f, refusal));
    } else {
      keep_outcome(*self, [self]() -> decltype(auto) { return self->closure_.call(); });
      end_locals(f);
    }
    f->set_state(fiber_state::finished);
    worker* const w = this_worker();
    due_list due;
    const bool is_wanted = self->complete(due, w);
    if (CONCUR_LIKELY(is_wanted && due.is_empty())) return w;
    if (!is_wanted) release_spawned(self);
    if (!due.is_empty()) run_due_after_end(due);
    return CONCUR_MUTANT_IS(440) ? w : this_worker();  // what was destroyed may have waited, and moved us
  }

  F& function() noexcept { return closure_.function(); }

  // The end of a fiber that was prepared and will not be launched; its outcome is in place.
  static void end_unlaunched(spawned* self, due_list& due) noexcept {
    self->closure_.destroy();
    if (!self->complete(due)) release_spawned(self);
  }

 private:
  static void release_spawned(future_state* state) noexcept {
    spawned* self = static_cast<spawned*>(state);
    if (self->error != nullptr && self->is_reported) hand_on_exception(self->host_, self->error);
    self->destroy();
    free_payload(self, self->host_);
  }

  fiber* host_;
  closure_room<F> closure_;
};

// What the function's copy constructor throws must not cost the block.
template <class Payload, class F>
Payload* construct_payload(fiber* f, void* memory, F&& function) {
#if CONCUR_EXCEPTIONS
  try {
    return ::new (memory) Payload(f, std::forward<F>(function));
  } catch (...) {
    if constexpr (!is_in_block<Payload>) ::operator delete(memory, std::align_val_t(alignof(Payload)));
    free_fiber(f);
    throw;
  }
#else
  return ::new (memory) Payload(f, std::forward<F>(function));
#endif
}

// Puts `function` into a new block, which is not launched yet. The block is free again if that throws.
template <class Payload, class F>
Payload* prepare_payload(fiber* f, F&& function) {
  if (CONCUR_UNLIKELY(f == nullptr)) fail_no_fiber();
  void* memory = f->room;
  if constexpr (!is_in_block<Payload>) {
    memory = ::operator new(sizeof(Payload), std::align_val_t(alignof(Payload)), std::nothrow);
    if (CONCUR_UNLIKELY(memory == nullptr)) {
      free_fiber(f);
      fail_no_fiber();
    }
  }
  Payload* state = construct_payload<Payload>(f, memory, std::forward<F>(function));
  f->payload = state->as_payload();
  f->entry = &Payload::run;
  return state;
}
template <class F>
spawned<std::decay_t<F>>* prepare_fiber(fiber* f, F&& function) {
  return prepare_payload<spawned<std::decay_t<F>>>(f, std::forward<F>(function));
}

// Makes `function` a fiber of s, and returns where its result will be. w: the calling thread's worker if it is one of
// s's, else null.
template <class F>
future<result_of<std::decay_t<F>>> spawn(scheduler& s, worker* w, F&& function) {
  fiber* f = s.new_fiber(w);
  auto* state = prepare_fiber(f, std::forward<F>(function));
  s.launch(w, f);
  return future<result_of<std::decay_t<F>>>(state);
}

// A function with its arguments, kept as std::thread keeps them.
template <class F, class... Args>
auto bind_call(F&& function, Args&&... args) {
  if constexpr (sizeof...(Args) == 0) {
    return std::decay_t<F>(std::forward<F>(function));
  } else {
    return [call = std::decay_t<F>(std::forward<F>(function)),
            kept = std::tuple<std::decay_t<Args>...>(std::forward<Args>(args)...)]() mutable -> decltype(auto) {
      return std::apply(std::move(call), std::move(kept));
    };
  }
}

// The worker of the calling fiber. Throws std::logic_error on a thread that runs none.
CONCUR_INLINE worker* must_be_worker(const char* what);

}  // namespace detail

// Runs f(args...) as a fiber of the calling fiber's runtime, and returns where its result will be. The future may be
// dropped; run() waits for the fiber all the same, and rethrows an exception that nobody took. Arguments are copied
// or moved, as by std::thread. What comes before go() happens before f; f's end happens before get(). Throws
// std::logic_error outside a runtime, and std::system_error (not_enough_memory) when no block can be had; if no stack
// can be had later, get() throws that.
template <class F, class... Args>
auto go(F&& f, Args&&... args) -> future<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>> {
  detail::worker* w = detail::must_be_worker("concur::go");
  return detail::spawn(*w->sched, w, detail::bind_call(std::forward<F>(f), std::forward<Args>(args)...));
}

CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <cerrno>
#  include <string>

CONCUR_NAMESPACE_BEGIN
namespace detail {

CONCUR_INLINE std::exception_ptr no_stack_error([[maybe_unused]] const fiber* f, [[maybe_unused]] int error) noexcept {
#  if CONCUR_EXCEPTIONS
  try {
    return std::make_exception_ptr(std::system_error(
        error, std::system_category(),
        "concur: no stack for fiber " + std::to_string(f->id) + " of " + std::to_string(f->owner->settings.stack_size) +
            " bytes; it did not run. Use fewer parked fibers, smaller stacks, or raise the memory limit"));
  } catch (...) {
    return std::current_exception();
  }
#  else
  on_fatal("there is no memory for the stack of another fiber");
#  endif
}

CONCUR_INLINE void hand_on_exception(fiber* f, std::exception_ptr error) noexcept {
  pool_of(f)->with_owner([](scheduler* s, void* taken) { s->keep_exception(*static_cast<std::exception_ptr*>(taken)); },
                      &error);
}

// The fiber is over: nothing that is called here may take its block for the caller's.
CONCUR_INLINE void run_due_after_end(due_list& due) noexcept {
  worker* w = this_worker();
  if (w != nullptr && !CONCUR_MUTANT_IS(143)) w->current = nullptr;
  run_due(due);
}

CONCUR_INLINE void fail_no_fiber() {
  fail_system(ENOMEM, "concur::go: no memory for another fiber; the runtime goes on, try again when some have ended");
}

CONCUR_INLINE worker* must_be_worker(const char* what) {
  worker* w = this_worker();
  if (CONCUR_UNLIKELY(w == nullptr || w->current == nullptr))
    fail_logic(std::string(what) +
               ": this thread runs no fibers; call it inside concur::run, or use runtime::go from outside");
  return w;
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
