package public

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateCheck is how often the files are looked at, at most.
const certificateCheck = time.Minute

// certificate is read again when its files change: public certificates are renewed every few weeks.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	loaded  *tls.Certificate
	changed time.Time // of the files that were loaded
	checked time.Time
}

func loadCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log, checked: time.Now()}
	changed, err := c.modified()
	if err == nil {
		err = c.load(changed)
	}
	if err != nil {
		return nil, fmt.Errorf("public.tls: %w", err)
	}
	return c, nil
}

// get is for tls.Config. A new certificate that cannot be read leaves the old one in place.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= certificateCheck {
		c.checked = now
		c.refresh()
	}
	return c.loaded, nil
}

func (c *certificate) refresh() {
	changed, err := c.modified()
	if err == nil && changed.Equal(c.changed) {
		return
	}
	if err == nil {
		err = c.load(changed)
	}
	if err != nil {
		c.log.Warn("public.tls: the certificate on disk cannot be used; the last one stays", "error", err)
	}
}

// modified is when the later of the two files changed.
func (c *certificate) modified() (time.Time, error) {
	cert, err := os.Stat(c.cert)
	if err != nil {
		return time.Time{}, err
	}
	key, err := os.Stat(c.key)
	if err != nil {
		return time.Time{}, err
	}
	if key.ModTime().After(cert.ModTime()) {
		return key.ModTime(), nil
	}
	return cert.ModTime(), nil
}

func (c *certificate) load(changed time.Time) error {
	loaded, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	c.loaded, c.changed = &loaded, changed
	return nil
}
