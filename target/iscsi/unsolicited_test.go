package iscsi

import (
	"testing"
)

// A command that comes with all of its data while memory is short needs no more of it, and
// has its data, whatever waits for memory before it.
func TestMemory_WholeUnsolicited(t *testing.T) {
	const length, blocks = 128 << 10, 128 << 10 / memBlock
	limit := func(o *Options) { o.BufferBytes, o.FirstBurstLength = 1<<20, length }
	overTransports(t, limit, func(t *testing.T, b *bench) {
		i := b.login("MaxBurstLength=131072", "FirstBurstLength=131072")
		for range 7 { // these take the memory, and do not send their data
			i.send(i.command(bitWrite, length, write10(blocks, blocks)...), nil, nil)
		}
		data := pattern(7, length)
		h := i.command(bitWrite, length, write10(0, blocks)...)
		i.send(h, nil, data)
		for {
			r, _ := i.recv()
			if r.opcode() == opR2T && r.itt() != h.itt() {
				continue
			}
			if r.opcode() != opSCSIResponse || r.itt() != h.itt() || r[3] != statusGood {
				t.Fatalf("received %x", *r)
			}
			break
		}
		mustEqual(t, "disk", b.disk.at(0, length), data)
	})
}
