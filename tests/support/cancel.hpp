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

  // True: a wait was ended with `cancelled`. By the protocol of a cancellation (serve.hpp): a site may count on the flag and
  // the fence, though the flag is taken back here, for no scope is cancelled.
  bool strike() {
    concur::detail::fiber* f = block_.load();
    if (f == nullptr) return false;
    bool has_won = false;
    {
      const concur::detail::lock_scope<concur::spin_lock> held(f->scope_lock);
      const std::uint32_t word = f->word.load();
      if ((word & 1) == 0 || f->is_deaf.load()) return false;
      const bool was = f->is_cancelled.load();
      f->is_cancelled.store(true);
      concur::detail::heavy_fence();
      has_won = concur::detail::claim(*f, word);
      if (has_won) f->cancelled_wait = word;
      f->is_cancelled.store(was);
    }
    if (!has_won) return false;
    f->result = concur::detail::outcome::cancelled;
    concur::detail::resume(f);
    return true;
  }

 private:
  std::atomic<concur::detail::fiber*> block_{nullptr};
};

}  // namespace concur_test

using concur_test::cancel_target;

#endif
