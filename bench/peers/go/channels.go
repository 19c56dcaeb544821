package main

import "sync"

func roundTrips(n int) {
	there, back := make(chan int), make(chan int)
	var group sync.WaitGroup
	group.Add(2)
	go func() {
		for value := range there {
			back <- value + 1
		}
		group.Done()
	}()
	go func() {
		for i := 0; i < n; i++ {
			there <- i
			<-back
		}
		close(there)
		group.Done()
	}()
	group.Wait()
}

func pingPong() {
	roundTrips(*count/10 + 1)
	report("ping_pong", perOperation(*count, func() { roundTrips(*count) }), "ns")
}

func passOn(each int) {
	items := make(chan int, *capacity)
	var producers, consumers sync.WaitGroup
	producers.Add(*pairs)
	consumers.Add(*pairs)
	for i := 0; i < *pairs; i++ {
		go func() {
			for range items {
			}
			consumers.Done()
		}()
		go func() {
			for k := 0; k < each; k++ {
				items <- k
			}
			producers.Done()
		}()
	}
	producers.Wait()
	close(items)
	consumers.Wait()
}

func sendAndReceive(n int) {
	items := make(chan int, 128)
	done := make(chan struct{})
	go func() {
		for i := 0; i < n; i++ {
			items <- i
			<-items
		}
		close(done)
	}()
	<-done
}

func channel() {
	if *neverWait {
		sendAndReceive(*count/10 + 1)
		report("never_wait", perOperation(*count, func() { sendAndReceive(*count) }), "ns")
		return
	}
	each := *count / *pairs
	passOn(each/10 + 1)
	report("item", perOperation(each**pairs, func() { passOn(each) }), "ns")
}

// Every message may come on either of two channels, and takes them in turn.
func selectTrips(n int) {
	var there, back [2]chan int
	for i := range there {
		there[i], back[i] = make(chan int), make(chan int)
	}
	var group sync.WaitGroup
	group.Add(2)
	go func() {
		for i := 0; i < n; i++ {
			select {
			case value := <-there[0]:
				back[0] <- value + 1
			case value := <-there[1]:
				back[1] <- value + 1
			}
		}
		group.Done()
	}()
	sum := 0
	go func() {
		for i := 0; i < n; i++ {
			there[i%2] <- i
			select {
			case value := <-back[0]:
				sum += value
			case value := <-back[1]:
				sum += value
			}
		}
		group.Done()
	}()
	group.Wait()
	expectSum("select", sum, n*(n+1)/2)
}

func selects() {
	selectTrips(*count/10 + 1)
	report("select", perOperation(*count, func() { selectTrips(*count) }), "ns")
}
