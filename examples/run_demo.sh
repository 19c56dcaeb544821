#!/usr/bin/env bash
# run_demo.sh - builds examples/http_server.cpp, talks to it as clients do, loads it, and stops it while it is busy.
#
# Needs a C++17 compiler and bash. Real requests are sent with curl, or by bash itself where curl is missing; the load
# comes from wrk, or from a shell loop. Ends with 0 when every request was answered as it should be. Takes about 20
# seconds.
# CXX, CXXFLAGS and BUILD as in the Makefile; DEMO_SECONDS for each of the two loads (default 4).
set -uo pipefail
cd "$(dirname "$0")/.."

build=${BUILD:-build}/demo
seconds=${DEMO_SECONDS:-4}
wrong=0
server=
mkdir -p "$build"

has() { command -v "$1" >"$build/which" 2>&1; }
say() { printf '%s\n' "$*"; }
title() { printf '\n== %s\n' "$*"; }
fail() {
  say "WRONG: $*"
  wrong=$((wrong + 1))
}
# Only what this script started, by its number.
clean_up() { [ -n "$server" ] && kill -9 "$server" 2>"$build/kill.log"; }
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- build and start ---

title "build"
line="${CXX:-g++} -std=c++17 ${CXXFLAGS:--O2} -pthread -I. examples/http_server.cpp -o $build/http_server"
say "$line"
# shellcheck disable=SC2086  # the line is a command with its arguments
$line || exit 1

"$build/http_server" --port 0 --workers 2 >"$build/server.log" 2>&1 &
server=$!
for _ in $(seq 100); do
  grep -q '^listening on ' "$build/server.log" && break
  kill -0 "$server" 2>"$build/kill.log" || break
  sleep 0.05
done
port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$build/server.log")
if [ -z "$port" ]; then
  cat "$build/server.log"
  say "the server did not start"
  exit 1
fi
url=http://127.0.0.1:$port
say "started, process $server, $url"

# --- real requests ---

# Sends the bytes that printf makes of $1 and shows what comes back until the server ends the connection.
send_raw() {
  exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
  # shellcheck disable=SC2059  # the format is the message
  printf "$1" >&3
  if has timeout; then timeout 5 cat <&3; else cat <&3; fi
  exec 3>&- 3<&-
}

# The body at a path, and the status of a request, with whatever client there is.
if has curl; then
  body_of() { curl -sS --max-time 20 "$url$1"; }
  status_of() { curl -sS --max-time 20 -o "$build/body" -w '%{http_code}' "$url$1"; }
else
  say "curl is not installed: bash sends the requests"
  body_of() {
    send_raw "GET $1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" | awk 'body { print } /^\r$/ { body = 1 }'
  }
  status_of() {
    send_raw "GET $1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" | awk 'NR == 1 { printf "%s", $2 }'
  }
fi

expect() { # what was done, what came, what had to come
  printf '%-52s %s\n' "$1" "$2"
  [ "$2" = "$3" ] || fail "expected $3"
}
statuses_of() { send_raw "$1" | sed -n 's/.*HTTP\/1\.1 \([0-9][0-9]*\) .*/\1/p' | tr '\n' ' ' | sed 's/ $//'; }

title "requests"
if has curl; then
  expect "GET /" "$(curl -sS "$url/")" "Hello, World!"
  expect "POST /echo" "$(curl -sS -d 'some text' "$url/echo")" "some text"
  expect "POST /echo, in chunks" "$(curl -sS -H 'Transfer-Encoding: chunked' -d 'more text' "$url/echo")" "more text"
  expect "POST /echo, 2 MB, asking first" \
    "$(head -c 2000000 /dev/zero | curl -sS -o "$build/body" -w '%{http_code}' --data-binary @- "$url/echo")" 413
  expect "three requests, connections made for each" \
    "$(curl -sS -w ' %{num_connects}' "$url/healthz" "$url/healthz" "$url/healthz" | tr -d '\n')" "ok 1ok 0ok 0"
else
  expect "GET /" "$(body_of /)" "Hello, World!"
fi
expect "GET /missing" "$(status_of /missing)" 404
last='GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'
host='HTTP/1.1\r\nHost: a\r\n'
five="GET / $host\r\nHEAD / $host\r\nGET /x $host\r\nPOST /echo ${host}Content-Length: 3\r\n\r\nabc$last"
expect "five requests in one segment" "$(statuses_of "$five")" "200 200 404 200 200"
expect "no Host" "$(statuses_of 'GET / HTTP/1.1\r\n\r\n')" 400
expect "Content-Length and Transfer-Encoding" \
  "$(statuses_of 'POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n')" 400
expect "a target of 9000 bytes" "$(statuses_of "GET /$(printf '%09000d' 0) HTTP/1.1\r\nHost: a\r\n\r\n")" 414
expect "a header of 9000 bytes" "$(statuses_of "GET / HTTP/1.1\r\nHost: a\r\nX: $(printf '%09000d' 0)\r\n\r\n")" 431
expect "a method that nobody knows" "$(statuses_of 'BREW / HTTP/1.1\r\nHost: a\r\n\r\n')" 501
expect "HTTP/2 on this port" "$(statuses_of 'PRI * HTTP/2.0\r\n\r\n')" 505

# --- load ---

# Processor time of the server so far, in hundredths of a second; empty where there is no /proc.
cpu_ticks() { [ -r "/proc/$server/stat" ] && sed 's/.*) //' "/proc/$server/stat" | awk '{ print $12 + $13 }'; }

# One line a second, as long as process $1 lives.
show_figures() {
  local before now stats ticks_before ticks
  before=$(body_of /stats | sed 's/.*"requests": \([0-9]*\).*/\1/')
  ticks_before=$(cpu_ticks)
  while sleep 1 && kill -0 "$1" 2>"$build/kill.log"; do
    stats=$(body_of /stats)
    ticks=$(cpu_ticks)
    now=$(sed 's/.*"requests": \([0-9]*\).*/\1/' <<<"$stats")
    printf '   %8d requests/s   %5s connections open   processor %s%%\n' $((now - before)) \
      "$(sed 's/.*"connections_open": \([0-9]*\).*/\1/' <<<"$stats")" "$((${ticks:-0} - ${ticks_before:-0}))"
    before=$now
    ticks_before=$ticks
  done
}

load_by_shell() { # seconds
  local end=$((SECONDS + $1)) i
  local request='GET / HTTP/1.1\r\nHost: a\r\n\r\n'
  for i in 1 2 3 4; do request=$request$request; done
  while [ $SECONDS -lt "$end" ]; do send_raw "$request$last" | grep -c '^HTTP/1.1 200' >>"$build/shell.load"; done
}

load() { # connections, seconds
  if has wrk; then
    title "wrk, $1 connections, $2 seconds"
    wrk -t1 -c"$1" -d"$2"s "$url/" >"$build/wrk.log" 2>&1 &
    local loader=$!
    show_figures $loader
    wait $loader || fail "wrk ended with an error"
    grep -E 'Requests/sec|requests in|Socket errors|Non-2xx' "$build/wrk.log" | sed 's/^ */   /'
    if grep -qE 'Socket errors|Non-2xx' "$build/wrk.log"; then fail "some requests failed"; fi
  else
    title "wrk is not installed: a shell loop is the load, $2 seconds"
    load_by_shell "$2" &
    local loader=$!
    show_figures $loader
    wait $loader
  fi
}
load 64 "$seconds"
load 512 "$seconds"

# --- stopping while busy ---

title "SIGTERM while requests are in flight"
if has wrk; then
  wrk -t1 -c64 -d2s "$url/" >"$build/wrk.log" 2>&1 &  # in the way; it will find nobody to connect to any more
else
  load_by_shell 2 2>"$build/kill.log" &
fi
loader=$!
in_flight=20
wanted=$((in_flight + 1))
has wrk && wanted=$((wanted + 64))
waiters=
for i in $(seq $in_flight); do
  status_of '/slow?ms=1500' >"$build/flight.$i" 2>"$build/flight.$i.log" &
  waiters="$waiters $!"
done
# Until all have arrived: the load's connections and theirs, and the one that asks.
for _ in $(seq 100); do
  open=$(body_of /stats | sed 's/.*"connections_open": \([0-9]*\).*/\1/')
  [ "$open" -ge $wanted ] && break
  sleep 0.01
done
kill -TERM "$server"
say "sent, with $open connections open, $in_flight of them waiting for a slow answer"
# shellcheck disable=SC2086  # a list
wait $waiters
answered=0
for i in $(seq $in_flight); do
  [ "$(cat "$build/flight.$i")" = 200 ] && answered=$((answered + 1))
done
expect "answered after SIGTERM" "$answered of $in_flight" "$in_flight of $in_flight"
wait "$server"
ended=$?
server=
wait $loader 2>"$build/kill.log"
expect "the server ended by itself, with status" "$ended" 0
tail -n 2 "$build/server.log"

title "$([ $wrong = 0 ] && echo 'all is as it should be' || echo "$wrong things are wrong")"
[ $wrong = 0 ]
