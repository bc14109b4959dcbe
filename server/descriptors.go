package server

import (
	"fmt"

	"github.com/veredus/veredus/server/config"
)

// Descriptors that are not SMTP sessions.
const (
	// storeDescriptors are the store's tables, of which it keeps 500 open, and its logs.
	storeDescriptors = 600
	// otherDescriptors are look-ups, key files, the public listener, and what the runtime has.
	otherDescriptors = 300
	// httpConnections is how many connections the HTTP port serves at a time.
	httpConnections = 100
	// leastDescriptors is what a node cannot do without.
	leastDescriptors = 256
)

// sessionsWithin is how many of relay.max_sessions the process may have when it may open so
// many descriptors, and what an operator should know when those are less.
func sessionsWithin(c *config.Config, descriptors uint64) (sessions int, warning string, err error) {
	rest := storeDescriptors + otherDescriptors + httpConnections + c.GRPC.MaxConnections
	if c.Inbound.Listen != "" {
		rest += c.Inbound.MaxConnections
	}
	need := uint64(rest + c.Relay.MaxSessions)
	const remedy = "raise it (ulimit -n, or LimitNOFILE= of the systemd unit)"
	switch {
	case descriptors >= need:
		return c.Relay.MaxSessions, "", nil
	case descriptors < leastDescriptors:
		return 0, "", fmt.Errorf("the process may open %d files and sockets, which leaves none for SMTP sessions: %s to %d, as relay.max_sessions %d asks for", descriptors, remedy, need, c.Relay.MaxSessions)
	}
	sessions = max(int(descriptors)-rest, int(descriptors)/8) // the rest is seldom used up
	return sessions, fmt.Sprintf("relay.max_sessions: %d sessions need %d files and sockets, and the process may open %d: it opens %d sessions at most; %s", c.Relay.MaxSessions, need, descriptors, sessions, remedy), nil
}

// boundSessions raises the limit of descriptors as far as the process may, and answers how
// many sessions fit.
func (s *Server) boundSessions() (int, error) {
	limit, err := raiseDescriptors()
	if err != nil {
		s.log.Warn("the limit of open files is not known", "error", err)
		return s.cfg.Relay.MaxSessions, nil
	}
	sessions, warning, err := sessionsWithin(s.cfg, limit)
	if warning != "" {
		s.log.Warn("configuration: " + warning)
	}
	return sessions, err
}
