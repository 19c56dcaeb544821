// bench/measure.hpp - how every C++ program here takes its arguments, takes time, and speaks.
//
// A benchmark is believed only as a ratio: ours and a peer's program, the same work, the same machine, minutes apart. So
// each program does one workload, measures inside itself with the steady clock after a warm-up (no start of a process, no
// page faults of a cold heap), and prints lines a script can read:
//
//     name value unit
//
// This header knows nothing of concur and nothing of the peers: all of them include it.
#ifndef CONCUR_BENCH_MEASURE_HPP
#define CONCUR_BENCH_MEASURE_HPP

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <numeric>
#include <vector>

#include <sys/resource.h>

namespace bench {

// `--name value` pairs and bare `--name` flags. An unknown name is refused, so that a misspelt `--worker 2` cannot
// pass as a measurement with one.
class arguments {
 public:
  arguments(int argc, char** argv, std::initializer_list<const char*> known) : argc_(argc), argv_(argv) {
    for (int i = 1; i < argc; ++i) {
      if (std::strncmp(argv[i], "--", 2) != 0) continue;
      bool is_known = false;
      for (const char* name : known) is_known = is_known || std::strcmp(name, argv[i]) == 0;
      if (!is_known) {
        std::fprintf(stderr, "%s: unknown argument %s\n", argv[0], argv[i]);
        std::exit(2);
      }
    }
  }
  long number(const char* name, long otherwise) const {
    for (int i = 1; i + 1 < argc_; ++i) {
      if (std::strcmp(argv_[i], name) == 0) return std::strtol(argv_[i + 1], nullptr, 10);
    }
    return otherwise;
  }
  const char* text(const char* name, const char* otherwise) const {
    for (int i = 1; i + 1 < argc_; ++i) {
      if (std::strcmp(argv_[i], name) == 0) return argv_[i + 1];
    }
    return otherwise;
  }
  bool has(const char* name) const {
    for (int i = 1; i < argc_; ++i) {
      if (std::strcmp(argv_[i], name) == 0) return true;
    }
    return false;
  }

 private:
  int argc_;
  char** argv_;
};

inline void report(const char* name, double value, const char* unit) {
  std::printf("%s %.3f %s\n", name, value, unit);
  std::fflush(stdout);
}

// All of them, for measure.py to sort: percentiles of percentiles mean nothing.
inline void report_samples(const std::vector<double>& values_ns) {
  for (const double value : values_ns) std::printf("sample %.0f ns\n", value);
  std::fflush(stdout);
}

template <class F>
double elapsed_ns(F&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

// The time this process has been on a processor, in all its threads and in the kernel on its behalf.
inline double cpu_ns() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const double seconds = static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
  const double microseconds = static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
  return seconds * 1e9 + microseconds * 1e3;
}

inline double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Work that was not done must not be timed: a wrong sum ends the program, and run.py names it.
inline void expect_sum(const char* what, long got, long wanted) {
  if (got == wanted) return;
  std::fprintf(stderr, "%s: got %ld, expected %ld\n", what, got, wanted);
  std::exit(1);
}

// What the kernel says about this process, in bytes: `VmRSS` is what is resident, `VmPTE` the page tables beside it.
inline double status_bytes(const char* field) {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  if (file == nullptr) return 0;
  char line[256];
  double bytes = 0;
  const std::size_t length = std::strlen(field);
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::strncmp(line, field, length) == 0 && line[length] == ':') {
      bytes = std::strtod(line + length + 1, nullptr) * 1024;
      break;
    }
  }
  std::fclose(file);
  return bytes;
}

}  // namespace bench

#endif
