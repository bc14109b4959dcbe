//go:build linux

package main

import (
	"context"
	"crypto"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"github.com/veredus/veredus/server"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/heap"
)

// runNode is the relay of the case unsigned: the same server as the binary's, but for
// the key operation of each signature. The product itself has no way to leave it out.
func runNode(args []string) (err error) {
	f := flag.NewFlagSet("node", flag.ContinueOnError)
	file := f.String("config", "", "configuration file")
	profile := f.String("cpuprofile", "", "CPU profile")
	if err := f.Parse(args); err != nil {
		return err
	}
	cfg, err := config.Load(*file)
	if err != nil {
		return err
	}
	if *profile != "" {
		out, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	heap.Calm()
	return serve(cfg)
}

func serve(cfg *config.Config) error {
	l, err := net.Listen("tcp", cfg.GRPC.Listen)
	if err != nil {
		return err
	}
	s, err := server.New(cfg, server.Options{
		GRPC: l, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Signer: func(k crypto.Signer) crypto.Signer { return blank{k} },
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := s.Start(ctx); err != nil {
		return err
	}
	return s.Run(ctx, make(chan os.Signal))
}

// blank is a key whose signatures cost nothing and are worth nothing.
type blank struct{ crypto.Signer }

// Sign implements crypto.Signer.
func (blank) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, 256), nil
}
