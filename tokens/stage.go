package tokens

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"odx/blockdev"
)

// stagePrefix begins the name of every stage, so that those which a crash left
// behind are found.
const stagePrefix = ".token-stage-"

// copyLength is how many bytes move at a time where they must be moved.
const copyLength = 1 << 20

var copyBuffers = sync.Pool{New: func() any { return new([copyLength]byte) }}

// stage holds the bytes of a Volume of somebody else while they are made into
// a snapshot.
type stage struct {
	space  AddressSpace
	remove func()
}

// stage copies ranges of src, total bytes together, into a new stage while there is
// time, and returns how many bytes it holds: at least one piece, whole blocks.
func (m *Manager) stage(ctx context.Context, src Source, ranges []blockdev.Range, total int64) (*stage, int64, error) {
	s, err := m.newStage(ctx, total)
	if err != nil {
		return nil, 0, err
	}
	n, err := m.fillStage(stagingTime(ctx), s.space, 0, src, ranges)
	if err != nil {
		s.remove()
		return nil, 0, err
	}
	return s, n, nil
}

// newStage makes an empty stage for length bytes.
func (m *Manager) newStage(ctx context.Context, length int64) (*stage, error) {
	var f fields
	newName(&f)
	name := stagePrefix + hex.EncodeToString(f.name[:8])
	size := (length + blockdev.BlockLength - 1) / blockdev.BlockLength * blockdev.BlockLength
	space, err := m.store.CreateStage(ctx, name, size)
	if err != nil {
		return nil, fmt.Errorf("copy of the source: %w", err)
	}
	return &stage{space: space, remove: func() {
		if err := m.store.DeleteStages(context.WithoutCancel(ctx), name); err != nil {
			m.log.WithError(err).Warn("the copy that a token was made from stays until the next start")
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
func (m *Manager) fillStage(ctx context.Context, space AddressSpace, at int64, src Source, ranges []blockdev.Range) (int64, error) {
	buf := copyBuffers.Get().(*[copyLength]byte)
	defer copyBuffers.Put(buf)
	var n int64
	for _, r := range ranges {
		for r.Length > 0 {
			if n > 0 && blockdev.Late(ctx) {
				return n, nil
			}
			p := buf[:min(r.Length, copyLength)]
			if err := src.Volume.ReadAt(ctx, p, r.Offset); err != nil {
				return 0, err
			}
			if err := space.WriteAt(ctx, p, at+n); err != nil {
				return 0, err
			}
			blockdev.CountCopied(ctx, int64(len(p)))
			r.Offset, r.Length, n = r.Offset+int64(len(p)), r.Length-int64(len(p)), n+int64(len(p))
		}
	}
	return n, nil
}
