// tests/compile/alone/ticket_lock.cpp - atomic/ticket_lock.hpp without the rest.
#include "atomic/ticket_lock.hpp"

int main() {
  concur::ticket_lock lock;
  lock.lock();
  const bool is_had_twice = lock.try_lock();
  lock.unlock();
  return is_had_twice ? 1 : 0;
}
