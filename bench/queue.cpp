// bench/queue.cpp - the stand-alone queues between plain threads; ns an item.
//
// --kind 1: from one to one (spsc_queue), 2: from many to one (mpsc_queue), 3: from many to many (mpmc_queue).
#include "concur.hpp"
#include "queue_crowd.hpp"

int main(int argc, char** argv) {
  const bench::arguments given = bench::queue_arguments(argc, argv);
  switch (given.number("--kind", 3)) {
    case 1:
      bench::measure_queue<concur::spsc_queue<long>>(given);
      break;
    case 2:
      bench::measure_queue<concur::mpsc_queue<long>>(given);
      break;
    default:
      bench::measure_queue<concur::mpmc_queue<long>>(given);
      break;
  }
}
