package peer

import (
	"context"
	"time"

	"odx/blockdev"
)

// Hurry sets how long peers may take to open a token, and to fail.
func (t *Tokens) Hurry(open, patience time.Duration) { t.openTime, t.patience = open, patience }

// AwaitNone waits until the keeper holds nothing for others, or ctx ends.
func (k *Keeper) AwaitNone(ctx context.Context) error {
	for {
		k.mu.Lock()
		none := len(k.holds) == 0
		k.mu.Unlock()
		if none {
			return nil
		}
		select {
		case <-k.wake: // Close alone waits for it otherwise
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// MaxLists is how many lists of tokens are kept.
const MaxLists = maxLists

// Lists returns how many there are.
func (t *Tokens) Lists() int {
	t.lists.mu.Lock()
	defer t.lists.mu.Unlock()
	return len(t.lists.of)
}

// Stream reads ranges of the hold of a Remote in one request.
func Stream(ctx context.Context, h Hold, ranges []blockdev.Range, checked bool, each func(p []byte) error) error {
	return h.(*remoteHold).stream(ctx, ranges, new([maxContent]byte), checked, each)
}
