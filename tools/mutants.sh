#!/usr/bin/env bash
# Plants each bug of tests/mutants.txt and demands that its test goes red: fails, crashes, or hangs beyond the limit.
#
# usage: mutants.sh [number...]      all of them by default
#
# A row is `number | test program | what it takes out`. After the program's name may follow compiler flags (-DCONCUR_...)
# and arguments for the program (-tc=...). CXX, CXXFLAGS, BUILD, LIMIT (seconds), JOBS as in the Makefile. Ends with
# `mutants: N passed, N failed`, where passed means found. A mutant that does not compile is not found. Some bugs are races
# that no single run must show: a green test is run again, TRIES times at most (8), and how many it took is said.
set -euo pipefail
cd "$(dirname "$0")/.."

export CXX=${CXX:-g++} CXXFLAGS=${CXXFLAGS:--O2} LIMIT=${LIMIT:-60} TRIES=${TRIES:-8}
export BUILD=${BUILD:-build}/mutants
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}
list=tests/mutants.txt
mkdir -p "$BUILD"

flags_of_doctest=$(CXX=$CXX sh tools/get_doctest.sh "$(dirname "$BUILD")" | sed 's/^DOCTEST_FLAGS = *//')
export flags_of_doctest
# shellcheck disable=SC2086
$CXX -std=c++17 -O1 $flags_of_doctest -c tests/support/doctest_main.cpp -o "$BUILD/doctest_main.o"
g++ -std=c++17 -O1 tools/run_tests.cpp -o "$BUILD/run_tests" 2>/dev/null ||
  $CXX -std=c++17 -O1 tools/run_tests.cpp -o "$BUILD/run_tests"

trim() { sed 's/^ *//; s/ *$//' <<<"$1"; }

try_mutant() {  # number, test program and flags, what it takes out
  local number=$1 program=${2%% *} words=() flags=() word result
  [ "$program" = "$2" ] || read -ra words <<<"${2#* }"
  local arguments=""
  for word in "${words[@]+"${words[@]}"}"; do
    case $word in
      -D* | -I* | -O* | -f*) flags+=("$word") ;;
      *) arguments+=" $word" ;;
    esac
  done
  local target=$BUILD/mutant_$number log=$BUILD/mutant_$number.log
  # shellcheck disable=SC2086
  if ! $CXX -std=c++17 $CXXFLAGS "-DCONCUR_MUTANT=$number" "${flags[@]+"${flags[@]}"}" -w -pthread $flags_of_doctest -I. -Itests \
    "tests/$program.cpp" "$BUILD/doctest_main.o" -o "$target" >"$log" 2>&1; then
    result="NOT FOUND: it does not compile, see $log"
  else
    local try
    result="NOT FOUND: the test stays green"
    for ((try = 1; try <= TRIES; try++)); do
      "$BUILD/run_tests" --limit "$LIMIT" --arguments "$arguments" "$target" >"$log" 2>&1 && continue
      result=found
      [ "$try" = 1 ] || result="found at try $try"
      break
    done
  fi
  rm -f "$target"
  printf 'mutant %3d %-28s %s: %s\n' "$number" "$program" "$3" "$result"
}
export -f try_mutant

rows=0
while IFS='|' read -r number program what; do
  number=$(trim "$number")
  [[ $number =~ ^[0-9]+$ ]] || continue
  if [ $# -gt 0 ] && ! [[ " $* " == *" $number "* ]]; then
    continue
  fi
  rows=$((rows + 1))
  printf '%s\0%s\0%s\0' "$number" "$(trim "$program")" "$(trim "$what")"
done <"$list" >"$BUILD/rows"
[ -s "$BUILD/rows" ] || { echo "mutants: $list has no such row"; exit 1; }
xargs -0 -n 3 -P "$jobs" bash -c 'try_mutant "$@"' mutant <"$BUILD/rows" | tee "$BUILD/result"

found=$(grep -cE ': found( at try [0-9]+)?$' "$BUILD/result" || true)
failed=$((rows - found))
echo "mutants: $found passed, $failed failed"
[ "$failed" = 0 ]
