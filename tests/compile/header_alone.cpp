// tests/compile/header_alone.cpp - the header, first and alone: it brings what it needs, and warns of nothing.
#include "concur.hpp"

int main() { return 0; }
