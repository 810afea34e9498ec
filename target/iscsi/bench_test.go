package iscsi

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"odx/target/bufpool"
	"odx/target/scsi"
)

// BenchmarkReader reads SCSI Command PDUs from a stream, many per read.
func BenchmarkReader(b *testing.B) {
	i := &initiator{}
	one := encode(i.command(bitRead, 4096, read10(0, 8)...), nil, nil, false, false)
	stream := &loop{b: bytes.Repeat(one, 1000)}
	r := newReader(stream, &bufpool.Pool{})
	r.grow()
	var p pdu
	b.ReportAllocs()
	b.SetBytes(bhsLength)
	for b.Loop() {
		if err := r.next(&p); err != nil {
			b.Fatal(err)
		}
		if err := p.discard(); err != nil {
			b.Fatal(err)
		}
	}
}

// loop is an endless stream.
type loop struct {
	b  []byte
	at int
}

func (l *loop) Read(dst []byte) (int, error) {
	n := copy(dst, l.b[l.at:])
	l.at = (l.at + n) % len(l.b)
	return n, nil
}

// BenchmarkSender queues and sends the Data-In of a 4 KiB READ, to a connection that
// discards it.
func BenchmarkSender(b *testing.B) {
	c, _ := sinkConn(false)
	c.out.nc = nowhere{}
	p := commandPDU(bitRead, 4096)
	b.ReportAllocs()
	b.SetBytes(4096)
	for b.Loop() {
		task := c.newTask(p, ahsInfo{})
		task.st.AllocDataIn(4096)
		task.queueResponse()
		if err := c.out.sendWaiting(false); err != nil {
			b.Fatal(err)
		}
	}
}

type nowhere struct{ net.Conn }

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

func (nowhere) SetWriteDeadline(time.Time) error { return nil }

// benchmarkRoundTrip runs depth commands at a time.
func benchmarkRoundTrip(b *testing.B, depth int, request func(i *initiator) []byte, answer int) {
	newBench(b, nil, nil).roundTrips(b, depth, request, answer)
}

func (bench *bench) roundTrips(b *testing.B, depth int, request func(i *initiator) []byte, answer int) {
	i := bench.login()
	wire := make([][]byte, depth)
	in := make([]byte, answer*depth)
	b.ReportAllocs()
	b.SetBytes(4096)
	batch := make([]byte, 0, 1<<20)
	for n := 0; n < b.N; n += depth {
		batch = batch[:0]
		for k := range wire {
			if wire[k] == nil {
				wire[k] = request(i)
			}
			h := (*bhs)(wire[k])
			h.put32(24, i.cmdSN+uint32(n+k))
			batch = append(batch, wire[k]...)
		}
		if _, err := i.nc.Write(batch); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(i.nc, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead4K(b *testing.B) {
	read := func(i *initiator) []byte {
		h := i.command(bitRead, 4096, read10(8, 8)...)
		i.cmdSN--
		return encode(h, nil, nil, false, false)
	}
	b.Run("depth 1", func(b *testing.B) { benchmarkRoundTrip(b, 1, read, bhsLength+4096) })
	b.Run("depth 32", func(b *testing.B) { benchmarkRoundTrip(b, 32, read, bhsLength+4096) })
}

func BenchmarkWrite4K(b *testing.B) {
	write := func(i *initiator) []byte {
		h := i.command(bitWrite, 4096, write10(8, 8)...)
		i.cmdSN--
		return encode(h, nil, make([]byte, 4096), false, false)
	}
	b.Run("depth 1", func(b *testing.B) { benchmarkRoundTrip(b, 1, write, bhsLength) })
	b.Run("depth 32", func(b *testing.B) { benchmarkRoundTrip(b, 32, write, bhsLength) })
	b.Run("depth 32 on workers", func(b *testing.B) {
		bench := newBench(b, nil, nil)
		bench.disk.execute = func(_ context.Context, t *scsi.Task) {
			for start := time.Now(); time.Since(start) < 2*shortCommand; {
				deep(16)
			}
			bench.disk.run(t)
		}
		bench.roundTrips(b, 32, write, bhsLength)
	})
}

// deep uses as much stack as the I/O path to a disk.
func deep(levels int) byte {
	var frame [512]byte
	if levels > 0 {
		frame[levels] = deep(levels - 1)
	}
	return frame[levels/2]
}
