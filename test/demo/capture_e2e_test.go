//go:build e2e

package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"odx/internal/kit/capture"
	"odx/internal/kit/harness"
)

// TestCapture runs the demonstration while its traffic is captured, and has
// tshark decode every PDU: none may be malformed.
func TestCapture(t *testing.T) {
	harness.RequireODX(t)
	c := capture.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := run(ctx, options{
		dir: t.TempDir(), size: 32 << 20, out: &out,
		started: func(port int) (func() error, error) { return c.Start(ctx, port) },
	})
	harness.Report(t, "demo", out.String())
	if err != nil {
		t.Fatal(err)
	}
	if bad := c.Wrong(ctx, t, ""); bad != "" {
		t.Errorf("tshark finds fault with:\n%.20000s", bad)
	}
	// That nothing is wrong must not be for want of anything decoded.
	seen := c.Count(ctx, t, "iscsi", "iscsi.opcode")
	t.Logf("PDUs by opcode: %v", seen)
	for _, opcode := range []string{"0x01", "0x03", "0x05", "0x06", "0x21", "0x23", "0x25", "0x26", "0x31"} {
		if seen[opcode] == 0 {
			t.Errorf("no PDU of opcode %s was decoded", opcode)
		}
	}
	commands := c.Commands(ctx, t)
	for _, want := range []string{"0x88", "0x8a", "0x83", "0x84"} {
		if commands[want] == 0 {
			t.Errorf("no command %s was decoded", want)
		}
	}
}
