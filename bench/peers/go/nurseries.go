package main

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// What a Go program uses for the same promise, a group of goroutines with one context and the first error: the parts of
// golang.org/x/sync/errgroup that are used here, from the standard library alone.
type group struct {
	wait    sync.WaitGroup
	once    sync.Once
	err     error
	cancel  context.CancelFunc
	running atomic.Int64
}

func withContext(parent context.Context) (*group, context.Context) {
	ctx, cancel := context.WithCancel(parent)
	return &group{cancel: cancel}, ctx
}

func (g *group) start(f func() error) {
	g.wait.Add(1)
	go func() {
		defer g.wait.Done()
		if err := f(); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel()
			})
		}
	}()
}

func (g *group) join() error {
	g.wait.Wait()
	g.cancel()
	return g.err
}

const together = 100

func startChildren(n int) {
	var sum atomic.Int64
	for done := 0; done < n; done += together {
		g, _ := withContext(context.Background())
		for i := 0; i < together; i++ {
			g.start(func() error {
				sum.Add(1)
				return nil
			})
		}
		must(g.join())
	}
	expectSum("children", int(sum.Load()), (n+together-1)/together*together)
}

func limits(n int) {
	for i := 0; i < n; i++ {
		_, cancel := context.WithTimeout(context.Background(), time.Hour)
		runtime.Gosched()
		cancel()
	}
}

func cancelCrowd(n int) float64 {
	quiet := make(chan int)
	var arrived, gone atomic.Int64
	g, ctx := withContext(context.Background())
	for i := 0; i < n; i++ {
		g.start(func() error {
			arrived.Add(1)
			select {
			case <-quiet:
			case <-ctx.Done():
			}
			gone.Add(1)
			return nil
		})
	}
	for int(arrived.Load()) != n {
		runtime.Gosched()
	}
	runtime.Gosched()
	taken := elapsed(func() {
		g.cancel()
		for int(gone.Load()) != n {
			runtime.Gosched()
		}
	})
	must(g.join())
	return taken
}

func nurseries() {
	startChildren(*count/10 + 1)
	report("child", perOperation(*count, func() { startChildren(*count) }), "ns")
	limits(*count/10 + 1)
	report("limit", perOperation(*count, func() { limits(*count) }), "ns")
	cancelCrowd(*crowd)
	report("cancelled", cancelCrowd(*crowd)/float64(*crowd), "ns")
}
