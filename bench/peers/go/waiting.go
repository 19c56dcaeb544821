package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

func byEach(n int, body func()) {
	var group sync.WaitGroup
	group.Add(n)
	for i := 0; i < n; i++ {
		go func() {
			body()
			group.Done()
		}()
	}
	group.Wait()
}

func toReceivers(n, each int) {
	items := make(chan int)
	var received atomic.Int64
	go func() {
		for i := 0; i < n*each; i++ {
			items <- i
			runtime.Gosched()
		}
		close(items)
	}()
	byEach(n, func() {
		mine := 0
		for range items {
			mine++
		}
		received.Add(int64(mine))
	})
	expectSum("receivers", int(received.Load()), n*each)
}

func fromSenders(n, each int) {
	items := make(chan int)
	sum := 0
	done := make(chan struct{})
	go func() {
		for i := 0; i < n*each; i++ {
			sum += <-items
			runtime.Gosched()
		}
		close(done)
	}()
	byEach(n, func() {
		for k := 0; k < each; k++ {
			items <- 1
		}
	})
	<-done
	expectSum("senders", sum, n*each)
}

func oneByOne(what string, n, each int, enter, leave func()) {
	total := 0
	byEach(n+1, func() {
		for k := 0; k < each; k++ {
			enter()
			total++
			runtime.Gosched()
			leave()
		}
	})
	expectSum(what, total, (n+1)*each)
}

// A buffered channel is what Go programs use for a semaphore.
func waiters() {
	var lock sync.Mutex
	permits := make(chan struct{}, 1)
	works := map[string]func(n, each int){
		"receivers": toReceivers,
		"senders":   fromSenders,
		"mutex":     func(n, each int) { oneByOne("mutex", n, each, lock.Lock, lock.Unlock) },
		"semaphore": func(n, each int) {
			oneByOne("semaphore", n, each, func() { permits <- struct{}{} }, func() { <-permits })
		},
	}
	work := works[*side]
	if work == nil {
		fmt.Fprintln(os.Stderr, "no such side:", *side)
		os.Exit(2)
	}
	goroutines := *waiting
	if *side == "mutex" || *side == "semaphore" {
		goroutines++
	}
	each := *count / goroutines
	work(*waiting, each/10+1)
	report(*side, perOperation(goroutines*each, func() { work(*waiting, each) }), "ns")
}

const spread = time.Millisecond

// Rounds of sleeping: closing the gate of one lets all of the crowd arm. Who is too slow to arm before the first of them wakes
// tries again, with more time.
type sleeping struct {
	size          int64
	gates         []chan struct{}
	round         int
	pause         time.Duration
	asleep, fired atomic.Int64
	first         time.Time
}

const retries = 20

func lieAbout(n, repeats int) *sleeping {
	all := &sleeping{size: int64(n), gates: make([]chan struct{}, repeats+retries)}
	all.pause = 2*time.Millisecond + time.Duration(n)*time.Microsecond
	for i := range all.gates {
		all.gates[i] = make(chan struct{})
	}
	for i := 0; i < n; i++ {
		go func(offset time.Duration) {
			for _, gate := range all.gates {
				<-gate
				all.asleep.Add(1)
				time.Sleep(time.Until(all.first) + offset)
				all.fired.Add(1)
			}
		}(spread * time.Duration(i) / time.Duration(n))
	}
	return all
}

// Returns when all sleep, the first of them at least for `longer` from now.
func (all *sleeping) lieDown(longer time.Duration) {
	for {
		all.asleep.Store(0)
		all.fired.Store(0)
		all.first = time.Now().Add(all.pause + longer)
		close(all.gates[all.round])
		all.round++
		for all.asleep.Load() != all.size {
			runtime.Gosched()
		}
		runtime.Gosched()
		if time.Until(all.first) > longer {
			return
		}
		all.wake()
		all.pause *= 2
	}
}

func (all *sleeping) wake() {
	time.Sleep(time.Until(all.first) + spread + 200*time.Microsecond)
	for all.fired.Load() != all.size {
		runtime.Gosched()
	}
}

// Go's leanest way to have something done after a while, unless it is called off.
func limitNs(end time.Time) float64 {
	done := 0
	ns := elapsed(func() {
		for time.Now().Before(end) {
			for i := 0; i < 1000; i++ {
				time.AfterFunc(30*time.Second+time.Duration(done)*time.Microsecond, func() {}).Stop()
				done++
			}
		}
	})
	return ns / float64(done)
}

func manyTimers() {
	n := *timers
	repeats := 1
	if n <= 1000 {
		repeats = 100
	} else if n < 100000 {
		repeats = 100000 / n
	}
	all := lieAbout(n, repeats+1)
	all.lieDown(150 * time.Millisecond)
	limitNs(time.Now().Add(10 * time.Millisecond))
	report("arm_cancel", limitNs(time.Now().Add(100*time.Millisecond)), "ns")
	all.wake()
	fireNs := 0.0
	for i := 0; i < repeats; i++ {
		all.lieDown(0)
		before := cpuNs()
		all.wake()
		fireNs += cpuNs() - before
	}
	report("fire", fireNs/float64(n*repeats), "ns")
}
