package backstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/sample"
)

// TestFullDisk_CleaningInterrupted: on a disk on which another program takes each block that
// is given up, cleaning ends in the middle of a segment, again and again: it is cancelled,
// and the process stops or is killed, with a checkpoint that has what was moved so far, or
// without one. The room that is left in the segment that it moved to is all that the store
// has, and the next process goes on there: cleaning on request succeeds.
func TestFullDisk_CleaningInterrupted(t *testing.T) {
	for i, end := range []string{"stop", "kill", "checkpoint and kill", "cancel"} {
		if i%sample.Size(2, 1, 1) > 0 {
			continue
		}
		t.Run(end, func(t *testing.T) {
			for seed := range sample.Size[uint64](1, 1, 4) {
				cleaningInterrupted(t, seed, end)
			}
		})
	}
}

func cleaningInterrupted(t *testing.T, seed uint64, end string) {
	t.Helper()
	ctx := t.Context()
	rng := rand.New(rand.NewPCG(seed, 11))
	c := newCrammed(t)
	must := func(what string, err error) { t.Helper(); c.must(fmt.Sprintf("seed %d: %s", seed, what), err) }
	c.reopen(8*planBlocks + 1) // several batches of cleaning
	for off := 0; off < crammedBytes; off += 1 << 20 {
		copy(c.want[off:], randomBytes(rng.Uint64(), 1<<20))
	}
	must("write", c.volume().WriteAt(ctx, c.want, 0))
	must("checkpoint", c.store.Checkpoint(ctx))
	waitFor(t, "the reserve is whole", func() bool { return c.store.space.fillReserve() == nil })
	c.disk.fs.SetTaken(true)
	c.cram()
	const piece = 16 << 10
	pieces := rng.Perm(crammedBytes / piece)
	for round := range 8 {
		for _, at := range pieces[:len(pieces)/32] {
			c.unmap(at*piece, piece)
		}
		pieces = pieces[len(pieces)/32:]
		if round == 7 {
			break
		}
		must("an interrupted odx store clean", c.cleanUntil(1+rng.IntN(12)))
		switch end {
		case "stop":
			must("close", c.store.Close())
			c.open()
		case "checkpoint and kill":
			must("checkpoint", c.store.Checkpoint(ctx))
			c.kill()
		case "kill":
			c.kill()
		}
		c.same()
	}
	must("clean", c.store.Clean(ctx))
	c.same()
	findings, err := c.store.Check(ctx)
	if err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
	must("close", c.store.Close())
}

// cleanUntil cleans until it has written to segments so many times.
func (c *crammed) cleanUntil(writes int) error {
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	c.disk.fs.SetHook(func(kind vfs.OpKind, name string) error {
		if kind != vfs.OpWrite || !strings.HasSuffix(name, ".seg") {
			return nil
		}
		if writes--; writes == 0 {
			cancel()
		}
		return nil
	})
	defer c.disk.fs.SetHook(nil)
	if err := c.store.Clean(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
