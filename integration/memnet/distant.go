package memnet

import (
	"errors"
	"io"
	"time"
)

// Distant returns the two ends of a connection as Pipe does, over a line on which
// every octet, and the end, takes so long one way. What is on the line is not bounded.
func Distant(window int, oneWay time.Duration) (client, server *Conn) {
	client, near := Pipe(window)
	far, server := Pipe(window)
	go carry(near, far, oneWay)
	go carry(far, near, oneWay)
	return client, server
}

// parcel is what was read at once, or the end.
type parcel struct {
	octets []byte
	err    error
	due    time.Time
}

// carry takes what from reads to to, each part after its time on the line.
func carry(from, to *Conn, oneWay time.Duration) {
	line := make(chan parcel, 1<<16)
	go deliver(line, to)
	defer close(line)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		line <- parcel{append([]byte(nil), buf[:n]...), err, time.Now().Add(oneWay)}
		if err != nil {
			return
		}
	}
}

func deliver(line <-chan parcel, to *Conn) {
	for p := range line {
		time.Sleep(time.Until(p.due))
		if len(p.octets) > 0 {
			_, _ = to.Write(p.octets) // an end that is gone takes nothing
		}
		switch {
		case errors.Is(p.err, io.EOF):
			_ = to.CloseWrite()
		case p.err != nil: // a reset
			_ = to.SetLinger(0)
			_ = to.Close()
		}
	}
}
