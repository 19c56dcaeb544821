package main

import (
	"sync"
	"time"
)

func goRound(goroutines, rounds int) {
	links := make([]chan int, goroutines)
	for i := range links {
		links[i] = make(chan int)
	}
	token := 0
	var group sync.WaitGroup
	group.Add(goroutines)
	go func() {
		for k := 0; k < rounds; k++ {
			links[1] <- token + 1
			token = <-links[0]
		}
		group.Done()
	}()
	for i := 1; i < goroutines; i++ {
		go func(own, next chan int) {
			for k := 0; k < rounds; k++ {
				next <- <-own + 1
			}
			group.Done()
		}(links[i], links[(i+1)%goroutines])
	}
	group.Wait()
	expectSum("ring", token, goroutines*rounds)
}

func ring() {
	rounds := *count / *fibers
	goRound(*fibers, rounds/10+1)
	report("hop", perOperation(*fibers*rounds, func() { goRound(*fibers, rounds) }), "ns")
}

const children = 10

func node(up chan<- int, first, leaves int) {
	if leaves == 1 {
		up <- first
		return
	}
	own := make(chan int)
	each := leaves / children
	for i := 0; i < children; i++ {
		go node(own, first+i*each, each)
	}
	sum := 0
	for i := 0; i < children; i++ {
		sum += <-own
	}
	up <- sum
}

func throughChannels(leaves int) int {
	root := make(chan int)
	go node(root, 0, leaves)
	return <-root
}

func joined(first, leaves int) int {
	if leaves == 1 {
		return first
	}
	var results [children]int
	var group sync.WaitGroup
	group.Add(children)
	each := leaves / children
	for i := 0; i < children; i++ {
		go func(i int) {
			results[i] = joined(first+i*each, each)
			group.Done()
		}(i)
	}
	group.Wait()
	sum := 0
	for _, result := range results {
		sum += result
	}
	return sum
}

func skynet() {
	for _, name := range []string{"skynet_cold", "skynet"} {
		sum := 0
		ns := elapsed(func() {
			if *join {
				sum = joined(0, *count)
			} else {
				sum = throughChannels(*count)
			}
		})
		expectSum("skynet", sum, *count*(*count-1)/2)
		report(name, ns/1e6, "ms")
	}
}

func contend(goroutines, each int) {
	var lock sync.Mutex
	total := 0
	var group sync.WaitGroup
	group.Add(goroutines)
	for i := 0; i < goroutines; i++ {
		go func() {
			for k := 0; k < each; k++ {
				lock.Lock()
				total++
				lock.Unlock()
			}
			group.Done()
		}()
	}
	group.Wait()
	expectSum("mutex", total, goroutines*each)
}

func mutex() {
	each := *count / *fibers
	contend(*fibers, each/10+1)
	report("lock", perOperation(*fibers*each, func() { contend(*fibers, each) }), "ns")
}

func meanLatenessNs(n int) float64 {
	lateNs := make([]float64, n)
	var group sync.WaitGroup
	group.Add(n)
	for i := 0; i < n; i++ {
		go func(late *float64, pause time.Duration) {
			due := time.Now().Add(pause)
			time.Sleep(pause)
			*late = float64(time.Since(due).Nanoseconds())
			group.Done()
		}(&lateNs[i], time.Duration(1+i*999/n)*time.Millisecond)
	}
	group.Wait()
	sum := 0.0
	for _, late := range lateNs {
		sum += late
	}
	return sum / float64(n)
}

func sleepers() {
	before := cpuNs()
	meanLatenessNs(*count)
	between := cpuNs()
	report("cpu_cold", (between-before)/1e6, "ms")
	lateNs := meanLatenessNs(*count)
	report("cpu", (cpuNs()-between)/1e6, "ms")
	report("late", lateNs/1e6, "ms")
}
