package iscsi

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"odx/target/qos"
	"odx/target/scsi"
)

// limited is a server whose logical unit lets no command of the medium pass for minutes,
// once its burst is used up.
type limited struct {
	*bench
	device *scsi.Target
	lu     *scsi.LogicalUnit
}

func newLimitedDevice(t *testing.T) (*scsi.Target, *scsi.LogicalUnit) {
	t.Helper()
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: memVolume{newMemDisk(1 << 20)}})
	if err != nil {
		t.Fatal(err)
	}
	device := scsi.NewTarget(scsi.TargetConfig{Name: testTarget})
	if err := device.AddLU(0, lu); err != nil {
		t.Fatal(err)
	}
	// A block takes minutes.
	lu.SetLimits(qos.Limits{Bytes: 1, BytesBurst: 64 << 10}, nil)
	return device, lu
}

func newLimited(t *testing.T) *limited {
	t.Helper()
	device, lu := newLimitedDevice(t)
	return &limited{newDeviceBench(t, device, func(o *Options) { o.Workers = 2 }), device, lu}
}

// begin logs in and uses the burst up.
func (l *limited) begin(i *initiator) {
	i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0))) // power on
	i.good(sendCommand(i, i.command(bitRead, 64<<10, read10(0, 64<<10/memBlock)...)))
}

// park sends reads that the limit holds back.
func (l *limited) park(i *initiator, n int) (reads []*bhs) {
	for range n {
		reads = append(reads, sendCommand(i, i.command(bitRead, memBlock, read10(5, 1)...)))
	}
	i.good(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0))) // TEST UNIT READY comes after them
	return reads
}

// Commands that a limit holds back take no worker, and are aborted at once by each function
// that aborts, and with their connection.
func TestSession_LimitedTasks(t *testing.T) {
	l := newLimited(t)
	i := l.login()
	l.begin(i)
	reads := l.park(i, 20)
	for _, f := range []struct {
		function byte
		task     *bhs
	}{{tmfAbortTask, reads[3]}, {tmfAbortTaskSet, nil}} {
		if got := i.tmfResponse(i.tmf(f.function, [8]byte{}, f.task)); got != tmfComplete {
			t.Errorf("function %d: response %d", f.function, got)
		}
	}
	l.park(i, 20)
	if got := i.tmfResponse(i.tmf(tmfLogicalUnitReset, [8]byte{}, nil)); got != tmfComplete {
		t.Errorf("LOGICAL UNIT RESET: response %d", got)
	}
	i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0))) // the reset
	l.park(i, 20)
	i.nc.Close()
	again := l.login() // it waits for the end of the session before
	again.senseOf(sendCommand(again, again.command(0, 0, 0, 0, 0, 0, 0, 0)))
	l.park(again, 1)
	again.logout()
}

// Commands that wait are answered as soon as the limit is lifted.
func TestSession_LimitLifted(t *testing.T) {
	l := newLimited(t)
	i := l.login()
	l.begin(i)
	reads := l.park(i, 20)
	l.lu.SetLimits(qos.Limits{}, nil)
	answered := map[uint32]bool{}
	for range reads {
		r, _ := i.recv()
		if r.opcode() != opDataIn || r[1]&bitStatus == 0 || r[3] != statusGood {
			t.Fatalf("received %x", *r)
		}
		answered[r.itt()] = true
	}
	if len(answered) != len(reads) {
		t.Errorf("%d responses for %d commands", len(answered), len(reads))
	}
	i.logout()
}

// A handover lifts limits first: what waits is answered, and the session is handed over.
func TestSuspend_Limited(t *testing.T) {
	device, _ := newLimitedDevice(t)
	srv, err := NewServer(DefaultOptions(), []TargetConfig{{Name: testTarget, DeviceServer: device}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), Portal{Listener: listener, Group: 7}) }()
	l := &limited{bench: &bench{tb: t, srv: srv, addr: listener.Addr().String()}}
	i := l.login()
	l.begin(i)
	reads := l.park(i, 10)
	device.LiftLimits()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	handed, err := srv.Suspend(ctx)
	if err != nil || len(handed.State.Sessions) != 1 {
		t.Fatalf("Suspend: %v, %+v", err, handed)
	}
	defer handed.Close()
	if err := <-served; !errors.Is(err, ErrSuspended) {
		t.Errorf("Serve returned %v", err)
	}
	for range reads {
		if r, _ := i.recv(); r.opcode() != opDataIn || r[3] != statusGood {
			t.Fatalf("received %x", *r)
		}
	}
}
