// runtime/options.hpp - what a user may ask of a runtime, and what is refused.
#ifndef CONCUR_RUNTIME_OPTIONS_HPP
#define CONCUR_RUNTIME_OPTIONS_HPP

#include <chrono>

#include "base/config.hpp"
#include "base/error.hpp"

CONCUR_NAMESPACE_BEGIN

// Whether a fiber may go on on another worker than the one it stopped on.
enum class migration : unsigned char {
  free,      // any ready fiber may be taken over by an idle worker
  at_start,  // only fibers that have not run yet; one that has stays with its worker
};

struct options {
  // Threads that run fibers. 0: as many as this process may use CPUs (affinity mask and cgroup quota).
  unsigned workers = 0;
  // Usable bytes of a fiber's stack, rounded up to pages. 0: 256 KiB on 64-bit machines, 64 KiB on 32-bit ones.
  std::size_t stack_size = 0;
  // Upper bound of the threads behind blocking(), and of the jobs that may wait for them.
  unsigned blocking_threads = 64;
  std::size_t blocking_queue = 1024;
  // Whether run() reports that every fiber waits for another.
  bool detect_deadlock = true;
  // A worker stuck in one fiber for longer is handed off.
  std::chrono::nanoseconds stall_after = std::chrono::milliseconds(10);
  concur::migration migration = concur::migration::free;
};

namespace detail {

inline constexpr unsigned workers_max = 1024;
inline constexpr std::size_t default_stack_bytes = sizeof(void*) == 8 ? 256 * 1024 : 64 * 1024;
inline constexpr std::size_t stack_bytes_max = std::size_t{1} << (sizeof(void*) == 8 ? 36 : 28);

// The options with every 0 replaced by what it stands for. Throws std::invalid_argument naming the field and its value.
CONCUR_INLINE options resolve_options(options wanted);

// CPUs this process may use: its affinity mask, cut by the quota of its control group where there is one. At least 1.
CONCUR_INLINE unsigned usable_cpu_count() noexcept;

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#  include <cstdio>
#  include <string>
#  if defined(__linux__)
#    include <sched.h>
#  endif
#  include <unistd.h>

#  include "machine/stack.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

#  if defined(__linux__)
// Control groups v2, then v1, as seen from inside the group; 0 when there is no quota.
inline unsigned cgroup_cpu_quota() noexcept {
  long quota_us = -1;
  long period_us = 0;
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
    if (std::fscanf(file, "%ld %ld", &quota_us, &period_us) != 2) quota_us = -1;  // "max": no quota
    std::fclose(file);
  } else if (std::FILE* quota = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re")) {
    if (std::fscanf(quota, "%ld", &quota_us) != 1) quota_us = -1;
    std::fclose(quota);
    if (std::FILE* period = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re")) {
      if (std::fscanf(period, "%ld", &period_us) != 1) period_us = 0;
      std::fclose(period);
    }
  }
  if (quota_us <= 0 || period_us <= 0) return 0;
  return static_cast<unsigned>((quota_us + period_us - 1) / period_us);
}
#  endif

CONCUR_INLINE unsigned usable_cpu_count() noexcept {
  unsigned count = 0;
#  if defined(__linux__)
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) count = static_cast<unsigned>(CPU_COUNT(&mask));
  const unsigned quota = cgroup_cpu_quota();
  if (quota != 0 && (count == 0 || quota < count)) count = quota;
#  endif
  if (count == 0) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    count = online > 0 ? static_cast<unsigned>(online) : 1;
  }
  return count < workers_max ? count : workers_max;
}

CONCUR_INLINE options resolve_options(options wanted) {
  if (wanted.workers == 0) wanted.workers = usable_cpu_count();
  if (wanted.workers > workers_max)
    fail_argument("concur::runtime", "options.workers", std::to_string(wanted.workers),
                  "at most 1024 workers are supported");
  if (wanted.stack_size == 0) wanted.stack_size = default_stack_bytes;
  if (wanted.stack_size < minimum_stack_bytes) {
    const std::string advice =
        "a fiber's stack needs at least " + std::to_string(minimum_stack_bytes) + " bytes; 0 takes the default";
    fail_argument("concur::runtime", "options.stack_size", std::to_string(wanted.stack_size) + " bytes",
                  advice.c_str());
  }
  if (wanted.stack_size > stack_bytes_max) {
    const std::string advice = "at most " + std::to_string(stack_bytes_max) + " bytes can be reserved for one stack";
    fail_argument("concur::runtime", "options.stack_size", std::to_string(wanted.stack_size) + " bytes",
                  advice.c_str());
  }
  if (wanted.blocking_threads == 0)
    fail_argument("concur::runtime", "options.blocking_threads", "0", "blocking() needs at least one thread");
  if (wanted.blocking_queue == 0)
    fail_argument("concur::runtime", "options.blocking_queue", "0", "at least one job must be able to wait");
  if (wanted.stall_after.count() < 0) {
    fail_argument("concur::runtime", "options.stall_after", std::to_string(wanted.stall_after.count()) + " ns",
                  "it is a length of time; 0 or more");
  }
  return wanted;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES
#endif
