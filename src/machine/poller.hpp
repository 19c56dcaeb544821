// machine/poller.hpp - which descriptors became ready: what the reactor asks of the operating system, and no more.
//
// epoll, kqueue and poll agree on little but this: somebody registers descriptors, somebody blocks until one of them is
// ready, and somebody else can cut the blocking short. This class is that agreement. Who is woken, what a readiness
// means, and which descriptors exist is the reactor's business, one layer up; here a registration is two numbers that
// come back with each event: the reactor's slot, and the generation of that slot.
//
//   E1  A registration is made once per descriptor, for both directions, and lasts until remove(). There is no system
//       call per operation: readiness is reported when it begins, and the reactor remembers it.
//   E2  An event is a hint. "It may now be ready" is all it says; the operation itself finds out. So an event too many
//       costs a failed call, and one too few costs a fiber its life: every backend errs on the side of too many.
//   E3  The numbers in an event are those given to add(). An event of a registration that was removed in the meantime,
//       and whose descriptor number another owner now has, still carries the old generation and is known by it.
//   E4  ERR and HUP are reported as failed, ended, readable and writable at once: whoever waits must run and see.
//   E5  One thread at a time is in wait(); everything else may be called from any thread, also during a wait().
//   E6  A wake() is never lost: it ends the wait() in progress or the next one. Wakes merge, and only the first one
//       before a wait() notices makes a system call.
//
// The poll backend cannot report beginnings, only states. There arm() says what is wanted, one event ends the want, and
// a reactor that calls arm() before it parks a fiber works with all three; for the other two arm() does nothing.
//
//     backend           chosen by               blocks in             wakes by                  descriptors of its own
//     poller/epoll.hpp  CONCUR_POLLER_EPOLL     epoll_pwait2, _wait   eventfd                   2
//     poller/kqueue.hpp CONCUR_POLLER_KQUEUE    kevent                EVFILT_USER, else a pipe  1, else 3
//     poller/poll.hpp   CONCUR_POLLER_POLL      ppoll, poll           a pipe                    2
#ifndef CONCUR_MACHINE_POLLER_HPP
#define CONCUR_MACHINE_POLLER_HPP

#include <cstdint>

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "machine/direct_call.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// ended: the peer will send nothing more, and a read tells so without a further report. Comes with readable.
enum class readiness : unsigned { readable = 1, writable = 2, failed = 4, ended = 8 };

inline constexpr unsigned bit(readiness which) noexcept { return static_cast<unsigned>(which); }

// What ERR and HUP turn into (E4).
inline CONCUR_PLANTED unsigned everything_ready =
    bit(readiness::readable) | bit(readiness::writable) | bit(readiness::failed) |
    (CONCUR_MUTANT_IS(56) ? 0 : bit(readiness::ended));

struct poll_event {
  std::uint32_t slot;
  std::uint32_t generation;
  unsigned ready;  // bits of readiness, at least one
};

class poller {
 public:
  // A slot number that no registration may have; it stands for the wake-up.
  static constexpr std::uint32_t reserved_slot = 0xffffffffU;

  poller() noexcept = default;
  poller(const poller&) = delete;
  poller& operator=(const poller&) = delete;
  ~poller() { close(); }

  // Makes the queue and the means of waking it, all close-on-exec. 0, or an errno with nothing left open (EMFILE,
  // ENOMEM).
  int open() noexcept;

  // Gives everything back. open() may follow: that is what a forked child does. No wait() may be in progress.
  void close() noexcept;

  // Registers both directions. 0, or an errno: EPERM for what cannot be waited for, such as regular files, which are
  // always ready; EEXIST where the backend can tell that the descriptor is registered already; ENOMEM, ENOSPC.
  int add(int fd, std::uint32_t slot, std::uint32_t generation) noexcept;

  // Says that the next readiness in these directions is wanted. Needed by the poll backend only, and free with the
  // others.
  void arm(int fd, std::uint32_t slot, bool for_read, bool for_write) noexcept;

  // Ends a registration; to be called before the descriptor is closed. A copy of the descriptor may live on in another
  // process, and would otherwise go on reporting (epoll), or the next owner's events would be lost (kqueue).
  void remove(int fd, std::uint32_t slot) noexcept;

  // Blocks until something is ready, wake() is called, or the time is over; a negative time has no end and 0 does not
  // block. Returns how many events it wrote, which may be 0 before the time is over (a signal, a wake-up), or -errno.
  int wait(poll_event* out, int capacity, std::int64_t timeout_ns) noexcept;

  // Ends the wait() in progress, or else the next one. What was written before is visible to whoever that wait()
  // returns to.
  void wake() noexcept;

  // Under a driver (base/driver.hpp) nobody blocks in wait(); these two are wake() and the blocking half of wait() then.
  void wake_driven(driver& d) noexcept {
    if (must_wake()) d.wake(&wake_pending_);
  }
  block_end block_driven(driver& d, std::int64_t until_ns, const void* outside) noexcept {
    const block_end end = d.block(&wake_pending_, 0, until_ns, outside);
    if (end == block_end::woken) wake_seen();
    return end;
  }

  // How many descriptors are its own: what a count of open descriptors should expect.
  int descriptor_count() const noexcept;

 private:
  // Whoever turns this from false to true owes the system call; wait() turns it back when it has seen the wake-up,
  // before it returns. Both are read-modify-writes of one word, hence ordered: either the waker comes first, and what
  // it published is visible to the returning thread, or it comes second, finds false and makes a new wake-up.
  bool must_wake() noexcept {
    // acq_rel: publishes what came before to the thread in wait, also through a chain of merged wake-ups
    return wake_pending_.exchange(1, std::memory_order_acq_rel) == 0;
  }
  void wake_seen() noexcept {
    // acquire: pairs with must_wake of every waker merged into this wake-up
    wake_pending_.exchange(0, std::memory_order_acquire);
  }

  // No backend uses all of them.
  [[maybe_unused]] int queue_fd_ = -1;             // epoll or kqueue
  [[maybe_unused]] int wake_read_fd_ = -1;         // the eventfd, or the read end of the pipe
  [[maybe_unused]] int wake_write_fd_ = -1;        // the write end of the pipe
  [[maybe_unused]] bool coarse_timeouts_ = false;  // only milliseconds are to be had; found out by the first wait
  [[maybe_unused]] void* table_ = nullptr;         // what the poll backend watches
  atomic<std::uint32_t> wake_pending_{0};
};

}  // namespace detail
CONCUR_NAMESPACE_END

#include "machine/poller/epoll.hpp"
#include "machine/poller/kqueue.hpp"
#include "machine/poller/poll.hpp"

#endif
