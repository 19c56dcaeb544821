// tests/compile/alone/hazard_domain.cpp - atomic/hazard_pointer.hpp, and the domain that it includes, without the rest.
#include "atomic/hazard_pointer.hpp"

namespace {
struct node : concur::hazard_object {
  int value = 4;
};
}  // namespace

int main() {
  concur::hazard_domain domain;
  std::atomic<node*> shared{new node};
  concur::hazard_pointer mine(domain);
  const int value = mine.protect(shared)->value;
  domain.retire(shared.exchange(nullptr));
  return value == 4 ? 0 : 1;
}
