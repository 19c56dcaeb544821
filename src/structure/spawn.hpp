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

// The payload of a fiber: closure and result.
template <class F>
class spawned : public result_state<result_of<F>> {
  using R = result_of<F>;

 public:
  template <class G>
  spawned(fiber* host, G&& function) : host_(host) {
    this->release = &release_spawned;
    ::new (static_cast<void*>(room_)) F(std::forward<G>(function));
  }

  static void run(fiber* f) noexcept {
    spawned* self = static_cast<spawned*>(f->payload);
#if CONCUR_EXCEPTIONS
    try {
      self->call();
    } catch (const cancelled&) {
      self->set_error(std::current_exception());
      self->is_reported = false;
    } catch (...) {
      self->set_error(std::current_exception());
    }
#else
    self->call();
#endif
    if (CONCUR_UNLIKELY(f->locals != nullptr) && !CONCUR_MUTANT_IS(134)) destroy_locals(f);
    finish(self, f);
  }

  static void refuse(fiber* f, int reason) noexcept {
    spawned* self = static_cast<spawned*>(f->payload);
    self->function().~F();
    self->set_error(no_stack_error(f, reason));
    finish(self, f);
  }

  F& function() noexcept { return *std::launder(reinterpret_cast<F*>(room_)); }

  // The end of a fiber that was prepared and will not be launched; its outcome is in place.
  static void end_unlaunched(spawned* self, due_list& due) noexcept {
    self->function().~F();
    if (!self->complete(due)) release_spawned(self);
  }

 private:
  struct closure_end {
    F& function;
    ~closure_end() { function.~F(); }
  };

  void call() {
    closure_end end{function()};
    if constexpr (std::is_void<R>::value) {
      std::move(end.function)();
    } else if constexpr (std::is_reference<R>::value) {
      R&& result = std::move(end.function)();
      this->set(std::addressof(result));
    } else {
      this->set(std::move(end.function)());
    }
  }

  static void finish(spawned* self, fiber* f) noexcept {
    f->set_state(fiber_state::finished);
    due_list due;
    if (!self->complete(due)) release_spawned(self);
    if (CONCUR_UNLIKELY(!due.is_empty())) run_due_after_end(due);
  }

  static void release_spawned(future_state* state) noexcept {
    spawned* self = static_cast<spawned*>(state);
    fiber* host = self->host_;
    if (self->error != nullptr && self->is_reported) hand_on_exception(host, self->error);
    self->destroy();
    self->~spawned();
    if (static_cast<void*>(self) != room_of(host))
      ::operator delete(static_cast<void*>(self), std::align_val_t(alignof(spawned)));
    free_fiber(host);
  }

  fiber* host_;
  alignas(F) unsigned char room_[sizeof(F)];
};

// What the function's copy constructor throws must not cost the block.
template <class Payload, class F>
Payload* construct_payload(fiber* f, void* memory, F&& function) {
#if CONCUR_EXCEPTIONS
  try {
    return ::new (memory) Payload(f, std::forward<F>(function));
  } catch (...) {
    if (memory != room_of(f)) ::operator delete(memory, std::align_val_t(alignof(Payload)));
    free_fiber(f);
    throw;
  }
#else
  return ::new (memory) Payload(f, std::forward<F>(function));
#endif
}

// Puts `function` into a new block, which is not launched yet. The block is free again if that throws.
template <class F>
spawned<std::decay_t<F>>* prepare_fiber(fiber* f, F&& function) {
  using payload = spawned<std::decay_t<F>>;
  void* memory = room_of(f);
  if constexpr (sizeof(payload) > fiber_room_bytes || alignof(payload) > 16) {
    memory = ::operator new(sizeof(payload), std::align_val_t(alignof(payload)), std::nothrow);
    if (CONCUR_UNLIKELY(memory == nullptr)) {
      free_fiber(f);
      fail_no_fiber();
    }
  }
  payload* state = construct_payload<payload>(f, memory, std::forward<F>(function));
  f->payload = state;
  f->entry = &payload::run;
  f->refuse = &payload::refuse;
  return state;
}

// Makes `function` a fiber of s, and returns where its result will be. w: the calling thread's worker if it is one of
// s's, else null.
template <class F>
future<result_of<std::decay_t<F>>> spawn(scheduler& s, worker* w, F&& function) {
  fiber* f = s.new_fiber(w);
  if (CONCUR_UNLIKELY(f == nullptr)) fail_no_fiber();
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
  f->pool->with_owner([](scheduler* s, void* taken) { s->keep_exception(*static_cast<std::exception_ptr*>(taken)); },
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
