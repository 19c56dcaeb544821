// bench/peers/tbb/arena.hpp - TBB on n threads, the calling one among them.
#ifndef CONCUR_BENCH_TBB_ARENA_HPP
#define CONCUR_BENCH_TBB_ARENA_HPP

#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include <cstddef>
#include <utility>

namespace bench {

template <class F>
void with_workers(long workers, F&& body) {
  const tbb::global_control most(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(workers));
  tbb::task_arena arena(static_cast<int>(workers));
  arena.execute(std::forward<F>(body));
}

}  // namespace bench

#endif
