package pair

import (
	"context"
	"fmt"
	"io"

	"odx/backstore"
	"odx/blockdev"
	"odx/peer"
)

// fetchAll makes ranges of v, which are in order, equal to the same ranges of what is held.
func fetchAll(ctx context.Context, h peer.Hold, v *backstore.Volume, ranges []blockdev.Range, o peer.FetchOptions) error {
	total := int64(0)
	for _, r := range ranges {
		total += r.Length
	}
	n, err := peer.FetchRanges(ctx, h, v, ranges, o)
	if err == nil && n < total {
		err = fmt.Errorf("%d of %d bytes fetched: %w", n, total, io.ErrUnexpectedEOF)
	}
	return err
}
