//go:build rados

package ceph_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/ceph"
	"odx/internal/kit/must"
	"odx/internal/kit/netns"
)

const (
	target      = "iqn.2026-11.example.odx:pool"
	sectors     = blockBytes / 512 // of a block of the test
	lunBytes    = 64 << 20
	takeOverMax = time.Minute // on a busy machine
)

var (
	kills  = flag.Int("kills", 3, "how often TestServers_OwnerKilled kills the owner")
	pauses = flag.Int("pauses", 2, "how often TestServers_OwnerPaused and TestServers_OwnerPausedBriefly stop the owner for a while")
)

// program builds odx-rados once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := kit.CacheDir("odx-rados")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "odx-rados")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "rados", "-o", path, "odx/cmd/odx")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// node is a machine with a server of the pool: a configuration of its own.
type node struct {
	t      testing.TB
	name   string
	dir    string
	portal string
	host   *netns.Host // nil: that of the test
	flags  []string    // of serve
	env    []string    // of serve, in addition
	cmd    *exec.Cmd
	lines  chan string // of standard output
	log    *lockedBuffer
	output sync.WaitGroup
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newNode(t testing.TB, name string) *node { return newNodeOf(t, cluster, name) }

func newNodeOf(t testing.TB, cluster *ceph.Cluster, name string) *node {
	t.Helper()
	portal, err := kit.FreePortal()
	must.Succeed(t, err)
	return newNodeAt(t, cluster, name, nil, portal, "")
}

// newNodeAt returns a node on a host, with more of the part ceph of its configuration.
func newNodeAt(t testing.TB, cluster *ceph.Cluster, name string, host *netns.Host, portal, more string) *node {
	t.Helper()
	n := &node{t: t, name: name, dir: t.TempDir(), portal: portal, host: host, log: &lockedBuffer{}}
	text := fmt.Sprintf(`data_dir: rados:%s/%s
ceph: {conf: %q, user: %s, keyring: %q, run_dir: run%s}
portals: [%q]
targets:
  - name: %s
    luns: [{lun: 0, volume: v, size: %d}]
`, cluster.Pool(), t.Name(), cluster.Conf(), cluster.User(), cluster.Keyring(), more, portal, target, lunBytes)
	must.Succeed(t, os.WriteFile(n.config(), []byte(text), 0o600))
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, n.log)
		}
	})
	return n
}

func (n *node) config() string { return filepath.Join(n.dir, "odx.yaml") }

func (n *node) url() string { return fmt.Sprintf("iscsi://%s/%s/0", n.portal, target) }

// command returns the command that runs the program on the node.
func (n *node) command(ctx context.Context, args ...string) *exec.Cmd {
	n.t.Helper()
	path, err := program()
	must.Succeed(n.t, err)
	args = append(args, "--config", n.config())
	if n.host != nil {
		return n.host.Command(ctx, path, args...)
	}
	return exec.CommandContext(ctx, path, args...)
}

// start starts the server.
func (n *node) start() {
	n.t.Helper()
	n.cmd = n.command(context.Background(), append([]string{"serve"}, n.flags...)...)
	n.cmd.Env = append(os.Environ(), n.env...)
	n.cmd.Stderr = n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := n.cmd.StdoutPipe()
	must.Succeed(n.t, errors.Join(err, n.cmd.Start()))
	lines := make(chan string, 1000)
	n.lines = lines
	n.output.Go(func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case lines <- s.Text():
			default: // nothing waits for so many
			}
		}
	})
}

// startBoth starts two servers, of which the first one has the store.
func startBoth(first, next *node) {
	first.t.Helper()
	first.start()
	first.await(serves)
	next.start()
	next.await(waits)
}

// await waits until the server prints a line with a text.
func (n *node) await(text string) {
	n.t.Helper()
	limit := time.After(takeOverMax)
	for {
		select {
		case line, ok := <-n.lines:
			if !ok {
				n.t.Fatalf("%s has ended, and did not print %q", n.name, text)
			}
			if strings.Contains(line, text) {
				return
			}
		case <-limit:
			n.t.Fatalf("%s does not print %q", n.name, text)
		}
	}
}

// awaitEither waits until one of two nodes serves, and returns it.
func awaitEither(t *testing.T, a, b *node) *node {
	t.Helper()
	limit := time.After(takeOverMax)
	for {
		n, line, ok := a, "", false
		select {
		case line, ok = <-a.lines:
		case line, ok = <-b.lines:
			n = b
		case <-limit:
			t.Fatal("neither server serves")
		}
		if !ok {
			t.Fatalf("%s has ended", n.name)
		}
		if strings.Contains(line, serves) {
			return n
		}
	}
}

const (
	waits  = "waits for the store"
	serves = "is ready on"
)

// signal sends a signal to the server.
func (n *node) signal(s os.Signal) {
	n.t.Helper()
	must.Succeed(n.t, n.cmd.Process.Signal(s))
}

// kill ends the server as a crash does.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // it may have ended
	n.output.Wait()
	_ = n.cmd.Wait() // killed
	n.cmd = nil
}

// run runs a command with the configuration of the node, and returns what it prints.
func (n *node) run(args ...string) (string, error) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), takeOverMax)
	defer cancel()
	out, err := n.command(ctx, args...).CombinedOutput()
	return string(out), err
}

// epoch returns the epoch by which the server owns the store.
func (n *node) epoch() (epoch uint64) {
	n.t.Helper()
	out, err := n.run("status", "--json")
	var st struct {
		Pool  string
		Epoch uint64
	}
	if jsonErr := json.Unmarshal([]byte(out), &st); err != nil || jsonErr != nil || !strings.HasPrefix(st.Pool, "rados:") {
		n.t.Fatalf("status of %s: %v, %v: %s", n.name, err, jsonErr, out)
	}
	return st.Epoch
}

// isStandby proves that the status says that the machine waits, and for what, as text and JSON.
func (n *node) isStandby(epoch uint64) {
	n.t.Helper()
	const standby = 8 // the exit status
	out, err := n.run("status")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != standby || !strings.HasPrefix(out, "standby") || !strings.Contains(out, fmt.Sprintf("epoch %d", epoch)) {
		n.t.Errorf("status of %s: %v: %s", n.name, err, out)
	}
	out, err = n.run("status", "--json")
	host, hostErr := os.Hostname()
	must.Succeed(n.t, hostErr)
	var st struct {
		Health, Pool, Owner string
		Epoch               uint64
	}
	jsonErr := json.Unmarshal([]byte(out), &st)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if jsonErr != nil || !ok || exit.ExitCode() != standby || st.Health != "standby" || !strings.HasPrefix(st.Pool, "rados:") || st.Owner != host || st.Epoch != epoch {
		n.t.Errorf("JSON of the status of %s: %v, %v: %s", n.name, err, jsonErr, out)
	}
}
