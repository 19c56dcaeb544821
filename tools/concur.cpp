// tools/concur.cpp - the one unit that holds the bodies, for programs whose other units only declare.
//
// Those are compiled with CONCUR_SEPARATE_COMPILATION; this one has CONCUR_IMPLEMENTATION as well. Compiler and options that
// show in the name of the inline namespace must be the same for all, or they do not link.
#ifndef CONCUR_SEPARATE_COMPILATION
#  define CONCUR_SEPARATE_COMPILATION
#endif
#define CONCUR_IMPLEMENTATION
#include "concur.hpp"
