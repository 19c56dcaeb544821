// machine/stack_guard.hpp - three ways to notice that a stack ended, and how to find out which of them this machine
// has.
//
// Below each stack lies a strip that nobody may touch. A fiber that recurses too deep walks into it and is stopped
// there, instead of writing over its neighbour. What keeps the strip untouched depends on the machine:
//
//     kind      cost of one                      limit                              noticed
//     madvise   a system call, no mapping        none                               at the first touch (SIGSEGV)
//     mprotect  a system call and two mappings   a quarter of vm.max_map_count      at the first touch (SIGSEGV,
//     SIGBUS) canary    nothing                          none                               when the stack is given
//     back, or asked for
//
// MADV_GUARD_INSTALL (Linux 6.13) marks page table entries and leaves the mapping whole; a million guarded stacks fit
// into a few dozen mappings, where mprotect splits one into three each time and the kernel refuses after 65,530.
//
// The call cannot be believed. An emulator that does not know it may answer "done" and do nothing: qemu-user hands
// unknown advice to nobody and returns 0. Hence the probe: after installing a guard on a page of our own, the kernel
// itself is asked to read it, by write() into a pipe, and has to answer EFAULT. A guard that does not is not counted as
// one.
//
// The canary is not a pattern but the absence of one. A fresh strip reads as zero, and costs no memory while nobody
// writes to it; a call writes at least its return address. So the page of the strip that borders on the stack must
// still be all zero. Rejected: writing a pattern first, which would cost each stack a page of memory for the sake of a
// check.
#ifndef CONCUR_MACHINE_STACK_GUARD_HPP
#define CONCUR_MACHINE_STACK_GUARD_HPP

#include <atomic>
#include <cstddef>

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// none_yet: not found out, because no stack has been asked for.
enum class guard_kind : unsigned char { none_yet, madvise, mprotect, canary };

// The strongest kind that works here. Asked once per pool; none_yet when it could not be found out now (no descriptors
// left for the pipe), in which case mprotect does for the moment.
CONCUR_INLINE guard_kind probe_guard_kind(std::size_t page_bytes) noexcept;

// Puts a guard of this kind on whole pages; false when the kernel refuses, and then nothing has changed. A canary
// always succeeds: it is there already.
CONCUR_INLINE bool install_guard(guard_kind kind, char* low, std::size_t bytes) noexcept;

// A place in the budget of mappings that mprotect may use up, shared by all pools of the process. False: it is spent.
CONCUR_INLINE bool take_mprotect_place() noexcept;
CONCUR_INLINE void give_back_mprotect_places(std::size_t count) noexcept;

// True while nobody wrote to these bytes of a canary. Reading them costs no memory.
CONCUR_INLINE bool canary_is_zero(const char* low, std::size_t bytes) noexcept;

// The places taken by all pools together. std::atomic: a count of what the kernel gave, not of the protocol.
inline std::atomic<std::size_t> mprotect_places_taken{0};

// How many there are; 0: not read yet. std::atomic: as above.
inline std::atomic<std::size_t> mprotect_places{0};

}  // namespace detail
CONCUR_NAMESPACE_END

#if CONCUR_BODIES

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

CONCUR_NAMESPACE_BEGIN
namespace detail {

#if defined(__linux__)

inline constexpr int advice_guard_install = 102;  // MADV_GUARD_INSTALL, newer than most C libraries' headers

// Whether the kernel itself cannot read this byte. -1: there is no pipe to be had, so nobody knows.
CONCUR_NOINLINE CONCUR_INLINE int kernel_cannot_read(const char* address) noexcept {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return -1;
  const bool is_fault = ::write(ends[1], address, 1) < 0 && errno == EFAULT;
  ::close(ends[0]);
  ::close(ends[1]);
  return is_fault ? 1 : 0;
}

CONCUR_INLINE guard_kind probe_guard_kind(std::size_t page_bytes) noexcept {
  void* const page = ::mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return guard_kind::none_yet;
  guard_kind kind = guard_kind::mprotect;
  if (::madvise(page, page_bytes, advice_guard_install) == 0) {
#if CONCUR_MUTANT_IS(22)
    kind = guard_kind::madvise;  // planted bug: believes the return value
#else
    const int answer = kernel_cannot_read(static_cast<const char*>(page));
    kind = answer < 0 ? guard_kind::none_yet : answer == 1 ? guard_kind::madvise : guard_kind::mprotect;
#endif
  }
  ::munmap(page, page_bytes);
  return kind;
}

// Half of the mappings a process may have, at two for each guarded stack. The other half is for threads, files and
// malloc.
CONCUR_INLINE std::size_t read_mprotect_places() noexcept {
  std::size_t mappings = 65530;  // the kernel's default (DEFAULT_MAX_MAP_COUNT)
  const int fd = ::open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    char digits[24];
    const auto length = ::read(fd, digits, sizeof digits);
    ::close(fd);
    std::size_t value = 0;
    for (int i = 0; i < length && digits[i] >= '0' && digits[i] <= '9'; ++i)
      value = value * 10 + static_cast<std::size_t>(digits[i] - '0');
    if (value != 0) mappings = value;
  }
  return mappings / 4 + 1;
}

CONCUR_INLINE bool install_by_madvise(char* low, std::size_t bytes) noexcept {
  return ::madvise(low, bytes, advice_guard_install) == 0;
}

#else

// Elsewhere mappings are not counted, and mprotect is all there is.
CONCUR_INLINE guard_kind probe_guard_kind(std::size_t) noexcept { return guard_kind::mprotect; }
CONCUR_INLINE std::size_t read_mprotect_places() noexcept { return ~std::size_t{0} / 2; }
CONCUR_INLINE bool install_by_madvise(char*, std::size_t) noexcept { return false; }

#endif

CONCUR_INLINE bool install_guard(guard_kind kind, char* low, std::size_t bytes) noexcept {
  if (kind == guard_kind::madvise) return install_by_madvise(low, bytes);
  if (kind == guard_kind::mprotect) return ::mprotect(low, bytes, PROT_NONE) == 0;
  return true;
}

CONCUR_INLINE bool take_mprotect_place() noexcept {
  // relaxed: a number that is the same whoever reads it first
  std::size_t places = mprotect_places.load(std::memory_order_relaxed);
  if (places == 0) {
    places = read_mprotect_places();
    mprotect_places.store(places, std::memory_order_relaxed);  // relaxed: as above
  }
  // relaxed: a count, it guards no other memory
  if (mprotect_places_taken.fetch_add(1, std::memory_order_relaxed) < places) return true;
  give_back_mprotect_places(1);
  return false;
}

CONCUR_INLINE void give_back_mprotect_places(std::size_t count) noexcept {
  mprotect_places_taken.fetch_sub(count, std::memory_order_relaxed);  // relaxed: a count, it guards no other memory
}

CONCUR_INLINE bool canary_is_zero(const char* low, std::size_t bytes) noexcept {
  // Each byte equals its successor and the first one is zero.
  return low[0] == 0 && std::memcmp(low, low + 1, bytes - 1) == 0;
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif  // CONCUR_BODIES

#endif
