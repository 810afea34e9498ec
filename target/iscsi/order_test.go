package iscsi

import (
	"context"
	"errors"
	"net"
	"testing"

	"odx/blockdev"
	"odx/target/scsi"
)

// memVolume is a volume in memory over a memDisk's data.
type memVolume struct{ disk *memDisk }

func (v memVolume) Size() int64 { return int64(len(v.disk.data)) }
func (v memVolume) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, v.disk.at(int(off), len(p)))
	return nil
}
func (v memVolume) WriteAt(_ context.Context, p []byte, off int64) error {
	v.disk.put(int(off), p)
	return nil
}
func (v memVolume) Unmap(context.Context, int64, int64) error { return errors.New("not thin") }
func (v memVolume) Flush(context.Context) error               { return nil }

// newOrderBench serves a real device server with fewer workers than waiting commands.
func newOrderBench(t *testing.T) *bench {
	return newVolumeBench(t, memVolume{newMemDisk(1 << 20)}, func(o *Options) { o.Workers = 2 })
}

// newVolumeBench serves a volume with a real device server.
func newVolumeBench(t *testing.T, volume blockdev.Volume, change func(*Options)) *bench {
	t.Helper()
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: volume})
	if err != nil {
		t.Fatal(err)
	}
	device := scsi.NewTarget(scsi.TargetConfig{Name: testTarget})
	if err := device.AddLU(0, lu); err != nil {
		t.Fatal(err)
	}
	return newDeviceBench(t, device, change)
}

// newDeviceBench serves a real device server.
func newDeviceBench(t *testing.T, device *scsi.Target, change func(*Options)) *bench {
	t.Helper()
	o := DefaultOptions()
	change(&o)
	configured := Reconfiguration{Options: o, Targets: []TargetConfig{{Name: testTarget, DeviceServer: device}}}
	srv, err := NewServer(o, configured.Targets)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), Portal{Listener: l, Group: 7}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return &bench{tb: t, srv: srv, addr: l.Addr().String(), configured: configured}
}

// ordered makes h an ORDERED command, headOfQueue a HEAD OF QUEUE one.
func ordered(h *bhs) *bhs     { h[1] = h[1]&^7 | 2; return h }
func headOfQueue(h *bhs) *bhs { h[1] = h[1]&^7 | 3; return h }

// A write that waits for its data precedes an ordered command, for which more commands
// wait than there are workers: they do not prevent the write from running. A HEAD OF
// QUEUE command overtakes all of them.
func TestSession_HeldTasks(t *testing.T) {
	b := newOrderBench(t)
	i := b.login("ImmediateData=No")
	i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0))) // power on

	write := sendCommand(i, i.command(bitWrite, memBlock, write10(5, 1)...))
	r2t, _ := i.expect(opR2T)
	first := sendCommand(i, ordered(i.command(bitRead, memBlock, read10(5, 1)...)))
	var later []*bhs
	for range 10 {
		later = append(later, sendCommand(i, i.command(bitRead, memBlock, read10(5, 1)...)))
	}
	i.good(sendCommand(i, headOfQueue(i.command(bitRead, memBlock, read10(5, 1)...))))

	data := pattern(3, memBlock)
	i.answerR2T(write, r2t, data, memBlock)
	i.good(write)
	// The commands end in order; their responses are queued in any order.
	answered := map[uint32]bool{}
	for range len(later) + 1 {
		r, got := i.recv()
		if r.opcode() != opDataIn || r[1]&bitStatus == 0 || r[3] != statusGood {
			t.Fatalf("received %x", *r)
		}
		mustEqual(t, "read after the write", got, data)
		answered[r.itt()] = true
	}
	for _, h := range append(later, first) {
		if !answered[h.itt()] {
			t.Errorf("task %#x has no response", h.itt())
		}
	}
	i.logout()
}

// Held commands are aborted immediately, and later ones continue. They end with their
// connection.
func TestSession_AbortHeldTasks(t *testing.T) {
	b := newOrderBench(t)
	i := b.login("ImmediateData=No")
	i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0)))
	other := b.loginAs(testInitiator+"2", "ImmediateData=No")
	other.senseOf(sendCommand(other, other.command(0, 0, 0, 0, 0, 0, 0, 0)))

	write := sendCommand(i, i.command(bitWrite, memBlock, write10(5, 1)...))
	r2t, _ := i.expect(opR2T)
	waiting := sendCommand(i, ordered(i.command(bitRead, memBlock, read10(5, 1)...)))
	later := sendCommand(other, other.command(bitRead, memBlock, read10(5, 1)...))
	abort := i.tmf(tmfAbortTask, [8]byte{}, waiting)
	if got := i.tmfResponse(abort); got != tmfComplete {
		t.Errorf("response %d", got)
	}
	other.good(later)
	i.answerR2T(write, r2t, make([]byte, memBlock), memBlock)
	i.good(write)

	// The older write does not get its data: its connection ends instead.
	sendCommand(i, i.command(bitWrite, memBlock, write10(5, 1)...))
	i.expect(opR2T)
	sendCommand(i, ordered(i.command(bitRead, memBlock, read10(5, 1)...)))
	last := sendCommand(other, ordered(other.command(bitRead, memBlock, read10(5, 1)...)))
	i.nc.Close()
	other.good(last)
	other.logout()
}

// The sense data of the transport has the format that D_SENSE selects.
func TestTask_SenseFormat(t *testing.T) {
	b := newOrderBench(t)
	i := b.login("ImmediateData=No")
	i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0)))
	dataSNTooHigh := func() []byte {
		h := sendCommand(i, i.command(bitWrite, memBlock, write10(0, 1)...))
		r2t, _ := i.expect(opR2T)
		i.send(dataOutPDU(h, r2t.ttt(), 3, 0, true), nil, make([]byte, memBlock))
		r, sense := i.status(h)
		if r[3] != statusCheckCondition {
			t.Fatalf("response %x", *r)
		}
		return sense
	}
	mustEqual(t, "fixed", dataSNTooHigh(), append([]byte{0, 18}, senseDataPhase.fixed()...))
	list := []byte{0, 0, 0, 0, 0x0A, 0x0A, 0x06, 0x10, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0} // D_SENSE
	h := sendCommand(i, i.command(bitWrite, uint32(len(list)), 0x15, 0x10, 0, 0, byte(len(list)), 0))
	r2t, _ := i.expect(opR2T)
	i.answerR2T(h, r2t, list, len(list))
	i.good(h)
	mustEqual(t, "descriptor", dataSNTooHigh(), []byte{0, 8, 0x72, 0x0B, 0x4B, 0, 0, 0, 0, 0})
}

// sendCommand sends h without data and returns it.
func sendCommand(i *initiator, h *bhs) *bhs {
	i.tb.Helper()
	i.send(h, nil, nil)
	return h
}
