// dashboard.cpp - a page from two HTTP back ends, asked at the same time, and what becomes of it when one of them fails.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/dashboard.cpp -o dashboard
//
// all() runs functions side by side and returns when every one has ended. When one fails the others are cancelled:
// what they wait for throws `cancelled`, their destructors close their connections, and the failure comes out of all()
// as the type it was thrown with. fail_after() puts a limit on whatever is done inside it; when that passes it throws
// timed_out, which nobody can take for a cancellation. The back ends are servers on real sockets, in fibers of this
// program. With two addresses it asks others: /user from the first and /orders from the second.
//
// Output:
//     the page: Ada has 3 orders
//     the orders are no longer wanted
//     no page: /user?fails gave 503
//     the order service sees that its client has gone
//     no answer within 30 ms
//     the reader has left: that is cancelled, not timed_out
//     try 1 gave 503, the next one follows in 2 to 4 ms
//     try 2 gave 503, the next one follows in 4 to 8 ms
//     try 3 gave Ada
//     404 is not tried again
#include "concur.hpp"

#include <cctype>
#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>

using namespace std::chrono_literals;
using std::chrono::microseconds;

struct http_error : std::runtime_error {
  http_error(int code, const std::string& path)
      : std::runtime_error(path + " gave " + std::to_string(code)), status(code) {}
  int status;
};

// --- the client ---

// The body at a path. An answer without a length, in chunks say, is refused.
std::string fetch(const concur::endpoint& server, const std::string& path) {
  constexpr std::size_t head_max = 8192, body_max = 1 << 20;
  concur::tcp_stream stream = concur::tcp_stream::connect(server);
  stream.write_all("GET " + path + " HTTP/1.1\r\nHost: " + server.to_string() + "\r\nConnection: close\r\n\r\n");
  std::string head = stream.read_until("\r\n\r\n", head_max);
  for (char& c : head) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  constexpr std::string_view name = "\r\ncontent-length:";
  const std::size_t at = head.find(name);
  if (head.compare(0, 7, "http/1.") != 0 || at == std::string::npos) throw std::runtime_error(path + ": what is this?");
  const std::size_t size = std::stoul(head.substr(at + name.size()));
  if (size > body_max) throw std::runtime_error(path + ": too long");
  std::string body(size, ' ');
  stream.read_exactly(body);
  const int status = std::stoi(head.substr(head.find(' ')));
  if (status != 200) throw http_error(status, path);
  return body;
}

void show_page(const concur::endpoint& users, const concur::endpoint& orders) {
  const auto [name, count] =
      concur::all([&] { return fetch(users, "/user"); }, [&] { return fetch(orders, "/orders"); });
  std::printf("the page: %s has %s orders\n", name.c_str(), count.c_str());
}

// Calls f again when the server is too busy (503). Waits twice as long each time, and by chance up to a half less, so that
// clients that failed together do not come back together. All else that f throws passes: `cancelled`, timed_out, a 404.
template <class F>
auto retry(int tries, std::chrono::milliseconds longest, F&& f) {
  std::minstd_rand random{std::random_device{}()};
  for (int n = 1;; ++n, longest *= 2) {
    try {
      return f();
    } catch (const http_error& error) {
      if (error.status != 503 || n == tries) throw;
      std::printf("try %d gave 503, the next one follows in %d to %d ms\n", n, static_cast<int>(longest.count() / 2),
                  static_cast<int>(longest.count()));
    }
    const microseconds most = longest;
    std::uniform_int_distribution<microseconds::rep> wait_us(most.count() / 2, most.count());
    concur::this_fiber::sleep_for(microseconds(wait_us(random)));
  }
}

// --- the back ends ---

// What there is at a path; an http_error is answered with its status. The stream is for those who want to see it end.
using service = std::function<std::string(const std::string& path, concur::tcp_stream& stream)>;

void answer(const service& ask, concur::tcp_stream& stream) {
  std::error_code error;  // a client that goes away is no failure of the server
  const std::string head = stream.read_until("\r\n\r\n", 8192, error);
  if (head.compare(0, 4, "GET ") != 0) return;
  std::string status = "200 OK", body;
  try {
    body = ask(head.substr(4, head.find(' ', 4) - 4), stream);
  } catch (const http_error& failed) {
    status = std::to_string(failed.status) + " Sorry";
  }
  stream.write_all("HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) +
                       "\r\nConnection: close\r\n\r\n" + body,
                   error);
}

// Serves until it is cancelled, each client in a fiber of its own.
void serve(concur::tcp_listener& listener, const service& ask) {
  concur::with_nursery([&](concur::nursery& clients) {
    for (;;) clients.go([&ask, stream = listener.accept()]() mutable { answer(ask, stream); });
  });
}

struct back_ends {
  concur::tcp_listener user_listener = concur::tcp_listener::bind("127.0.0.1:0");  // port 0: any that is free
  concur::tcp_listener order_listener = concur::tcp_listener::bind("127.0.0.1:0");
  concur::event asked, gone;  // about /orders?never
  int flaky_calls = 0;        // one client at a time asks for it

  std::string user(const std::string& path) {
    if (path == "/user?fails") {
      asked.wait();  // so that the other request is surely on its way
      throw http_error(503, path);
    }
    if (path == "/user?flaky" && ++flaky_calls < 3) throw http_error(503, path);
    if (path == "/user" || path == "/user?flaky") return "Ada";
    throw http_error(404, path);
  }
  std::string order(const std::string& path, concur::tcp_stream& stream) {
    if (path == "/orders") return "3";
    if (path != "/orders?never") throw http_error(404, path);
    asked.set();
    char byte;
    std::error_code error;
    stream.read_some(&byte, 1, error);  // nothing comes but the end
    gone.set();
    return "";
  }
};

// --- what can happen ---

void show_failure(back_ends& all, const concur::endpoint& users, const concur::endpoint& orders) {
  const auto fetch_orders = [&] {
    try {
      return fetch(orders, "/orders?never");
    } catch (const concur::cancelled&) {
      std::puts("the orders are no longer wanted");
      throw;  // always: it is on its way to the one who cancelled
    }
  };
  try {
    concur::all([&] { return fetch(users, "/user?fails"); }, fetch_orders);
  } catch (const http_error& error) {
    std::printf("no page: %s\n", error.what());
  }
  all.gone.wait();
  std::puts("the order service sees that its client has gone");
}

void show_limits(const concur::endpoint& orders) {
  try {
    concur::fail_after(30ms, [&] { fetch(orders, "/orders?never"); });
  } catch (const concur::timed_out&) {
    std::puts("no answer within 30 ms");
  }
  concur::event has_begun;  // what children use lives outside of the nursery's block, which waits for them at its end
  concur::with_nursery([&](concur::nursery& visit) {
    visit.go([&] {
      try {
        has_begun.set();
        concur::fail_after(1h, [&] { fetch(orders, "/orders?never"); });
      } catch (const concur::timed_out&) {
        std::puts("an hour has passed");
      } catch (const concur::cancelled&) {
        std::puts("the reader has left: that is cancelled, not timed_out");
        throw;
      }
    });
    has_begun.wait();
    visit.cancel();
  });
}

void show_retries(const concur::endpoint& users) {
  std::printf("try 3 gave %s\n", retry(5, 4ms, [&] { return fetch(users, "/user?flaky"); }).c_str());
  try {
    retry(5, 4ms, [&] { return fetch(users, "/user?nobody"); });
  } catch (const http_error& error) {
    std::printf("%d is not tried again\n", error.status);
  }
}

void demonstrate() {
  back_ends all;
  const concur::endpoint users = all.user_listener.local_endpoint(), orders = all.order_listener.local_endpoint();
  concur::with_nursery([&](concur::nursery& servers) {
    servers.go([&] { serve(all.user_listener, [&](const std::string& path, auto&) { return all.user(path); }); });
    servers.go([&] {
      serve(all.order_listener, [&](const std::string& path, auto& stream) { return all.order(path, stream); });
    });
    show_page(users, orders);
    show_failure(all, users, orders);
    show_limits(orders);
    show_retries(users);
    servers.cancel();  // they would serve for ever
  });
}

int main(int count, char** values) {
  try {
    concur::run([&] {
      if (count != 3) return demonstrate();
      concur::fail_after(5s, [&] { show_page(values[1], values[2]); });
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dashboard: %s\n", error.what());
    return 1;
  }
}
