// base/driver.hpp - whoever makes the decisions that are left open, when it is not the machine.
//
// A concurrent program leaves much to chance: which thread runs next, what the clock says, which of several stores a
// load sees. In production the machine decides, as cheaply as it can. An exploration (observe/explore.hpp) wants to
// decide itself, all of it, from one seed, so that a failure seen once can be seen again. It then is the driver: one
// thread plays all threads, and this is what the rest of the library asks it.
//
//   D1  While there is a driver, one thread of the process uses this library: the driver's. So nothing in here needs to
//       be safe for several threads.
//   D2  Each question is asked where its answer matters, and nowhere else. Where asking is dear compared with the
//       decision (before each atomic operation, above all) it is asked only in builds with CONCUR_EXPLORE; where the
//       decision costs a system call anyway (the clock, blocking, starting a thread) in every build.
//   D3  Calls that may run other threads before they return are marked so. No lock of the driver's own is held then,
//       and what they return is decided before anything else runs.
//   D4  A driver throws nothing. A schedule that has failed is left by parking its threads for ever.
#ifndef CONCUR_BASE_DRIVER_HPP
#define CONCUR_BASE_DRIVER_HPP

#include <atomic>
#include <cstdint>

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// What is being decided. 0 is the answer of a plain run: go on, the oldest first, the newest store.
enum class choice : unsigned char {
  preemption,   // whether another thread runs now, between two steps of a protocol
  spin_to,      // which thread runs while the present one waits for a few steps of another
  next_thread,  // which thread runs when the present one cannot
  next_fiber,   // which ready fiber runs
  slice_end,    // whether a worker looks at timers, events and other queues before its own
  victim,       // whom an idle worker robs first
  select_case,  // which of several ready cases
  readiness,    // in which order events of one batch are given out
  io_size,      // how many of the wanted bytes a read or write is asked for
  io_error,     // whether a system call is interrupted
  clock,        // how much time has passed
  stale_read,   // which of the stores that a load may see it sees
  spurious,     // whether something that may fail for no reason does
};

// Where a driver's clock begins, in nanoseconds: further on than any real steady clock has come, so that moments of the two
// can be told apart.
inline constexpr std::int64_t driven_clock_begin_ns = 1'000'000'000'000'000'000;

// Threads that an exploration can play at once.
inline constexpr unsigned explored_threads_max = 16;

// Why a thread comes back from driver::block.
enum class block_end : unsigned char {
  woken,  // or the word was another from the beginning
  timed_out,
  look,       // nothing else can run: time to look outside of the process, without waiting
  look_long,  // the same, and nothing else ever will: waiting is worth it
};

class driver;

// What a driver consists of. Pointers of our own, not virtual functions: a compiler that knows of one class only that has
// them guesses that each call goes there, and puts an exploration into every program.
struct driver_calls {
  std::uint32_t (*choose)(driver&, choice, std::uint32_t) noexcept;
  std::uint32_t (*choose_fiber)(driver&, const std::uint64_t*, std::uint32_t) noexcept;
  bool (*interrupts_fiber)(driver&) noexcept;
  std::int64_t (*now)(driver&) noexcept;
  void* (*start_thread)(driver&, void (*)(void*), void*, const char*) noexcept;
  void (*join_thread)(driver&, void*) noexcept;
  const void* (*this_thread)(const driver&) noexcept;
  void (*step)(driver&) noexcept;
  void (*spin)(driver&) noexcept;
  block_end (*block)(driver&, const void*, std::uint32_t, std::int64_t, const void*) noexcept;
  void (*wake)(driver&, const void*) noexcept;
  void (*stir_outside)(driver&) noexcept;
  void (*before_access)(driver&, const void*) noexcept;
  std::uint64_t (*after_load)(driver&, const void*, std::uint64_t, std::memory_order) noexcept;
  void (*after_store)(driver&, const void*, std::uint64_t, std::uint64_t, std::memory_order) noexcept;
  void (*after_update)(driver&, const void*, std::uint64_t, std::uint64_t, std::memory_order) noexcept;
  void (*after_failed_exchange)(driver&, const void*, std::uint64_t, std::memory_order) noexcept;
  void (*fence)(driver&, std::memory_order) noexcept;
  void (*fence_all)(driver&) noexcept;
  void (*birth)(driver&, const void*) noexcept;
  std::uint64_t (*rank)(driver&, const void*) noexcept;
  void (*plain_access)(driver&, const void*, bool, const char*) noexcept;
  void (*expect)(driver&, bool, const char*) noexcept;
  void (*watch)(driver&, const void*) noexcept;
  void (*unwatch)(driver&, const void*) noexcept;
  bool (*is_telling)(const driver&) noexcept;
  void (*tell)(driver&, const void*, const void*, const char*) noexcept;
};

class driver {
 public:
  explicit constexpr driver(const driver_calls& calls) noexcept : calls_(calls) {}
  driver(const driver&) = delete;
  driver& operator=(const driver&) = delete;

  // A number below count, which is at least 1.
  std::uint32_t choose(choice what, std::uint32_t count) noexcept { return calls_.choose(*this, what, count); }
  // The same for next_fiber, with the ids of the fibers.
  std::uint32_t choose_fiber(const std::uint64_t* ids, std::uint32_t count) noexcept {
    return calls_.choose_fiber(*this, ids, count);
  }
  // Whether the running fiber, which could go on, lets others run.
  bool interrupts_fiber() noexcept { return calls_.interrupts_fiber(*this); }
  // The time, in nanoseconds.
  std::int64_t now() noexcept { return calls_.now(*this); }

  // --- threads ---

  // Starts a thread that runs body(argument); returns its handle, null when it cannot be had.
  void* start_thread(void (*body)(void*), void* argument, const char* name) noexcept {
    return calls_.start_thread(*this, body, argument, name);
  }
  // Returns when that thread's body has returned. Runs others. The handle is then spent.
  void join_thread(void* handle) noexcept { return calls_.join_thread(*this, handle); }
  // An address that is the calling thread's own while it runs.
  const void* this_thread() const noexcept { return calls_.this_thread(*this); }
  // A place where the calling thread could as well be interrupted. Runs others.
  void step() noexcept { return calls_.step(*this); }
  // The calling thread waits for a few steps of another one. Runs others.
  void spin() noexcept { return calls_.spin(*this); }
  // While the 32-bit word is `expected`: blocks the calling thread until wake(word), or until this time (INT64_MAX: never).
  // The comparison and the blocking are one step. outside: null, or a 32-bit word; while it is not 0, something outside of
  // the process may end the wait too, and the caller can look whether it did. Runs others.
  block_end block(const void* word, std::uint32_t expected, std::int64_t until_ns, const void* outside) noexcept {
    return calls_.block(*this, word, expected, until_ns, outside);
  }
  void wake(const void* word) noexcept { return calls_.wake(*this, word); }
  // Something has been done outside of the process that may end such waits.
  void stir_outside() noexcept { return calls_.stir_outside(*this); }

  // --- memory; only with CONCUR_EXPLORE ---

  // The calling thread is about to touch the word. Runs others.
  void before_access(const void* word) noexcept { return calls_.before_access(*this, word); }
  // A load: `latest` is what the word holds; returns that, or what some earlier store left there that may still be seen.
  std::uint64_t after_load(const void* word, std::uint64_t latest, std::memory_order order) noexcept {
    return calls_.after_load(*this, word, latest, order);
  }
  void after_store(const void* word, std::uint64_t before, std::uint64_t after, std::memory_order order) noexcept {
    return calls_.after_store(*this, word, before, after, order);
  }
  // A read-modify-write, which always reads what was there last; a compare-exchange that failed reads that too.
  void after_update(const void* word, std::uint64_t before, std::uint64_t after, std::memory_order order) noexcept {
    return calls_.after_update(*this, word, before, after, order);
  }
  void after_failed_exchange(const void* word, std::uint64_t latest, std::memory_order order) noexcept {
    return calls_.after_failed_exchange(*this, word, latest, order);
  }
  void fence(std::memory_order order) noexcept { return calls_.fence(*this, order); }
  // Each thread passes a full fence (membarrier).
  void fence_all() noexcept { return calls_.fence_all(*this); }
  // A new object begins at this address: what was known of the address is void.
  void birth(const void* address) noexcept { return calls_.birth(*this, address); }
  // Orders addresses in a way that is the same in each run of a schedule.
  std::uint64_t rank(const void* address) noexcept { return calls_.rank(*this, address); }
  // Memory that is not atomic is read or written; one thread at a time may do so, and the driver looks whether that is so.
  void plain_access(const void* address, bool is_write, const char* what) noexcept {
    return calls_.plain_access(*this, address, is_write, what);
  }

  // --- what must hold, and what is worth telling ---

  // False ends the schedule as failed, with this text.
  void expect(bool holds, const char* what) noexcept { return calls_.expect(*this, holds, what); }
  // A runtime begins: while it lives, what must hold there is looked at whenever no thread can run.
  void watch(const void* scheduler) noexcept { return calls_.watch(*this, scheduler); }
  void unwatch(const void* scheduler) noexcept { return calls_.unwatch(*this, scheduler); }
  // Whether tell() is of use.
  bool is_telling() const noexcept { return calls_.is_telling(*this); }
  // On this worker, this fiber does that; without them, a line of the program's own.
  void tell(const void* worker, const void* fiber, const char* what) noexcept {
    return calls_.tell(*this, worker, fiber, what);
  }

 protected:
  ~driver() = default;

 private:
  const driver_calls& calls_;
};

// Set while one thread plays all (D1); null otherwise. std::atomic: this is what drives the others.
inline std::atomic<driver*> current_driver{nullptr};

CONCUR_FORCE_INLINE driver* driver_or_null() noexcept {
  return current_driver.load(std::memory_order_relaxed);  // relaxed: D1
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
