package iscsi

import (
	"context"
	"sync/atomic"

	"odx/target/scsi"
)

// gate holds the commands SYNCHRONIZE CACHE of a memDisk until they may pass.
type gate struct {
	running atomic.Int32
	open    chan struct{}
}

func newGate(d *memDisk) *gate {
	g := &gate{open: make(chan struct{}, 1000)}
	d.execute = func(ctx context.Context, t *scsi.Task) {
		if t.OpCode != 0x35 {
			d.run(t)
			return
		}
		g.running.Add(1)
		defer g.running.Add(-1)
		select {
		case <-g.open:
		case <-ctx.Done():
		}
	}
	return g
}

// pass lets n commands pass.
func (g *gate) pass(n int) {
	for range n {
		g.open <- struct{}{}
	}
}
