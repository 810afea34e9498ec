package pair

import (
	"context"
	"fmt"
	"io"
	"sync"

	"odx/backstore"
	"odx/blockdev"
	"odx/peer"
)

// fetchAll makes ranges of v equal to the same ranges of what is held: long ones one after
// the other, each of which is read in parallel, short ones several at once.
func fetchAll(ctx context.Context, h peer.Hold, v *backstore.Volume, ranges []blockdev.Range, o peer.FetchOptions, fetched func(n int64)) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	free := make(chan struct{}, atOnce)
	var short sync.WaitGroup
	for _, r := range ranges {
		if ctx.Err() != nil {
			break
		}
		if r.Length >= longRange {
			if err := fetchOne(ctx, h, v, r, o); err != nil {
				stop(err)
			}
			fetched(r.Length)
			continue
		}
		free <- struct{}{}
		short.Go(func() {
			defer func() { <-free }()
			if err := fetchOne(ctx, h, v, r, o); err != nil {
				stop(err)
				return
			}
			fetched(r.Length)
		})
	}
	short.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func fetchOne(ctx context.Context, h peer.Hold, v *backstore.Volume, r blockdev.Range, o peer.FetchOptions) error {
	n, err := peer.Fetch(ctx, h, r.Offset, v, []blockdev.Range{r}, o)
	if err == nil && n < r.Length {
		err = fmt.Errorf("%d of %d bytes at %d: %w", n, r.Length, r.Offset, io.ErrUnexpectedEOF)
	}
	return err
}
