// futures.cpp - results that come later: made by fibers, by a promise, by a thread that knows nothing of fibers.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/futures.cpp -o futures
//
// get() waits for a result and takes it, or throws what its maker threw. then() says what is to be done with a result
// when it comes, or_else() what with an error; both return the next future, so steps make a chain and nobody waits.
//
// Output:
//     a fiber says 42
//     a thread says hello
//     a chain: length 5
//     an error on the way: -1, after "no such host"
//     all: 1 4 9 16
//     both: 7 and seven
//     any: the one that answered, 2
//     seen by two: 100 and 100
//     not kept: broken promise
#include "concur.hpp"

#include <cstdio>
#include <exception>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

std::string host_of(const std::string& name) {
  if (name.empty()) throw std::invalid_argument("no such host");
  return name;
}

int main() {
  concur::run([] {
    concur::future<int> answer = concur::go([] { return 6 * 7; });
    std::printf("a fiber says %d\n", answer.get());

    // A promise is for results that no single function returns; here from a plain thread.
    concur::promise<std::string> greeting;
    concur::future<std::string> heard = greeting.get_future();
    std::thread outside([&greeting] { greeting.set_value("hello"); });
    std::printf("a thread says %s\n", heard.get().c_str());
    outside.join();

    concur::future<std::size_t> length =
        concur::go(host_of, "trio").then([](std::string name) { return name + "!"; }).then([](std::string name) {
          return name.size();
        });
    std::printf("a chain: length %zu\n", length.get());

    std::string reason;
    concur::future<int> repaired = concur::go(host_of, "")
                                       .then([](std::string) { return 0; })  // passed over
                                       .or_else([&reason](std::exception_ptr error) {
                                         try {
                                           std::rethrow_exception(error);
                                         } catch (const std::exception& caught) {
                                           reason = caught.what();
                                         }
                                         return -1;
                                       });
    const int substitute = repaired.get();
    std::printf("an error on the way: %d, after \"%s\"\n", substitute, reason.c_str());

    std::vector<concur::future<int>> squares;
    for (int i = 1; i <= 4; ++i) squares.push_back(concur::go([i] { return i * i; }));
    std::printf("all:");
    for (concur::future<int>& square : concur::when_all(std::move(squares)).get()) std::printf(" %d", square.get());
    std::printf("\n");

    auto [number, word] =
        concur::when_all(concur::go([] { return 7; }), concur::go([] { return std::string("seven"); })).get();
    std::printf("both: %d and %s\n", number.get(), word.get().c_str());

    concur::promise<int> slow;
    auto first = concur::when_any(slow.get_future(), concur::go([] { return 2; })).get();
    if (first.index == 1) std::printf("any: the one that answered, %d\n", std::get<1>(first.futures).get());

    const concur::shared_future<int> shared = concur::go([] { return 100; }).share();
    concur::future<int> other = concur::go([shared] { return shared.get(); });
    std::printf("seen by two: %d and %d\n", shared.get(), other.get());

    concur::future<int> never;
    {
      concur::promise<int> forgotten;
      never = forgotten.get_future();
    }
    try {
      never.get();
    } catch (const std::future_error& error) {
      if (error.code() == std::future_errc::broken_promise) std::puts("not kept: broken promise");
    }
  });
}
