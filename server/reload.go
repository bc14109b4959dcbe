package server

import (
	"context"
	"errors"
	"slices"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/protect"
)

// Reload reads the configuration again and puts MX rules, bounce rules, signing
// keys and pools into force as one change, without ending sessions. It answers the
// version in force and what changed, one line each; also what changed and needs a
// restart. When anything is wrong, all of it is in the error (a *config.Errors) and
// what was in force stays.
func (s *Server) Reload(ctx context.Context) (version int64, lines []string, err error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	return s.reload(ctx)
}

func (s *Server) reload(ctx context.Context) (version int64, lines []string, err error) {
	cfg, err := s.readConfig()
	if err != nil {
		return 0, nil, err
	}
	was := s.settings.Load()
	is, err := loadSettings(cfg.WithFixed(s.cfg))
	if err != nil {
		return 0, nil, err
	}
	is.replaceSigners(s.opts.Signer)
	effective, later := changes(was, is), config.NeedsRestart(s.cfg, cfg)
	is.version = was.version
	if len(effective) > 0 {
		is.version++
		if err := s.apply(ctx, is); err != nil {
			return 0, nil, err
		}
	}
	lines = slices.Concat(effective, later)
	s.log.Info("configuration reloaded", "version", is.version, "changes", lines)
	for _, w := range is.warnings {
		s.log.Warn("configuration: " + w)
	}
	return is.version, lines, nil
}

// readConfig reads the configuration anew; without a file, what it names is read again.
func (s *Server) readConfig() (*config.Config, error) {
	if s.opts.Reload == nil {
		return s.cfg, nil
	}
	cfg, err := s.opts.Reload()
	var bad *config.Errors
	if err != nil && !errors.As(err, &bad) {
		bad = &config.Errors{}
		bad.Add(config.Error{Text: err.Error()})
		return nil, bad
	}
	return cfg, err
}

// apply puts settings into force. Once begun it is not broken off.
func (s *Server) apply(ctx context.Context, is *settings) error {
	put := is.relay()
	put.By = PrincipalOf(ctx).Name
	if err := s.relay.Apply(context.WithoutCancel(ctx), put); err != nil {
		return err
	}
	s.settings.Store(is)
	s.monitor.SetThresholds(protect.FromConfig(is.cfg.Protection))
	if forgetful, ok := s.resolver.(interface{ ForgetRoutes() }); ok {
		forgetful.ForgetRoutes() // providers may have changed
	}
	s.metrics.version.Set(float64(is.version))
	s.logSigners(is.keys)
	return nil
}

// reloadConfig is the call of RelayService.
func (s *Server) reloadConfig(ctx context.Context, req *veredusv1.ReloadConfigRequest) (*veredusv1.ReloadConfigResponse, error) {
	id, err := requestOf(veredusv1.RelayService_ReloadConfig_FullMethodName, req.GetRequestId(), req)
	if err != nil {
		return nil, err
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	before := &veredusv1.ReloadConfigResponse{}
	if found, err := s.calls().before(ctx, id, before); err != nil || found {
		return before, err
	}
	version, lines, err := s.reload(ctx)
	if err != nil {
		return nil, err
	}
	resp := &veredusv1.ReloadConfigResponse{Version: version, Changes: lines}
	return resp, s.calls().remember(ctx, id, resp)
}

func (s *Server) calls() calls { return calls{store: s.store} }
