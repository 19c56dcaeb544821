package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func reportSamples(samples []time.Duration) {
	out := bufio.NewWriter(os.Stdout)
	for _, one := range samples {
		fmt.Fprintf(out, "sample %d ns\n", one.Nanoseconds())
	}
	must(out.Flush())
}

// Go has no threads of its own to send from: this is a goroutine that comes back from a blocking system call, on a thread
// that is its alone, and then lets others go first.
func wokenByAThread(n int) (samples []time.Duration) {
	moments := make(chan time.Time, 1)
	go func() {
		runtime.LockOSThread()
		pause := syscall.NsecToTimespec(300000)
		for i := 0; i < n; i++ {
			syscall.Nanosleep(&pause, nil)
			moments <- time.Now()
			runtime.Gosched()
		}
		close(moments)
	}()
	for sent := range moments {
		samples = append(samples, time.Since(sent))
	}
	return samples
}

func wokenAmongYielding(n int) (samples []time.Duration) {
	var over atomic.Bool
	var received atomic.Int64
	var others sync.WaitGroup
	others.Add(101)
	for i := 0; i < 100; i++ {
		go func() {
			for !over.Load() {
				runtime.Gosched()
			}
			others.Done()
		}()
	}
	moments := make(chan time.Time, 1)
	go func() {
		for sent := range moments {
			samples = append(samples, time.Since(sent))
			received.Add(1)
		}
		others.Done()
	}()
	for i := 0; i < n; i++ {
		runtime.Gosched()
		moments <- time.Now()
		for received.Load() != int64(i+1) {
			runtime.Gosched()
		}
	}
	close(moments)
	over.Store(true)
	others.Wait()
	return samples
}

func loadByHalf(over *atomic.Bool) {
	next := time.Now()
	for !over.Load() {
		next = next.Add(200 * time.Microsecond)
		if now := time.Now(); now.After(next) {
			next = now
		}
		time.Sleep(time.Until(next))
		for end := time.Now().Add(100 * time.Microsecond); time.Now().Before(end); {
		}
	}
}

func lateness(n, loads int) []time.Duration {
	const sleepers = 10
	each := n / sleepers
	samples := make([]time.Duration, each*sleepers)
	var over atomic.Bool
	var busy, running sync.WaitGroup
	busy.Add(loads)
	running.Add(sleepers)
	for i := 0; i < loads; i++ {
		go func() {
			loadByHalf(&over)
			busy.Done()
		}()
	}
	for i := 0; i < sleepers; i++ {
		go func(own []time.Duration) {
			for k := range own {
				due := time.Now().Add(time.Millisecond)
				time.Sleep(time.Millisecond)
				own[k] = time.Since(due)
			}
			running.Done()
		}(samples[i*each : (i+1)*each])
	}
	running.Wait()
	over.Store(true)
	busy.Wait()
	return samples
}

func latency() {
	switch *kind {
	case "woken":
		reportSamples(wokenByAThread(*count))
	case "woken_busy":
		reportSamples(wokenAmongYielding(*count))
	case "timer":
		reportSamples(lateness(*count, 0))
	case "timer_busy":
		reportSamples(lateness(*count, *workers))
	}
}
