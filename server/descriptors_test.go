package server

import (
	"strings"
	"testing"

	"github.com/veredus/veredus/server/config"
)

func TestSessionsFitTheDescriptors(t *testing.T) {
	c := config.Default()
	c.Relay.MaxSessions, c.GRPC.MaxConnections = 5000, 1000 // 2000 more for all else
	for _, step := range []struct {
		may      uint64
		sessions int
		says     string
	}{
		{1 << 20, 5000, ""},
		{7000, 5000, ""},
		{6999, 4999, "5000 sessions need 7000 files and sockets, and the process may open 6999"},
		{3000, 1000, "LimitNOFILE"},
		{1024, 128, "LimitNOFILE"},
		{255, 0, "leaves none for SMTP sessions"},
	} {
		sessions, warning, err := sessionsWithin(c, step.may)
		said := warning
		if err != nil {
			said = err.Error()
		}
		if sessions != step.sessions || !strings.Contains(said, step.says) || (step.says == "") != (said == "") {
			t.Errorf("with %d: %d sessions, %q", step.may, sessions, said)
		}
	}
	c.Inbound.Listen, c.Inbound.MaxConnections = "127.0.0.1:0", 200
	if sessions, _, err := sessionsWithin(c, 7000); sessions != 4800 || err != nil {
		t.Errorf("with an inbound listener: %d, %v", sessions, err)
	}
}

func TestTheSoftLimitIsRaised(t *testing.T) {
	once, err := raiseDescriptors()
	if err != nil {
		t.Skip(err)
	}
	if again, err := raiseDescriptors(); err != nil || again != once || once < 3 {
		t.Errorf("%d, then %d, %v", once, again, err)
	}
}
