// crawler.cpp - reads every page of a web site once, at most three at a time, and goes on when some of them fail.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/crawler.cpp -o crawler
//
// A nursery with a limit makes async() wait while so many children run: however many links there are, three connections
// are open at most. With on_failure::keep_going a page that fails ends itself and nobody else; its error comes out of its
// future, as the type it was thrown with, and failures() has them all. The end is known, not guessed: no page waits, and
// none is being read that could name more. The site is a real HTTP server, in fibers of this program, with broken pages.
//
// Output:
//     /: 149 bytes
//     /about: 49 bytes
//     /blog: 106 bytes
//     /blog/1: 28 bytes
//     /blog/2: 28 bytes
//     /blog/3: ...read_exactly (22 of 1000 bytes came)...
//     /jobs: 49 bytes
//     /missing: status 404
//     /stuck: no answer within 300 ms
//     3 of 9 pages failed
//     the server saw each page once, and 3 at the same time at most
#include "concur.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

using namespace std::chrono_literals;

// --- the crawler ---

// The pages that are known, each given out once.
class frontier {
 public:
  void add(const std::string& page) {
    std::lock_guard<concur::mutex> hold(mutex_);
    if (!known_.insert(page).second) return;
    waiting_.push_back(page);
    has_changed_.notify_one();
  }
  // Waits for a page. Empty: that was all.
  std::optional<std::string> next() {
    std::unique_lock<concur::mutex> hold(mutex_);
    has_changed_.wait(hold, [this] { return !waiting_.empty() || being_read_ == 0; });
    if (waiting_.empty()) return std::nullopt;
    std::string page = waiting_.front();
    waiting_.pop_front();
    ++being_read_;
    return page;
  }
  // Once for each page that next() gave, when it has been read or has failed.
  void done() {
    std::lock_guard<concur::mutex> hold(mutex_);
    --being_read_;
    has_changed_.notify_one();
  }

 private:
  concur::mutex mutex_;
  concur::condition_variable has_changed_;
  std::deque<std::string> waiting_;
  std::set<std::string> known_;
  int being_read_ = 0;
};

std::string fetch(const concur::endpoint& server, const std::string& path) {
  constexpr std::size_t head_max = 8192, body_max = 1 << 20;
  const std::string length = "\r\nContent-Length: ";
  concur::tcp_stream stream = concur::tcp_stream::connect(server);
  stream.write_all("GET " + path + " HTTP/1.1\r\nHost: " + server.to_string() + "\r\nConnection: close\r\n\r\n");
  const std::string head = stream.read_until("\r\n\r\n", head_max);
  const std::size_t at = head.find(length);
  if (head.compare(0, 9, "HTTP/1.1 ") != 0 || at == std::string::npos) throw std::runtime_error("not understood");
  if (head.compare(9, 4, "200 ") != 0) throw std::runtime_error("status " + head.substr(9, 3));
  const std::size_t size = std::stoul(head.substr(at + length.size()));
  if (size > body_max) throw std::runtime_error("too long");
  std::string body(size, ' ');
  stream.read_exactly(body);
  return body;
}

std::vector<std::string> links_in(const std::string& html) {
  std::vector<std::string> links;
  const std::string begin = "<a href=\"";
  for (std::size_t at = html.find(begin); at != std::string::npos; at = html.find(begin, at)) {
    at += begin.size();
    links.push_back(html.substr(at, html.find('"', at) - at));
  }
  return links;
}

// Returns the size of the page. The links on it go to the frontier, but for those that leave the site.
std::size_t visit(const concur::endpoint& server, const std::string& page, frontier& pages) {
  // A destructor must not throw, and in a cancelled crawl done() would, as all that may wait: hence the shield.
  struct sign_off {
    ~sign_off() {
      concur::shield([this] { pages.done(); });
    }
    frontier& pages;
  } at_end{pages};
  const std::string html = concur::fail_after(300ms, [&] { return fetch(server, page); });
  for (const std::string& link : links_in(html)) {
    if (link.compare(0, 1, "/") == 0) pages.add(link);
  }
  return html.size();
}

void crawl(const concur::endpoint& server) {
  frontier pages;
  std::map<std::string, concur::future<std::size_t>> sizes;
  concur::nursery visits(concur::on_failure::keep_going);
  visits.limit(3);
  pages.add("/");
  // Only here are children made. A child that called async() itself could wait for a place that only it would free.
  while (std::optional<std::string> page = pages.next()) {
    sizes.emplace(*page, visits.async([&, page = *page] { return visit(server, page, pages); }));
  }
  try {
    visits.join();
  } catch (const std::exception&) {
    // The first of the failures, which are told below.
  }
  for (auto& [page, size] : sizes) {
    try {
      std::printf("%s: %zu bytes\n", page.c_str(), size.get());
    } catch (const concur::timed_out&) {
      std::printf("%s: no answer within 300 ms\n", page.c_str());
    } catch (const std::exception& error) {
      std::printf("%s: %s\n", page.c_str(), error.what());
    }
  }
  std::printf("%zu of %zu pages failed\n", visits.failures().size(), sizes.size());
}

// --- the site ---

class site {
 public:
  const concur::endpoint where() const { return listener_.local_endpoint(); }

  // Until it is cancelled.
  void serve() {
    concur::with_nursery([this](concur::nursery& clients) {
      for (;;) clients.go([this, stream = listener_.accept()]() mutable { answer(stream); });
    });
  }

  void report() const {
    bool is_once = true;
    for (const auto& [page, times] : asked_) is_once = is_once && times == 1;
    if (is_once) std::printf("the server saw each page once, and %d at the same time at most\n", most_at_once_);
  }

 private:
  void answer(concur::tcp_stream& stream) {
    std::error_code error;  // a client that goes away is no failure of the server
    const std::string head = stream.read_until("\r\n\r\n", 8192, error);
    if (head.compare(0, 4, "GET ") != 0) return;
    const std::string page = head.substr(4, head.find(' ', 4) - 4);
    enter(page);
    if (page == "/about" || page == "/blog" || page == "/jobs") {
      first_three_.count_down();
      first_three_.wait();  // so slow is this server that the first three are all there before it answers one
    }
    leave();  // before the client can know its answer and ask for the next page
    char byte;
    if (page == "/stuck") stream.read_some(&byte, 1, error);  // until the client has hung up
    const auto found = links_on_.find(page);
    std::string html;
    if (found != links_on_.end()) {
      for (const std::string& link : found->second) html += "<a href=\"" + link + "\">there</a>\n";
    }
    const std::size_t size = page == "/blog/3" ? 1000 : html.size();
    stream.write_all(std::string(found == links_on_.end() ? "HTTP/1.1 404 Not Found" : "HTTP/1.1 200 OK") +
                         "\r\nContent-Length: " + std::to_string(size) + "\r\nConnection: close\r\n\r\n" + html,
                     error);
  }
  void enter(const std::string& page) {
    std::lock_guard<concur::mutex> hold(mutex_);
    ++asked_[page];
    most_at_once_ = (std::max)(most_at_once_, ++now_);
  }
  void leave() {
    std::lock_guard<concur::mutex> hold(mutex_);
    --now_;
  }

  concur::tcp_listener listener_ = concur::tcp_listener::bind("127.0.0.1:0");
  const std::map<std::string, std::vector<std::string>> links_on_ = {
      {"/", {"/about", "/blog", "/jobs", "/missing", "https://example.org/"}},
      {"/about", {"/", "/stuck"}},
      {"/blog", {"/", "/blog/1", "/blog/2", "/blog/3"}},
      {"/blog/1", {"/blog/2"}},
      {"/blog/2", {"/blog/1"}},
      {"/blog/3", {"/"}},
      {"/jobs", {"/", "/about"}},
      {"/stuck", {}},
  };
  concur::latch first_three_{3};
  concur::mutex mutex_;
  std::map<std::string, int> asked_;
  int now_ = 0, most_at_once_ = 0;
};

int main() {
  concur::run([] {
    site there;
    concur::with_nursery([&](concur::nursery& servers) {
      servers.go([&] { there.serve(); });
      crawl(there.where());
      servers.cancel();  // it would serve for ever
    });
    there.report();
  });
}
