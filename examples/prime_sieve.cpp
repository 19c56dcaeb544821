// prime_sieve.cpp - the sieve of Eratosthenes as a chain of fibers, one for each prime.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/prime_sieve.cpp -o prime_sieve
//
// The first fiber sends 2, 3, 4, ... Whatever comes out of the chain first is a prime, and a filter that drops its
// multiples is put behind it. At the end the chain is taken down from its head: closing a channel ends the loop of
// the fiber that receives from it, which closes the next. (The idea is Doug McIlroy's, told by Hoare.)
//
// Output:
//     2 3 5 7 11 13 17 19 23 29 31 37 41 43 47 53 59 61 67 71
//     the 200th prime is 1223
#include "concur.hpp"

#include <cstdio>

using numbers = concur::channel<int>;

// Sends what comes in and is no multiple of `prime`. Ends when either side is closed.
void filter(numbers in, numbers out, int prime) {
  for (int n : in) {
    if (n % prime != 0) out.send(n);
  }
  out.close();
}

int main() {
  concur::run([] {
    constexpr int limit = 1224;
    numbers chain;
    concur::go([chain]() mutable {
      for (int n = 2; n < limit; ++n) chain.send(n);
      chain.close();
    });

    int count = 0;
    int last = 0;
    while (auto prime = chain.recv()) {
      last = *prime;
      if (++count <= 20) std::printf("%d%c", last, count < 20 ? ' ' : '\n');
      numbers next;
      concur::go(filter, chain, next, last);
      chain = next;
    }
    std::printf("the %dth prime is %d\n", count, last);
  });
}
