package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// node is the subject of findings about the machine.
const node about = "node"

// ownFiles is how many files a node opens beside its connections: tables of the store
// (Pebble keeps up to 1000), questions to the DNS (up to 256), API and log.
const ownFiles = 1500

// files compares the limit of open files with what the node may open.
func (c *checkup) files(context.Context) []Finding {
	limit, err := c.Files()
	if err != nil {
		return []Finding{node.info("files", "the limit of open files is not known: %v", err)}
	}
	sessions := uint64(c.Config.Relay.MaxSessions)
	want := sessions + ownFiles
	if c.Config.Inbound.Listen != "" {
		want += uint64(c.Config.Inbound.MaxConnections)
	}
	switch {
	case limit >= want:
		return []Finding{node.ok("files", "%d files may be open; the node needs up to %d", limit, want)}
	case limit < sessions+ownFiles/2:
		return []Finding{node.failure("files", "%d files may be open, and relay.max_sessions %d needs up to %d: connections will fail; raise LimitNOFILE of the service (ulimit -n) to %d, or lower relay.max_sessions", limit, sessions, want, want)}
	}
	return []Finding{node.warning("files", "%d files may be open, and the node may need %d; raise LimitNOFILE of the service (ulimit -n) to %d", limit, want, want)}
}

// dataDir checks that the data directory, or where it will be made, can be written.
func (c *checkup) dataDir(context.Context) []Finding {
	dir := c.Config.DataDir
	for {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return []Finding{node.failure("data_dir", "data_dir %s cannot be read: %v", c.Config.DataDir, err)}
		}
		dir = parent
	}
	file, err := os.CreateTemp(dir, ".veredus-doctor-*")
	if err != nil {
		return []Finding{node.failure("data_dir", "data_dir %s cannot be written: %v; give it to the user that runs the node", c.Config.DataDir, err)}
	}
	if err := errors.Join(file.Close(), os.Remove(file.Name())); err != nil {
		return []Finding{node.warning("data_dir", "data_dir %s: %v", c.Config.DataDir, err)}
	}
	return []Finding{node.ok("data_dir", "data_dir %s can be written", c.Config.DataDir)}
}

// inbound checks where bounces are listened for: the world connects to port 25 only.
func (c *checkup) inbound(ctx context.Context) []Finding {
	in := c.Config.Inbound
	if in.Listen == "" {
		return []Finding{node.warning("inbound.off", "inbound.listen is not set: bounces, complaints and unsubscribes that come by mail are not read")}
	}
	var found []Finding
	if _, port, err := net.SplitHostPort(in.Listen); err == nil && port != "25" {
		found = append(found, node.info("inbound.port", "inbound.listen has port %s; the world delivers to port 25: forward that", port))
	}
	if strings.TrimSpace(in.TLS.Cert) == "" {
		found = append(found, node.info("inbound.plain", "inbound.tls is not set: bounces come in without encryption"))
	}
	addrs, err := addresses(ctx, c.dns, in.Hostname)
	switch {
	case err != nil:
		found = append(found, node.unknown("inbound.hostname", "the address of inbound.hostname "+in.Hostname, err))
	case len(addrs) == 0:
		f := node.failure("inbound.hostname", "inbound.hostname %s has no address, so that no bounce finds it", in.Hostname)
		if a, ok := c.listenAddress(); ok {
			f = f.with(plain(in.Hostname), a.kind, a.text)
		}
		found = append(found, f)
	case c.isOurs(addrs):
		found = append(found, node.ok("inbound.hostname", "inbound.hostname %s has an address of this node", in.Hostname))
	default:
		found = append(found, node.info("inbound.hostname", "inbound.hostname %s has the address %s, which is none of this machine: something must forward it", in.Hostname, addrs[0]))
	}
	return found
}

type addressRecord struct{ kind, text string }

// listenAddress is where bounces could come in: the listener's own address, else the first source's.
func (c *checkup) listenAddress() (addressRecord, bool) {
	addr, ok := listenIP(c.Config.Inbound.Listen)
	if !ok && len(c.sources) > 0 {
		addr, ok = c.sources[0].Address, true
	}
	kind := "AAAA"
	if addr = addr.Unmap(); addr.Is4() {
		kind = "A"
	}
	return addressRecord{kind, addr.String()}, ok
}

// redirected connects to where everything goes.
func (c *checkup) redirected(ctx context.Context) []Finding {
	to := c.Config.Relay.Redirect
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := c.DialRedirect(ctx, to)
	if err != nil {
		return []Finding{node.failure("redirect", "no connection to relay.redirect %s: %v", to, err)}
	}
	greeting, err := c.greeting(ctx, conn)
	switch {
	case err != nil:
		return []Finding{node.failure("redirect", "relay.redirect %s does not greet: %v", to, err)}
	case !strings.HasPrefix(greeting, "220"):
		return []Finding{node.failure("redirect", "relay.redirect %s refuses: %s", to, clip(greeting, 300))}
	}
	return []Finding{node.ok("redirect", "relay.redirect %s greets", to)}
}
