// tests/support/crew.hpp - the other side, when it is several parties: companions started one by one and joined together.
//
// scaled(n) is n, or a twentieth of it under a sanitizer.
#ifndef CONCUR_TESTS_SUPPORT_CREW_HPP
#define CONCUR_TESTS_SUPPORT_CREW_HPP

#include <deque>
#include <utility>

#include "support/companion.hpp"
#include "support/tally.hpp"

namespace concur_test {

constexpr int scaled(int n) { return CONCUR_TSAN || CONCUR_ASAN ? (n + 19) / 20 : n; }

class crew {
 public:
  explicit crew(kind which) : which_(which) {}

  template <class F>
  companion& go(F body) {
    members_.emplace_back(which_, std::move(body));
    return members_.back();
  }
  // Returns when all have ended, and rethrows what one of them threw.
  void join() {
    for (companion& one : members_) one.join();
    members_.clear();
  }

 private:
  kind which_;
  std::deque<companion> members_;  // whose addresses stay
};

}  // namespace concur_test

using concur_test::crew;
using concur_test::scaled;

#endif
