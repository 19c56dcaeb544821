// tests/support/cancel.hpp - cancels the present wait of one fiber, from any thread, at any moment.
//
// A storm test wants a cancellation to meet a completion at every point of the protocol. A target is filled by the fiber
// itself; strike() ends the wait that fiber is in, if it is in one that may be cancelled, exactly as the cancellation of
// its scope would.
#ifndef CONCUR_TESTS_SUPPORT_CANCEL_HPP
#define CONCUR_TESTS_SUPPORT_CANCEL_HPP

#include <atomic>

#include "support/test.hpp"

namespace concur_test {

class cancel_target {
 public:
  // By the fiber that may be struck; its block stays readable while its runtime lives.
  void enter() { block_.store(concur::detail::this_worker()->current); }
  void leave() { block_.store(nullptr); }

  // True: a wait was ended with `cancelled`.
  bool strike() {
    concur::detail::fiber* f = block_.load();
    if (f == nullptr) return false;
    const std::uint32_t word = f->word.load();
    if ((word & 1) == 0 || f->is_deaf.load()) return false;
    return concur::detail::end_wait(*f, word, concur::detail::outcome::cancelled);
  }

 private:
  std::atomic<concur::detail::fiber*> block_{nullptr};
};

}  // namespace concur_test

using concur_test::cancel_target;

#endif
