// bench/peers/floor/stacks.hpp - stacks for a crowd of contexts, laid out as is best for them.
//
// Small and side by side in one mapping with no guards between, so that eight neighbours' entries in the page table take no
// more than four lines. In pages of 4 KiB, for nobody could pay 2 MiB for each fiber's first frame. The tops are coloured by
// whole lines: a context has touched little but the end of its stack, and no two in a row fall into one set of the cache.
#ifndef CONCUR_BENCH_STACKS_HPP
#define CONCUR_BENCH_STACKS_HPP

#include <sys/mman.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

namespace bench {

class stacks {
 public:
  explicit stacks(std::size_t count) : bytes_(count * stride) {
    void* const got = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) {
      std::perror("stacks");
      std::exit(1);
    }
    madvise(got, bytes_, MADV_NOHUGEPAGE);
    memory_ = static_cast<char*>(got);
  }
  ~stacks() { munmap(memory_, bytes_); }
  stacks(const stacks&) = delete;
  stacks& operator=(const stacks&) = delete;

  void* low(std::size_t index) const { return memory_ + index * stride; }
  static std::size_t size(std::size_t index) { return stride - index % colours * line; }

 private:
  static constexpr std::size_t stride = 16384;
  static constexpr std::size_t line = 64;
  static constexpr std::size_t colours = 48;  // of 64 lines of a page: the rest is for the frames

  std::size_t bytes_;
  char* memory_;
};

}  // namespace bench

#endif
