package main

// Fork-join as it is written in Go: a goroutine for one half, whose result comes through a channel, the other half in the
// caller. No cut-off.
func parallelFib(n int) int {
	if n < 2 {
		return n
	}
	other := make(chan int, 1)
	go func() { other <- parallelFib(n - 2) }()
	return parallelFib(n-1) + <-other
}

func fib() {
	result, next := 0, 1
	for i := 0; i < *count; i++ {
		result, next = next, result+next
	}
	parallelFib(*count - 4)
	got := 0
	report("call", perOperation(2*next-1, func() { got = parallelFib(*count) }), "ns")
	expectSum("fib", got, result)
}
