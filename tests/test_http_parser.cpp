// test_http_parser.cpp - what the HTTP server's parser takes and refuses, and that the cuts between reads decide
// nothing.
//
// Every input of the tables below is parsed whole, a byte at a time, cut in two at each place, and cut at random
// places. The answer must be the same each time: the requests found, the refusal, and where it came.
#define HTTP_SERVER_NO_MAIN
#include "examples/http_server.cpp"

#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <vector>

namespace {

// What came of an input: "GET / keep|POST /echo close body=abc|400" and so on; "..." when the last is unfinished.
class reader {
 public:
  reader() = default;
  explicit reader(const http::limits& limits) : parser_(limits) {}

  void feed(std::string_view input) {
    while (!input.empty() && !has_failed_) {
      char* room = parser_.room();
      const std::size_t count = (std::min)(input.size(), parser_.room_size());
      if (count == 0) has_starved_ = true;
      if (count == 0) return;
      std::memcpy(room, input.data(), count);
      parser_.filled(count);
      input.remove_prefix(count);
      drain();
    }
  }

  std::string outcome() const {
    if (has_starved_) return "no room";
    return has_failed_ || parser_.is_between_requests() ? seen_ : seen_ + "...";
  }
  http::request_parser& parser() { return parser_; }

 private:
  void drain() {
    for (;;) {
      const http::progress step = parser_.next();
      if (step == http::progress::need_more) return;
      if (step == http::progress::failed) {
        seen_ += std::to_string(parser_.status()) + "|";
        has_failed_ = true;
        return;
      }
      const http::request& request = parser_.current();
      const char* const names[] = {"GET ", "HEAD ", "POST "};
      seen_ += names[static_cast<unsigned>(request.method)];
      seen_ += request.target + (request.keeps_alive ? " keep" : " close");
      if (request.is_http_1_0) seen_ += " 1.0";
      if (!request.body.empty()) seen_ += " body=" + request.body;
      seen_ += "|";
    }
  }

  http::request_parser parser_;
  std::string seen_;
  bool has_failed_ = false;
  bool has_starved_ = false;
};

std::string parsed(const std::vector<std::string_view>& pieces, const http::limits& limits = http::limits()) {
  auto whole = std::make_unique<reader>(limits);
  for (std::string_view piece : pieces) whole->feed(piece);
  return whole->outcome();
}

std::string parsed_in_bytes(std::string_view input, const http::limits& limits) {
  std::vector<std::string_view> pieces;
  for (std::size_t i = 0; i < input.size(); ++i) pieces.push_back(input.substr(i, 1));
  return parsed(pieces, limits);
}

std::string parsed_at_random(std::string_view input, const http::limits& limits, std::mt19937& random) {
  std::vector<std::string_view> pieces;
  while (!input.empty()) {
    const std::size_t count = (std::min)(input.size(), std::size_t{1} + random() % (1u << random() % 14));
    pieces.push_back(input.substr(0, count));
    input.remove_prefix(count);
  }
  return parsed(pieces, limits);
}

void expect(std::string_view input, std::string_view outcome, const http::limits& limits = http::limits()) {
  CAPTURE(input.substr(0, 300));
  const std::string wanted(outcome);
  CHECK(parsed({input}, limits) == wanted);
  CHECK(parsed_in_bytes(input, limits) == wanted);
  const std::size_t step = 1 + input.size() / 500;
  for (std::size_t cut = 1; cut < input.size(); cut += step) {
    const std::string cut_outcome = parsed({input.substr(0, cut), input.substr(cut)}, limits);
    if (cut_outcome != wanted) FAIL_CHECK("cut at ", cut, ": ", cut_outcome);
  }
  std::mt19937 random(4711);
  for (int round = 0; round < 20; ++round) CHECK(parsed_at_random(input, limits, random) == wanted);
}

std::string get_with(std::string_view fields) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}
std::string post_with(std::string_view fields, std::string_view body) {
  return "POST /echo HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n" + std::string(body);
}
std::string chunked(std::string_view body) { return post_with("Transfer-Encoding: chunked\r\n", body); }

struct row {
  std::string_view input;
  std::string_view outcome;
};

}  // namespace

TEST_CASE("requests that are taken") {
  const row rows[] = {
      {"", ""},
      {"G", "..."},
      {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / keep|"},
      {"GET / HTTP/1.1\r\nHost: a\r\n", "..."},
      {"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / keep|"},
      {"HEAD /a/b?c=d&e HTTP/1.1\r\nhOST: a:80\r\n\r\n", "HEAD /a/b?c=d&e keep|"},
      {"GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / keep|"},
      {"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "GET / keep|"},
      {"GET / HTTP/1.1\r\nHost:\t a.b-c_d \t\r\nX:\r\nY: \x80\xff caf\xc3\xa9\r\n\r\n", "GET / keep|"},
      {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "GET / keep|"},
      {"GET / HTTP/1.0\r\n\r\n", "GET / close 1.0|"},
      {"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", "GET / keep 1.0|"},
      {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "GET / close 1.0|"},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", "GET / close|"},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close , y\r\n\r\n", "GET / close|"},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\nConnection: keep\r\n\r\n", "GET / keep|"},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n", "GET / close|"},
      {"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / keep|"},
      {"GET HTTP://a:80/b/c?d HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b/c?d keep|"},
      {"GET https://a?d=/e HTTP/1.1\r\nHost: b\r\n\r\n", "GET /?d=/e keep|"},
      {"GET /a%20|{}^\\`~ HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a%20|{}^\\`~ keep|"},
      {"GET //x://y HTTP/1.1\r\nHost: a\r\n\r\n", "GET //x://y keep|"},
  };
  for (const row& each : rows) expect(each.input, each.outcome);
}

TEST_CASE("request lines that are refused") {
  const row rows[] = {
      {"\r\n\r\nGET / HTTP/1.1\r\n", "400|"},
      {"\nGET / HTTP/1.1\r\n", "400|"},
      {"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400|"},
      {" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400|"},
      {"\x16\x03\x01\x02", "400|"},
      {"(", "400|"},
      {"GET\r\n", "400|"},
      {"GET /\r\n", "400|"},
      {"GET / HTTP/1.1\n", "400|"},
      {"GET / HTTP/1.1 \r\n", "400|"},
      {"GET  / HTTP/1.1\r\n", "400|"},
      {"GET /  HTTP/1.1\r\n", "400|"},
      {"GET\t/ HTTP/1.1\r\n", "400|"},
      {"GET /a b HTTP/1.1\r\n", "400|"},
      {"GET /\r HTTP/1.1\r\n", "400|"},
      {"GET /\x01 HTTP/1.1\r\n", "400|"},
      {"GET /\x7f HTTP/1.1\r\n", "400|"},
      {"GET /\xc3\xa9 HTTP/1.1\r\n", "400|"},
      {"GET /a#b HTTP/1.1\r\n", "400|"},
      {"GET /\"<> HTTP/1.1\r\n", "400|"},
      {"GET * HTTP/1.1\r\n", "400|"},
      {"GET a HTTP/1.1\r\n", "400|"},
      {"GET a:80 HTTP/1.1\r\n", "400|"},
      {"GET ftp://a/ HTTP/1.1\r\n", "400|"},
      {"GET http:///a HTTP/1.1\r\n", "400|"},
      {"GET http://u@a/ HTTP/1.1\r\n", "400|"},
      {"GET http://a:b/ HTTP/1.1\r\n", "400|"},
      {"G(T / HTTP/1.1\r\n", "400|"},
      {"G\x80T / HTTP/1.1\r\n", "400|"},
      {"GET / HTTP/1.\r\n", "400|"},
      {"GET / HTTP/11\r\n", "400|"},
      {"GET / HTTP/1.10\r\n", "400|"},
      {"GET / HTTP/a.1\r\n", "400|"},
      {"GET / HTTP-1.1\r\n", "400|"},
      {"GET / http/1.1\r\n", "400|"},
      {"GET / HTTPS/1.1\r\n", "400|"},
      {"GET / HTTP/1.1\r\r\n", "400|"},
      {"GET / HTTP/2.0\r\n", "505|"},
      {"GET / HTTP/0.9\r\n", "505|"},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505|"},
      {"get / HTTP/1.1\r\n", "501|"},
      {"DELETE / HTTP/1.1\r\n", "501|"},
      {"CONNECT a:80 HTTP/1.1\r\n", "501|"},
      {"OPTIONS * HTTP/1.1\r\n", "501|"},
      {"GETS / HTTP/1.1\r\n", "501|"},
  };
  for (const row& each : rows) expect(each.input, each.outcome);
  expect(std::string_view("GET /\0a HTTP/1.1\r\n", 18), "400|");
  expect(std::string_view("\0GET / HTTP/1.1\r\n", 17), "400|");
}

TEST_CASE("header fields that are refused") {
  const row rows[] = {
      {"Name : a\r\n", "400|"},        {"Name\t: a\r\n", "400|"},         {": a\r\n", "400|"},
      {"Name\r\n", "400|"},            {"Na me: a\r\n", "400|"},          {"N(ame: a\r\n", "400|"},
      {"N\x80me: a\r\n", "400|"},      {"Name: a\n", "400|"},             {"Name: a\rb\r\n", "400|"},
      {"Name: a\r\r\n", "400|"},       {"Name: \x01\r\n", "400|"},        {"Name: \x7f\r\n", "400|"},
      {" folded\r\n", "400|"},         {"Name: a\r\n b\r\n", "400|"},     {"Name: a\r\n\tb\r\n", "400|"},
      {" \r\n", "400|"},               {"\n", "400|"},                    {"Host: a\r\n", "400|"},
      {"Content-Length: \r\n", "400|"}, {"Content-Length: +1\r\n", "400|"}, {"Content-Length: -1\r\n", "400|"},
      {"Content-Length: 0x1\r\n", "400|"}, {"Content-Length: 1 1\r\n", "400|"}, {"Content-Length: 1,1\r\n", "400|"},
      {"Content-Length: 1.0\r\n", "400|"}, {"Content-Length: a\r\n", "400|"}, {"Content-Length: 1\xb2\r\n", "400|"},
      {"Content-Length: 0\r\nContent-Length: 1\r\n", "400|"},
      {"Content-Length: 0\r\nContent-Length: 0\r\n", "400|"},
      {"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "400|"},
      {"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "400|"},
      {"Transfer-Encoding: gzip\r\n", "400|"},
      {"Transfer-Encoding: \r\n", "400|"},
      {"Transfer-Encoding: chunked,\r\n", "400|"},
      {"Transfer-Encoding: chunked, chunked\r\n", "400|"},
      {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "400|"},
      {"Transfer-Encoding: chunked, gzip\r\n", "400|"},
      {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "400|"},
      {"Transfer-Encoding: chunked;a=b\r\n", "400|"},
      {"Transfer-Encoding: \"chunked\"\r\n", "400|"},
      {"Transfer-Encoding: xchunked\r\n", "400|"},
      {"Transfer-Encoding: \x0b" "chunked\r\n", "400|"},
      {"Transfer-Encoding : chunked\r\n", "400|"},
      {"Transfer-Encoding: gzip, chunked\r\n", "501|"},
      {"Transfer-Encoding: gzip\r\nTransfer-Encoding: Chunked\r\n", "501|"},
      {"Expect: 200-ok\r\n", "417|"},
      {"Expect: 100-continue\r\nExpect: x\r\n", "417|"},
      {"Content-Length: 1048577\r\n", "413|"},
      {"Content-Length: 18446744073709551616\r\n", "413|"},
      {"Content-Length: 99999999999999999999999999999999999999\r\n", "413|"},
      {"Content-Length: 99999999999999999999999999999999999999x\r\n", "400|"},
  };
  for (const row& each : rows) expect(get_with(each.input), each.outcome);
  expect(get_with(std::string_view("Name: \0\r\n", 9)), "400|");
}

TEST_CASE("Host") {
  expect("GET / HTTP/1.1\r\n\r\n", "400|");
  expect("GET http://a/ HTTP/1.1\r\n\r\n", "400|");
  expect("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "400|");
  const std::string_view malformed[] = {"a b", "a/b", "a@b", "a,b", "a:b", "a:8:0", "a:123456", ":80", "a?b", "\"a\"",
                                        "[::1", "[]", "[::1]x", "a[b]", "a\\b"};
  for (std::string_view host : malformed) {
    expect("GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n", "400|");
    expect("GET / HTTP/1.0\r\nHost: " + std::string(host) + "\r\n\r\n", "400|");
  }
}

TEST_CASE("bodies by length") {
  expect(post_with("Content-Length: 3\r\n", "abc"), "POST /echo keep body=abc|");
  expect(post_with("content-LENGTH: 0003\r\n", "abc"), "POST /echo keep body=abc|");
  expect(post_with("Content-Length: 0\r\n", ""), "POST /echo keep|");
  expect(post_with("", ""), "POST /echo keep|");
  expect(post_with("Content-Length: 3\r\n", "ab"), "...");
  expect(post_with("Content-Length: 4\r\n", "a\r\n\n") + get_with(""), "POST /echo keep body=a\r\n\n|GET / keep|");
  expect(get_with("Content-Length: 3\r\n") + "abc" + get_with(""), "GET / keep body=abc|GET / keep|");
  expect("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", "POST / close 1.0 body=ab|");
  expect("POST / HTTP/1.0\r\nExpect: what\r\nContent-Length: 2\r\n\r\nab", "POST / close 1.0 body=ab|");
  const std::string large(std::size_t{1} << 20, 'x');
  const std::string input = post_with("Content-Length: 1048576\r\n", large) + get_with("");
  CHECK(parsed({input}) == "POST /echo keep body=" + large + "|GET / keep|");
}

TEST_CASE("bodies in chunks") {
  const row rows[] = {
      {"0\r\n\r\n", "POST /echo keep|"},
      {"3\r\nabc\r\n0\r\n\r\n", "POST /echo keep body=abc|"},
      {"3\r\nabc\r\n2\r\nde\r\n000\r\n\r\n", "POST /echo keep body=abcde|"},
      {"00a\r\n0123456789\r\n0\r\n\r\n", "POST /echo keep body=0123456789|"},
      {"A\r\n0123456789\r\n0\r\n\r\n", "POST /echo keep body=0123456789|"},
      {"3;a=b;c=\"d\"\r\nabc\r\n0 ; x\r\n\r\n", "POST /echo keep body=abc|"},
      {"2\r\n\r\n\r\n0\r\n\r\n", "POST /echo keep body=\r\n|"},
      {"3\r\nabc\r\n0\r\nX: y\r\nContent-Length: 7\r\nHost: b\r\n\r\n", "POST /echo keep body=abc|"},
      {"3\r\nabc\r\n0\r\n", "..."},
      {"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n", "POST /echo keep body=abc|GET / close 1.0|"},
      {"\r\n", "400|"},
      {"x\r\n", "400|"},
      {"-1\r\n", "400|"},
      {"0x3\r\nabc\r\n", "400|"},
      {" 3\r\nabc\r\n", "400|"},
      {"3 \r\nabc\r\n", "400|"},
      {"3 a\r\nabc\r\n", "400|"},
      {"3\nabc\r\n", "400|"},
      {"3\r\r\nabc\r\n", "400|"},
      {"3;\x01\r\nabc\r\n", "400|"},
      {"3;a\rb\r\nabc\r\n", "400|"},
      {"3;a\nabc\r\n", "400|"},
      {"3\r\nabc\n0\r\n\r\n", "400|"},
      {"3\r\nabc0\r\n\r\n", "400|"},
      {"3\r\nabcd\r\n0\r\n\r\n", "400|"},
      {"3\r\nab\r\n0\r\n\r\n", "400|"},
      {"0\r\nX : y\r\n\r\n", "400|"},
      {"0\r\nX: y\r\n z\r\n\r\n", "400|"},
      {"0\r\n\n", "400|"},
      {"00000000000000003\r\nabc\r\n", "400|"},
      {"100001\r\n", "413|"},
      {"ffffffffffffffff\r\n", "413|"},
      {"10000000000000003\r\n", "400|"},
  };
  for (const row& each : rows) expect(chunked(each.input), each.outcome);
  expect("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400|");
}

TEST_CASE("sizes: one at the limit passes, one above it does not") {
  http::limits limits;
  limits.target_bytes = 20;
  limits.line_bytes = 40;
  limits.head_bytes = 120;
  limits.fields = 4;
  limits.chunk_line_bytes = 10;
  limits.body_bytes = 8;
  const std::string path(19, 'p');
  expect("GET /" + path + " HTTP/1.1\r\nHost: a\r\n\r\n", "GET /" + path + " keep|", limits);
  expect("GET /p" + path + " HTTP/1.1\r\nHost: a\r\n\r\n", "414|", limits);
  expect("GET /" + std::string(100, 'p') + " HTTP/1.1\r\n", "414|", limits);
  expect("GET /" + std::string(100, 'p'), "414|", limits);
  expect("GET /" + std::string(100, 'p') + "\n", "414|", limits);
  expect(std::string(100, 'G') + " / HTTP/1.1\r\n", "501|", limits);
  expect(std::string(20, 'G') + "(" + std::string(100, 'G') + " / HTTP/1.1\r\n", "400|", limits);
  expect(get_with("X: " + std::string(37, 'x') + "\r\n"), "GET / keep|", limits);
  expect(get_with("X: " + std::string(38, 'x') + "\r\n"), "431|", limits);
  expect(get_with("X: " + std::string(39, 'x') + "\n"), "431|", limits);
  expect(get_with(std::string(60, 'x')), "431|", limits);
  expect(get_with("A: \r\nB: \r\nC: \r\n"), "GET / keep|", limits);
  expect(get_with("A: \r\nB: \r\nC: \r\nD: \r\n"), "431|", limits);
  // 27 bytes without X and Y; 42 for each X and 9 for Y make 120.
  const std::string x = "X:" + std::string(38, 'x') + "\r\n";
  expect(get_with(x + x + "Y:     \r\n"), "GET / keep|", limits);
  expect(get_with(x + x + "Y:      \r\n"), "431|", limits);
  expect(post_with("Content-Length: 8\r\n", "12345678"), "POST /echo keep body=12345678|", limits);
  expect(post_with("Content-Length: 9\r\n", ""), "413|", limits);
  const std::string te = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  expect(te + "5\r\n12345\r\n3\r\n678\r\n0\r\n\r\n", "POST / keep body=12345678|", limits);
  expect(te + "5\r\n12345\r\n4\r\n", "413|", limits);
  expect(te + "1;34567890\r\na\r\n0\r\n\r\n", "POST / keep body=a|", limits);
  expect(te + "1;345678901\r\na\r\n0\r\n\r\n", "400|", limits);
  expect(te + "1;345678901", "...", limits);   // the next byte may still be the CR's LF
  expect(te + "1;3456789012", "400|", limits);
  expect(te + "0\r\n" + x + x + "Z: " + std::string(20, 'z') + "\r\n\r\n", "POST / keep|", limits);
  expect(te + "0\r\n" + x + x + x + "\r\n", "431|", limits);
  std::string extended = te;
  for (int i = 0; i < 8; ++i) extended += "1;34567890\r\na\r\n";
  expect(extended + "0\r\n\r\n", "POST / keep body=aaaaaaaa|", limits);
  limits.body_bytes = 100;
  for (int i = 0; i < 8; ++i) extended += "1;34567890\r\na\r\n";
  expect(extended + "0\r\n\r\n", "400|", limits);
  std::string single = te;
  for (int i = 0; i < 100; ++i) single += "1\r\na\r\n";
  expect(single + "0\r\n\r\n", "POST / keep body=" + std::string(100, 'a') + "|", limits);
}

TEST_CASE("the limits that the server runs with") {
  const std::string path(7999, 'p');
  CHECK(parsed({"GET /" + path + " HTTP/1.1\r\nHost: a\r\n\r\n"}) == "GET /" + path + " keep|");
  expect("GET /p" + path + " HTTP/1.1\r\nHost: a\r\n\r\n", "414|");
  expect("GET /" + std::string(40000, 'p') + " HTTP/1.1\r\nHost: a\r\n\r\n", "414|");
  expect(get_with("X: " + std::string(40000, 'x') + "\r\n"), "431|");
  std::string many;
  for (int i = 0; i < 99; ++i) many += "X-" + std::to_string(i) + ": y\r\n";
  expect(get_with(many), "GET / keep|");
  expect(get_with(many + "Y: z\r\n"), "431|");
  std::string heavy;
  for (int i = 0; i < 4; ++i) heavy += "X: " + std::string(8180, 'x') + "\r\n";
  CHECK(parsed({get_with(heavy)}) == "GET / keep|");  // 32767 bytes
  expect(get_with(heavy + "Y:\r\n"), "431|");
  // Limits above what the buffer holds are brought down to it rather than starving the reader.
  http::limits wide;
  wide.line_bytes = 1000000;
  wide.head_bytes = 1000000;
  expect(get_with("X: " + std::string(40000, 'x') + "\r\n"), "431|", wide);
}

TEST_CASE("pipelined requests come out in order") {
  std::string input;
  std::string wanted;
  for (int i = 0; i < 300; ++i) {
    const std::string number = std::to_string(i);
    if (i % 3 == 0) input += "GET /" + number + " HTTP/1.1\r\nHost: a\r\n\r\n";
    if (i % 3 == 1) input += "POST /" + number + " HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    if (i % 3 == 2) {
      input += "POST /" + number + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    }
    wanted += (i % 3 == 0 ? "GET /" + number + " keep|" : "POST /" + number + " keep body=ab|");
  }
  expect(input, wanted);
  expect(input + "BAD\r\n" + input, wanted + "400|");
}

TEST_CASE("nothing of one request is left in the next") {
  const std::string loud =
      "POST /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc";
  expect(loud + "GET /b HTTP/1.1\r\nHost: b\r\n\r\n", "POST /a keep 1.0 body=abc|GET /b keep|");
  expect(chunked("1\r\na\r\n0\r\n\r\n") + "GET / HTTP/1.0\r\n\r\n" + get_with(""),
         "POST /echo keep body=a|GET / close 1.0|GET / keep|");
  expect(get_with("Connection: close\r\n") + get_with("") + "GET / HTTP/1.1\r\n\r\n", "GET / close|GET / keep|400|");
}

TEST_CASE("a refusal knows the method, or takes it for GET") {
  reader input;
  input.feed("HEAD / HTTP/1.1\r\n\r\n");
  CHECK(input.outcome() == "400|");
  CHECK(input.parser().current().method == http::method::head);  // its refusal has no body
  reader next;
  next.feed("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n");
  CHECK(next.outcome() == "HEAD / keep|400|");
  CHECK(next.parser().current().method == http::method::get);
  CHECK(std::string_view(next.parser().reason()).size() > 10);
}

TEST_CASE("a large body's memory is given back before the next request") {
  reader input;
  input.feed(post_with("Content-Length: 1000000\r\n", std::string(1000000, 'x')) + get_with(""));
  CHECK(input.parser().current().body.capacity() < 100000);
}

TEST_CASE("permission to send a body is given once, and only to who waits for it") {
  const std::string head = post_with("Expect: 100-Continue\r\nContent-Length: 3\r\n", "");
  SUBCASE("the body has not begun") {
    reader input;
    input.feed(head.substr(0, head.size() - 1));
    CHECK_FALSE(input.parser().take_continue());
  }
  SUBCASE("the client waits") {
    reader input;
    input.feed(head);
    CHECK(input.parser().is_in_body());
    CHECK(input.parser().take_continue());
    CHECK_FALSE(input.parser().take_continue());
    input.feed("abc");
    CHECK(input.outcome() == "POST /echo keep body=abc|");
    CHECK_FALSE(input.parser().take_continue());
  }
  SUBCASE("the body came along") {
    reader input;
    input.feed(head + "a");
    CHECK_FALSE(input.parser().take_continue());
  }
  SUBCASE("in chunks") {
    reader input;
    input.feed(post_with("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", ""));
    CHECK(input.parser().take_continue());
  }
  SUBCASE("there is no body") {
    reader input;
    input.feed(get_with("Expect: 100-continue\r\n"));
    CHECK(input.outcome() == "GET / keep|");
    CHECK_FALSE(input.parser().take_continue());
  }
  SUBCASE("HTTP/1.0 does not know it") {
    reader input;
    input.feed("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    CHECK_FALSE(input.parser().take_continue());
  }
}

TEST_CASE("bytes at random neither crash nor depend on their cuts") {
  std::mt19937 random(20240229);
  const std::string_view words[] = {"GET ", "POST ", "/", "/a?b", " HTTP/1.1", " HTTP/1.0", "\r\n", "\r", "\n", ":",
                                    " ",
                                    "Host: a", "Content-Length: 3", "Transfer-Encoding: chunked", "chunked", ",", "0",
                                    "3\r\nabc", "Connection: close", "\t", ";", "\x80", "x", "Expect: 100-continue"};
  int taken = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string input;
    if (random() % 2 == 0) input = "POST / HTTP/1.1\r\nHost: a\r\n";
    for (unsigned left = static_cast<unsigned>(random() % 20); left > 0; --left) {
      input += words[random() % (sizeof words / sizeof words[0])];
      if (random() % 2 == 0) input += "\r\n";
    }
    if (random() % 4 == 0 && !input.empty()) input[random() % input.size()] = static_cast<char>(random() % 256);
    const std::string whole = parsed({input});
    if (whole.find("POST") != std::string::npos) ++taken;
    CAPTURE(input);
    CHECK(parsed_in_bytes(input, http::limits()) == whole);
    CHECK(parsed_at_random(input, http::limits(), random) == whole);
  }
  CHECK(taken > 50);  // else the inputs are too wild to reach the body
}
