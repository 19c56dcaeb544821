// happy_eyeballs.cpp - a service has several addresses: connects to the first that answers, and does not wait for the rest.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/happy_eyeballs.cpp -o happy_eyeballs
//
// As RFC 8305 has it, addresses are tried in their order. The next attempt begins when the one before has failed, or after
// 250 ms (20 here), while those before go on; who is connected first wins. That is what any() is for: the first success
// cancels the others, which close their sockets on the way out, and any() returns when they are gone. When nobody
// succeeds it throws `failures`, with every reason. The servers are real: at one address nobody listens, one is full and
// never completes the connection, one accepts and then says nothing, one works.
//
// Output:
//     closed: Connection refused
//     mute: cancelled
//     full: cancelled
//     connected to one that says: I am open
//     the mute server sees that its client has gone
//
//     closed: Connection refused
//     without the open one nobody is left:
//     - closed: Connection refused
//     - full: no answer within 50 ms
//     - mute: no answer within 50 ms
#include "concur.hpp"

#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using std::chrono::milliseconds;

struct address {
  std::string name;
  concur::endpoint where;
};

struct patience {
  milliseconds until_next = 250ms;  // between two attempts
  milliseconds of_each = 10s;       // with one address
};

// --- the client ---

// A connection counts when the server has greeted: some accept and never say a word.
concur::tcp_stream attempt(const address& to, milliseconds limit) {
  try {
    return concur::fail_after(limit, [&] {
      concur::tcp_stream stream = concur::tcp_stream::connect(to.where);
      if (stream.read_until("\n", 100) != "ready\n") throw std::runtime_error("not our protocol");
      return stream;
    });
  } catch (const concur::cancelled&) {
    std::printf("%s: cancelled\n", to.name.c_str());
    throw;
  } catch (const concur::timed_out&) {
    throw std::runtime_error(to.name + ": no answer within " + std::to_string(limit.count()) + " ms");
  } catch (const std::system_error& error) {
    std::printf("%s: %s\n", to.name.c_str(), error.code().message().c_str());
    throw std::runtime_error(to.name + ": " + error.code().message());
  }
}

// Two race: the first address, and all the others, which give it a little time.
concur::tcp_stream connect_to_any(const std::vector<address>& addresses, patience with, std::size_t first = 0) {
  if (first + 1 == addresses.size()) return attempt(addresses[first], with.of_each);
  concur::event has_failed;
  return concur::any(
      [&] {
        try {
          return attempt(addresses[first], with.of_each);
        } catch (const std::exception&) {
          has_failed.set();
          throw;
        }
      },
      [&] {
        has_failed.wait_for(with.until_next);
        return connect_to_any(addresses, with, first + 1);
      });
}

// The reasons of "all the others" are a `failures` of their own.
void tell(const concur::failures& reasons) {
  for (const std::exception_ptr& reason : reasons.errors()) {
    try {
      std::rethrow_exception(reason);
    } catch (const concur::failures& others) {
      tell(others);
    } catch (const std::exception& error) {
      std::printf("- %s\n", error.what());
    }
  }
}

// --- the servers ---

// Greets, then answers each line.
void serve_open(concur::tcp_listener& listener) {
  for (;;) {
    concur::tcp_stream stream = listener.accept();
    stream.write_all("ready\n");
    while (!stream.read_until("\n", 100).empty()) stream.write_all("I am open\n");
  }
}

void serve_mute(concur::tcp_listener& listener, concur::channel<void> gone) {
  for (;;) {
    concur::tcp_stream stream = listener.accept();
    char byte;
    std::error_code error;
    stream.read_some(&byte, 1, error);  // returns when the client hangs up
    gone.send();
  }
}

// Nobody accepts here. When the queue is full as well, the kernel leaves further clients without an answer.
struct full_server {
  concur::tcp_listener listener = concur::tcp_listener::bind("127.0.0.1:0", 1);
  std::vector<concur::tcp_stream> queue;

  full_server() {
    const concur::endpoint here = listener.local_endpoint();
    while (auto stream = concur::move_on_after(100ms, [&] { return concur::tcp_stream::connect(here); })) {
      queue.push_back(std::move(*stream));
    }
  }
};

int main() {
  concur::run([] {
    concur::tcp_listener open = concur::tcp_listener::bind("127.0.0.1:0");
    concur::tcp_listener mute = concur::tcp_listener::bind("127.0.0.1:0");
    full_server full;
    concur::channel<void> gone(2);
    std::vector<address> addresses = {{"closed", "127.0.0.1:1"},
                                      {"full", full.listener.local_endpoint()},
                                      {"mute", mute.local_endpoint()},
                                      {"open", open.local_endpoint()}};
    patience with;
    with.until_next = 20ms;
    concur::with_nursery([&](concur::nursery& servers) {
      servers.go(serve_open, std::ref(open));
      servers.go(serve_mute, std::ref(mute), gone);

      {
        concur::tcp_stream winner = connect_to_any(addresses, with);
        winner.write_all("who are you?\n");
        std::printf("connected to one that says: %s", winner.read_until("\n", 100).c_str());
        gone.recv();
        std::puts("the mute server sees that its client has gone\n");
      }

      addresses.pop_back();
      with.of_each = 50ms;
      try {
        connect_to_any(addresses, with);
      } catch (const concur::failures& reasons) {
        std::puts("without the open one nobody is left:");
        tell(reasons);
      }
      servers.cancel();
    });
  });
}
