package dispatch

import (
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

func TestOneRunIsDelivered(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a"), limited(t, mxrules.Limits{Connections: 3, MessagesPerConnection: 10}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.finish(time.Minute)
	w.checkDone()
	w.checkEmpty()
}
