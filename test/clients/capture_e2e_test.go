//go:build e2e

package clients

import (
	"context"
	"fmt"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/capture"
	"odx/internal/kit/harness"
)

// captured are suites that together send about every kind of command. Tests
// that have an answer cut by a short ALLOCATION LENGTH are left out: tshark calls
// that malformed. Of tests that send thousands of commands the short ones do.
var captured = []Suite{
	{Name: "CompareAndWrite", Tests: []string{"DpoFua", "InvalidDataOutSize", "Unwritten"}}, {Name: "ExtendedCopy"},
	{Name: "GetLBAStatus", Tests: []string{"BeyondEol"}}, {Name: "Inquiry"}, {Name: "ModeSense6"},
	{Name: "OrWrite", Tests: []string{"BeyondEol", "ZeroBlocks"}}, {Name: "PrinReadKeys", Tests: []string{"Simple"}},
	{Name: "PrinReportCapabilities"}, {Name: "ProutReserve"}, {Name: "ReadCapacity16", Tests: []string{"Simple"}},
	{Name: "ReadDefectData12"}, {Name: "ReceiveCopyResults"}, {Name: "ReportSupportedOpcodes"}, {Name: "Sanitize"},
	{Name: "Unmap", Tests: []string{"VPD", "ZeroBlocks"}}, {Name: "WriteAtomic16", Tests: []string{"BeyondEol", "DpoFua"}},
	{Name: "WriteSame16", Tests: []string{"BeyondEol", "WriteProtect"}}, {Name: "iSCSITMF"},
}

// TestCapture has tshark decode what odx answers to them: nothing of it may be
// malformed. What the program itself sends malformed, on purpose, is its own.
func TestCapture(t *testing.T) {
	harness.RequireODX(t)
	program := harness.Program(t, "iscsi-test-cu", "libiscsi-bin")
	c := capture.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	target := harness.Serve(t, kit.LUN{Size: 64 << 20})
	stop, err := c.Start(ctx, target.Port())
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range captured {
		judge(t, target.Kind, program, suite, []string{target.URL(0)})
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if bad := c.Wrong(ctx, t, fmt.Sprint("tcp.dstport == ", target.Port())); bad != "" {
		t.Errorf("tshark finds fault with:\n%.20000s", bad)
	}
	commands := c.Commands(ctx, t)
	t.Logf("commands by operation code: %v", commands)
	for _, opcode := range []string{"0x12", "0x42", "0x5e", "0x5f", "0x83", "0x84", "0x88", "0x89", "0x8b", "0x93", "0x9e", "0xa3"} {
		if commands[opcode] == 0 {
			t.Errorf("no command %s was decoded", opcode)
		}
	}
}
