// bench/workers.hpp - one line to start concur with n workers; the counterpart of the peers' own set-up.
#ifndef CONCUR_BENCH_WORKERS_HPP
#define CONCUR_BENCH_WORKERS_HPP

#include <utility>

#include "concur.hpp"
#include "measure.hpp"

namespace bench {

template <class F>
void with_workers(long workers, F&& body) {
  concur::options options;
  options.workers = static_cast<unsigned>(workers);
  concur::run(options, std::forward<F>(body));
}

}  // namespace bench

#endif
