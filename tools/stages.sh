#!/usr/bin/env bash
# What `make check`, `make ci` and .ci/run do, stage by stage, each with its time; one sum at the end.
#
# usage: stages.sh check | landing | ci
#
# A stage is a command. What it printed is in $BUILD/stages/<stage>.log, and is shown when it fails. Its last line that ends
# in `N passed, N failed` counts into the sum; a stage that fails without such a line, or says that nothing failed, counts as
# one failure. All stages run, also after a failing one. A busy machine can starve a test of time, so what failed runs once
# more: a lane of the suite only those of its programs, any other stage as a whole. Before the sum stands what failed,
# for good or once, and why. The last line is `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/.."

# The stages are makes of their own, not children of the one that called this.
unset MAKEFLAGS MAKELEVEL MFLAGS
CXX=${CXX:-g++}
BUILD=${BUILD:-build}
logs=$BUILD/stages
mkdir -p "$logs"
passed=0
failed=0
broken=()
why=$logs/failures
: >"$why"
begin=$SECONDS

has() { command -v "$1" >/dev/null 2>&1; }

# What a failed stage said of its failures, to stand at the end: the lines from the first `failed: ` on, or its last ones.
note_failure() { # name, log
  {
    echo "$1:"
    if grep -qE '^failed' "$2"; then sed -n '/^failed/,$p' "$2" | head -60; else tail -20 "$2"; fi | sed 's/^/    /'
  } >>"$why"
}

stage() { # name, command...
  local name=$1 log start=$SECONDS status=0 counts
  shift
  log=$logs/${name//[^A-Za-z0-9]/_}.log
  printf '%-44s ' "$name"
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ $status != 0 ] && [ "$1" != run_lane ]; then
    printf 'failed, again: '
    note_failure "$name, the first time" "$log"
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
  fi
  counts=$(grep -oE '[0-9]+ passed, [0-9]+ failed$' "$log" | tail -1)
  counts=${counts:-$([ $status = 0 ] && echo '1 passed, 0 failed' || echo '0 passed, 1 failed')}
  read -r good _ bad _ <<<"$counts"
  [ $status = 0 ] || [ "$bad" != 0 ] || bad=1
  passed=$((passed + good))
  failed=$((failed + bad))
  printf '%5d passed %5d failed %6d s\n' "$good" "$bad" $((SECONDS - start))
  if [ "$status" != 0 ] || [ "$bad" != 0 ]; then
    broken+=("$name")
    sed 's/^/    /' "$log" | tail -60
    echo "    (all of it: $log)"
    note_failure "$name" "$log"
  elif grep -q '^failed, and ran again' "$log"; then
    note_failure "$name, once" "$log"
  fi
}

run_lane() { # make arguments...
  env -u CXX make --no-print-directory test AGAIN=1 "$@"
}

# One lane of the suite: its own directory, compiler and flags.
lane() { # name, compiler, flags, make arguments...
  local name=$1 cxx=$2 flags=$3
  shift 3
  has "$cxx" || {
    printf '%-44s  left out: there is no %s here\n' "$name" "$cxx"
    return
  }
  stage "$name" run_lane BUILD="$BUILD/${name//[^A-Za-z0-9]/_}" CXX="$cxx" CXXFLAGS="$flags" "$@"
}

# What one operation takes, in figures that do not depend on what else the machine does.
cost() {
  local reason
  reason=$(tests/cost/run.py --why-not)
  [ -z "$reason" ] || {
    printf '%-44s  left out: %s\n' "cost per operation" "$reason"
    return
  }
  stage "cost per operation" tests/cost/run.py
  grep -h '^Nothing is judged' "$logs/cost_per_operation.log" || true
}

# All but the tests themselves.
check_without_tests() {
  if has python3; then
    stage "header in step with src" python3 tools/amalgamate.py --check
    stage "style" python3 tools/tidy.py
    stage "tools" python3 tests/test_tools.py
    stage "snippets" python3 tools/run_snippets.py
    [ ! -f bench/test_bench.py ] || stage "benchmark script" python3 bench/test_bench.py
    [ ! -f bench/readme.py ] || stage "figures of the README" python3 bench/readme.py --check
    cost
  else
    echo "no python3: the header, the style, the tools, the snippets and the cost of operations are not looked at"
  fi
  stage "compile" tests/compile/run.sh "$@"
  stage "abi" tests/abi/run.sh "$@"
  stage "examples" tools/run_examples.sh
}

check() {
  check_without_tests "$@"
  stage "tests" run_lane BUILD="$BUILD" CXX="$CXX"
}

# The tests in which fibers change their thread, where what the compiler keeps in registers shows.
migration_tests() {
  for test in tests/test_context.cpp tests/test_exception_state.cpp tests/*migrat*.cpp; do
    [ ! -f "$test" ] || printf '%s ' "$test"
  done
}

# The tests in which the poller has something to do.
descriptor_tests() { grep -lE 'tcp_|io::|poller' tests/test_*.cpp tests/stress_*.cpp | tr '\n' ' '; }

# A model touches nothing of the library, and an exploration is one thread: for what a sanitizer looks at, they are nothing new.
tests_of_kind() { for kind; do ls tests/"$kind"_*.cpp; done | tr '\n' ' '; }

# What a change must pass to land, besides `make test`, which .ci/run calls as a newcomer does: check, and the two sanitizers
# that find most, in under half an hour.
landing() {
  local sanitizers="-g1 -O1 -fno-omit-frame-pointer"
  check_without_tests
  ! has python3 || stage "planted bugs, explored" tests/explore/run.py check
  lane "asan and ubsan, gcc" g++ "$sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined" SEPARATE=1 \
    TESTS="$(tests_of_kind test stress)"
  lane "tsan, clang, C++20" clang++ "$sanitizers -fsanitize=thread" STD=c++20 SEPARATE=1 TESTS="$(tests_of_kind test stress)"
  stage "happens-before" tests/happens_before/run.sh
  stage "fuzz, 20 s each" tests/fuzz/run.sh 20
}

ci() {
  local moving sanitizers="-g1 -O1 -fno-omit-frame-pointer"
  moving=$(migration_tests)
  stage "packages" tools/setup_ci.sh
  check --all
  lane "clang, C++20" clang++ "-O2" STD=c++20
  lane "poll, checked" "$CXX" "-O2 -DCONCUR_POLLER_POLL -DCONCUR_CHECKED -DCONCUR_CALLS_BY_LIBC"
  lane "kqueue" "$CXX" "-O2 -DCONCUR_POLLER_KQUEUE -Itests/support/kqueue" TESTS="$(descriptor_tests)"
  lane "asan and ubsan, gcc" g++ "$sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined"
  lane "asan and ubsan, clang" clang++ "$sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined"
  lane "tsan, clang" clang++ "$sanitizers -fsanitize=thread" TESTS="$(tests_of_kind test model stress)"
  stage "happens-before" tests/happens_before/run.sh
  stage "fuzz, 60 s each" tests/fuzz/run.sh 60
  stage "fuzz, planted bugs" tests/fuzz/run.sh planted
  for cxx in g++ clang++; do
    lane "migration $cxx -O3" $cxx "-O3" TESTS="$moving"
    lane "migration $cxx -O2 -flto" $cxx "-O2 -flto" TESTS="$moving" LDFLAGS="$([ $cxx = g++ ] || echo -fuse-ld=lld)"
    lane "migration $cxx -O3, portable switch" $cxx "-O3 -DCONCUR_PORTABLE_SWITCH" TESTS="$moving"
  done
  stage "other processors" tests/cross/run.sh
  stage "the switch, compiled in many ways" tests/cross/lanes.sh
  stage "real clients" tests/real/run.sh
  ! has python3 || stage "planted bugs, explored" tests/explore/run.py check
  stage "mutants" tools/mutants.sh
  stage "meson" tests/meson/run.sh
  stage "install" tests/install/run.sh
}

case ${1:-} in
  check | landing | ci) "$1" ;;
  *)
    echo "usage: stages.sh check | landing | ci" >&2
    exit 2
    ;;
esac
echo "took $((SECONDS - begin)) s"
cat "$why"
[ ${#broken[@]} = 0 ] || printf 'failed: %s\n' "${broken[@]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
