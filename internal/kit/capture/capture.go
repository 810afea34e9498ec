// Package capture records the traffic of a portal with dumpcap and has tshark
// judge it: a decoder of iSCSI and SCSI that other people wrote.
package capture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit/harness"
)

// Capture is what was recorded of a portal.
type Capture struct {
	dumpcap, tshark string
	file            string
	port            int
}

// New looks for the programs, and ends the test where they are missing or this
// user may not capture.
func New(t testing.TB) *Capture {
	t.Helper()
	c := &Capture{
		dumpcap: harness.Program(t, "dumpcap", "tshark"),
		tshark:  harness.Program(t, "tshark", "tshark"),
		file:    filepath.Join(t.TempDir(), "pcapng"),
	}
	out, err := exec.CommandContext(t.Context(), c.dumpcap, "-i", "lo", "-d", "-f", "tcp").CombinedOutput()
	if err != nil {
		harness.Missing(t, fmt.Sprintf("no capture on the loopback device (%v): %s", err, out))
	}
	return c
}

// Decode prints what tshark makes of the capture.
func (c *Capture) Decode(ctx context.Context, t testing.TB, args ...string) string {
	t.Helper()
	// On a busy machine frames of two processors are captured out of order.
	args = append([]string{"-r", c.file, "-o", "tcp.reassemble_out_of_order:TRUE", "-d", fmt.Sprintf("tcp.port==%d,iscsi", c.port)}, args...)
	out, err := exec.CommandContext(ctx, c.tshark, args...).Output() // what it says to stderr is about itself
	if err != nil {
		t.Fatalf("tshark %q: %v", args, err)
	}
	return string(out)
}

// Wrong prints the frames in which tshark finds fault with iSCSI or SCSI,
// unless they match the display filter but, which may be empty.
func (c *Capture) Wrong(ctx context.Context, t testing.TB, but string) string {
	t.Helper()
	filter := "(_ws.malformed || (_ws.expert.severity == error && (iscsi || scsi)))"
	if but != "" {
		filter += " && !(" + but + ")"
	}
	bad := c.Decode(ctx, t, "-Y", filter, "-V")
	if !strings.Contains(bad, "Frame ") {
		return ""
	}
	return bad
}

// Count counts the values of fields in the frames that match a filter.
func (c *Capture) Count(ctx context.Context, t testing.TB, filter string, fields ...string) map[string]int {
	t.Helper()
	args := []string{"-Y", filter, "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	seen := map[string]int{}
	for line := range strings.Lines(c.Decode(ctx, t, args...)) {
		for _, value := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(",\t\n", r) }) {
			seen[value]++
		}
	}
	return seen
}

// Commands counts the commands by their operation codes.
func (c *Capture) Commands(ctx context.Context, t testing.TB) map[string]int {
	t.Helper()
	return c.Count(ctx, t, "iscsi.opcode == 0x01", "scsi_sbc.opcode", "scsi.spc.opcode")
}

var dropped = regexp.MustCompile(`received/dropped on interface '.*': (\d+)/(\d+)`)

// Start records what goes to and from a port, and returns when it does. stop
// ends that and requires that it has missed nothing.
func (c *Capture) Start(ctx context.Context, port int) (stop func() error, err error) {
	c.port = port
	cmd := exec.CommandContext(ctx, c.dumpcap, "-i", "lo", "-B", "256", "-f", fmt.Sprintf("tcp port %d", port), "-w", c.file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stderr)
	var said strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		if strings.HasPrefix(lines.Text(), "File: ") {
			break
		}
	}
	return func() error {
		err := errors.Join(c.caughtUp(ctx), cmd.Process.Signal(syscall.SIGINT))
		for lines.Scan() {
			fmt.Fprintln(&said, lines.Text())
		}
		err = errors.Join(err, cmd.Wait())
		m := dropped.FindStringSubmatch(said.String())
		if err != nil || m == nil || m[1] == "0" || m[2] != "0" {
			return fmt.Errorf("the capture is not complete (%v):\n%s", err, said.String())
		}
		return nil
	}, nil
}

// caughtUp waits until all packets so far are in the file: it makes a
// connection as a mark and looks for its ports there.
func (c *Capture) caughtUp(ctx context.Context) error {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
	if err != nil {
		return err
	}
	defer conn.Close()
	mark := binary.BigEndian.AppendUint16(nil, uint16(conn.LocalAddr().(*net.TCPAddr).Port))
	mark = binary.BigEndian.AppendUint16(mark, uint16(c.port))
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		b, err := os.ReadFile(c.file)
		if err != nil {
			return err
		}
		if bytes.Contains(b[max(0, len(b)-4096):], mark) {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("the last packets did not reach %s: %w", c.file, ctx.Err())
		}
	}
}
