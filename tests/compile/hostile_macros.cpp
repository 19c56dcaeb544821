// tests/compile/hostile_macros.cpp - the header after headers that took good words for themselves.
//
// Each of these is a macro in something that people do include before us: windows.h (min, max, near, far, small, interface),
// Qt (emit, signals, slots), macOS' AssertMacros.h (check, verify), old C libraries (major, minor), compilers in their GNU
// modes (linux, unix). Standard headers survive some of them only if they come first; so they do, as they would there:
// run.sh writes into system_headers.hpp what concur.hpp includes.
#include "system_headers.hpp"

// Where the macro would be like a function, the body is what no expression survives.
#define min(a, b) hostile macro min
#define max(a, b) hostile macro max
#define yield() hostile macro yield
#define major(x) hostile macro major
#define minor(x) hostile macro minor
#define check(x) hostile macro check
#define verify(x) hostile macro verify
#undef linux
#undef unix
#define linux hostile macro linux
#define unix hostile macro unix
#define emit hostile macro emit
#define signals hostile macro signals
#define slots hostile macro slots
#define interface hostile macro interface
#define near hostile macro near
#define far hostile macro far
#define small hostile macro small

#include "concur.hpp"

#undef min
#undef max
#undef yield
#undef emit

int main() { return 0; }
