// tests/fuzz/http_parser.hpp - any bytes at all, to the parser of the HTTP server example.
//
// Three questions are asked of each input, with the server's limits and with limits so narrow that a short input reaches
// them:
//
//   H1  Does the outcome depend on how the bytes were split over reads? Fed whole, byte by byte, cut in two at every
//       place and in seeded pieces, the requests found and the refusal must be the same.
//   H2  Does the parser look at bytes that nobody gave it? What lies behind the last read is poisoned under
//       AddressSanitizer, and holds other bytes in every run, so that a look at it changes the outcome.
//   H3  Does a request mean to us what it says? Written down afresh in the plainest form, with its length and in chunks,
//       it must be parsed to the same request again, and once more behind itself. And where llhttp is at hand (the parser
//       of Node.js, reference.hpp), a request that we take must be one to it too, with the same method, target, body and
//       end.
#ifndef CONCUR_TESTS_FUZZ_HTTP_PARSER_HPP
#define CONCUR_TESTS_FUZZ_HTTP_PARSER_HPP

#define HTTP_SERVER_NO_MAIN
#include "examples/http_server.cpp"

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#if defined(FUZZ_REFERENCE)
#  include "fuzz/reference.hpp"
#endif

#if defined(__SANITIZE_ADDRESS__)
#  define FUZZ_POISONS 1
#elif defined(__has_feature)
#  if __has_feature(address_sanitizer)
#    define FUZZ_POISONS 1
#  endif
#endif
#if defined(FUZZ_POISONS)
#  include <sanitizer/asan_interface.h>
#endif

namespace fuzz {

// What became of an input.
struct http_outcome {
  std::vector<http::request> requests;
  std::vector<std::size_t> ends;  // behind which byte each was complete; known only when fed byte by byte
  int status = 0;                 // of the refusal; 0: none
  std::string reason;
  bool is_between = false;
  std::string fault;  // what the parser may not do in any case
};

// Feeds the parser as a connection does, and spoils what lies behind the bytes it was given (H2).
class http_feeder {
 public:
  http_feeder(const http::limits& limits, char garbage)
      : parser_(std::make_unique<http::request_parser>(limits)), garbage_(garbage) {}
  ~http_feeder() { unpoison(); }

  void feed(std::string_view input) {
    while (!input.empty() && seen_.status == 0 && seen_.fault.empty()) {
      unpoison();
      char* const room = parser_->room();
      const std::size_t space = parser_->room_size();
      const std::size_t count = (std::min)(input.size(), space);
      if (count == 0) {
        seen_.fault = "there is no room though more is needed";
        return;
      }
      std::memcpy(room, input.data(), count);
      std::memset(room + count, garbage_, (std::min)(space - count, std::size_t{600}));
      poison(room + count, space - count);
      parser_->filled(count);
      given_ += count;
      input.remove_prefix(count);
      drain();
    }
  }

  http_outcome take() {
    unpoison();
    seen_.is_between = seen_.status == 0 && parser_->is_between_requests();
    return std::move(seen_);
  }

 private:
  void drain() {
    for (;;) {
      switch (parser_->next()) {
        case http::progress::need_more:
          parser_->take_continue();
          if (parser_->take_continue()) seen_.fault = "100 Continue is due twice";
          return;
        case http::progress::failed:
          seen_.status = parser_->status();
          seen_.reason = parser_->reason();
          if (parser_->next() != http::progress::failed) seen_.fault = "a refusal is not the end";
          return;
        case http::progress::request:
          seen_.requests.push_back(parser_->current());
          seen_.ends.push_back(given_);
          break;
      }
    }
  }

#if defined(FUZZ_POISONS)
  void poison(char* from, std::size_t size) {
    poisoned_ = from;
    poisoned_size_ = size;
    ASAN_POISON_MEMORY_REGION(from, size);
  }
  void unpoison() { ASAN_UNPOISON_MEMORY_REGION(poisoned_, poisoned_size_); }
  char* poisoned_ = nullptr;
  std::size_t poisoned_size_ = 0;
#else
  void poison(char*, std::size_t) {}
  void unpoison() {}
#endif

  std::unique_ptr<http::request_parser> parser_;
  char garbage_;
  std::size_t given_ = 0;
  http_outcome seen_;
};

inline bool is_same(const http::request& a, const http::request& b) {
  return a.method == b.method && a.is_http_1_0 == b.is_http_1_0 && a.keeps_alive == b.keeps_alive &&
         a.target == b.target && a.body == b.body;
}

inline std::string text_of_request(const http::request& request) {
  const char* const names[] = {"GET ", "HEAD ", "POST "};
  return names[static_cast<unsigned>(request.method)] + request.target + (request.is_http_1_0 ? " 1.0" : " 1.1") +
         (request.keeps_alive ? " keep" : " close") + " body=" + request.body;
}

inline std::string text_of_outcome(const http_outcome& outcome) {
  std::string text;
  for (const http::request& request : outcome.requests) text += text_of_request(request) + " | ";
  if (outcome.status != 0) return text + std::to_string(outcome.status) + " " + outcome.reason;
  return text + (outcome.is_between ? "between requests" : "inside a request");
}

inline std::string difference(const http_outcome& a, const http_outcome& b) {
  bool is_alike = a.requests.size() == b.requests.size() && a.status == b.status && a.is_between == b.is_between;
  for (std::size_t i = 0; is_alike && i < a.requests.size(); ++i) is_alike = is_same(a.requests[i], b.requests[i]);
  return is_alike ? std::string() : text_of_outcome(a) + "\n  but\n  " + text_of_outcome(b);
}

class http_case {
 public:
  http_case(std::string_view input, const http::limits& limits) : input_(input), limits_(limits) {}

  // Empty: nothing was found.
  std::string run() {
    const http_outcome bytewise = parse_in_pieces([](std::size_t) { return std::size_t{1}; });
    http_outcome whole = parse_in_pieces([](std::size_t left) { return left; });
    if (std::string what = judge(whole); !what.empty()) return what;
    expect_same("byte by byte", whole, bytewise);
    cut_everywhere(whole);
    cut_at_random(whole);
    for (std::size_t i = 0; i < whole.requests.size() && i < 4; ++i) write_afresh(whole.requests[i]);
#if defined(FUZZ_REFERENCE)
    if (finding_.empty()) finding_ = compare_with_reference(input_, bytewise);
#endif
    return finding_;
  }

 private:
  template <class Size>
  http_outcome parse_in_pieces(Size size_of_next) {
    http_feeder feeder(limits_, garbage());
    for (std::size_t at = 0; at < input_.size();) {
      const std::size_t count = size_of_next(input_.size() - at);
      feeder.feed(input_.substr(at, count));
      at += count;
    }
    return feeder.take();
  }

  // Other bytes each time, and such as a parser acts upon.
  char garbage() {
    constexpr std::string_view choices("\nA\r0 :\0,;", 9);
    return choices[runs_++ % choices.size()];
  }

  void expect_same(const std::string& how, const http_outcome& wanted, const http_outcome& seen) {
    if (!finding_.empty()) return;
    if (!seen.fault.empty()) finding_ = how + ": " + seen.fault;
    const std::string what = difference(wanted, seen);
    if (!what.empty()) finding_ = "H1, " + how + ": whole it is\n  " + what;
  }

  void cut_everywhere(const http_outcome& whole) {
    const std::size_t step = 1 + input_.size() / 300;
    for (std::size_t cut = 1; cut < input_.size() && finding_.empty(); cut += step) {
      bool is_first = true;
      const auto size_of_next = [&](std::size_t left) { return std::exchange(is_first, false) ? cut : left; };
      expect_same("cut at " + std::to_string(cut), whole, parse_in_pieces(size_of_next));
    }
  }

  void cut_at_random(const http_outcome& whole) {
    std::uint32_t seed = 2166136261u;  // FNV-1a, so that an input always gets the same pieces
    for (char byte : input_) seed = (seed ^ static_cast<unsigned char>(byte)) * 16777619u;
    std::minstd_rand random(seed | 1u);
    for (int round = 0; round < 4 && finding_.empty(); ++round) {
      const auto size_of_next = [&](std::size_t left) {
        return (std::min)(left, std::size_t{1} + random() % (1u << random() % 12));
      };
      expect_same("in seeded pieces", whole, parse_in_pieces(size_of_next));
    }
  }

  // What holds for every outcome.
  std::string judge(const http_outcome& seen) const {
    if (!seen.fault.empty()) return seen.fault;
    constexpr int refusals[] = {0, 400, 413, 414, 417, 431, 501, 505};
    if (std::find(std::begin(refusals), std::end(refusals), seen.status) == std::end(refusals))
      return "a refusal with " + std::to_string(seen.status);
    if (seen.status != 0 && seen.reason.empty()) return "a refusal without a reason";
    for (const http::request& request : seen.requests) {
      if (request.target.empty() || request.target[0] != '/') return "a target that is no path: " + request.target;
      if (request.target.size() > limits_.target_bytes + 1) return "a target above its limit";
      if (request.body.size() > limits_.body_bytes) return "a body above its limit";
      for (char byte : request.target) {
        if (byte <= ' ' || byte > '~' || byte == '#') return "a byte in a target that is in no URI: " + request.target;
      }
    }
    return std::string();
  }

  // H3. With the server's limits only: narrow ones would refuse the plain form for its length.
  void write_afresh(const http::request& request) {
    if (limits_.target_bytes < http::limits().target_bytes) return;
    const char* const names[] = {"GET ", "HEAD ", "POST "};
    std::string head = names[static_cast<unsigned>(request.method)] + request.target;
    head += request.is_http_1_0 ? " HTTP/1.0\r\n" : " HTTP/1.1\r\nHost: a\r\n";
    head += request.keeps_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
    const std::string length = std::to_string(request.body.size());
    expect_afresh(request, head + "Content-Length: " + length + "\r\n\r\n" + request.body);
    if (request.is_http_1_0) return;
    std::string chunks;
    for (std::size_t at = 0; at < request.body.size(); at += 15) {
      const std::string_view chunk = std::string_view(request.body).substr(at, 15);
      chunks += "0123456789abcdef"[chunk.size()] + std::string("\r\n") + std::string(chunk) + "\r\n";
    }
    expect_afresh(request, head + "Transfer-Encoding: chunked\r\n\r\n" + chunks + "0\r\n\r\n");
  }

  void expect_afresh(const http::request& request, const std::string& text) {
    if (!finding_.empty() || request.body.size() > 4096) return;
    http_feeder feeder(limits_, garbage());
    feeder.feed(text);
    feeder.feed(text);
    const http_outcome seen = feeder.take();
    const auto is_it = [&](const http::request& each) { return is_same(each, request); };
    if (seen.is_between && seen.requests.size() == 2 && std::all_of(seen.requests.begin(), seen.requests.end(), is_it))
      return;
    finding_ = "H3, " + text_of_request(request) + "\n  written afresh, twice, is\n  " + text_of_outcome(seen);
  }

  std::string_view input_;
  http::limits limits_;
  std::string finding_;
  std::size_t runs_ = 0;
};

inline std::string try_http_parser(std::string_view input) {
  std::string finding = http_case(input, http::limits()).run();
  if (!finding.empty()) return finding;
  http::limits narrow;
  narrow.target_bytes = 20;
  narrow.line_bytes = 40;
  narrow.head_bytes = 120;
  narrow.fields = 4;
  narrow.chunk_line_bytes = 10;
  narrow.body_bytes = 8;
  finding = http_case(input, narrow).run();
  return finding.empty() ? finding : "with narrow limits: " + finding;
}

}  // namespace fuzz

#endif
