package iscsi

import (
	"net"
	"testing"
	"time"
)

// A write that blocked leaves no deadline, which would fail a later nonblocking write.
func TestSender_Deadline(t *testing.T) {
	const size = 16 << 20
	b := newVolumeBench(t, memVolume{newMemDisk(size)}, func(*Options) {})
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
