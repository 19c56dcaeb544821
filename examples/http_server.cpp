// http_server.cpp - an HTTP/1.1 server: one fiber per connection, written as if each had the machine to itself.
//
//     g++ -std=c++17 -O2 -pthread -I. examples/http_server.cpp -o http_server
//     ./http_server --port 8080 --workers 2 --max-connections 10000
//
// The file has two halves. The first is a parser that knows nothing of sockets or fibers: bytes go in, requests or
// refusals come out. A test and a fuzzer include this file with HTTP_SERVER_NO_MAIN defined and get that half alone.
// The second half is the server: accept, read, answer, and the ways a connection can end.
//
// Runs until stopped: SIGTERM or SIGINT drains it, a second one does not wait.
//
// Routes: `/` a greeting, `/healthz`, `/stats` live figures as JSON, `/echo` (POST) the body back, `/slow?ms=N` a late
// answer.
#if !defined(HTTP_SERVER_NO_MAIN)
#  include "concur.hpp"
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <iterator>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

// --- the parser ---
//
// A server and the proxy before it must agree where each request ends. Where they differ, an attacker writes a request
// that one of them sees as two. So this parser reads RFC 9112 narrowly: whatever the RFC lets a recipient repair, it
// refuses.
//
//   P1  A message is refused with the same status however its bytes were split over reads. No decision looks at where a
//       read ended; only at bytes that the decision's own line must contain.
//   P2  Memory is bounded before the peer is trusted: one line by the buffer, a head by `head_bytes` and `fields`, a
//       body by `body_bytes`. After `need_more` the buffer always has room: it is larger than any unfinished line.
//   P3  A line is forgotten once it is understood. What no route asks for is validated and not kept, so a usual request
//       costs no allocation after the first on its connection.
//   P4  After `failed` nothing more is parsed: where the refused message ends is not known.
//
//     input                                               answer
//     a line that ends in LF alone, or holds a bare CR    400
//     request line not of three words and two spaces      400; another first digit than HTTP/1 is 505
//     a method other than GET, HEAD, POST                 501
//     target longer than target_bytes                     414
//     header line, head or number of fields too large     431
//     a folded line; space before the colon; control      400
//     Host twice or malformed, or missing in HTTP/1.1     400
//     Content-Length twice, or not digits                 400; more than body_bytes is 413
//     Content-Length and Transfer-Encoding together       400
//     Transfer-Encoding in HTTP/1.0, or not ending in     400; another coding before a final chunked is 501
//       exactly one chunked
//     Expect other than 100-continue                      417
namespace http {

enum class method : unsigned char { get, head, post };

struct request {
  http::method method = http::method::get;
  bool is_http_1_0 = false;
  bool keeps_alive = false;
  std::string target;  // path and query, always beginning with '/'
  std::string body;    // with the chunks taken off
};

struct limits {
  std::size_t target_bytes = 8000;
  std::size_t line_bytes = 8192;
  std::size_t head_bytes = 32768;  // all lines before the body, and the trailers after it
  std::size_t fields = 100;
  std::size_t chunk_line_bytes = 256;
  std::size_t body_bytes = std::size_t{1} << 20;
};

// What a byte may stand in: a token (RFC 9110, 5.6.2), a field value, a request target, a host with port.
enum byte_class : unsigned char { in_token = 1, in_value = 2, in_target = 4, in_host = 8 };

struct byte_table {
  unsigned char classes[256] = {};

  constexpr byte_table() {
    for (unsigned code = 0; code < 256; ++code) {
      const bool is_visible = code > 0x20 && code < 0x7f;
      const bool is_word = (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
      unsigned set = 0;
      if (is_word || (is_visible && is_one_of(code, "!#$%&'*+-.^_`|~"))) set |= in_token;
      if (is_visible || code == ' ' || code == '\t' || code >= 0x80) set |= in_value;
      if (is_visible && !is_one_of(code, "\"#<>")) set |= in_target;
      if (is_word || (is_visible && is_one_of(code, "-._~%[]:"))) set |= in_host;
      classes[code] = static_cast<unsigned char>(set);
    }
  }

  static constexpr bool is_one_of(unsigned code, std::string_view choices) {
    for (char choice : choices) {
      if (code == static_cast<unsigned char>(choice)) return true;
    }
    return false;
  }
};
inline constexpr byte_table bytes;

inline bool is_in(char byte, byte_class wanted) {
  return (bytes.classes[static_cast<unsigned char>(byte)] & wanted) != 0;
}
inline bool are_all_in(std::string_view text, byte_class wanted) {
  unsigned char common = 0xff;
  for (char byte : text) common = static_cast<unsigned char>(common & bytes.classes[static_cast<unsigned char>(byte)]);
  return (common & wanted) != 0;
}
inline bool is_digit(char byte) { return byte >= '0' && byte <= '9'; }
inline bool is_blank(char byte) { return byte == ' ' || byte == '\t'; }

inline std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// `lower` is written in lower case; only letters fold.
inline bool equals_folded(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char byte = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] + ('a' - 'A')) : text[i];
    if (byte != lower[i]) return false;
  }
  return true;
}

// A host with or without a port: "example.org:80", "[::1]:80", or nothing at all. Userinfo (an '@') is refused.
inline bool is_host(std::string_view text) {
  if (text.empty()) return true;
  if (!are_all_in(text, in_host)) return false;
  std::size_t end = text.find(':');
  if (text.front() == '[') {
    end = text.find(']');
    if (end == std::string_view::npos || end < 3) return false;
    ++end;
  } else if (end == 0 || text.find_first_of("[]") != std::string_view::npos) {
    return false;
  }
  if (end >= text.size()) return true;
  if (text[end] != ':') return false;
  for (char byte : text.substr(end + 1)) {
    if (!is_digit(byte)) return false;
  }
  return text.size() - end <= 6;
}

enum class progress { need_more, request, failed };

class request_parser {
 public:
  request_parser() = default;
  explicit request_parser(const limits& given) : limits_(given) {
    limits_.line_bytes = (std::min)(limits_.line_bytes, sizeof buffer_ - 2);  // P2
    limits_.chunk_line_bytes = (std::min)(limits_.chunk_line_bytes, sizeof buffer_ - 2);
  }

  // Reading goes straight into the parser: write at `room()`, at most `room_size()` bytes, and report them by
  // `filled()`.
  char* room() {
    if (begin_ == end_) {
      begin_ = end_ = 0;
    } else if (end_ > sizeof buffer_ / 2) {
      std::memmove(buffer_, buffer_ + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    return buffer_ + end_;
  }
  std::size_t room_size() const { return sizeof buffer_ - end_; }
  void filled(std::size_t count) { end_ += count; }

  // The next whole request, if the bytes for it have come. current() stays as it is until next() is called again.
  progress next() {
    if (stage_ == stage::complete) forget_request();
    for (;;) {
      bool has_moved = false;
      switch (stage_) {
        case stage::complete: return progress::request;
        case stage::failed: return progress::failed;
        case stage::fixed_body:
        case stage::chunk_body: has_moved = take_body(); break;
        default: has_moved = take_line(); break;
      }
      if (!has_moved && stage_ != stage::failed) return progress::need_more;
    }
  }

  const request& current() const { return request_; }
  int status() const { return status_; }          // of a failed message: what to answer
  const char* reason() const { return reason_; }  // and why, in words
  bool is_between_requests() const {
    return (stage_ == stage::complete || stage_ == stage::request_line) && begin_ == end_;
  }
  bool has_unread() const { return begin_ != end_; }
  bool is_in_body() const { return stage_ >= stage::fixed_body && stage_ <= stage::trailers; }

  // True once, when the client waits for `100 Continue`. A client whose body is already coming needs no permission.
  bool take_continue() {
    const bool is_body_ahead = (stage_ == stage::fixed_body || stage_ == stage::chunk_size) && begin_ == end_;
    const bool is_due = seen_.is_continue_due && is_body_ahead && request_.body.empty();
    seen_.is_continue_due = false;
    return is_due;
  }

 private:
  enum class stage : unsigned char {
    request_line,
    fields,
    fixed_body,  // Content-Length: `left` bytes to come
    chunk_size,
    chunk_body,  // `left` bytes of this chunk to come
    chunk_end,
    trailers,
    complete,
    failed
  };

  // What the lines so far have said.
  struct message {
    std::size_t head_bytes = 0;
    std::size_t fields = 0;
    std::size_t content_length = 0;
    std::size_t left = 0;  // bytes of the body or of this chunk that have not come yet
    unsigned hosts = 0;
    unsigned empty_lines = 0;
    unsigned codings = 0;
    unsigned chunked_codings = 0;
    bool has_length = false;
    bool ends_chunked = false;
    bool says_close = false;
    bool says_keep_alive = false;
    bool expects_continue = false;
    bool expects_other = false;
    bool is_continue_due = false;
  };

  bool fail(int status, const char* reason) {
    status_ = status;
    reason_ = reason;
    stage_ = stage::failed;
    return false;
  }

  void forget_request() {
    constexpr std::size_t kept_bytes = 65536;
    if (request_.body.capacity() > kept_bytes) std::string().swap(request_.body);
    request_.body.clear();
    request_.target.clear();
    request_.method = method::get;
    request_.is_http_1_0 = false;
    request_.keeps_alive = false;
    seen_ = message();
    stage_ = stage::request_line;
  }

  std::size_t line_limit() const {
    if (stage_ == stage::chunk_end) return 0;
    return stage_ == stage::chunk_size ? limits_.chunk_line_bytes : limits_.line_bytes;
  }

  // Takes one line off the buffer. The length is judged before the line's end, and from its first limit + 2 bytes
  // alone, so that a line refused for its length is refused alike whether or not its end has come (P1).
  bool take_line() {
    const char* text = buffer_ + begin_;
    const std::size_t have = end_ - begin_;
    const std::size_t limit = line_limit();
    if (have == 0) return false;
    if (stage_ == stage::request_line && !is_in(*text, in_token) && *text != '\r') {
      return fail(400, "a request begins with a method");
    }
    const void* found = std::memchr(text + scanned_, '\n', have - scanned_);
    const std::size_t length = found ? static_cast<std::size_t>(static_cast<const char*>(found) - text) : have;
    if (length > limit + 1) return refuse_long_line(std::string_view(text, limit + 2));
    if (!found) {
      scanned_ = have;
      return false;
    }
    if (length == 0 || text[length - 1] != '\r') return fail(400, "a line ends in CR LF");
    scanned_ = 0;
    begin_ += length + 1;
    seen_.head_bytes += stage_ == stage::chunk_end ? 0 : length + 1;
    return accept_line(std::string_view(text, length - 1));
  }

  bool accept_line(std::string_view line) {
    switch (stage_) {
      case stage::request_line: return accept_request_line(line);
      case stage::chunk_size: return accept_chunk_size(line);
      case stage::chunk_end: stage_ = stage::chunk_size; return true;
      default: break;
    }
    if (seen_.head_bytes > limits_.head_bytes) return fail(431, "the header fields are too large");
    if (!line.empty()) return accept_field(line);
    if (stage_ == stage::fields) return accept_head();
    stage_ = stage::complete;
    return true;
  }

  bool refuse_long_line(std::string_view start) {
    if (stage_ == stage::chunk_end) return fail(400, "a chunk is longer than its size says");
    if (stage_ == stage::chunk_size) return fail(400, "a chunk's size line is too long");
    if (stage_ != stage::request_line) return fail(431, "a header line is too long");
    const std::size_t space = start.find(' ');
    if (!are_all_in(start.substr(0, space), in_token)) return fail(400, "a method is a token");
    return space == std::string_view::npos ? fail(501, "the method is not known") : fail(414, "the target is too long");
  }

  // One empty line before a request is forgiven, as RFC 9112 section 2.2 asks: old clients send it after a body.
  bool accept_request_line(std::string_view line) {
    if (line.empty()) return ++seen_.empty_lines > 1 ? fail(400, "the request line is missing") : true;
    const std::size_t first = line.find(' ');
    const std::size_t last = line.rfind(' ');
    if (first == last) return fail(400, "a request line is: method, space, target, space, version");
    const std::string_view name = line.substr(0, first);
    const std::string_view target = line.substr(first + 1, last - first - 1);
    const std::string_view version = line.substr(last + 1);
    if (!are_all_in(name, in_token)) return fail(400, "a method is a token");
    if (target.empty() || !are_all_in(target, in_target)) return fail(400, "the target holds a byte no URI may hold");
    if (version.size() != 8 || version.substr(0, 5) != "HTTP/" || !is_digit(version[5]) || version[6] != '.' ||
        !is_digit(version[7])) {
      return fail(400, "the version is not of the form HTTP/1.1");
    }
    if (version[5] != '1') return fail(505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    request_.is_http_1_0 = version[7] == '0';
    if (name == "GET") {
      request_.method = method::get;
    } else if (name == "HEAD") {
      request_.method = method::head;
    } else if (name == "POST") {
      request_.method = method::post;
    } else {
      return fail(501, "the method is not known");
    }
    if (target.size() > limits_.target_bytes) return fail(414, "the target is too long");
    stage_ = stage::fields;
    return accept_target(target);
  }

  // A path, or a whole URI as a client sends it to a proxy, which a server must take too (RFC 9112, section 3.2.2).
  bool accept_target(std::string_view target) {
    if (target.front() == '/') {
      request_.target.assign(target);
      return true;
    }
    const std::size_t scheme_end = target.find("://");
    if (scheme_end == std::string_view::npos) return fail(400, "the target is neither a path nor a URI");
    const std::string_view scheme = target.substr(0, scheme_end);
    if (!equals_folded(scheme, "http") && !equals_folded(scheme, "https")) return fail(400, "the scheme is not http");
    const std::string_view rest = target.substr(scheme_end + 3);
    const std::string_view authority = rest.substr(0, rest.find_first_of("/?"));
    if (authority.empty() || !is_host(authority)) return fail(400, "the target's host is malformed");
    const std::string_view path = rest.substr(authority.size());
    if (path.empty() || path.front() != '/') request_.target.assign("/");
    request_.target.append(path);
    return true;
  }

  bool accept_field(std::string_view line) {
    if (is_blank(line.front())) return fail(400, "a folded header line");
    std::size_t length = 0;
    while (length < line.size() && is_in(line[length], in_token)) ++length;
    if (length == line.size() || length == 0) return fail(400, "a header line is: name, colon, value");
    if (line[length] != ':') {
      return fail(400, is_blank(line[length]) ? "white space before the colon" : "a header name is a token");
    }
    const std::string_view value = trimmed(line.substr(length + 1));
    if (!value.empty() && !are_all_in(value, in_value)) return fail(400, "a control character in a header value");
    if (++seen_.fields > limits_.fields) return fail(431, "too many header fields");
    if (stage_ == stage::trailers) return true;  // they come too late to change what this request means
    const std::string_view name = line.substr(0, length);
    switch (length) {
      case 4: return equals_folded(name, "host") ? accept_host(value) : true;
      case 6: return equals_folded(name, "expect") ? accept_expect(value) : true;
      case 10: return equals_folded(name, "connection") ? accept_connection(value) : true;
      case 14: return equals_folded(name, "content-length") ? accept_length(value) : true;
      case 17: return equals_folded(name, "transfer-encoding") ? accept_coding(value) : true;
      default: return true;
    }
  }

  bool accept_host(std::string_view value) {
    if (++seen_.hosts > 1) return fail(400, "more than one Host");
    return is_host(value) ? true : fail(400, "a malformed Host");
  }

  bool accept_expect(std::string_view value) {
    (equals_folded(value, "100-continue") ? seen_.expects_continue : seen_.expects_other) = true;
    return true;
  }

  bool accept_connection(std::string_view value) {
    for (std::size_t from = 0; from <= value.size();) {
      const std::size_t comma = (std::min)(value.find(',', from), value.size());
      const std::string_view option = trimmed(value.substr(from, comma - from));
      if (equals_folded(option, "close")) seen_.says_close = true;
      if (equals_folded(option, "keep-alive")) seen_.says_keep_alive = true;
      from = comma + 1;
    }
    return true;
  }

  // A repeated length is refused even where both agree: the RFC allows it, and it leaves nothing to disagree on.
  bool accept_length(std::string_view value) {
    if (seen_.has_length) return fail(400, "more than one Content-Length");
    if (value.empty()) return fail(400, "Content-Length is not a number");
    seen_.has_length = true;
    for (char byte : value) {
      if (!is_digit(byte)) return fail(400, "Content-Length is not a number");
      const std::size_t digit = static_cast<std::size_t>(byte - '0');
      // Once above the limit it stays above it; stopping there keeps the sum from wrapping.
      if (seen_.content_length <= limits_.body_bytes) seen_.content_length = seen_.content_length * 10 + digit;
    }
    return true;
  }

  bool accept_coding(std::string_view value) {
    for (std::size_t from = 0; from <= value.size();) {
      const std::size_t comma = (std::min)(value.find(',', from), value.size());
      const std::string_view coding = trimmed(value.substr(from, comma - from));
      if (coding.empty()) return fail(400, "an empty transfer coding");
      seen_.ends_chunked = equals_folded(coding, "chunked");
      ++seen_.codings;
      if (seen_.ends_chunked) ++seen_.chunked_codings;
      from = comma + 1;
    }
    return true;
  }

  // The empty line has come: now all that bears on the body's length is known (RFC 9112, section 6.3).
  bool accept_head() {
    if (seen_.hosts == 0 && !request_.is_http_1_0) return fail(400, "Host is missing");
    if (seen_.codings > 0) {
      if (request_.is_http_1_0) return fail(400, "Transfer-Encoding in HTTP/1.0");
      if (seen_.has_length) return fail(400, "both Content-Length and Transfer-Encoding");
      if (!seen_.ends_chunked || seen_.chunked_codings > 1) return fail(400, "the last transfer coding is not chunked");
      if (seen_.codings > 1) return fail(501, "the transfer coding is not known");
    }
    if (seen_.content_length > limits_.body_bytes) return fail(413, "the body is too large");
    request_.keeps_alive = !seen_.says_close && (!request_.is_http_1_0 || seen_.says_keep_alive);
    if (!request_.is_http_1_0) {
      if (seen_.expects_other) return fail(417, "only 100-continue can be expected");
      seen_.is_continue_due = seen_.expects_continue;
    }
    seen_.left = seen_.content_length;
    if (seen_.codings > 0) {
      seen_.head_bytes = seen_.fields = 0;  // from here on they bound chunk extensions and trailers
      stage_ = stage::chunk_size;
    } else {
      stage_ = seen_.left > 0 ? stage::fixed_body : stage::complete;
    }
    return true;
  }

  bool take_body() {
    const std::size_t count = (std::min)(seen_.left, end_ - begin_);
    if (count == 0) return false;
    request_.body.append(buffer_ + begin_, count);
    begin_ += count;
    seen_.left -= count;
    if (seen_.left == 0) stage_ = stage_ == stage::fixed_body ? stage::complete : stage::chunk_end;
    return true;
  }

  bool accept_chunk_size(std::string_view line) {
    std::size_t size = 0;
    std::size_t length = 0;
    for (; length < line.size(); ++length) {
      const char byte = line[length];
      const int folded = byte | 0x20;
      const bool is_letter = folded >= 'a' && folded <= 'f';
      if (!is_digit(byte) && !is_letter) break;
      const std::size_t digit = static_cast<std::size_t>(is_letter ? folded - 'a' + 10 : byte - '0');
      if (size <= limits_.body_bytes) size = size * 16 + digit;
    }
    if (length == 0) return fail(400, "a chunk's size is not a number");
    const std::string_view extension = line.substr(length);
    if (!extension.empty()) {
      const std::string_view from_semicolon = trimmed(extension);
      if (from_semicolon.empty() || from_semicolon.front() != ';' || !are_all_in(extension, in_value)) {
        return fail(400, "a malformed chunk extension");
      }
    } else {
      seen_.head_bytes -= length + 2;  // a size alone is no overhead to bound: the body's limit does
    }
    if (seen_.head_bytes > limits_.head_bytes) return fail(400, "the chunk extensions are too large");
    if (length > 16) return fail(400, "a chunk's size has too many digits");
    if (size > limits_.body_bytes - request_.body.size()) return fail(413, "the body is too large");
    seen_.left = size;
    stage_ = size > 0 ? stage::chunk_body : stage::trailers;
    return true;
  }

  limits limits_;
  request request_;
  stage stage_ = stage::request_line;
  int status_ = 0;
  const char* reason_ = "";
  std::size_t begin_ = 0;    // the bytes not yet understood are buffer_[begin_, end_)
  std::size_t end_ = 0;
  std::size_t scanned_ = 0;  // of them, so many are known to hold no LF
  message seen_;
  char buffer_[16384];
};

}  // namespace http

// --- the server ---
//
// Each connection is a fiber that runs a plain loop: read, parse, answer, write. What makes it a server is how it ends.
//
//     a connection ends because             what the client gets
//     it said so, or closed its side        all its answers, then the end
//     its request was refused               the refusal, then the end: we go on reading for a while, since closing a
//                                           socket with bytes unread would reset it and could destroy the refusal
//     it was silent between requests        the end
//     it was too slow inside a request      408
//     it takes its answers too slowly       the end
//     the server drains                     every answer that was due, the last one with `Connection: close`
//
//   C1  Answers go out in the order of their requests, and all that are ready go out in one write: before we wait for
//       the client, or for anything else, `out_` is empty.
//   C2  A connection is either at rest (no byte of a request has come) or busy. Draining ends those at rest; busy ones
//       end themselves after their last answer. Nobody is interrupted inside a request.
//   C3  Above `connections_max` we do not accept: the kernel's queue is bounded and costs us nothing, while a 503 would
//       cost an accept, a read, a write and a close just when there is no time for them. While the house is full nobody
//       may stay between requests, so that those who wait get their turn.
#if !defined(HTTP_SERVER_NO_MAIN)
namespace {

using steady = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct settings {
  std::string address = "127.0.0.1";
  unsigned port = 8080;
  unsigned workers = 0;
  unsigned connections_max = 10000;
  milliseconds header_time{10000};  // from the first byte of a request to the end of its head
  milliseconds body_time{60000};    // and to the end of its body
  milliseconds idle_time{60000};    // between requests
  milliseconds write_time{20000};   // for each 64 KiB of an answer
  milliseconds linger_time{2000};   // for the client to hear a refusal
  milliseconds grace_time{250};     // when draining: for the next request of a client that has not heard of it yet
};

// Live figures. relaxed everywhere: each is a count of its own, and nothing is decided by comparing two of them.
struct figures {
  std::atomic<std::size_t> accepted{0};
  std::atomic<std::size_t> open{0};
  std::atomic<std::size_t> requests{0};
  std::atomic<std::size_t> refused{0};
  std::atomic<std::size_t> timed_out{0};
  std::atomic<std::size_t> accept_failed{0};
};

void add(std::atomic<std::size_t>& figure, std::size_t count) {
  figure.fetch_add(count, std::memory_order_relaxed);  // relaxed: see figures
}

class connection;

// What all connections share.
struct house {
  house(concur::runtime& host, const settings& given) : runtime(host), with(given), places(given.connections_max) {}

  concur::runtime& runtime;
  settings with;
  figures seen;
  steady::time_point started = steady::now();
  std::atomic<bool> is_draining{false};
  concur::channel<char> places;  // a value in it for each connection: a counting semaphore, as Go has it
  concur::wait_group connections;
  concur::mutex lock;
  connection* first = nullptr;  // under lock

  bool is_full() const { return places.size() >= places.capacity(); }
  void enter(connection& guest);
  void leave(connection& guest);
  void end_connections(bool busy_ones_too);
};

// The right to be connected: a place, and a count that draining waits for. It goes back whatever becomes of its holder.
class ticket {
 public:
  // The place has been taken already: by a send on `places`.
  explicit ticket(house& home) : home_(&home) { home.connections.add(1); }
  ticket(ticket&& other) noexcept : home_(std::exchange(other.home_, nullptr)) {}
  ticket& operator=(ticket&&) = delete;
  ~ticket() {
    if (home_ == nullptr) return;
    home_->places.try_recv();
    home_->connections.done();
  }

 private:
  house* home_;
};

const char* words_for(int status) {
  switch (status) {
    case 200: return "200 OK";
    case 400: return "400 Bad Request";
    case 404: return "404 Not Found";
    case 405: return "405 Method Not Allowed";
    case 408: return "408 Request Timeout";
    case 413: return "413 Content Too Large";
    case 414: return "414 URI Too Long";
    case 417: return "417 Expectation Failed";
    case 431: return "431 Request Header Fields Too Large";
    case 501: return "501 Not Implemented";
    case 505: return "505 HTTP Version Not Supported";
    default: return "500 Internal Server Error";
  }
}

class connection {
 public:
  connection(house& home, concur::tcp_stream stream) : home_(home), stream_(std::move(stream)) { home_.enter(*this); }
  ~connection() { home_.leave(*this); }
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;

  void serve() {
    std::error_code ignored;
    stream_.no_delay(true, ignored);
    while (!is_over_) {
      switch (parser_.next()) {
        case http::progress::request:
          answer(parser_.current());
          if (out_.size() >= write_bytes) flush();
          break;
        case http::progress::failed:
          refuse(parser_.status(), parser_.reason());
          break;
        case http::progress::need_more:
          if (parser_.take_continue()) out_ += "HTTP/1.1 100 Continue\r\n\r\n";
          if (flush()) read_more();
          break;
      }
    }
    if (flush() && must_linger_) linger();
  }

 private:
  friend struct house;
  static constexpr std::size_t write_bytes = 65536;

  // --- in ---

  void read_more() {
    const bool is_at_rest = parser_.is_between_requests();
    const steady::time_point now = steady::now();
    milliseconds patience = home_.with.idle_time;
    if (is_at_rest) {
      // seq_cst: this store and the load of is_draining stand against the opposite pair in hear_signals and
      // end_connections. One of us sees the other: we keep to the grace time, or we are found at rest and ended.
      is_at_rest_.store(true, std::memory_order_seq_cst);
      began_ = now;
      if (!has_answered_) patience = home_.with.header_time;
      if (home_.is_draining.load(std::memory_order_seq_cst)) patience = home_.with.grace_time;  // seq_cst: as above
    } else {
      patience = parser_.is_in_body() ? home_.with.body_time : home_.with.header_time;
    }
    std::error_code error;
    stream_.read_deadline(began_ + patience);
    char* const room = parser_.room();
    const std::size_t count = stream_.read_some(room, parser_.room_size(), error);
    if (is_at_rest) {
      is_at_rest_.store(false, std::memory_order_relaxed);  // relaxed: seen late, it is as if the end came earlier
      began_ = steady::now();
    }
    parser_.filled(count);
    if (count > 0) return;
    is_over_ = true;
    if (is_at_rest) return;
    if (!error) return refuse(400, "the connection ended inside a request");
    if (error == std::errc::timed_out) {
      add(home_.seen.timed_out, 1);
      refuse(408, "the request took too long");
    }
  }

  // --- out ---

  bool flush() {
    std::size_t done = 0;
    while (done < out_.size()) {
      std::error_code error;
      const std::size_t count = (std::min)(out_.size() - done, write_bytes);
      stream_.write_deadline(steady::now() + home_.with.write_time);
      stream_.write_all(out_.data() + done, count, error);
      if (error) {
        if (error == std::errc::timed_out) add(home_.seen.timed_out, 1);
        is_over_ = true;
        must_linger_ = false;
        out_.clear();
        return false;
      }
      done += count;
    }
    if (out_.capacity() > 2 * write_bytes) std::string().swap(out_);
    out_.clear();
    if (unreported_ > 0) add(home_.seen.requests, std::exchange(unreported_, std::size_t{0}));
    return true;
  }

  void linger() {
    std::error_code error;
    stream_.shutdown_write(error);
    stream_.read_deadline(steady::now() + home_.with.linger_time);
    char sink[2048];
    while (!error && stream_.read_some(sink, sizeof sink, error) > 0) continue;
  }

  // RFC 9110 wants a date in each answer. Its text changes once a second, so it is made once a second.
  void append_date() {
    const std::time_t now = std::time(nullptr);
    if (now != date_second_) {
      date_second_ = now;
      std::tm fields;
      gmtime_r(&now, &fields);
      const char* const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
      const char* const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
      std::snprintf(date_, sizeof date_, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[fields.tm_wday], fields.tm_mday,
                    months[fields.tm_mon], fields.tm_year + 1900, fields.tm_hour, fields.tm_min, fields.tm_sec);
    }
    out_ += date_;
  }

  void append_number(std::size_t number) {
    char digits[24];
    char* from = digits + sizeof digits;
    do {
      *--from = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number > 0);
    out_.append(from, digits + sizeof digits);
  }

  void respond(int status, std::string_view type, std::string_view body, std::string_view extra = {}) {
    const http::request& asked = parser_.current();
    out_ += "HTTP/1.1 ";
    out_ += words_for(status);
    out_ += "\r\nDate: ";
    append_date();
    out_ += "\r\nContent-Type: ";
    out_ += type;
    out_ += "\r\nContent-Length: ";
    append_number(body.size());
    out_ += extra;
    if (is_over_) {
      out_ += "\r\nConnection: close";
    } else if (asked.is_http_1_0) {
      out_ += "\r\nConnection: keep-alive";
    }
    out_ += "\r\n\r\n";
    if (asked.method != http::method::head) out_ += body;
    has_answered_ = true;
    ++unreported_;
  }

  void refuse(int status, const char* reason) {
    is_over_ = must_linger_ = true;
    add(home_.seen.refused, 1);
    std::string text = words_for(status);
    text += ": ";
    text += reason;
    text += '\n';
    respond(status, "text/plain", text);
  }

  // --- routes ---

  // Requests that have come with this one are answered too, also when we would rather see the client leave.
  void decide_whether_last(const http::request& asked) {
    // relaxed: an answer that misses it is followed by read_more, which does not.
    const bool is_unwanted = home_.is_draining.load(std::memory_order_relaxed) || home_.is_full();
    is_over_ = must_linger_ = !asked.keeps_alive || (is_unwanted && !parser_.has_unread());
  }

  void answer(const http::request& asked) {
    decide_whether_last(asked);
    const std::string_view target = asked.target;
    const std::string_view path = target.substr(0, target.find('?'));
    const bool is_post = asked.method == http::method::post;
    if (path == "/") {
      is_post ? refuse_method("GET, HEAD") : respond(200, "text/plain", "Hello, World!");
    } else if (path == "/healthz") {
      is_post ? refuse_method("GET, HEAD") : respond(200, "text/plain", "ok\n");
    } else if (path == "/stats") {
      is_post ? refuse_method("GET, HEAD") : respond(200, "application/json", stats());
    } else if (path == "/echo") {
      is_post ? respond(200, "application/octet-stream", asked.body) : refuse_method("POST");
    } else if (path == "/slow") {
      is_post ? refuse_method("GET, HEAD") : answer_slowly(target.substr(path.size()));
    } else {
      respond(404, "text/plain", "404 Not Found\n");
    }
  }

  void refuse_method(std::string_view allowed) {
    respond(405, "text/plain", "405 Method Not Allowed\n", "\r\nAllow: " + std::string(allowed));
  }

  // Sleeping holds up nobody but this connection: the worker runs the other fibers.
  void answer_slowly(std::string_view query) {
    constexpr unsigned longest_ms = 60000;
    unsigned wanted_ms = 0;
    bool is_number = query.size() > 4 && query.substr(0, 4) == "?ms=";
    for (std::size_t i = 4; is_number && i < query.size(); ++i) {
      is_number = http::is_digit(query[i]);
      if (is_number && wanted_ms <= longest_ms) wanted_ms = wanted_ms * 10 + static_cast<unsigned>(query[i] - '0');
    }
    if (!is_number || wanted_ms > longest_ms) {
      return respond(400, "text/plain", "400 Bad Request: the way to ask is /slow?ms=0 to 60000\n");
    }
    if (!flush()) return;  // C1
    concur::this_fiber::sleep_for(milliseconds(wanted_ms));
    decide_whether_last(parser_.current());  // draining may have begun meanwhile
    respond(200, "text/plain", "slept " + std::to_string(wanted_ms) + " ms\n");
  }

  std::string stats() const {
    const auto up_ms = std::chrono::duration_cast<milliseconds>(steady::now() - home_.started).count();
    const auto read = [](const std::atomic<std::size_t>& figure) {
      return std::to_string(figure.load(std::memory_order_relaxed));  // relaxed: see figures
    };
    const concur::stats inside = home_.runtime.snapshot();
    return "{\"up_ms\": " + std::to_string(up_ms) + ", \"connections_open\": " + read(home_.seen.open) +
           ", \"connections_accepted\": " + read(home_.seen.accepted) + ", \"requests\": " + read(home_.seen.requests) +
           ", \"refused\": " + read(home_.seen.refused) + ", \"timed_out\": " + read(home_.seen.timed_out) +
           ", \"accept_failed\": " + read(home_.seen.accept_failed) +
           ", \"workers\": " + std::to_string(inside.workers) + ", \"fibers\": " + std::to_string(inside.fibers_live) +
           ", \"stacks\": " + std::to_string(inside.stacks_live) + ", \"timers\": " + std::to_string(inside.timers) +
           ", \"switches\": " + std::to_string(inside.switches) +
           ", \"sleeps\": " + std::to_string(inside.sleeps) + "}\n";
  }

  house& home_;
  concur::tcp_stream stream_;
  connection* next_ = nullptr;      // these two under home_.lock
  connection* previous_ = nullptr;
  std::atomic<bool> is_at_rest_{false};
  bool is_over_ = false;       // no more requests are read
  bool must_linger_ = false;   // and the client may not know it yet
  bool has_answered_ = false;
  std::size_t unreported_ = 0;  // answers not yet counted in the figures
  steady::time_point began_ = steady::now();
  std::time_t date_second_ = -1;
  char date_[64] = "";
  std::string out_;
  http::request_parser parser_;
};

void house::enter(connection& guest) {
  std::lock_guard<concur::mutex> hold(lock);
  guest.next_ = first;
  if (first) first->previous_ = &guest;
  first = &guest;
  add(seen.open, 1);
}

void house::leave(connection& guest) {
  std::lock_guard<concur::mutex> hold(lock);
  (guest.previous_ ? guest.previous_->next_ : first) = guest.next_;
  if (guest.next_) guest.next_->previous_ = guest.previous_;
  seen.open.fetch_sub(1, std::memory_order_relaxed);  // relaxed: see figures
}

// Shutting down the receiving side is the way to wake a reader that loses nothing: what the kernel had already taken in
// is still read first. A guest leaves before its descriptor is closed, so under the lock the numbers are right.
void house::end_connections(bool busy_ones_too) {
  std::lock_guard<concur::mutex> hold(lock);
  for (connection* guest = first; guest; guest = guest->next_) {
    if (busy_ones_too) {
      ::shutdown(guest->stream_.fd(), SHUT_RDWR);
    } else if (guest->is_at_rest_.load(std::memory_order_seq_cst)) {  // seq_cst: see connection::read_more
      ::shutdown(guest->stream_.fd(), SHUT_RD);
    }
  }
}

// Gives the client a fiber. False when there is no memory for one; then the client is disconnected.
bool admit(house& home, concur::tcp_stream stream) {
  try {
    concur::go([&home, held = ticket(home), guest = std::move(stream)]() mutable {
      connection(home, std::move(guest)).serve();
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "http_server: no fiber for a connection: %s\n", error.what());
    return false;
  }
  add(home.seen.accepted, 1);
  return true;
}

// When descriptors or memory run out, accept fails at once and goes on failing until a connection ends. Trying again at
// once would burn a processor; waiting a little costs those in the kernel's queue a few milliseconds.
void accept_connections(house& home, concur::tcp_listener& listener) {
  constexpr milliseconds first_wait{5};
  constexpr milliseconds longest_wait{200};
  milliseconds wait = first_wait;
  for (;;) {
    home.places.send('x');  // C3: parks while the house is full
    std::error_code error;
    concur::tcp_stream stream = listener.accept(error);
    if (!error && admit(home, std::move(stream))) {
      wait = first_wait;
      continue;
    }
    if (error) home.places.try_recv();                             // else admit has given the place back
    if (home.is_draining.load(std::memory_order_acquire)) return;  // acquire: pairs with the store in hear_signals
    add(home.seen.accept_failed, 1);
    concur::this_fiber::sleep_for(wait);
    wait = (std::min)(wait * 2, longest_wait);
  }
}

// Clients that the kernel has connected already are let in, then the door is shut. Closing the number, not the object,
// wakes the fiber in accept; the object is that fiber's to read meanwhile.
void shut_door(house& home, int listening_fd) {
  char place = 'x';
  while (home.places.try_send(place)) {
    const int fd = ::accept(listening_fd, nullptr, nullptr);
    if (fd < 0) {
      home.places.try_recv();
      break;
    }
    admit(home, concur::tcp_stream(fd));
  }
  concur::io::close(listening_fd);
}

// --- signals ---
//
// A signal handler may do next to nothing, but it may write to a pipe; and a fiber can read one.

std::atomic<int> signal_pipe{-1};

extern "C" void on_signal(int) {
  const int kept = errno;
  const char byte = 's';
  // relaxed: set before the handler is installed, and cleared after it is taken off.
  const ssize_t written = ::write(signal_pipe.load(std::memory_order_relaxed), &byte, 1);
  static_cast<void>(written);  // a full pipe says already what this byte would
  errno = kept;
}

void set_handlers(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
}

// The first signal drains, a second one ends what is still open. Ends when the write end of the pipe is closed.
void hear_signals(house& home, int listening_fd, int pipe) {
  char byte;
  if (concur::io::read(pipe, &byte, 1) != 1) return;
  // relaxed: see figures
  std::printf("draining: %zu connections open\n", home.seen.open.load(std::memory_order_relaxed));
  std::fflush(stdout);
  home.is_draining.store(true, std::memory_order_seq_cst);  // seq_cst: see connection::read_more
  shut_door(home, listening_fd);
  concur::this_fiber::sleep_for(home.with.grace_time);
  home.end_connections(false);
  if (concur::io::read(pipe, &byte, 1) == 1) home.end_connections(true);
}

int serve(concur::runtime& runtime, const settings& with) {
  std::error_code error;
  const std::string where = with.address + ":" + std::to_string(with.port);
  const concur::endpoint at = concur::endpoint::parse(where, error);
  concur::tcp_listener listener = error ? concur::tcp_listener() : concur::tcp_listener::bind(at, error);
  if (error) {
    std::fprintf(stderr, "http_server: cannot listen on %s: %s\n", where.c_str(), error.message().c_str());
    return 1;
  }
  int ends[2];
  if (::pipe(ends) != 0) {
    std::fprintf(stderr, "http_server: no pipe: %s\n", std::strerror(errno));
    return 1;
  }
  for (int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
  signal_pipe.store(ends[1], std::memory_order_relaxed);  // relaxed: sigaction comes after it in this thread
  house home(runtime, with);
  set_handlers(on_signal);
  concur::future<void> ear = concur::go([&] { hear_signals(home, listener.fd(), ends[0]); });
  std::printf("listening on %s\n", listener.local_endpoint().to_string().c_str());
  std::fflush(stdout);

  accept_connections(home, listener);
  listener.release();  // shut_door has closed it
  home.connections.wait();
  set_handlers(SIG_DFL);
  ::close(ends[1]);
  ear.get();
  concur::io::close(ends[0]);
  // relaxed: wait() has ordered every connection's counting before this.
  std::printf("drained: %zu connections served, %zu requests answered\n",
              home.seen.accepted.load(std::memory_order_relaxed), home.seen.requests.load(std::memory_order_relaxed));
  return 0;
}

struct option {
  const char* name;
  unsigned long least;
  unsigned long most;
  unsigned long* value;
};

bool read_arguments(int count, char** values, settings& with) {
  unsigned long port = with.port, workers = 0, connections = with.connections_max;
  unsigned long header = 0, body = 0, idle = 0, write = 0, grace = 0;
  const option options[] = {
      {"--port", 0, 65535, &port},
      {"--workers", 0, 1024, &workers},
      {"--max-connections", 1, 1000000, &connections},
      {"--header-ms", 1, 3600000, &header},
      {"--body-ms", 1, 3600000, &body},
      {"--idle-ms", 1, 3600000, &idle},
      {"--write-ms", 1, 3600000, &write},
      {"--grace-ms", 1, 3600000, &grace},
  };
  for (int i = 1; i < count; i += 2) {
    const std::string_view name = values[i];
    const char* const text = i + 1 < count ? values[i + 1] : "";
    if (name == "--address" && *text != '\0') {
      with.address = text;
      continue;
    }
    const auto is_named = [&](const option& each) { return name == each.name; };
    const option* found = std::find_if(std::begin(options), std::end(options), is_named);
    char* end = nullptr;
    const unsigned long value = std::strtoul(text, &end, 10);
    const bool is_number = http::is_digit(*text) && *end == '\0';
    if (found == std::end(options) || !is_number || value < found->least || value > found->most) {
      std::fprintf(stderr, "http_server: %s %s is not understood\n", values[i], text);
      return false;
    }
    *found->value = value;
  }
  with.port = static_cast<unsigned>(port);
  with.workers = static_cast<unsigned>(workers);
  with.connections_max = static_cast<unsigned>(connections);
  const auto set = [](milliseconds& time, unsigned long wanted_ms) {
    if (wanted_ms > 0) time = milliseconds(wanted_ms);
  };
  set(with.header_time, header);
  set(with.body_time, body);
  set(with.idle_time, idle);
  set(with.write_time, write);
  set(with.grace_time, grace);
  return true;
}

}  // namespace

int main(int count, char** values) {
  settings with;
  if (!read_arguments(count, values, with)) return 2;
  rlimit files;
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;  // the usual 1024 is made for select()
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  try {
    concur::options options;
    options.workers = with.workers;
    concur::runtime runtime(options);
    const int status = runtime.block_on([&] { return serve(runtime, with); });
    runtime.wait_for_all();
    return status;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "http_server: %s\n", error.what());
    return 1;
  }
}
#endif  // HTTP_SERVER_NO_MAIN
