//go:build linux

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed postfix
var postfixConfig embed.FS

// missingPackages are the Debian packages that the case postfix needs.
func missingPackages() (list []string) {
	for _, p := range []struct{ name, binary string }{{"postfix", "/usr/sbin/postfix"}, {"opendkim", "/usr/sbin/opendkim"}} {
		if _, err := os.Stat(p.binary); err != nil {
			list = append(list, p.name)
		}
	}
	return list
}

// postfix is an instance of Postfix with its OpenDKIM: configuration, queue and ports of
// its own. The system's own instance, if there is one, is not touched.
type postfix struct {
	dir      string
	addr     string
	master   *process
	opendkim *process
}

// startPostfix needs root: Postfix's processes run as its own users.
func (b *bench) startPostfix(dir string, k *key, s *sink) (*postfix, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the processes of Postfix run as its own users: run this as root, or with -only veredus,unsigned")
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	milter, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &postfix{dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	err = p.configure(map[string]any{
		"Dir": dir, "Port": port, "MilterPort": milter, "SinkPort": s.port(), "Sessions": b.sessions,
		"Domain": fromDomain, "Selector": selector, "Key": k.file,
	})
	if err != nil {
		return nil, err
	}
	p.opendkim, err = start("opendkim", filepath.Join(dir, "opendkim.log"), exec.Command("/usr/sbin/opendkim", "-f", "-x", p.conf("opendkim.conf")))
	if err != nil {
		return nil, err
	}
	if err := p.opendkim.awaitPort(fmt.Sprintf("127.0.0.1:%d", milter)); err != nil {
		p.kill()
		return nil, err
	}
	// "postfix check" makes the queue's directories. Its "start-fg" would put a shell before
	// master, which survives the shell.
	conf := filepath.Join(dir, "conf")
	if out, err := exec.Command("/usr/sbin/postfix", "-c", conf, "check").CombinedOutput(); err != nil {
		p.kill()
		return nil, fmt.Errorf("postfix check: %w\n%s", err, out)
	}
	p.master, err = start("postfix", filepath.Join(dir, "postfix.log"), exec.Command("/usr/lib/postfix/sbin/master", "-c", conf, "-d"))
	if err == nil {
		err = p.master.awaitPort(p.addr)
	}
	if err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

func (p *postfix) conf(name string) string { return filepath.Join(p.dir, "conf", name) }

// configure writes the configuration and makes the directories that Postfix expects.
func (p *postfix) configure(with map[string]any) error {
	for _, d := range []string{"conf", "queue", "state"} {
		if err := os.Mkdir(filepath.Join(p.dir, d), 0o755); err != nil {
			return err
		}
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		return err
	}
	if err := os.Chown(filepath.Join(p.dir, "state"), uid, -1); err != nil {
		return err
	}
	for _, name := range []string{"main.cf", "master.cf", "opendkim.conf"} {
		text, err := postfixConfig.ReadFile("postfix/" + name)
		if err != nil {
			return err
		}
		if err := write(p.conf(name), string(text), with); err != nil {
			return err
		}
	}
	return nil
}

func (p *postfix) kill() {
	if p.master != nil {
		_ = p.master.stop(20 * time.Second) // master ends its children
	}
	p.opendkim.kill()
}

// runPostfix measures Postfix: from the first MAIL until its queue is empty.
func (b *bench) runPostfix(ctx context.Context, dir string, k *key, s *sink) (r *result, err error) {
	c, err := newComposer()
	if err != nil {
		return nil, err
	}
	mails, err := c.mails(b.postfixMessages)
	if err != nil {
		return nil, err
	}
	p, err := b.startPostfix(dir, k, s)
	if err != nil {
		return nil, err
	}
	defer func() {
		p.kill()
		if err != nil {
			log, _ := os.ReadFile(filepath.Join(dir, "maillog"))
			err = fmt.Errorf("%w\n%s", err, log[max(0, len(log)-2000):])
		}
	}()
	w, err := startWatch(s.pid(), p.master.pid(), p.opendkim.pid())
	if err != nil {
		return nil, err
	}
	probes := startProbes(ctx, len(mails), p.sendSingle(c))
	acked, err := inject(ctx, p.addr, mails, b.sessions)
	w.fed = time.Now()
	if err = errors.Join(err, probes.stop()); err != nil {
		return nil, err
	}
	if err := s.wait(ctx, len(mails)+len(probes.acked)); err != nil {
		return nil, err
	}
	if err := p.drained(ctx); err != nil {
		return nil, err
	}
	if r, err = w.stop(casePostfix, len(mails)); err != nil {
		return nil, err
	}
	r.PeakBytes = peakOfTree(p.master.pid()) + peakOfTree(p.opendkim.pid())
	return r, s.judge(r, acked, probes.acked, nil)
}

// sendSingle hands over message i, on a connection of its own.
func (p *postfix) sendSingle(c *composer) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		mail, err := c.mail(i)
		if err != nil {
			return err
		}
		in, err := dialInjector(ctx, p.addr)
		if err != nil {
			return err
		}
		defer in.conn.Close()
		return in.send(address(i), mail)
	}
}

// drained waits until the queue is empty: then Postfix has settled everything.
func (p *postfix) drained(ctx context.Context) error {
	for {
		left := 0
		for _, q := range []string{"maildrop", "incoming", "active", "deferred"} {
			_ = filepath.WalkDir(filepath.Join(p.dir, "queue", q), func(_ string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					left++
				}
				return nil
			})
		}
		if left == 0 {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
