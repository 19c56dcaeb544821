// select.cpp - a worker that listens to several channels at once, and callers that do not wait for ever.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/select.cpp -o select
//
// select() waits until one of its cases can go, does that one, and leaves the others as they were. Closing a channel is
// a signal to everybody who receives from it: that is what `quit` is for. A channel that is nil is never ready, so
// setting a channel to nil takes its case out of the loop.
//
// Output:
//     job 2 gives 4
//     job 3 gives 9
//     job 4 gives 16
//     no more results
//     the worker is alive
//     the worker has left after 3 jobs
//     nobody answers within 20 ms
//     nothing is there now
//     of two that are ready, the first
#include "concur.hpp"

#include <chrono>
#include <cstdio>
#include <optional>

using namespace std::chrono_literals;

// Squares what comes in, gives a sign of life every few milliseconds, and leaves when `quit` is closed.
int work(concur::channel<int> jobs, concur::sender<int> results, concur::sender<void> alive,
         concur::receiver<void> quit) {
  int done = 0;
  bool must_leave = false;
  concur::ticker heart = concur::tick(5ms);
  while (!must_leave) {
    std::optional<int> taken;
    concur::select(concur::recv(jobs,
                                [&](std::optional<int> job) {
                                  taken = job;
                                  if (job) return;
                                  results.close();  // there will be no more
                                  jobs = concur::nil;
                                }),
                   concur::recv(heart, [&](auto) { alive.try_send(); }),  // if nobody has heard the last one, no matter
                   concur::recv(quit, [&](auto) { must_leave = true; }));
    if (!taken) continue;
    ++done;
    results.send(*taken * *taken);
  }
  return done;
}

int main() {
  concur::run([] {
    concur::channel<int> jobs;
    concur::channel<int> results;
    concur::channel<void> alive;
    concur::channel<void> quit;
    concur::future<int> worker = concur::go(work, jobs, results, alive, quit);

    for (int job = 2; job <= 4; ++job) {
      jobs.send(job);
      std::printf("job %d gives %d\n", job, *results.recv());
    }
    jobs.close();
    if (!results.recv()) std::puts("no more results");
    alive.recv();  // the next tick finds us waiting
    std::puts("the worker is alive");
    quit.close();
    std::printf("the worker has left after %d jobs\n", worker.get());

    // A limit on the wait is one case more.
    concur::channel<int> silent;
    concur::select(concur::recv(silent, [](auto) { std::puts("an answer"); }),
                   concur::after(20ms, [] { std::puts("nobody answers within 20 ms"); }));
    // With otherwise() select does not wait at all.
    concur::select(concur::recv(silent, [](auto) { std::puts("an answer"); }),
                   concur::otherwise([] { std::puts("nothing is there now"); }));

    // When several cases are ready, chance decides, so that no channel is starved. select_ordered takes the first.
    concur::channel<int> one(1), other(1);
    one.send(1);
    other.send(2);
    concur::select_ordered(concur::recv(one, [](auto) { std::puts("of two that are ready, the first"); }),
                           concur::recv(other, [](auto) { std::puts("the second"); }));
  });
}
