// bench/peers/boost_lockfree/queue.cpp - bench/queue.cpp with Boost.Lockfree: spsc_queue for --kind 1, queue for the others.
//
// Both with their capacity given at run time, the queue with nodes from a freelist of fixed size: it is bounded, and does
// not allocate.
#include <boost/lockfree/queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>

#include "../../queue_crowd.hpp"

namespace {

class one_to_one {
 public:
  explicit one_to_one(std::size_t capacity) : queue_(capacity) {}
  bool try_push(long value) { return queue_.push(value); }
  bool try_pop(long& value) { return queue_.pop(value); }

 private:
  boost::lockfree::spsc_queue<long> queue_;
};

class many_to_many {
 public:
  explicit many_to_many(std::size_t capacity) : queue_(capacity) {}
  bool try_push(long value) { return queue_.push(value); }
  bool try_pop(long& value) { return queue_.pop(value); }

 private:
  boost::lockfree::queue<long, boost::lockfree::fixed_sized<true>> queue_;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments given = bench::queue_arguments(argc, argv);
  if (given.number("--kind", 3) == 1)
    bench::measure_queue<one_to_one>(given);
  else
    bench::measure_queue<many_to_many>(given);
}
