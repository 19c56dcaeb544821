package main

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

func yieldsNs(goroutines, each int) float64 {
	var arrived atomic.Int64
	var begun atomic.Bool
	var group sync.WaitGroup
	group.Add(goroutines)
	for i := 0; i < goroutines; i++ {
		go func() {
			arrived.Add(1)
			for !begun.Load() {
				runtime.Gosched()
			}
			for k := 0; k < each; k++ {
				runtime.Gosched()
			}
			group.Done()
		}()
	}
	for arrived.Load() != int64(goroutines) {
		runtime.Gosched()
	}
	return elapsed(func() {
		begun.Store(true)
		group.Wait()
	})
}

func yield() {
	each := *count / *fibers
	yieldsNs(*fibers, each/10+1)
	report("yield", yieldsNs(*fibers, each)/float64(each**fibers), "ns")
}

func spawnInTurn(n int) {
	var group sync.WaitGroup
	for i := 0; i < n; i++ {
		group.Add(1)
		go group.Done()
		group.Wait()
	}
}

func spawnAtOnce(n int) {
	var group sync.WaitGroup
	group.Add(n)
	for i := 0; i < n; i++ {
		go group.Done()
	}
	group.Wait()
}

func spawn() {
	if *rounds == 0 {
		*rounds = 1
	}
	if !*many {
		spawnInTurn(*count/10 + 1)
		report("spawn_join", perOperation(*count, func() { spawnInTurn(*count) }), "ns")
		return
	}
	report("spawn_many_cold", perOperation(*count, func() { spawnAtOnce(*count) }), "ns")
	report("spawn_many", perOperation(*count**rounds, func() {
		for i := 0; i < *rounds; i++ {
			spawnAtOnce(*count)
		}
	}), "ns")
}

type parkedCrowd struct {
	gate          chan int
	arrived, gone atomic.Int64
}

func (c *parkedCrowd) park(n int) {
	before := c.arrived.Load()
	for i := 0; i < n; i++ {
		go func() {
			c.arrived.Add(1)
			<-c.gate
			c.gone.Add(1)
		}()
	}
	for c.arrived.Load() != before+int64(n) {
		runtime.Gosched()
	}
}

func (c *parkedCrowd) wake() {
	close(c.gate)
	for c.gone.Load() != c.arrived.Load() {
		runtime.Gosched()
	}
}

// Many goroutines wait on one channel: what each costs to make, to keep, and to wake.
func parked() {
	first := parkedCrowd{gate: make(chan int)}
	first.park(1)
	resident, tables := statusBytes("VmRSS"), statusBytes("VmPTE")
	report("create", perOperation(*count, func() { first.park(*count) }), "ns")
	report("resident", (statusBytes("VmRSS")-resident)/float64(*count), "bytes")
	report("page_tables", (statusBytes("VmPTE")-tables)/float64(*count), "bytes")
	report("wake", perOperation(*count, first.wake), "ns")
	if *rounds == 0 {
		return
	}
	createNs, wakeNs := 0.0, 0.0
	for i := 0; i < *rounds; i++ {
		again := parkedCrowd{gate: make(chan int)}
		createNs += elapsed(func() { again.park(*count) })
		wakeNs += elapsed(again.wake)
	}
	report("create_again", createNs/float64(*count**rounds), "ns")
	report("wake_again", wakeNs/float64(*count**rounds), "ns")
}

// Parked goroutines and one that waits for a connection nobody makes. The script that started us watches what it costs.
func idle() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	gate := make(chan int)
	for i := 0; i < *count; i++ {
		go func() { <-gate }()
	}
	go func() { listener.Accept() }()
	for i := 0; i < 100; i++ {
		runtime.Gosched()
	}
	fmt.Println("ready")
	<-gate
}
