#!/usr/bin/env bash
# Builds the fuzz targets with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, and runs them one after
# another from the committed seeds.
#
# usage: run.sh [seconds] [target...]    each target for so long (60); targets: http_parser timers operations
#        run.sh planted [target...]      plants each bug of planted.txt; each must be found within MINUTE seconds (60)
#
# What is found is kept in $BUILD/fuzz/findings, and tried first the next time: it is a failure until it is cured or deleted.
# What was learned is in $BUILD/fuzz/corpus. CXX is clang++, BUILD build, unless they are said; EXTRA are further options for
# libFuzzer. Where Debian's package node-llhttp is installed the HTTP parser is compared with llhttp as well. Ends with
# `fuzz: N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/../.."

cxx=${CXX:-clang++}
case $cxx in *clang*) ;; *) cxx=clang++ ;; esac
build=${BUILD:-build}/fuzz
minute=${MINUTE:-60}
llhttp=${LLHTTP:-/usr/share/llhttp}
here=tests/fuzz
sanitizers="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
mkdir -p "$build/findings" "$build/planted.d/examples" "$build/corpus"

echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >"$build/probe.cpp"
if ! $cxx -fsanitize=fuzzer,address,undefined "$build/probe.cpp" -o "$build/probe" >"$build/probe.log" 2>&1; then
  echo "fuzz: $cxx cannot build a program with -fsanitize=fuzzer; tools/setup_ci.sh installs a clang that can:"
  head -3 "$build/probe.log"
  echo "fuzz: 0 passed, 1 failed"
  exit 1
fi

# llhttp, without coverage: it is asked, not explored.
reference=()
if [ -f "$llhttp/llhttp.c" ] && [ -f "$llhttp/../include/llhttp/llhttp.h" ]; then
  for part in api http llhttp; do
    ${cxx%++} -O1 -g1 -w -fsanitize=address -DLLHTTP_STRICT_MODE=1 -I"$llhttp/../include/llhttp" -c "$llhttp/$part.c" \
      -o "$build/$part.o"
    reference+=("$build/$part.o")
  done
  reference+=(-DFUZZ_REFERENCE -DLLHTTP_STRICT_MODE=1 -isystem "$llhttp/../include")
else
  echo "fuzz: there is no llhttp in $llhttp (package node-llhttp): the HTTP parser is not compared with it"
fi

compile() {  # target, program, flags...
  local target=$1 program=$2 flags=()
  shift 2
  [ "$target" != http_parser ] || flags=(${reference[@]+"${reference[@]}"})
  [ "$target" != operations ] || flags=(-DCONCUR_EXPLORE)
  # shellcheck disable=SC2086
  $cxx -std=c++17 -O1 -g1 -fsanitize=fuzzer $sanitizers -pthread "$@" -I. -Itests "-DFUZZ_TARGET=$target" \
    $here/fuzz.cpp "${flags[@]+"${flags[@]}"}" -o "$program"
}

# Runs a target from the seeds. Its exit code is that of libFuzzer: 0 when nothing was found.
fuzz() {  # target, program, seconds, corpus, log, where findings go
  local options=(-timeout=10 -rss_limit_mb=3000 "-max_total_time=$3" -print_final_stats=1 "-dict=$here/$1.dict"
    "-artifact_prefix=$6/$1-")
  case $1 in
    http_parser) options+=(-max_len=1000) ;;
    timers) options+=(-max_len=400 -len_control=20 -only_ascii=1) ;;
    operations) options+=(-max_len=300 -len_control=20 -only_ascii=1) ;;
  esac
  mkdir -p "$4"
  # shellcheck disable=SC2086
  timeout $(($3 + 120)) "$2" "${options[@]}" ${EXTRA:-} "$4" "$here/seeds/$1" >"$5" 2>&1
}

# The last word of libFuzzer about coverage and speed.
figures() {
  grep -aoE '#[0-9]+[[:space:]]+DONE.*' "$1" | sed -E 's/^#([0-9]+)[[:space:]]+DONE */\1 runs, /; s/ +lim:.*exec/, exec/'
}

passed=0
failed=0

# What former runs have found.
try_findings() {  # target
  local found
  for found in "$build/findings/$1-"*; do
    [ ! -f "$found" ] || timeout 60 "$build/$1" -timeout=10 "$found" || return 1
  done
}

run_targets() {  # seconds, targets...
  local seconds=$1 target
  shift
  for target in "$@"; do
    if ! compile "$target" "$build/$target" >"$build/$target.log" 2>&1; then
      echo "$target: does not compile"
      head -20 "$build/$target.log"
      failed=$((failed + 1))
    elif try_findings "$target" >"$build/$target.log" 2>&1 &&
      fuzz "$target" "$build/$target" "$seconds" "$build/corpus/$target" "$build/$target.log" "$build/findings"; then
      echo "$target: nothing found in $seconds s; $(figures "$build/$target.log")"
      passed=$((passed + 1))
    else
      echo "$target: FAILED"
      grep -aE -A12 '^FINDING|ERROR:|runtime error|Test unit written' "$build/$target.log" | head -40
      failed=$((failed + 1))
    fi
  done
}

plant() {  # targets...
  local target how what flags begin program=$build/planted
  while IFS='|' read -r target how what; do
    target=${target// /}
    what=${what# }
    [[ " $* " == *" $target "* ]] || continue
    how=$(sed 's/^ *//; s/ *$//' <<<"$how")
    if [[ $how =~ ^[0-9]+$ ]]; then
      flags=("-DCONCUR_MUTANT=$how")
    else
      sed "$how" examples/http_server.cpp >"$build/planted.d/examples/http_server.cpp"
      cmp -s examples/http_server.cpp "$build/planted.d/examples/http_server.cpp" && flags=(-D"nothing was changed") ||
        flags=("-I$build/planted.d")
    fi
    rm -rf "$build/corpus.planted"
    begin=$SECONDS
    if ! compile "$target" "$program" "${flags[@]}" -w >"$build/planted.log" 2>&1; then
      echo "$target: $what: NOT FOUND: it does not compile, or nothing was changed"
      failed=$((failed + 1))
      continue
    fi
    begin=$SECONDS
    if fuzz "$target" "$program" "$minute" "$build/corpus.planted" "$build/planted.log" "$build/planted.d"; then
      echo "$target: $what: NOT FOUND in $minute s"
      failed=$((failed + 1))
    else
      echo "$target: $what: found in $((SECONDS - begin)) s"
      passed=$((passed + 1))
    fi
  done <$here/planted.txt
  rm -rf "$build/corpus.planted" "$build/planted.d" "$program"
}

all=(http_parser timers operations)
if [ "${1:-}" = planted ]; then
  shift
  [ $# -gt 0 ] || set -- "${all[@]}"
  plant "$@"
else
  seconds=60
  if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
  fi
  [ $# -gt 0 ] || set -- "${all[@]}"
  run_targets "$seconds" "$@"
fi
echo "fuzz: $passed passed, $failed failed"
[ "$failed" = 0 ]
