package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/veredus/veredus/server/disk"
)

// ErrCutShort is returned by Stop when its context ended before everything was
// settled. Nothing is lost; the next start lists what was claimed and not settled.
var ErrCutShort = errors.New("stopped at once: transactions under way were cut off; the next start settles them")

// Times of a graceful stop, beside the relay's grace.
const (
	// streamEnd is how long calls get to end once they were told to.
	streamEnd = 5 * time.Second
	// textsEnd is how long the last reply texts may take to the store.
	textsEnd = 5 * time.Second
	// httpEnd is how long scrapes get.
	httpEnd = time.Second
)

// Run serves until SIGTERM or SIGINT and stops gracefully; a second one stops at
// once (ErrCutShort). SIGHUP reloads the configuration. It also ends with ctx, like
// a signal, and when the store failed, with the cause.
func (s *Server) Run(ctx context.Context, signals <-chan os.Signal) error {
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				s.log.Info("stopping", "signal", sig.String())
				return s.stopOr(signals)
			}
			if _, _, err := s.Reload(ctx); err != nil {
				s.log.Error("the configuration was not reloaded and the one in force stays", "error", err)
			}
		case err := <-s.failed:
			return err
		case <-ctx.Done():
			return s.stopOr(signals)
		}
	}
}

// stopOr stops gracefully, or at once at the next signal.
func (s *Server) stopOr(signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for {
			select {
			case sig := <-signals:
				if sig != syscall.SIGHUP {
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return s.Stop(ctx)
}

// Stop ends the server gracefully: no new calls, the relay's running transactions
// get their grace, everything settles, streams end, the store closes. When ctx ends
// first it stops at once and returns ErrCutShort.
func (s *Server) Stop(ctx context.Context) error {
	if s.draining.Swap(true) {
		return nil
	}
	s.ready.Store(false)
	s.health.Shutdown()
	graceful := make(chan struct{})
	go func() { s.grpc.GracefulStop(); close(graceful) }()
	s.suspensions.stop()
	s.letMailFlow()
	s.stopOperator()
	s.endReturns(ctx)
	err := s.relay.Stop(ctx)
	s.blind()
	close(s.stopping)
	endCalls(ctx, s.grpc, graceful)
	s.endHTTP()
	s.serving.Wait()
	s.endTexts()
	if closing := s.store.Close(); err == nil {
		err = closing
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%v)", ErrCutShort, err)
	}
	if err == nil {
		s.log.Info("stopped")
	}
	return err
}

// endCalls waits for the calls under way, and ends those that do not.
func endCalls(ctx context.Context, g *grpc.Server, graceful <-chan struct{}) {
	late := time.NewTimer(streamEnd)
	defer late.Stop()
	select {
	case <-graceful:
		return
	case <-late.C:
	case <-ctx.Done():
	}
	g.Stop()
	<-graceful
}

// endTexts brings what is known of replies into the store.
func (s *Server) endTexts() {
	ctx, cancel := context.WithTimeout(context.Background(), textsEnd)
	defer cancel()
	if err := s.texts.Close(ctx); err != nil {
		s.log.Warn("the last reply texts were not kept", "error", err)
	}
}

func (s *Server) endHTTP() {
	if s.http == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), httpEnd)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

// cutShort closes what a failed Start left open.
func (s *Server) cutShort() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if s.suspensions != nil {
		s.suspensions.stop()
	}
	s.stopOperator()
	if s.relay != nil {
		_ = s.relay.Stop(ctx)
	}
	s.blind()
	if s.texts != nil {
		s.endTexts()
	}
	if s.store != nil {
		_ = s.store.Close()
	}
}

// fail is told that the store cannot be written: nothing can be settled any more.
func (s *Server) fail(err error) {
	s.fault.Store(&err)
	s.ready.Store(false)
	s.log.Error("the store failed; the process must end", "error", err)
	select {
	case s.failed <- fmt.Errorf("the store failed: %w", err):
	default:
	}
}

// healthy answers /healthz. The cause stays in the log.
func (s *Server) healthy() error {
	if s.fault.Load() != nil {
		return errors.New("the store failed")
	}
	return nil
}

// isReady answers /readyz.
func (s *Server) isReady() error {
	switch {
	case s.fault.Load() != nil:
		return errors.New("the store failed")
	case s.draining.Load():
		return errors.New("stopping")
	case !s.ready.Load():
		return errors.New("starting")
	case s.disk.Level() != disk.Roomy:
		return errors.New("the disk of data_dir is nearly full: nothing new is taken in")
	}
	return nil
}
