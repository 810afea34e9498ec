package gotgt

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
	uuid "github.com/satori/go.uuid"

	"odx/blockdev"
	"odx/target/scsi"
)

const testBlocks = 4096

var (
	testUnitReady = []byte{0x00, 0, 0, 0, 0, 0}
	reserve6      = []byte{0x16, 0, 0, 0, 0, 0}
)

func cdb10(code, flags byte, lba, blocks byte) []byte {
	return []byte{code, flags, 0, 0, 0, lba, 0, 0, blocks, 0}
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*7
	}
	return p
}

// newTarget returns a target with a logical unit at LUN 0 over v, or over memory.
func newTarget(t *testing.T, v blockdev.Volume) *scsi.Target {
	t.Helper()
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: v, ID: [16]byte{1}, Thin: true})
	if err != nil {
		t.Fatal(err)
	}
	tg := scsi.NewTarget(scsi.TargetConfig{Name: "iqn.2026-11.example.odx:disks"})
	if err := tg.AddLU(0, lu); err != nil {
		t.Fatal(err)
	}
	return tg
}

// newLU returns such a logical unit as one of gotgt's.
func newLU(t *testing.T, v blockdev.Volume) *api.SCSILu {
	t.Helper()
	dev, err := LU(newTarget(t, v), 0)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func newMemVolume() *memVolume { return &memVolume{data: make([]byte, testBlocks*512)} }

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

func TestLU(t *testing.T) {
	dev := newLU(t, newMemVolume())
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
	data := pattern(1024)
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
func TestLU_operations(t *testing.T) {
	dev := newLU(t, newMemVolume())
	nexus := uuid.NewV4()
	dev.PerformCommand(1, gotgtCommand(dev, nexus, testUnitReady, nil, 0))
	// REPORT SUPPORTED OPERATION CODES, all of them.
	report := gotgtCommand(dev, nexus, []byte{0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0}, nil, 0x4000)
	if stat := dev.PerformCommand(1, report); stat != api.SAMStatGood {
		t.Fatalf("REPORT SUPPORTED OPERATION CODES: %v", stat)
	}
	supported := map[byte]bool{}
	list := report.InSDBBuffer.Buffer
	for d := list[4:][:binary.BigEndian.Uint32(list)]; len(d) > 0; d = d[8:] {
		supported[d[0]] = true
	}
	if len(supported) < 20 {
		t.Fatalf("%d operation codes are supported: the test proves nothing", len(supported))
	}
	for code := range 256 {
		op, ok := dev.DeviceProtocol.PerformCommand(code).(gotgt.SCSIDeviceOperation)
		if !ok || op.CommandPerformFunc == nil {
			t.Fatalf("operation code %02Xh: no operation of gotgt's type", code)
		}
		if supported[byte(code)] {
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

func TestLU_nexuses(t *testing.T) {
	dev := newLU(t, newMemVolume())
	for range maxNexuses + 10 {
		dev.PerformCommand(1, gotgtCommand(dev, uuid.NewV4(), testUnitReady, nil, 0))
	}
	if n := len(dev.DeviceProtocol.(*unit).nexuses); n > maxNexuses {
		t.Errorf("%d nexuses kept", n)
	}
	if _, err := LU(newTarget(t, newMemVolume()), 9); err == nil {
		t.Error("a LUN without logical unit was accepted")
	}
}
