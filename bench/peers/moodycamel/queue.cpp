// bench/peers/moodycamel/queue.cpp - bench/queue.cpp with moodycamel's queues: ReaderWriterQueue for --kind 1, and
// ConcurrentQueue for the others.
//
// ReaderWriterQueue is asked to stay within the blocks it made for the capacity. ConcurrentQueue has no bound that is one for
// several threads: each pusher has blocks of its own. It is measured as its users use it, unbounded, and never says "full".
#include <concurrentqueue/concurrentqueue.h>
#include <readerwriterqueue/readerwriterqueue.h>

#include "../../queue_crowd.hpp"

namespace {

class one_to_one {
 public:
  explicit one_to_one(std::size_t capacity) : queue_(capacity) {}
  bool try_push(long value) { return queue_.try_enqueue(value); }
  bool try_pop(long& value) { return queue_.try_dequeue(value); }

 private:
  moodycamel::ReaderWriterQueue<long> queue_;
};

class many_to_many {
 public:
  explicit many_to_many(std::size_t capacity) : queue_(capacity) {}
  bool try_push(long value) { return queue_.enqueue(value); }
  bool try_pop(long& value) { return queue_.try_dequeue(value); }

 private:
  moodycamel::ConcurrentQueue<long> queue_;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::arguments given = bench::queue_arguments(argc, argv);
  if (given.number("--kind", 3) == 1)
    bench::measure_queue<one_to_one>(given);
  else
    bench::measure_queue<many_to_many>(given);
}
