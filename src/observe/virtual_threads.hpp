// observe/virtual_threads.hpp - threads that one thread plays, one at a time.
//
// Each has a stack of its own and stops where it is when another goes on: in the middle of a protocol, on a worker's loop
// or on a fiber's stack. The conductor is the thread that plays them: it starts a schedule, and gets control back when all
// threads have ended or the schedule has failed.
//
//   V1  What belongs to a thread travels with it: which worker it is, the exceptions it is handling, errno.
//   V2  A schedule that failed leaves its threads where they are. Their stacks are used again; what lay on them is lost, and
//       is not destroyed. Tools that look for leaks are told so, and say nothing of what a schedule allocates.
#ifndef CONCUR_OBSERVE_VIRTUAL_THREADS_HPP
#define CONCUR_OBSERVE_VIRTUAL_THREADS_HPP

#include "base/config.hpp"
#include "machine/context.hpp"
#include "machine/exception_state.hpp"
#include "machine/sanitizer.hpp"
#include "machine/stack.hpp"
#include "observe/decisions.hpp"
#include "runtime/worker.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct virtual_thread {
  enum class state : unsigned char { unused, ready, blocked, joining, ended };

  state now = state::unused;
  block_end end = block_end::woken;  // why it came back from blocking
  const void* outside = nullptr;
  const void* word = nullptr;  // on which it is blocked
  std::int64_t until_ns = 0;
  unsigned joins = 0;  // whose end it waits for
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  const char* name = "";
  // V1, while it does not run.
  context ctx{};
  exception_state exceptions{};
  worker* self = nullptr;
  int error = 0;
  stack_notice* notice = nullptr;  // of the stack that it stopped on
  stack_notice own_notice{};
  stack* memory = nullptr;
};

class virtual_threads {
 public:
  static constexpr unsigned conductor = explored_threads_max;

  virtual_threads() : stacks_(stack_bytes) {}
  virtual_threads(const virtual_threads&) = delete;
  virtual_threads& operator=(const virtual_threads&) = delete;
  ~virtual_threads();

  // Forgets all threads; the caller is the conductor.
  void reset();
  // The new thread's number, or -1: there are too many, or there is no memory.
  int start(void (*body)(void*), void* argument, const char* name);
  // Leaves the calling thread where it is and goes on with that one.
  void go_to(unsigned next);
  // Ends the calling thread.
  [[noreturn]] void end_and_go_to(unsigned next);

  unsigned current() const { return current_; }
  const void* address_of_current() const { return &threads_[current_]; }
  unsigned count() const { return count_; }
  virtual_thread& operator[](unsigned i) { return threads_[i]; }

 private:
  static constexpr std::size_t stack_bytes = sizeof(void*) == 8 ? 256 * 1024 : 96 * 1024;

  void leave(virtual_thread& from);
  void enter(unsigned next);
  [[noreturn]] static void entry(void* raw) noexcept;
  [[noreturn]] void main();

  stack_pool stacks_;
  virtual_thread threads_[explored_threads_max + 1];
  unsigned current_ = conductor;
  unsigned count_ = 0;
  worker** cell_ = nullptr;
  exception_globals* exceptions_ = nullptr;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <cerrno>

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What is called when a thread's body has returned: the exploration's, which knows who is next.
[[noreturn]] CONCUR_INLINE void virtual_thread_ended(virtual_threads& threads) noexcept;

CONCUR_INLINE virtual_threads::~virtual_threads() {
  for (virtual_thread& thread : threads_) {
    if (thread.memory == nullptr) continue;
    thread.own_notice.release();
    stacks_.release(thread.memory);
  }
}

CONCUR_INLINE void virtual_threads::reset() {
  for (unsigned i = 0; i < count_; ++i) {
    virtual_thread& thread = threads_[i];
    if (thread.now != virtual_thread::state::unused) thread.own_notice.release();
    thread.now = virtual_thread::state::unused;
  }
  count_ = 0;
  current_ = conductor;
  cell_ = this_worker_cell();
  exceptions_ = exception_globals::of_this_thread();
}

CONCUR_INLINE int virtual_threads::start(void (*body)(void*), void* argument, const char* name) {
  unsigned i = count_;  // a number of its own, while there are any: the memory's account is kept by number
  if (i == explored_threads_max) i = 0;
  while (i < count_ && threads_[i].now != virtual_thread::state::unused) ++i;
  if (i == explored_threads_max) return -1;
  virtual_thread& thread = threads_[i];
  int error = 0;
  if (thread.memory == nullptr) thread.memory = stacks_.acquire(error);
  if (thread.memory == nullptr) return -1;
  if (i == count_) ++count_;
  thread.now = virtual_thread::state::ready;
  thread.body = body;
  thread.argument = argument;
  thread.name = name;
  thread.exceptions = exception_state{};
  thread.self = nullptr;
  thread.error = 0;
  thread.own_notice.bind_stack(thread.memory->low, thread.memory->size);
  thread.notice = &thread.own_notice;
  prepare_context(thread.ctx, thread.memory->low, thread.memory->size, &entry);
  return static_cast<int>(i);
}

CONCUR_INLINE void virtual_threads::leave(virtual_thread& from) {
  from.self = *cell_;
  from.exceptions.save_from(exceptions_);
  from.error = errno;
}

CONCUR_INLINE void virtual_threads::enter(unsigned next) {
  current_ = next;
  *cell_ = threads_[next].self;
  threads_[next].exceptions.load_into(exceptions_);
}

// Not inlined: what is kept over the switch is only what is named here.
CONCUR_NOINLINE CONCUR_INLINE void virtual_threads::go_to(unsigned next) {
  if (next == current_) return;
  virtual_thread& from = threads_[current_];
  leave(from);
  stack_notice here;
  here.bind_thread();
  from.notice = &here;
  enter(next);
  switch_fiber_context(from.ctx, threads_[next].ctx, this, here, *threads_[next].notice);
  errno = threads_[current_].error;
}

CONCUR_INLINE void virtual_threads::end_and_go_to(unsigned next) {
  virtual_thread& from = threads_[current_];
  enter(next);
  leave_fiber_context(from.ctx, threads_[next].ctx, this, from.own_notice, *threads_[next].notice);
}

[[noreturn]] CONCUR_UNINSTRUMENTED CONCUR_INLINE void virtual_threads::entry(void* raw) noexcept {
  static_cast<virtual_threads*>(enter_fiber_context(raw))->main();
}

CONCUR_INLINE void virtual_threads::main() {
  virtual_thread& self = threads_[current_];
  self.body(self.argument);
  virtual_thread_ended(*this);
}

}  // namespace detail
CONCUR_NAMESPACE_END
#endif  // CONCUR_BODIES
#endif
