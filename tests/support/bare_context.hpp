// tests/support/bare_context.hpp - a context with a stack and no runtime, for tests of the switch itself.
//
// A bare_context runs `body` on its own stack. The thread that calls resume() runs it until it pauses or ends; any thread
// may do so, one at a time. resume() moves the exception state as a worker does.
#ifndef CONCUR_TESTS_SUPPORT_BARE_CONTEXT_HPP
#define CONCUR_TESTS_SUPPORT_BARE_CONTEXT_HPP

#include "concur.hpp"

#include <cstddef>
#include <cstdlib>

#include <sys/mman.h>

class bare_context {
 public:
  using body_function = void (*)(bare_context& self, void* first);

  explicit bare_context(body_function body, void* given = nullptr, std::size_t size = std::size_t{1} << 18)
      : user(given), body_(body), size_(size) {
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    low_ = static_cast<char*>(memory);
    notice_.bind_stack(low_, size_);
    concur::detail::prepare_context(context_, low_, size_, &bare_context::start);
  }

  bare_context(const bare_context&) = delete;
  bare_context& operator=(const bare_context&) = delete;

  ~bare_context() {
    notice_.release();
    ::munmap(low_, size_);
  }

  // Called by a thread, or by another context. Returns what the context gave to pause(), or null when it has ended.
  void* resume(void* payload) {
    namespace detail = concur::detail;
    detail::exception_globals* globals = detail::exception_globals::of_this_thread();
    detail::exception_state outside;
    outside.save_from(globals);
    exceptions_.load_into(globals);
    if (!has_begun_) {
      has_begun_ = true;
      first_ = payload;
      payload = this;
    }
    detail::stack_notice here;
    here.bind_thread();
    caller_notice_ = &here;
    void* answer = detail::switch_fiber_context(caller_, context_, payload, here, notice_);
    exceptions_.save_from(globals);
    outside.load_into(globals);
    return answer;
  }

  // Called inside. Returns what the next resume() gives.
  void* pause(void* payload) {
    return concur::detail::switch_fiber_context(context_, caller_, payload, notice_, *caller_notice_);
  }

  bool is_done() const { return is_done_; }
  const char* low() const { return low_; }
  const char* high() const { return low_ + size_; }

  void* const user;

 private:
  static void start(void* raw) {
    bare_context* self = static_cast<bare_context*>(concur::detail::enter_fiber_context(raw));
    self->body_(*self, self->first_);
    self->is_done_ = true;
    concur::detail::leave_fiber_context(self->context_, self->caller_, nullptr, self->notice_, *self->caller_notice_);
  }

  body_function body_;
  std::size_t size_;
  char* low_ = nullptr;
  void* first_ = nullptr;
  bool has_begun_ = false;
  bool is_done_ = false;
  concur::detail::context context_{};
  concur::detail::context caller_{};
  concur::detail::stack_notice notice_;
  concur::detail::stack_notice* caller_notice_ = nullptr;
  concur::detail::exception_state exceptions_;
};

#endif
