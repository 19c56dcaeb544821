// tests/compile/alone/spin_lock.cpp - atomic/spin_lock.hpp without the rest.
#include "atomic/spin_lock.hpp"

int main() {
  concur::spin_lock lock;
  lock.lock();
  const bool is_had_twice = lock.try_lock();
  lock.unlock();
  return is_had_twice ? 1 : 0;
}
