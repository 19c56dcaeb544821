// base/maker.hpp - a function that makes a T, with its own type forgotten.
//
// A pool that opens connections, and a variable with a first value, keep a function of the user's. std::function would do,
// but cannot hold one that is move-only, and its header costs every user compile time.
#ifndef CONCUR_BASE_MAKER_HPP
#define CONCUR_BASE_MAKER_HPP

#include <memory>
#include <type_traits>
#include <utility>

#include "base/config.hpp"

CONCUR_NAMESPACE_BEGIN
namespace detail {

template <class T>
class maker {
 public:
  maker() noexcept = default;
  virtual ~maker() = default;
  maker(const maker&) = delete;
  maker& operator=(const maker&) = delete;
  virtual T make() = 0;
};

template <class T, class F>
class function_maker final : public maker<T> {
 public:
  template <class G>
  explicit function_maker(G&& function) : function_(std::forward<G>(function)) {}
  T make() override { return function_(); }

 private:
  F function_;
};

template <class T, class F>
std::unique_ptr<maker<T>> new_maker(F&& function) {
  return std::make_unique<function_maker<T, std::decay_t<F>>>(std::forward<F>(function));
}

}  // namespace detail
CONCUR_NAMESPACE_END

#endif
