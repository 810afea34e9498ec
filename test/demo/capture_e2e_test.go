//go:build e2e

package main

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

	"odx/test/odxtest"
)

// TestCapture runs the demonstration while its traffic is captured, and has
// tshark decode every PDU: none may be malformed.
func TestCapture(t *testing.T) {
	odxtest.RequireODX(t)
	dumpcap := odxtest.Program(t, "dumpcap", "tshark")
	tshark := odxtest.Program(t, "tshark", "tshark")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	mayCapture(ctx, t, dumpcap)

	file := filepath.Join(t.TempDir(), "demo.pcapng")
	var out bytes.Buffer
	port := 0
	err := run(ctx, options{
		dir: t.TempDir(), size: 32 << 20, out: &out,
		started: func(p int) (func() error, error) {
			port = p
			return capture(ctx, dumpcap, file, p)
		},
	})
	odxtest.Report(t, "demo", out.String())
	if err != nil {
		t.Fatal(err)
	}

	decode := func(args ...string) string {
		args = append([]string{"-r", file, "-d", fmt.Sprintf("tcp.port==%d,iscsi", port)}, args...)
		out, err := exec.CommandContext(ctx, tshark, args...).Output() // what it says to stderr is about itself
		if err != nil {
			t.Fatalf("tshark %q: %v", args, err)
		}
		return string(out)
	}
	const wrong = "_ws.malformed || (_ws.expert.severity == error && (iscsi || scsi))"
	if bad := decode("-Y", wrong, "-V"); strings.Contains(bad, "Frame ") {
		t.Errorf("tshark finds fault with:\n%.20000s", bad)
	}
	// That nothing is wrong must not be for want of anything decoded.
	const field = "iscsi.opcode"
	seen := map[string]int{}
	for line := range strings.Lines(decode("-T", "fields", "-e", field, "-Y", "iscsi")) {
		for opcode := range strings.SplitSeq(strings.TrimSpace(line), ",") {
			seen[opcode]++
		}
	}
	t.Logf("PDUs by opcode: %v", seen)
	for _, opcode := range []string{"0x01", "0x03", "0x05", "0x06", "0x21", "0x23", "0x25", "0x26", "0x31"} {
		if seen[opcode] == 0 {
			t.Errorf("no PDU of opcode %s was decoded", opcode)
		}
	}
	commands := decode("-T", "fields", "-e", "scsi_sbc.opcode", "-e", "scsi.spc.opcode", "-Y", "iscsi.opcode == 0x01")
	for _, want := range []string{"0x88", "0x8a", "0x83", "0x84"} {
		if !strings.Contains(commands, want) {
			t.Errorf("no command %s was decoded", want)
		}
	}
}

// mayCapture ends the test where this user may not capture on the loopback.
func mayCapture(ctx context.Context, t *testing.T, dumpcap string) {
	t.Helper()
	out, err := exec.CommandContext(ctx, dumpcap, "-i", "lo", "-d", "-f", "tcp").CombinedOutput()
	if err != nil {
		odxtest.Missing(t, fmt.Sprintf("no capture on the loopback device (%v): %s", err, out))
	}
}

var dropped = regexp.MustCompile(`received/dropped on interface[^:]*: (\d+)/(\d+)`)

// capture starts dumpcap and returns when it captures. stop ends it and
// requires that it has missed nothing.
func capture(ctx context.Context, dumpcap, file string, port int) (stop func() error, err error) {
	cmd := exec.CommandContext(ctx, dumpcap, "-i", "lo", "-B", "256", "-f", fmt.Sprintf("tcp port %d", port), "-w", file)
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
		err := errors.Join(caughtUp(ctx, file, port), cmd.Process.Signal(syscall.SIGINT))
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
func caughtUp(ctx context.Context, file string, port int) error {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer conn.Close()
	mark := binary.BigEndian.AppendUint16(nil, uint16(conn.LocalAddr().(*net.TCPAddr).Port))
	mark = binary.BigEndian.AppendUint16(mark, uint16(port))
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if bytes.Contains(b[max(0, len(b)-4096):], mark) {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("the last packets did not reach %s: %w", file, ctx.Err())
		}
	}
}
