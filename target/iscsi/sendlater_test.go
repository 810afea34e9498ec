package iscsi

import (
	"net"
	"testing"
	"time"
)

// TestSender_deadline: a write that had to wait for the peer leaves no deadline behind,
// which would fail one that comes later and does not wait.
func TestSender_deadline(t *testing.T) {
	const size = 16 << 20
	b := newUnitBench(t, memVolume{newMemDisk(size)}, func(*Options) {})
	i := b.login()
	i.senseOf(sendCommand(i, i.command(0, 0, 0, 0, 0, 0, 0, 0)))
	if err := i.nc.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	h := sendCommand(i, i.command(bitRead, size, cdb16(0x88, 0, size/memBlock)...))
	eventually(t, "the writer waits for the peer", func() bool { return b.srv.BufferedBytes() > 0 })
	i.status(h)
	<-time.After(noteEvery + 50*time.Millisecond)
	i.alive()
	i.logout()
}
