// tools/run_tests.cpp - runs the test programs one after the other and counts their test cases.
//
//     run_tests [--limit seconds] [--under "emulator and its arguments"] [--arguments "for each program"] [--again] program...
//
// A program's own word is not enough: one that calls exit(0) half-way, or whose summary says that nothing ran, would pass.
// The rules, for each program:
//
//   R1  It passes only if it ended by itself, with status 0, having printed doctest's summary with at least one case.
//   R2  It may take `limit` seconds; then its whole process group is killed, so no child of a test outlives it.
//   R3  A program that fails R1 counts at least one failed case, besides the ones it counted itself.
//   R4  What a failing program printed is shown; a passing one is one line.
//   R5  With --again a program that failed runs once more, after all the others, and the second time counts: a busy machine
//       can starve a test of time. Both times are shown.
//   R6  Before the sum each failure is named again with what it printed about its checks, so that the end of a long log
//       says what is wrong; those that failed once only, too.
//
// The last line on stdout is `N passed, N failed`, over all programs. The exit status is 0 only when nothing failed.
//
// A program and not a script: process groups and deadlines differ between shells and systems, and a fresh machine has a
// C++ compiler, or it would not be here.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace {

using steady = std::chrono::steady_clock;

struct settings {
  int limit_seconds = 300;
  bool again = false;
  std::vector<std::string> under;
  std::vector<std::string> arguments;
  std::vector<std::string> programs;
};

struct result {
  long passed = 0;
  long failed = 0;
  bool has_summary = false;
  std::string trouble;  // why the program itself failed; empty when it did not
  std::string output;
  double seconds = 0;
};

pid_t running_group = 0;

// Interrupting `make test` must not leave a test behind: it is in a group of its own, which the terminal does not signal.
void pass_on(int signal_number) {
  if (running_group > 0) kill(-running_group, SIGKILL);
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

[[noreturn]] void start(const settings& chosen, const std::string& program, int output) {
  setpgid(0, 0);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  const int nothing = open("/dev/null", O_RDONLY);
  if (nothing >= 0) dup2(nothing, STDIN_FILENO);
  if (nothing > STDERR_FILENO) close(nothing);
  // A path without a slash would be searched for in PATH.
  std::vector<std::string> line = chosen.under;
  line.push_back(program.find('/') == std::string::npos ? "./" + program : program);
  line.insert(line.end(), chosen.arguments.begin(), chosen.arguments.end());
  std::vector<char*> raw;
  for (std::string& word : line) raw.push_back(&word[0]);
  raw.push_back(nullptr);
  execvp(raw[0], raw.data());
  std::fprintf(stderr, "cannot run %s: %s\n", raw[0], std::strerror(errno));
  _exit(127);
}

// Reads what the program prints until it ends or its time is up. The pipe alone does not tell the end: a grandchild may
// hold it open, so the process is looked at as well, ten times a second.
int collect(int pipe_end, pid_t process, steady::time_point deadline, bool& timed_out, std::string& output) {
  int status = 0;
  bool is_open = true;
  bool has_ended = false;
  for (;;) {
    pollfd entry{pipe_end, POLLIN, 0};
    if (is_open) {
      poll(&entry, 1, has_ended ? 0 : 100);
    } else {
      poll(nullptr, 0, 5);
    }
    if (is_open && entry.revents != 0) {
      char buffer[65536];
      const ssize_t count = read(pipe_end, buffer, sizeof buffer);
      if (count > 0) output.append(buffer, static_cast<std::size_t>(count));
      if (count == 0) is_open = false;
      if (count > 0) continue;
    }
    if (has_ended) break;
    has_ended = waitpid(process, &status, WNOHANG) == process;
    if (!has_ended && steady::now() >= deadline) {
      timed_out = true;
      kill(-process, SIGABRT);  // doctest then says which case was running
      poll(nullptr, 0, 500);
      kill(-process, SIGKILL);
      waitpid(process, &status, 0);
      has_ended = true;
    }
  }
  return status;
}

// Finds the last `[doctest] test cases: 5 | 4 passed | 1 failed | 0 skipped`.
void read_summary(result& found) {
  const std::string mark = "[doctest] test cases:";
  const std::size_t at = found.output.rfind(mark);
  if (at == std::string::npos) return;
  long total = 0;
  const int fields = std::sscanf(found.output.c_str() + at + mark.size(), " %ld | %ld passed | %ld failed", &total,
                                 &found.passed, &found.failed);
  found.has_summary = fields == 3;
}

void judge(result& found, int status, bool timed_out, int limit_seconds) {
  read_summary(found);
  if (timed_out) {
    found.trouble = "still running after " + std::to_string(limit_seconds) + " s";
  } else if (WIFSIGNALED(status)) {
    found.trouble = std::string("killed by signal ") + strsignal(WTERMSIG(status));
  } else if (!found.has_summary) {
    found.trouble = "ended before its summary, with status " + std::to_string(WEXITSTATUS(status));
  } else if (found.passed + found.failed == 0) {
    found.trouble = "ran no test case";
  } else if (WEXITSTATUS(status) != 0 && found.failed == 0) {
    found.trouble = "ended with status " + std::to_string(WEXITSTATUS(status)) + " though no case failed";
  }
  if (!found.trouble.empty() && found.failed == 0) found.failed = 1;
}

result run_one(const settings& chosen, const std::string& program) {
  result found;
  const steady::time_point begin = steady::now();
  int ends[2];
  if (pipe(ends) != 0) {
    found.failed = 1;
    found.trouble = std::string("pipe: ") + std::strerror(errno);
    return found;
  }
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  const pid_t process = fork();
  if (process == 0) start(chosen, program, ends[1]);
  close(ends[1]);
  if (process < 0) {
    close(ends[0]);
    found.failed = 1;
    found.trouble = std::string("fork: ") + std::strerror(errno);
    return found;
  }
  setpgid(process, process);  // also here: whichever of the two comes first
  running_group = process;
  bool timed_out = false;
  const int status =
      collect(ends[0], process, begin + std::chrono::seconds(chosen.limit_seconds), timed_out, found.output);
  running_group = 0;
  kill(-process, SIGKILL);
  close(ends[0]);
  found.seconds = std::chrono::duration<double>(steady::now() - begin).count();
  judge(found, status, timed_out, chosen.limit_seconds);
  return found;
}

// One line for a program that passed, all it printed for one that failed.
void show(const std::string& program, const result& found) {
  if (found.failed == 0) {
    std::printf(" %4ld passed  %6.2f s\n", found.passed, found.seconds);
    return;
  }
  std::printf(" %4ld passed, %ld FAILED  %6.2f s\n", found.passed, found.failed, found.seconds);
  std::printf("%s\n", found.output.c_str());
  std::printf("%s: %s\n", program.c_str(), found.trouble.empty() ? "failed, see above" : found.trouble.c_str());
}

// The lines of a report that say what was expected: doctest's and the sanitizers'.
std::string gist_of(const std::string& output) {
  std::istringstream stream(output);
  std::string gist;
  int lines = 0;
  int following = 0;
  for (std::string line; lines < 24 && std::getline(stream, line);) {
    const bool begins = line.find("ERROR") != std::string::npos || line.find("WARNING: ") != std::string::npos ||
                        line.find("SUMMARY: ") != std::string::npos || line.find("TEST CASE:") != std::string::npos;
    if (begins) following = 3;
    if (following-- <= 0 || line.empty()) continue;
    gist += "    " + line + "\n";
    ++lines;
  }
  return gist;
}

std::string failure_of(const std::string& program, const result& found, const char* how) {
  return how + program + (found.trouble.empty() ? "" : ": " + found.trouble) + "\n" + gist_of(found.output);
}

bool parse(int count, char** words, settings& chosen) {
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const bool has_value = i + 1 < count;
    if (word == "--limit" && has_value) {
      chosen.limit_seconds = std::atoi(words[++i]);
    } else if (word == "--under" && has_value) {
      chosen.under = words_of(words[++i]);
    } else if (word == "--arguments" && has_value) {
      chosen.arguments = words_of(words[++i]);
    } else if (word == "--again") {
      chosen.again = true;
    } else if (word.rfind("--", 0) == 0) {
      return false;
    } else {
      chosen.programs.push_back(word);
    }
  }
  return chosen.limit_seconds > 0;
}

}  // namespace

int main(int count, char** words) {
  settings chosen;
  if (!parse(count, words, chosen)) {
    std::fputs("usage: run_tests [--limit seconds] [--under \"emulator\"] [--arguments \"...\"] [--again] program...\n",
               stderr);
    return 2;
  }
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) signal(number, pass_on);
  long passed = 0;
  long failed = 0;
  std::string failures;
  std::vector<std::string> remaining = chosen.programs;
  for (bool is_last = !chosen.again; !remaining.empty(); is_last = true) {
    std::vector<std::string> failing;
    int position = 0;
    for (const std::string& program : remaining) {
      std::printf("[%d/%zu] %-44s", ++position, remaining.size(), program.c_str());
      std::fflush(stdout);
      const result found = run_one(chosen, program);
      show(program, found);
      if (found.failed != 0) failures += failure_of(program, found, is_last ? "failed: " : "failed, and ran again: ");
      if (found.failed != 0 && !is_last) {
        failing.push_back(program);
        continue;
      }
      passed += found.passed;
      failed += found.failed;
    }
    remaining = failing;
    if (is_last) break;
  }
  // No program at all is a mistake of whoever called us, and must not look like success.
  if (chosen.programs.empty()) failed = 1;
  std::printf("%s%ld passed, %ld failed\n", failures.c_str(), passed, failed);
  return failed == 0 ? 0 : 1;
}
