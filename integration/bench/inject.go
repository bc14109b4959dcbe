//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// inject hands messages to an SMTP server over parallel connections, with pipelined
// envelopes, and answers when each was accepted, in nanoseconds of Unix time.
func inject(ctx context.Context, addr string, mails [][]byte, connections int) ([]int64, error) {
	accepted := make([]int64, len(mails))
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range connections {
		g.Go(func() error {
			in, err := dialInjector(ctx, addr)
			if err != nil {
				return err
			}
			defer in.conn.Close()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(mails) {
					return in.quit()
				}
				if err := in.send(address(i), mails[i]); err != nil {
					return fmt.Errorf("message %d: %w", i, err)
				}
				accepted[i] = time.Now().UnixNano()
			}
		})
	}
	return accepted, g.Wait()
}

// injector is one connection.
type injector struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

// injectorPatience bounds every exchange.
const injectorPatience = 5 * time.Minute

func dialInjector(ctx context.Context, addr string) (*injector, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	in := &injector{conn: conn, in: bufio.NewReader(conn)}
	if err := in.expect("220"); err != nil {
		return nil, err
	}
	return in, in.exchange("EHLO client.brand.example\r\n", "250")
}

// exchange writes lines and expects a reply for each code.
func (in *injector) exchange(text string, codes ...string) error {
	if err := in.conn.SetDeadline(time.Now().Add(injectorPatience)); err != nil {
		return err
	}
	if _, err := in.conn.Write([]byte(text)); err != nil {
		return err
	}
	return in.expect(codes...)
}

func (in *injector) expect(codes ...string) error {
	for _, code := range codes {
		for {
			line, err := in.in.ReadString('\n')
			if err != nil {
				return err
			}
			if !strings.HasPrefix(line, code) {
				return fmt.Errorf("the server said %q", line)
			}
			if len(line) < 4 || line[3] != '-' {
				break
			}
		}
	}
	return nil
}

func (in *injector) send(to string, mail []byte) error {
	if err := in.exchange("MAIL FROM:<"+from+">\r\nRCPT TO:<"+to+">\r\nDATA\r\n", "250", "250", "354"); err != nil {
		return err
	}
	in.out = append(in.out[:0], bytes.ReplaceAll(mail, []byte("\r\n."), []byte("\r\n.."))...)
	in.out = append(in.out, ".\r\n"...)
	if _, err := in.conn.Write(in.out); err != nil {
		return err
	}
	return in.expect("250")
}

func (in *injector) quit() error { return in.exchange("QUIT\r\n", "221") }
