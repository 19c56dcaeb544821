// The workloads of bench/*.cpp, in Go: one program, one subcommand each.
//
// Measured as the C++ programs are: inside the process, on the monotonic clock, after a warm-up, and printed as
// `name value unit`. --workers sets GOMAXPROCS; everything else is left as Go ships it.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	flags       = flag.NewFlagSet("go", flag.ExitOnError)
	workers     = flags.Int("workers", 1, "GOMAXPROCS")
	count       = flags.Int("count", 1000000, "operations in all")
	fibers      = flags.Int("fibers", 2, "goroutines")
	crowd       = flags.Int("crowd", 100000, "goroutines that are cancelled together")
	pairs       = flags.Int("pairs", 1, "producers, and as many consumers")
	capacity    = flags.Int("capacity", 128, "of the channel")
	connections = flags.Int("connections", 1, "TCP connections")
	port        = flags.Int("port", 0, "TCP port to listen on")
	rounds      = flags.Int("rounds", 0, "do the warm part so many times")
	waiting     = flags.Int("waiters", 100, "goroutines that wait")
	side        = flags.String("side", "receivers", "what they wait for: receivers, senders, mutex, semaphore")
	timers      = flags.Int("timers", 1000, "timers that are armed")
	kind        = flags.String("kind", "woken", "of latency: woken, woken_busy, timer, timer_busy")
	many        = flags.Bool("many", false, "spawn all, then join all")
	join        = flags.Bool("join", false, "join instead of channels")
	neverWait   = flags.Bool("never-wait", false, "send and receive in turn")
	serve       = flags.Bool("serve", false, "only the server's half")
	nethttp     = flags.Bool("nethttp", false, "net/http instead of a loop over the connection")
)

func report(name string, value float64, unit string) {
	fmt.Printf("%s %.3f %s\n", name, value, unit)
}

func elapsed(work func()) float64 {
	start := time.Now()
	work()
	return float64(time.Since(start).Nanoseconds())
}

// The rate of a timed run, in nanoseconds for each of n operations.
func perOperation(n int, work func()) float64 {
	return elapsed(work) / float64(n)
}

func statusBytes(field string) float64 {
	text, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(text), "\n") {
		if words := strings.Fields(line); len(words) >= 2 && words[0] == field+":" {
			kib, _ := strconv.ParseFloat(words[1], 64)
			return kib * 1024
		}
	}
	return 0
}

// The time this process has been on a processor, in all its threads and in the kernel on its behalf.
func cpuNs() float64 {
	var used syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return float64(used.Utime.Nano() + used.Stime.Nano())
}

// Work that was not done must not be timed.
func expectSum(what string, got, wanted int) {
	if got != wanted {
		must(fmt.Errorf("%s: got %d, expected %d", what, got, wanted))
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	commands := map[string]func(){
		"yield": yield, "spawn": spawn, "ping_pong": pingPong, "channel": channel,
		"select": selects, "ring": ring, "skynet": skynet, "mutex": mutex, "sleepers": sleepers,
		"parked": parked, "nursery": nurseries, "fib": fib, "waiters": waiters, "timers": manyTimers, "latency": latency,
		"idle": idle, "echo": echo, "http": httpServer,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go-bench yield|spawn|ping_pong|channel|select|ring|skynet|mutex|sleepers|parked|nursery|"+
			"fib|waiters|timers|latency|idle|echo|http [--workers N] ...")
		os.Exit(2)
	}
	must(flags.Parse(os.Args[2:]))
	runtime.GOMAXPROCS(*workers)
	commands[os.Args[1]]()
}
