//go:build rados

package ceph_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
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
	"odx/internal/kit/tokenclient"
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

// client is an initiator that writes number after number to the blocks of a LUN, each when the
// one before was answered.
type client struct {
	session *tokenclient.Session
	program *tokenclient.Client
	close   func() // ends the connection as a crash does
}

// dial logs in, and tries again until the server answers.
func dial(t testing.TB, n *node) *client {
	t.Helper()
	c, err := startClient(t)
	must.Succeed(t, err)
	c.logIn(t, n)
	return c
}

// dialFrom is dial on a host.
func dialFrom(t testing.TB, h *netns.Host, n *node) *client {
	t.Helper()
	var c *client
	must.Succeed(t, h.Do(func() (err error) {
		c, err = startClient(t)
		return err
	}))
	c.logIn(t, n)
	return c
}

// startClient starts a client, which is closed at the end of a test.
func startClient(t testing.TB) (*client, error) {
	ctx, cancel := context.WithCancel(context.Background())
	program, err := tokenclient.Start(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	c := &client{program: program}
	// The program is killed: its server may have ended, and libiscsi would try for a minute to
	// log out from it.
	c.close = sync.OnceFunc(func() {
		cancel()
		_ = program.Close() // killed
	})
	t.Cleanup(c.close)
	return c, nil
}

// logIn logs in to a node, and tries again until the server answers.
func (c *client) logIn(t testing.TB, n *node) {
	t.Helper()
	for end := time.Now().Add(takeOverMax); ; {
		var err error
		if c.session, err = c.program.Open(n.url(), tokenclient.OpenOptions{}); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("log in to %s: %v", n.name, err)
		}
	}
	for range 4 { // what is pending of unit attentions
		if a, err := c.session.Command(make([]byte, 6), nil, 0); err != nil || a.Good() {
			must.Succeed(t, err)
			return
		}
	}
	t.Fatalf("%s is not ready", n.name)
}

// write writes a number; an error means that it was not acknowledged.
func (c *client) write(number uint64) error {
	p := make([]byte, blockBytes)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], number)
	}
	a, err := c.session.Write(bytes.NewReader(p), number%blocks*sectors, sectors, tokenclient.WriteOptions{})
	if err == nil && !a.Good() {
		err = errors.New(a.String())
	}
	return err
}

// writing is a client that writes until a write is not acknowledged.
type writing struct {
	acked chan uint64
	last  uint64
}

func startWriting(c *client, first uint64) *writing {
	w := &writing{acked: make(chan uint64, 1<<16), last: first - 1}
	go func() {
		defer close(w.acked)
		for n := first; c.write(n) == nil; n++ {
			w.acked <- n
		}
	}()
	return w
}

// await waits for so many acknowledged writes.
func (w *writing) await(t *testing.T, n int) {
	t.Helper()
	if !w.goesOn(t, n) {
		t.Fatalf("a write after number %d is not acknowledged", w.last)
	}
}

// goesOn waits for so many acknowledged writes, or for one that is not.
func (w *writing) goesOn(t *testing.T, n int) bool {
	t.Helper()
	for range n {
		select {
		case number, ok := <-w.acked:
			if !ok {
				return false
			}
			w.last = number
		case <-time.After(takeOverMax):
			t.Fatal("nothing is acknowledged")
		}
	}
	return true
}

// end waits for the write that is not acknowledged, and returns the last one that was.
func (w *writing) end() uint64 {
	for number := range w.acked {
		w.last = number
	}
	return w.last
}

// seen returns the last one that was acknowledged by now.
func (w *writing) seen() uint64 {
	for len(w.acked) > 0 {
		w.last = <-w.acked
	}
	return w.last
}

// writeThrough proves that the write cache is off and stays off.
func (c *client) writeThrough(t *testing.T) {
	t.Helper()
	sense := []byte{0x1A, 0x08, 0x08, 0, 64, 0} // MODE SENSE(6), DBD, page Caching
	page := c.command(t, sense, nil, 64)
	if len(page) < 7 || page[6]&0x04 != 0 {
		t.Errorf("the write cache is on: % x", page)
		return
	}
	list := append(make([]byte, 4), page[4:24]...)
	list[4] &^= 0x80 // PS
	list[6] |= 0x04  // WCE
	a, err := c.session.Command([]byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list, 0)
	if err != nil || !a.Sense.Is(0x5, 0x26, 0x00) {
		t.Errorf("MODE SELECT that turns the write cache on: %v, %v", a, err)
	}
}

// command sends a command that has to end GOOD, and returns its data.
func (c *client) command(t *testing.T, cdb, out []byte, in int) []byte {
	t.Helper()
	a, err := c.session.Command(cdb, out, in)
	if err != nil || !a.Good() {
		t.Fatalf("command % x: %v, %v", cdb, a, err)
	}
	return a.Data
}

// identity returns the serial number of the LUN, which its other names follow from.
func (c *client) identity(t *testing.T) string {
	page := c.command(t, []byte{0x12, 1, 0x80, 0, 252, 0}, nil, 252)
	return string(page[4:])
}

// holdsNumbers proves that a LUN has all numbers that were acknowledged.
func (c *client) holdsNumbers(t *testing.T, last uint64) {
	t.Helper()
	var got bytes.Buffer
	a, err := c.session.Read(&got, 0, blocks*sectors)
	if err != nil || !a.Good() {
		t.Fatalf("read: %v, %v", a, err)
	}
	for b := range uint64(blocks) {
		number := binary.LittleEndian.Uint64(got.Bytes()[b*blockBytes:])
		want := last - (last-b+blocks)%blocks
		if number != want && number != last+1 {
			t.Errorf("block %d has number %d, want %d: acknowledged were those up to %d", b, number, want, last)
		}
	}
}

const reservationKey = 0x6f6478

// register registers a key without APTPL.
func (c *client) register(t *testing.T) {
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list[8:], reservationKey)
	c.command(t, []byte{0x5F, 0x06, 0, 0, 0, 0, 0, 0, 24, 0}, list, 0) // REGISTER AND IGNORE EXISTING KEY
}

// registered proves that the registration is there.
func (c *client) registered(t *testing.T) {
	t.Helper()
	data := c.command(t, []byte{0x5E, 0x00, 0, 0, 0, 0, 0, 0, 64, 0}, nil, 64) // READ KEYS
	if len(data) < 16 || binary.BigEndian.Uint64(data[8:]) != reservationKey {
		t.Errorf("the registration is lost: % x", data)
	}
}
