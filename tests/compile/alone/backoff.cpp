// tests/compile/alone/backoff.cpp - atomic/backoff.hpp without the rest.
#include "atomic/backoff.hpp"

int main() {
  concur::backoff wait;
  for (int i = 0; i < 70; ++i) wait.pause();
  return wait.is_spent() ? 0 : 1;
}
