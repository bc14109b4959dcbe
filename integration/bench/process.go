//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child. It dies with this process.
type process struct {
	name  string
	log   string // file
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

// start starts a child whose output goes to a file beside its data, for the error
// that says it ended too early. It must be called on the main goroutine.
func start(name string, logFile string, cmd *exec.Cmd) (*process, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &process{name: name, log: logFile, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		if p.err = cmd.Wait(); p.err != nil {
			p.err = fmt.Errorf("%s: %w\n%s", name, p.err, p.said())
		}
	}()
	return p, nil
}

// said is the end of what the process printed.
func (p *process) said() []byte {
	text, _ := os.ReadFile(p.log)
	return text[max(0, len(text)-2000):]
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the process to end, and waits.
func (p *process) stop(patience time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		p.kill()
		return fmt.Errorf("%s did not stop within %v", p.name, patience)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// portPatience is how long a process may take until it listens, and until it answers.
const portPatience = 3 * time.Minute

// awaitPort waits until something listens at addr, or the process ends.
func (p *process) awaitPort(addr string) error {
	for deadline := time.Now().Add(portPatience); time.Now().Before(deadline); {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.ended:
			return errors.Join(fmt.Errorf("%s ended before it listened at %s", p.name, addr), p.err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not listen at %s", p.name, addr)
}

// freePort is a port of loopback that nobody listens at.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// tick is the unit of /proc/PID/stat on Linux, whatever the kernel's own.
const tick = 10 * time.Millisecond

// usage is the CPU time of a process, of the children it waited for, and of all
// processes below it that live.
func usage(root int) (time.Duration, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	parent, used := map[int]int{}, map[int]time.Duration{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // it ended
		}
		if pid, ppid, cpu, ok := parseStat(data); ok {
			parent[pid], used[pid] = ppid, cpu
		}
	}
	if _, ok := used[root]; !ok {
		return 0, fmt.Errorf("process %d is gone", root)
	}
	var sum time.Duration
	for pid := range used {
		for at := pid; at > 1; at = parent[at] {
			if at == root {
				sum += used[pid]
				break
			}
		}
	}
	return sum, nil
}

// parseStat reads a line of /proc/PID/stat (proc(5)): the name may hold anything, so
// that fields count from its last parenthesis. CPU includes waited-for children.
func parseStat(data []byte) (pid, ppid int, cpu time.Duration, ok bool) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return 0, 0, 0, false
	}
	first, _, _ := strings.Cut(string(data), " ")
	rest := strings.Fields(string(data[end+1:])) // from field 3, the state
	if len(rest) < 15 {
		return 0, 0, 0, false
	}
	var bad error
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		bad = errors.Join(bad, err)
		return n
	}
	pid, ppid = number(first), number(rest[1])
	cpu = time.Duration(number(rest[11])+number(rest[12])+number(rest[13])+number(rest[14])) * tick
	return pid, ppid, cpu, bad == nil
}

// peak is the most memory a process has held, in bytes.
func peak(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmHWM", pid)
}

// peakOfTree adds up what the processes below root have held at most.
func peakOfTree(root int) (sum int64) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	parent := map[int]int{}
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil {
			if pid, ppid, _, ok := parseStat(data); ok {
				parent[pid] = ppid
			}
		}
	}
	for pid := range parent {
		for at := pid; at > 1; at = parent[at] {
			if at == root {
				n, _ := peak(pid)
				sum += n
				break
			}
		}
	}
	return sum
}

// workDir makes the directory of this invocation, on a disk: what is synced to a file
// system in memory costs nothing and proves nothing.
func workDir(parent string) (string, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(parent, &fs); err != nil {
		return "", fmt.Errorf("-dir %s: %w", parent, err)
	}
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	if fs.Type == tmpfs || int64(uint32(fs.Type)) == ramfs {
		return "", fmt.Errorf("%s is a file system in memory, where nothing is durable: give -dir on a disk", parent)
	}
	dir, err := os.MkdirTemp(parent, "veredus-bench-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711) // Postfix's own users must get through
}
