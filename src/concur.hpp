// concur - fibers, channels, structured concurrency and blocking-style I/O for C++17, in one header without
// dependencies.
//
// This file is the manifest: the parts, lowest layer first. A part includes only parts of lower layers, or earlier
// ones of its own.
#ifndef CONCUR_HPP
#define CONCUR_HPP

// base: knows the compiler
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/driver.hpp"
#include "base/time.hpp"
#include "base/intrusive.hpp"
#include "base/maker.hpp"

// atomic: words that many threads touch
#include "atomic/word.hpp"
#include "atomic/cache_padded.hpp"
#include "atomic/cas.hpp"
#include "atomic/backoff.hpp"
#include "atomic/spin_lock.hpp"
#include "atomic/retirable_lock.hpp"
#include "atomic/ticket_lock.hpp"
#include "atomic/seqlock.hpp"
#include "atomic/striped_counter.hpp"
#include "atomic/moment.hpp"

// machine: knows the processor and the operating system, and nothing of fibers
#include "machine/fence.hpp"
#include "machine/sanitizer.hpp"
#include "machine/context.hpp"
#include "machine/exception_state.hpp"
#include "machine/stack_guard.hpp"
#include "machine/stack.hpp"
#include "machine/fault.hpp"
#include "machine/parker.hpp"
#include "machine/poller.hpp"

// runtime: owns fibers
#include "runtime/options.hpp"
#include "runtime/seam.hpp"
#include "runtime/waiter.hpp"
#include "runtime/token_state.hpp"
#include "runtime/scope.hpp"
#include "runtime/fiber.hpp"
#include "runtime/fiber_pool.hpp"
#include "runtime/run_queue.hpp"
#include "runtime/shared_queue.hpp"
#include "runtime/timers.hpp"
#include "runtime/worker.hpp"
#include "runtime/idle.hpp"
#include "runtime/monitor.hpp"
#include "runtime/scheduler.hpp"
#include "runtime/suspend.hpp"
#include "runtime/caller.hpp"
#include "runtime/forms.hpp"
#include "runtime/wait_queue.hpp"
#include "runtime/scope_entry.hpp"
#include "runtime/cancel.hpp"
#include "runtime/idle_sleep.hpp"
#include "runtime/monitor_look.hpp"
#include "runtime/overflow.hpp"
#include "runtime/driven.hpp"
#include "runtime/loop.hpp"
#include "runtime/reactor.hpp"
#include "runtime/snapshot.hpp"

// sync: what fibers and threads wait for
#include "sync/mutex_core.hpp"
#include "sync/mutex.hpp"
#include "sync/shared_mutex.hpp"
#include "sync/condition_variable.hpp"
#include "sync/semaphore.hpp"
#include "sync/wait_group.hpp"
#include "sync/latch.hpp"
#include "sync/barrier.hpp"
#include "sync/event.hpp"
#include "sync/once.hpp"
#include "sync/resource_pool.hpp"

// channel: values handed over
#include "channel/tick_source.hpp"
#include "channel/channel_core.hpp"
#include "channel/channel.hpp"
#include "channel/channel_ends.hpp"
#include "channel/select_case.hpp"
#include "channel/select_poll.hpp"
#include "channel/select.hpp"
#include "channel/channel_case.hpp"
#include "channel/selector.hpp"
#include "channel/ticker.hpp"

// structure: lives of fibers
#include "structure/future_state.hpp"
#include "structure/future.hpp"
#include "structure/fiber_local.hpp"
#include "structure/spawn.hpp"
#include "structure/cancel_token.hpp"
#include "structure/cancel_scope.hpp"
#include "structure/time_limit.hpp"
#include "structure/nursery_core.hpp"
#include "structure/child.hpp"
#include "structure/started.hpp"
#include "structure/nursery.hpp"
#include "structure/combine.hpp"
#include "structure/promise.hpp"
#include "structure/step.hpp"
#include "structure/continuation.hpp"
#include "structure/shared_future.hpp"
#include "structure/future_case.hpp"
#include "structure/when.hpp"
#include "structure/this_fiber.hpp"
#include "structure/runtime.hpp"

// io: descriptors that park
#include "io/address.hpp"
#include "io/descriptor.hpp"
#include "io/descriptor_case.hpp"
#include "io/posix.hpp"
#include "io/socket.hpp"
#include "io/tcp_stream.hpp"
#include "io/tcp_listener.hpp"

// observe: what a program did, and might have done
#include "observe/vector_clock.hpp"
#include "observe/address_table.hpp"
#include "observe/weak_memory.hpp"
#include "observe/strategy.hpp"
#include "observe/decisions.hpp"
#include "observe/virtual_threads.hpp"
#include "observe/exploration.hpp"
#include "observe/explored_thread.hpp"
#include "observe/explore.hpp"
#include "observe/explore_run.hpp"

#endif
