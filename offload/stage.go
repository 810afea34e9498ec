package offload

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"odx/blockdev"
)

// stagePrefix begins the name of every stage, by which Open finds those that a crash
// left.
const stagePrefix = ".token-stage-"

// stage is a hidden object in which bytes are assembled until a snapshot pins them.
type stage struct {
	object Object
	remove func()
}

// newStage creates an empty stage for length bytes.
func (e *Engine) newStage(ctx context.Context, length int64) (*stage, error) {
	var random [8]byte
	rand.Read(random[:]) // never fails
	name := stagePrefix + hex.EncodeToString(random[:])
	size := (length + blockdev.BlockLength - 1) / blockdev.BlockLength * blockdev.BlockLength
	object, err := e.store.CreateStage(ctx, name, size)
	if err != nil {
		return nil, fmt.Errorf("copy of the source: %w", err)
	}
	return &stage{object: object, remove: func() {
		if err := e.store.DeleteStages(context.WithoutCancel(ctx), name); err != nil {
			e.log.WithError(err).Warn("stage not deleted; the next start deletes it")
		}
	}}, nil
}

// stagingTime limits staging to half of the time until the deadline of ctx; the other
// half is for making the copied bytes durable.
func stagingTime(ctx context.Context) context.Context {
	end, ok := ctx.Deadline()
	if !ok {
		return ctx
	}
	return blockdev.StopAfter(ctx, time.Until(end)/2)
}

// fillStage copies ranges to byte at of the stage until ctx asks to stop, but at least
// copyLength bytes. It takes memory once.
func (e *Engine) fillStage(ctx context.Context, object Object, at int64, src blockdev.Volume, ranges []blockdev.Range) (n int64, err error) {
	err = e.WithMemory(ctx, src, func(ctx context.Context) error {
		n, err = e.fillHeld(ctx, object, at, src, ranges)
		return err
	})
	return n, err
}

// fillHeld is fillStage with memory.
func (e *Engine) fillHeld(ctx context.Context, object Object, at int64, src blockdev.Volume, ranges []blockdev.Range) (int64, error) {
	var n int64
	for _, r := range ranges {
		for r.Length > 0 {
			if n > 0 && blockdev.Late(ctx) {
				return n, nil
			}
			done, err := e.copyPiece(ctx, src, r.Offset, object, at+n, r.Length)
			if err != nil {
				return 0, err
			}
			r.Offset, r.Length, n = r.Offset+done, r.Length-done, n+done
		}
	}
	return n, nil
}
