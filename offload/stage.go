package offload

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"odx/blockdev"
)

// stagePrefix begins the name of every stage, so that those which a crash left
// behind are found.
const stagePrefix = ".token-stage-"

// stage holds the bytes of volumes outside the store while they are made into a
// snapshot.
type stage struct {
	space  AddressSpace
	remove func()
}

// newStage makes an empty stage for length bytes.
func (e *Engine) newStage(ctx context.Context, length int64) (*stage, error) {
	var random [8]byte
	rand.Read(random[:]) // never fails
	name := stagePrefix + hex.EncodeToString(random[:])
	size := (length + blockdev.BlockLength - 1) / blockdev.BlockLength * blockdev.BlockLength
	space, err := e.store.CreateStage(ctx, name, size)
	if err != nil {
		return nil, fmt.Errorf("copy of the source: %w", err)
	}
	return &stage{space: space, remove: func() {
		if err := e.store.DeleteStages(context.WithoutCancel(ctx), name); err != nil {
			e.log.WithError(err).Warn("a stage of a copy stays until the next start")
		}
	}}, nil
}

// stagingTime limits staging to half of the time until the deadline of ctx: what was
// copied has to be made durable by then.
func stagingTime(ctx context.Context) context.Context {
	end, ok := ctx.Deadline()
	if !ok {
		return ctx
	}
	return blockdev.StopAfter(ctx, time.Until(end)/2)
}

// fillStage copies ranges to byte at of the stage while there is time, but at least a
// piece.
func (e *Engine) fillStage(ctx context.Context, space AddressSpace, at int64, src blockdev.Volume, ranges []blockdev.Range) (int64, error) {
	var n int64
	for _, r := range ranges {
		for r.Length > 0 {
			if n > 0 && blockdev.Late(ctx) {
				return n, nil
			}
			done, err := e.copyPiece(ctx, src, r.Offset, space, at+n, r.Length)
			if err != nil {
				return 0, err
			}
			r.Offset, r.Length, n = r.Offset+done, r.Length-done, n+done
		}
	}
	return n, nil
}
