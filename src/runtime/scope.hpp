// runtime/scope.hpp - what a cancellation reaches: scopes, the tree they form, and the few words that each of them is.
//
// A scope is a block of a fiber that can be cancelled as a whole. Scopes of one fiber nest; a nursery is a scope below
// which other fibers live, each with scopes of its own. So there is one tree, and cancelling a scope means all that hangs
// below it:
//
//     the runtime's root
//       fiber A        scope (a deadline)     nursery N
//                                               fiber B
//                                               fiber C     scope     nursery M
//                                                                       fiber D
//
// `is_cancelled` is kept up to date in every scope of the tree, and that of its innermost scope in every fiber, so that a
// parking operation asks one word, however deep the tree is:
//
//     is_cancelled  =  was_called  or  (not is_shielded  and  parent's is_cancelled)
//
// Locks, always taken from the root towards the leaves, and held while anything below is looked at (cancel.hpp):
//
//     fiber.scope_lock     the list of scopes that this fiber has entered: current_scope and up to where its parent begins
//     nursery_part.gate    the fibers that live below the nursery
//
//   H1  A scope is entered and left by its owner, under the owner's lock, last in first out. Its parent does not change
//       meanwhile, and outlives it; so walking up needs no lock.
//   H2  A fiber is a nursery's member from before it is ready for the first time until it has left all scopes of its own.
//       While a nursery has members, its owner does not leave it.
//   H3  The equation above holds for every scope below a flag that is not just being changed; who changes one has the lock
//       of its owner, and goes on below before letting go of it. Who enters a scope computes its flag under the lock.
#ifndef CONCUR_RUNTIME_SCOPE_HPP
#define CONCUR_RUNTIME_SCOPE_HPP

#include "atomic/word.hpp"
#include "base/config.hpp"
#include "base/intrusive.hpp"
#include "runtime/token_state.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

struct fiber;
struct nursery_part;

struct scope {
  scope() noexcept = default;
  ~scope() {
    // relaxed: whoever made it has handed the scope back.
    if (token_state* const t = token.load(std::memory_order_relaxed)) t->release();
  }
  scope(const scope&) = delete;
  scope& operator=(const scope&) = delete;

  // relaxed, all: a cancellation that a look misses claims the wait word instead (suspend.hpp, S5).
  bool is_effective() const noexcept { return is_cancelled.load(std::memory_order_relaxed); }
  // What it was entered below; null: nothing yet, or it is a root.
  scope* outer() const noexcept { return parent.load(std::memory_order_relaxed); }  // relaxed: as above
  bool surroundings_cancelled() const noexcept {
    const scope* const around = outer();
    return around != nullptr && !is_shielded.load(std::memory_order_relaxed) &&  // relaxed: as above
           around->is_effective();
  }
  // Whether the cancellation that is felt here is this scope's own: then it ends here (Trio's rule).
  bool is_origin() const noexcept { return is_effective() && !surroundings_cancelled(); }

  atomic<bool> is_cancelled{false};
  atomic<bool> was_called{false};   // somebody cancelled this very scope, or its deadline passed
  atomic<bool> is_shielded{false};  // what surrounds it does not reach it
  atomic<bool> was_raised{false};   // an operation below was told of its cancellation
  unsigned char outer_unwind_base = 0;   // the owner's, to be put back
  atomic<fiber*> owner{nullptr};    // who has entered it; null: nobody yet, or it was left
  atomic<scope*> parent{nullptr};
  scope* inner = nullptr;                    // a walker's note; under the owner's lock
  nursery_part* below = nullptr;             // the fibers that live below it, if it is a nursery's
  atomic<token_state*> token{nullptr};  // made when first asked for
};

// A fiber as a child of a nursery. The first part of the fiber's payload.
struct member {
  member* next = nullptr;
  member* prev = nullptr;
  fiber* who = nullptr;
  nursery_part* home = nullptr;
};

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
