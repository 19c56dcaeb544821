// hello.cpp - a fiber that produces, a fiber that consumes, and a channel between them.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/hello.cpp -o hello
//
// run() starts the workers, runs its argument as the first fiber, and returns when every fiber has ended. The channel
// holds nothing: each send waits for its receive, so the two take turns.
//
// Output:
//     hello, gopher
//     hello, trio
//     hello, you
//     3 greetings
#include "concur.hpp"

#include <iostream>
#include <string>

int main() {
  const int greetings = concur::run([] {
    concur::channel<std::string> names;
    concur::go([names]() mutable {
      for (const char* name : {"gopher", "trio", "you"}) names.send(name);
      names.close();
    });
    int count = 0;
    for (const std::string& name : names) {
      std::cout << "hello, " << name << '\n';
      ++count;
    }
    return count;
  });
  std::cout << greetings << " greetings\n";
}
