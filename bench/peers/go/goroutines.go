package main

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

func yields(goroutines, each int) {
	var group sync.WaitGroup
	group.Add(goroutines)
	for i := 0; i < goroutines; i++ {
		go func() {
			for k := 0; k < each; k++ {
				runtime.Gosched()
			}
			group.Done()
		}()
	}
	group.Wait()
}

func yield() {
	each := *count / *fibers
	yields(*fibers, each/10+1)
	report("yield", perOperation(each**fibers, func() { yields(*fibers, each) }), "ns")
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
	if !*many {
		spawnInTurn(*count/10 + 1)
		report("spawn_join", perOperation(*count, func() { spawnInTurn(*count) }), "ns")
		return
	}
	report("spawn_many_cold", perOperation(*count, func() { spawnAtOnce(*count) }), "ns")
	report("spawn_many", perOperation(*count, func() { spawnAtOnce(*count) }), "ns")
}

// Many goroutines wait on one channel: what each costs to make, to keep, and to wake.
func parked() {
	gate := make(chan int)
	var arrived, gone atomic.Int64
	crowd := func(n int) {
		before := arrived.Load()
		for i := 0; i < n; i++ {
			go func() {
				arrived.Add(1)
				<-gate
				gone.Add(1)
			}()
		}
		for arrived.Load() != before+int64(n) {
			runtime.Gosched()
		}
	}
	crowd(1)
	resident, tables := statusBytes("VmRSS"), statusBytes("VmPTE")
	report("create", perOperation(*count, func() { crowd(*count) }), "ns")
	report("resident", (statusBytes("VmRSS")-resident)/float64(*count), "bytes")
	report("page_tables", (statusBytes("VmPTE")-tables)/float64(*count), "bytes")
	report("wake", perOperation(*count, func() {
		close(gate)
		for gone.Load() != int64(*count)+1 {
			runtime.Gosched()
		}
	}), "ns")
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
