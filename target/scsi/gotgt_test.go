package scsi

import (
	"bytes"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
	uuid "github.com/satori/go.uuid"
)

// gotgtCommand builds a command as gotgt's transport does.
func gotgtCommand(dev *api.SCSILu, nexus uuid.UUID, cdb, out []byte, in int) *api.SCSICommand {
	cmd := &api.SCSICommand{Device: dev, OpCode: cdb[0], SCB: cdb, SCBLength: len(cdb), ITNexusID: nexus}
	if out != nil {
		cmd.OutSDBBuffer = &api.SCSIDataBuffer{Buffer: out, Length: uint32(len(out))}
	}
	if in > 0 {
		cmd.InSDBBuffer = &api.SCSIDataBuffer{Buffer: make([]byte, in), Length: uint32(in)}
	}
	return cmd
}

func TestGotgtDrivesALogicalUnit(t *testing.T) {
	f := newFixture(t)
	dev, err := f.target.GotgtLU(0)
	if err != nil {
		t.Fatal(err)
	}
	if dev.Size != testBlocks*512 || dev.BlockShift != 9 {
		t.Errorf("size %d, block shift %d", dev.Size, dev.BlockShift)
	}
	a, b := uuid.NewV4(), uuid.NewV4()
	run := func(nexus uuid.UUID, cdb, out []byte, in int) (*api.SCSICommand, api.SAMStat) {
		cmd := gotgtCommand(dev, nexus, cdb, out, in)
		return cmd, dev.PerformCommand(1, cmd)
	}
	cmd, stat := run(a, testUnitReady, nil, 0)
	if stat != api.SAMStatCheckCondition || cmd.SenseBuffer == nil || cmd.SenseBuffer.Buffer[12] != 0x29 {
		t.Fatalf("first command of a nexus: %v, sense %v; want power on", stat, cmd.SenseBuffer)
	}
	data := pattern(1024, 5)
	if _, stat = run(a, cdb10(0x2A, 0, 4, 2), data, 0); stat != api.SAMStatGood {
		t.Fatalf("WRITE(10): %v", stat)
	}
	cmd, stat = run(a, cdb10(0x28, 0, 4, 2), nil, 1024)
	if stat != api.SAMStatGood || !bytes.Equal(cmd.InSDBBuffer.Buffer, data) || cmd.InSDBBuffer.Resid != 1024 {
		t.Errorf("READ(10): %v, %d bytes", stat, cmd.InSDBBuffer.Resid)
	}
	run(b, testUnitReady, nil, 0)
	if _, stat = run(a, reserve6, nil, 0); stat != api.SAMStatGood {
		t.Errorf("RESERVE(6): %v", stat)
	}
	if _, stat = run(b, cdb10(0x28, 0, 0, 1), nil, 512); stat != api.SAMStatReservationConflict {
		t.Errorf("READ(10) of another nexus: %v, want a reservation conflict", stat)
	}
	if _, stat = run(a, cdb10(0x2A, 0, 4, 2), data[:100], 0); stat != api.SAMStatCheckCondition {
		t.Errorf("WRITE(10) with part of a block: %v", stat)
	}
}

// gotgt's own entries must not be reachable: its FORMAT UNIT, for one, answers
// GOOD and does nothing.
func TestGotgtTableIsClosed(t *testing.T) {
	f := newFixture(t)
	dev, err := f.target.GotgtLU(0)
	if err != nil {
		t.Fatal(err)
	}
	nexus := uuid.NewV4()
	dev.PerformCommand(1, gotgtCommand(dev, nexus, testUnitReady, nil, 0))
	for code := range 256 {
		op, ok := dev.DeviceProtocol.PerformCommand(code).(gotgt.SCSIDeviceOperation)
		if !ok || op.CommandPerformFunc == nil {
			t.Fatalf("operation code %02Xh: no operation of gotgt's type", code)
		}
		if oc := f.lu.opcodes[code]; oc.single != nil || oc.actions != nil {
			continue
		}
		cdb := make([]byte, 16)
		cdb[0] = byte(code)
		cmd := gotgtCommand(dev, nexus, cdb, nil, 0)
		if op.CommandPerformFunc(0, cmd) != api.SAMStatCheckCondition || cmd.SenseBuffer.Buffer[12] != 0x20 {
			t.Errorf("operation code %02Xh is not refused", code)
		}
	}
}

func TestGotgtNexusesAreBounded(t *testing.T) {
	f := newFixture(t)
	dev, err := f.target.GotgtLU(0)
	if err != nil {
		t.Fatal(err)
	}
	for range maxGotgtNexuses + 10 {
		dev.PerformCommand(1, gotgtCommand(dev, uuid.NewV4(), testUnitReady, nil, 0))
	}
	if n := len(f.lu.nexuses); n > maxGotgtNexuses+1 {
		t.Errorf("%d nexuses kept", n)
	}
	if _, err := f.target.GotgtLU(9); err == nil {
		t.Error("a LUN without logical unit was accepted")
	}
}
