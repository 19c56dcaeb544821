// tests/fuzz/words.hpp - inputs as small programs that a person can read and write, and that any bytes spell somehow.
//
// An operation is one letter, an argument is a number behind it, and what means nothing where it stands is passed over. So
// the fuzzer may change anything, the seeds explain themselves, and libFuzzer's way of changing decimal numbers applies.
#ifndef CONCUR_TESTS_FUZZ_WORDS_HPP
#define CONCUR_TESTS_FUZZ_WORDS_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fuzz {

class words {
 public:
  explicit words(std::string_view text) : text_(text) {}

  bool is_over() const { return at_ >= text_.size(); }
  char peek() const { return is_over() ? '\0' : text_[at_]; }
  char take() { return is_over() ? '\0' : text_[at_++]; }
  bool take_if(char wanted) {
    if (is_over() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  // The digits that come next; `otherwise` when there are none. More than fit into 63 bits stay at the largest number.
  std::int64_t number(std::int64_t otherwise) {
    if (!is_digit(peek())) return otherwise;
    std::int64_t sum = 0;
    while (is_digit(peek())) {
      const std::int64_t digit = take() - '0';
      sum = sum > (INT64_MAX - digit) / 10 ? INT64_MAX : sum * 10 + digit;
    }
    return sum;
  }
  unsigned small_number(unsigned otherwise, unsigned bound) {
    return static_cast<unsigned>(static_cast<std::uint64_t>(number(otherwise)) % bound);
  }

 private:
  static bool is_digit(char byte) { return byte >= '0' && byte <= '9'; }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace fuzz

#endif
