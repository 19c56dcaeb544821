// bench/peers/tbb/queue.cpp - bench/queue.cpp with TBB's concurrent_bounded_queue, whatever the --kind: it has one for all.
#include <tbb/concurrent_queue.h>

#include "../../queue_crowd.hpp"

namespace {

class many_to_many {
 public:
  explicit many_to_many(std::size_t capacity) { queue_.set_capacity(static_cast<std::ptrdiff_t>(capacity)); }
  bool try_push(long value) { return queue_.try_push(value); }
  bool try_pop(long& value) { return queue_.try_pop(value); }

 private:
  tbb::concurrent_bounded_queue<long> queue_;
};

}  // namespace

int main(int argc, char** argv) { bench::measure_queue<many_to_many>(bench::queue_arguments(argc, argv)); }
