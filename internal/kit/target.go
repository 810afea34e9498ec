// Package kit starts real iSCSI targets for real clients to judge: odx as
// a user would run it (the built binary, a YAML file, a data directory) and tgtd,
// the peer that odx is measured against. A Target knows the URLs of its LUNs,
// its process and its log; it can be stopped, killed and started again on the
// same data. Tests get theirs from package harness, benchmarks and the
// demonstration call StartODX and StartTGTD.
package kit

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StopLimit is how long a target may take to end after SIGTERM.
const StopLimit = 10 * time.Second

// readyLimit is how long a target may take until it serves.
const readyLimit = 30 * time.Second

// LUN is a logical unit that a target shall have.
type LUN struct {
	Size      int64 // bytes
	BlockSize int   // bytes of a logical block; 0: 512
	ReadOnly  bool  // initiators cannot write
	// File is a file of the store that is the logical unit, instead of a volume.
	// With a Size of 0 it must be there.
	File string
	// IOPS limits the commands a second; 0: no limit.
	IOPS int
	// Backing are the options of tgtadm that say where tgtd has the data; nil: a plain file.
	Backing []string
}

// Target is a running iSCSI target. What an odx target is given in LUNs counts from
// its next Restart on.
type Target struct {
	Kind   string // "odx" or "tgtd"
	Portal string // host:port on the loopback, or of its machine
	IQN    string
	Dir    string // holds all its data
	LUNs   []LUN

	firstLUN int // tgtd keeps LUN 0 for itself
	start    func(ctx context.Context, t *Target) (*process, error)
	proc     *process
	machine  *Machine      // where it runs; nil: here
	standby  *odxProcess   // nil where none waits
	handed   chan struct{} // has a value after a handover
	log      *logBuffer
	stopBy   syscall.Signal
}

// URL names the i-th entry of LUNs in the form libiscsi and qemu take.
func (t *Target) URL(i int) string { return t.URLVia(t.Portal, i) }

// URLVia is URL by another address, host:port, that leads to the portal.
func (t *Target) URLVia(portal string, i int) string {
	return fmt.Sprintf("iscsi://%s/%s/%d", portal, t.IQN, t.LUN(i))
}

// LUN is the logical unit number of the i-th entry of LUNs.
func (t *Target) LUN(i int) int { return t.firstLUN + i }

// PortalURL names the portal, for discovery.
func (t *Target) PortalURL() string { return "iscsi://" + t.Portal + "/" }

// Port is the TCP port of the portal.
func (t *Target) Port() int {
	_, port, _ := net.SplitHostPort(t.Portal)
	n, _ := strconv.Atoi(port)
	return n
}

// PID is the process id of the current run.
func (t *Target) PID() int { return t.proc.cmd.Process.Pid }

// Log is everything the target has said, over all of its runs.
func (t *Target) Log() string { return t.log.String() }

// AwaitLog returns once found takes the Log, or with the error of ctx. The log comes through a
// pipe: what the target wrote before it answered can be in it after the answer was read.
func (t *Target) AwaitLog(ctx context.Context, found func(log string) bool) error {
	return t.log.wait(ctx, found)
}

// LogTail is the last n lines of Log.
func (t *Target) LogTail(n int) string {
	lines := strings.SplitAfter(t.Log(), "\n")
	return strings.Join(lines[max(0, len(lines)-1-n):], "")
}

// Running reports whether the process runs.
func (t *Target) Running() bool {
	select {
	case <-t.proc.ended:
		return false
	default:
		return true
	}
}

// Stop asks the target to end and requires that it does so in time and
// without complaint. A target that has ended already is an error.
func (t *Target) Stop() error {
	if t.standby != nil {
		if err := t.KillStandby(); err != nil {
			return err
		}
	}
	if !t.Running() {
		return fmt.Errorf("%s had ended by itself: %v", t.Kind, t.proc.err)
	}
	if err := t.proc.signal(t.stopBy, StopLimit); err != nil {
		return err
	}
	if t.proc.err != nil && t.stopBy != syscall.SIGKILL {
		return fmt.Errorf("%s did not end cleanly after SIGTERM: %w", t.Kind, t.proc.err)
	}
	return nil
}

// Kill ends the target as a crash would, by SIGKILL.
func (t *Target) Kill() error {
	return kill(t.proc)
}

// Restart starts a target that has ended again: same portal, same data.
func (t *Target) Restart(ctx context.Context) error {
	if t.Running() {
		return fmt.Errorf("%s is still running", t.Kind)
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	p, err := t.start(ctx, t)
	if err != nil {
		return err
	}
	t.proc = p
	return nil
}

// launch starts t for the first time on a free port. Between finding a port and
// listening on it another process may take it, so it tries a few times.
func launch(ctx context.Context, t *Target) (*Target, error) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	t.log = &logBuffer{}
	for try := 0; ; try++ {
		var err error
		if t.machine != nil {
			t.Portal = net.JoinHostPort(t.machine.Address, "3260")
		} else if t.Portal, err = FreePortal(); err != nil {
			return nil, err
		}
		t.proc, err = t.start(ctx, t)
		if err == nil {
			return t, nil
		}
		if try == 3 || !strings.Contains(err.Error(), "in use") {
			return nil, err
		}
	}
}

// FreePortal returns a host:port of the loopback on which no process listens now.
func FreePortal() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// ResidentBytes is how much memory the process has resident (VmRSS of
// proc(5)).
func (t *Target) ResidentBytes() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/%d/status", t.PID())
}

// ProcessorTime is what the process has used of the processors: utime and stime
// of proc(5), in units of 10 ms.
func (t *Target) ProcessorTime() (time.Duration, error) {
	name := fmt.Sprintf("/proc/%d/stat", t.PID())
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	// Fields are counted after the command's name, which may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s has %d fields", name, len(fields))
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
