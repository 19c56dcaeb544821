package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

const messageBytes = 64

func listen() *net.TCPListener {
	address := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: *port}
	listener, err := net.ListenTCP("tcp4", address)
	must(err)
	return listener
}

func serveEcho(listener *net.TCPListener) {
	for {
		connection, err := listener.Accept()
		must(err)
		go func() {
			buffer := make([]byte, 4096)
			for {
				got, err := connection.Read(buffer)
				if err != nil {
					connection.Close()
					return
				}
				if _, err := connection.Write(buffer[:got]); err != nil {
					connection.Close()
					return
				}
			}
		}()
	}
}

// Both ends in one process, as in bench/echo.cpp; with --serve the server's half alone.
func echo() {
	listener := listen()
	if *serve {
		serveEcho(listener)
	}
	go serveEcho(listener)
	clients := make([]net.Conn, *connections)
	for i := range clients {
		var err error
		clients[i], err = net.Dial("tcp4", listener.Addr().String())
		must(err)
	}
	rounds := func(each int) {
		var group sync.WaitGroup
		group.Add(len(clients))
		for _, client := range clients {
			go func(client net.Conn) {
				message := make([]byte, messageBytes)
				for i := 0; i < each; i++ {
					_, err := client.Write(message)
					must(err)
					_, err = io.ReadFull(client, message)
					must(err)
				}
				group.Done()
			}(client)
		}
		group.Wait()
	}
	each := *count / *connections
	rounds(each/10 + 1)
	report("round_trip", perOperation(each**connections, func() { rounds(each) }), "ns")
}

const reply = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"

// Counts ends of requests; *matched remembers one that was cut by the end of a read.
func countRequests(bytes []byte, matched *int) int {
	const end = "\r\n\r\n"
	requests := 0
	for _, b := range bytes {
		if b == end[*matched] {
			*matched++
			if *matched == len(end) {
				requests++
				*matched = 0
			}
		} else if b == '\r' {
			*matched = 1
		} else {
			*matched = 0
		}
	}
	return requests
}

func httpServer() {
	if *nethttp {
		handler := http.HandlerFunc(func(to http.ResponseWriter, _ *http.Request) {
			io.WriteString(to, "Hello, World!")
		})
		must(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), handler))
	}
	const batch = 16
	replies := make([]byte, 0, batch*len(reply))
	for i := 0; i < batch; i++ {
		replies = append(replies, reply...)
	}
	listener := listen()
	for {
		connection, err := listener.Accept()
		must(err)
		go func() {
			defer connection.Close()
			buffer := make([]byte, 4096)
			matched := 0
			for {
				got, err := connection.Read(buffer)
				if err != nil {
					return
				}
				for owed := countRequests(buffer[:got], &matched); owed > 0; {
					n := owed
					if n > batch {
						n = batch
					}
					if _, err := connection.Write(replies[:n*len(reply)]); err != nil {
						return
					}
					owed -= n
				}
			}
		}()
	}
}
