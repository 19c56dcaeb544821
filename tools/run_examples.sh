#!/usr/bin/env bash
# Builds every example with the compile line it gives itself, runs it, and compares what it prints with what it promises.
#
# In the comment at its head an example has
#
#     its compile line     g++ ... examples/<name>.cpp ... -o <name>      $CXX takes the place of g++
#     and one of           `Output:`, then what it prints, indented, to the end of the comment
#                          `Runs until stopped`: a server; it is built here, and driven by `make run`
#
# A line of the promise that is only `...` stands for any number of lines, `...` within a line for any text.
# CXX, CXXFLAGS (put after the line's own), BUILD as in the Makefile. Ends with `examples: N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/.."

CXX=${CXX:-g++}
build=${BUILD:-build}/examples
mkdir -p "$build"
passed=0
failed=0

fail() { # example, why
  echo "$1: $2"
  failed=$((failed + 1))
}

head_comment() { awk '!/^\/\// { exit } { sub(/^\/\/ ?/, ""); print }' "$1"; }

# The block after `Output:`, without its common indentation.
promise() {
  head_comment "$1" | awk '
    found { lines[++count] = $0
            if ($0 ~ /[^ ]/) { match($0, /^ */); if (least == "" || RLENGTH < least) least = RLENGTH } }
    /^ *Output:? *$/ { found = 1 }
    END { while (count > 0 && lines[count] !~ /[^ ]/) count--
          start = 1; while (start <= count && lines[start] !~ /[^ ]/) start++
          for (i = start; i <= count; i++) print substr(lines[i], least + 1) }'
}

# Whether the text of the first file is what the second promises.
is_as_promised() {
  awk '
    function is_like(text, form,   at) {
      at = index(form, "...")
      if (at == 0) return text == form
      if (substr(text, 1, at - 1) != substr(form, 1, at - 1)) return 0
      form = substr(form, at + 3); text = substr(text, at)
      if (form == "") return 1
      for (at = 1; at <= length(text); at++) if (is_like(substr(text, at), form)) return 1
      return 0
    }
    function matches(i, j) {
      if (j > forms) return i > count
      if (form[j] == "...") { for (; i <= count + 1; i++) if (matches(i, j + 1)) return 1; return 0 }
      return i <= count && is_like(text[i], form[j]) && matches(i + 1, j + 1)
    }
    NR == FNR { text[++count] = $0; next }
    { form[++forms] = $0 }
    END { exit !matches(1, 1) }' "$1" "$2"
}

for example in examples/*.cpp; do
  name=$(basename "$example" .cpp)
  line=$(head_comment "$example" | sed -n "s/^ *\(\$ \)\{0,1\}\([gc]++ .*examples\/$name\.cpp.*\)$/\2/p" | head -1)
  if [ -z "$line" ]; then
    fail "$example" "no compile line (g++ ... $example -o $name) in its head comment"
    continue
  fi
  command=$(sed "s|^[gc]++ |$CXX |; s| -o *[^ ]*| -o $build/$name|" <<<"$line")
  if ! eval "$command ${CXXFLAGS:-}" >"$build/$name.log" 2>&1; then
    fail "$example" "does not compile with: $line"
    head -30 "$build/$name.log"
    continue
  fi
  if head_comment "$example" | grep -q 'Runs until stopped'; then
    echo "$example: builds; runs until stopped"
    passed=$((passed + 1))
    continue
  fi
  promise "$example" >"$build/$name.promise"
  if [ ! -s "$build/$name.promise" ]; then
    fail "$example" "its head comment has neither \`Output:\` nor \`Runs until stopped\`"
    continue
  fi
  status=0
  timeout 60 "$build/$name" >"$build/$name.out" 2>"$build/$name.err" </dev/null || status=$?
  if [ "$status" != 0 ]; then
    fail "$example" "ended with status $status"
    head -20 "$build/$name.err"
  elif ! is_as_promised "$build/$name.out" "$build/$name.promise"; then
    fail "$example" "prints something else than it promises"
    diff "$build/$name.promise" "$build/$name.out" | head -20 || true
  else
    echo "$example: prints what it promises"
    passed=$((passed + 1))
  fi
done

echo "examples: $passed passed, $failed failed"
[ "$failed" = 0 ]
