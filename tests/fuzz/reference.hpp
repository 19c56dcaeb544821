// tests/fuzz/reference.hpp - llhttp, the HTTP parser of Node.js, asked for its opinion.
//
// Our parser is narrower than others on purpose, so only one direction is a finding: a request that we take and llhttp
// does not, or understands otherwise. Two servers behind each other that differ there can be made to see different
// requests in the same bytes. Debian has llhttp as the package node-llhttp; run.sh compiles it in when it is there.
//
// Known, and not counted, as neither moves the end of a request:
//
//   R1  llhttp lets a header Proxy-Connection speak for Connection. We do not know it.
//   R2  In HTTP/1.0, `close` beside `keep-alive` closes with us, and does not with llhttp.
//   R3  llhttp looks for Transfer-Encoding among the trailers too, and refuses what it does not know. They are only text to
//       us.
//   R4  llhttp takes no blank between a chunk's size and its extension, which RFC 9112 (section 7.1.1) tells recipients to
//       take, and in an extension no more than tokens and strings without escapes. We look only at its characters.
//   R5  llhttp takes no tab behind the digits of a Content-Length. To RFC 9110 (section 5.5) blanks and tabs around a value are
//       no part of it.
#ifndef CONCUR_TESTS_FUZZ_REFERENCE_HPP
#define CONCUR_TESTS_FUZZ_REFERENCE_HPP

#include <llhttp/llhttp.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace fuzz {

struct reference_request {
  std::string method;
  std::string target;
  std::string body;
  bool is_http_1_0 = false;
  bool keeps_alive = false;
  std::size_t end = 0;
  std::string fields;  // their names, each with a line end before and behind
};

class reference_parser {
 public:
  explicit reference_parser(std::string_view input) : input_(input) {
    llhttp_settings_init(&settings_);
    settings_.on_message_begin = [](llhttp_t* parser) { return me(parser).begin(); };
    settings_.on_url = [](llhttp_t* parser, const char* at, std::size_t size) {
      me(parser).now_.target.append(at, size);
      return 0;
    };
    settings_.on_header_field = [](llhttp_t* parser, const char* at, std::size_t size) {
      me(parser).now_.fields.append(at, size);
      return 0;
    };
    settings_.on_header_field_complete = [](llhttp_t* parser) {
      me(parser).now_.fields += '\n';
      return 0;
    };
    settings_.on_body = [](llhttp_t* parser, const char* at, std::size_t size) {
      me(parser).now_.body.append(at, size);
      return 0;
    };
    settings_.on_headers_complete = [](llhttp_t* parser) { return me(parser).end_head(); };
    settings_.on_message_complete = [](llhttp_t* parser) { return me(parser).complete(); };
    llhttp_init(&parser_, HTTP_REQUEST, &settings_);
    parser_.data = this;
    // A connection that is to be closed goes on here, as it does in our parser: the server ends it.
    parser_.lenient_flags = LENIENT_KEEP_ALIVE | LENIENT_VERSION;
    run();
  }
  reference_parser(const reference_parser&) = delete;
  reference_parser& operator=(const reference_parser&) = delete;

  const std::vector<reference_request>& requests() const { return requests_; }
  bool is_in_trailers() const { return (parser_.flags & F_TRAILING) != 0; }
  bool refuses_extension() const {
    const char at = at_ < input_.size() ? input_[at_] : 'x';
    if (error_ == HPE_INVALID_CHUNK_SIZE) return at == ' ' || at == '\t';
    return error_ != HPE_OK && words().find("chunk ext") != std::string::npos;
  }
  bool refuses_tab() const {
    return error_ == HPE_INVALID_CONTENT_LENGTH && at_ < input_.size() && input_[at_] == '\t';
  }
  std::string words() const {
    const char* reason = llhttp_get_error_reason(&parser_);
    return std::string(llhttp_errno_name(error_)) + ": " + (reason != nullptr ? reason : "");
  }

 private:
  static reference_parser& me(llhttp_t* parser) { return *static_cast<reference_parser*>(parser->data); }

  // A byte at a time, since a callback does not say where it is called.
  void run() {
    for (; at_ < input_.size(); ++at_) {
      error_ = llhttp_execute(&parser_, input_.data() + at_, 1);
      if (error_ == HPE_PAUSED_UPGRADE) {
        llhttp_resume_after_upgrade(&parser_);
        error_ = HPE_OK;
      }
      if (error_ != HPE_OK) return;
    }
  }

  int begin() {
    now_ = reference_request();
    now_.fields = "\n";
    return 0;
  }
  int end_head() {
    now_.method = llhttp_method_name(static_cast<llhttp_method_t>(parser_.method));
    now_.is_http_1_0 = parser_.http_minor == 0;
    now_.keeps_alive = llhttp_should_keep_alive(&parser_) != 0;
    return 0;
  }
  int complete() {
    now_.end = at_ + 1;
    requests_.push_back(now_);
    return 0;
  }

  std::string_view input_;
  std::size_t at_ = 0;
  llhttp_t parser_;
  llhttp_settings_t settings_;
  llhttp_errno_t error_ = HPE_OK;
  reference_request now_;
  std::vector<reference_request> requests_;
};

inline bool has_field(const reference_request& request, std::string_view lower) {
  std::string folded = request.fields;
  for (char& byte : folded) {
    if (byte >= 'A' && byte <= 'Z') byte = static_cast<char>(byte + ('a' - 'A'));
  }
  return folded.find("\n" + std::string(lower) + "\n") != std::string::npos;
}

// The path of a target, which may be a whole URI.
inline std::string path_of(const std::string& target) {
  if (target.empty() || target[0] == '/') return target;
  const std::size_t scheme_end = target.find("://");
  if (scheme_end == std::string::npos) return "no path in " + target;
  const std::size_t path = target.find_first_of("/?", scheme_end + 3);
  if (path == std::string::npos) return "/";
  return (target[path] == '?' ? "/" : "") + target.substr(path);
}

// Empty, or how we and llhttp differ. `Outcome` is an http_outcome that was made byte by byte.
template <class Outcome>
std::string compare_with_reference(std::string_view input, const Outcome& ours) {
  const reference_parser theirs(input);
  const char* const names[] = {"GET", "HEAD", "POST"};
  for (std::size_t i = 0; i < ours.requests.size(); ++i) {
    const auto& us = ours.requests[i];
    const std::string which = "H3, request " + std::to_string(i + 1) + ", " + us.target + ": ";
    if (i >= theirs.requests().size()) {
      if (theirs.is_in_trailers() || theirs.refuses_extension() || theirs.refuses_tab())
        return std::string();  // R3 - R5
      return which + "llhttp has none; " + theirs.words();
    }
    const reference_request& them = theirs.requests()[i];
    if (them.end != ours.ends[i])
      return which + "ends at " + std::to_string(ours.ends[i]) + ", llhttp says " + std::to_string(them.end);
    if (them.method != names[static_cast<unsigned>(us.method)]) return which + "the method is " + them.method;
    if (path_of(them.target) != us.target) return which + "llhttp has the target " + them.target;
    if (them.body != us.body) return which + "llhttp has another body: " + them.body;
    if (them.is_http_1_0 != us.is_http_1_0) return which + "llhttp has another version";
    if (has_field(them, "proxy-connection")) continue;                    // R1
    if (us.is_http_1_0 && them.keeps_alive && !us.keeps_alive) continue;  // R2
    if (them.keeps_alive != us.keeps_alive) return which + "llhttp has another idea of keeping the connection";
  }
  return std::string();
}

}  // namespace fuzz

#endif
