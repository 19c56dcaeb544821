// runtime/forms.hpp - a blocking call in its two forms: one throws `cancelled`, the other says so in a std::error_code.
//
// What may park is written once, as a function of the worker that its checkpoint gave, and returns an outcome. perform()
// is all that the forms add: the checkpoint before, and what becomes of a cancellation after.
//
//     form                      cancelled before, or while it waits     else
//     op(args...)               throws `cancelled`                      -
//     op(args..., error)        errc::operation_canceled                the code is cleared
//
// Where a call ends in a pack of the caller's own, the code comes before it: select(error, cases...). Built without
// exceptions, the first form has no way out but on_fatal. So there a cancellation alone does not end it: only having to
// wait does.
#ifndef CONCUR_RUNTIME_FORMS_HPP
#define CONCUR_RUNTIME_FORMS_HPP

#include <system_error>

#include "base/config.hpp"
#include "base/error.hpp"
#include "runtime/suspend.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

// The end of the first form. `granted` is asked for first: what need not wait pays for one comparison, which is the
// caller's own.
CONCUR_FORCE_INLINE outcome or_throw(outcome result) {
  if (CONCUR_LIKELY(result == outcome::granted)) return outcome::granted;
  if (result == outcome::cancelled) fail_cancelled();
  return result;
}

// The end of the second.
inline outcome or_tell(outcome result, std::error_code& error) noexcept {
  if (result == outcome::cancelled && !CONCUR_MUTANT_IS(191))
    error = std::make_error_code(std::errc::operation_canceled);
  else if (!CONCUR_MUTANT_IS(192))
    error.clear();
  return result;
}

// The two halves of perform(), for an operation that ends in a jump to its wait. False: cancelled already. w: as above.
CONCUR_FORCE_INLINE bool begin_form(worker*& w) {
  w = checkpoint();
  return true;
}
CONCUR_FORCE_INLINE bool begin_form(worker*& w, std::error_code&) noexcept {
  w = nullptr;
  return CONCUR_LIKELY(checkpoint_quietly(w));
}
// What is not granted ends the operation by a jump, too: thrown from there, `cancelled` passes no frame of the wait, which is
// large, and costs 1,500 instructions to unwind in each of the two phases. The compiler must not find out that this throws, or
// it calls instead. Cold, because a call from a function's cold part is unwound by the few rules of that part alone.
CONCUR_NOINLINE __attribute__((cold)) inline outcome end_form_apart(outcome result) {
  asm volatile("" : "+r"(result));
  return or_throw(result);
}
CONCUR_FORCE_INLINE outcome end_form(outcome result) {
  return CONCUR_LIKELY(result == outcome::granted) ? outcome::granted : end_form_apart(result);
}
CONCUR_FORCE_INLINE outcome end_form(outcome result, std::error_code& error) noexcept { return or_tell(result, error); }

// operation(worker*), from the caller's checkpoint on; null on a plain thread. Misuse passes through as it is thrown.
template <class Operation>
CONCUR_FORCE_INLINE outcome perform(Operation&& operation) {
  return or_throw(operation(checkpoint()));
}
template <class Operation>
CONCUR_FORCE_INLINE outcome perform(Operation&& operation, std::error_code& error) {
  worker* w = nullptr;
  return or_tell(CONCUR_LIKELY(checkpoint_quietly(w)) ? operation(w) : outcome::cancelled, error);
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
