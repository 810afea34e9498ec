package meta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// TestDB_Concurrent stores checkpoints while others read, merge and scrub. All rows
// of a checkpoint have its number: a point-in-time view has one number.
func TestDB_Concurrent(t *testing.T) {
	db := openDB(t, vfs.NewMem(), "/m", func(o *Options) { o.MergeFloor = 40 << 10 })
	const rows, checkpoints = 40, 60
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	again := func(what string, step func() error) {
		work.Go(func() {
			for ctx.Err() == nil {
				if err := step(); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", what, err)
					return
				}
			}
		})
	}
	changes(t, db, numbered(rows, 0)...)
	again("tidy", func() error { return db.Tidy(ctx) })
	again("scrub", func() error { return db.Scrub(ctx, func(ctx context.Context, _ int) error { return ctx.Err() }) })
	for range 2 {
		again("view", func() error {
			return db.View(func(r Reader) error {
				first, n := "", 0
				err := r.Scan(nil, func(_, value []byte) error {
					if n++; n == 1 {
						first = string(value[:4])
					}
					if string(value[:4]) != first {
						return fmt.Errorf("rows of %s and of %s", first, value[:4])
					}
					return nil
				})
				if err == nil && n != rows {
					err = fmt.Errorf("%d rows", n)
				}
				return err
			})
		})
		again("get", func() error {
			_, err := db.Get([]byte("row 07"))
			return err
		})
	}
	for i := range checkpoints {
		changes(t, db, numbered(rows, i+1)...)
	}
	stop()
	work.Wait()
	must.Succeed(t, db.Close())
}

// numbered returns rows that begin with a number.
func numbered(rows, number int) (ops []Op) {
	for i := range rows {
		ops = append(ops, op(fmt.Sprintf("row %02d", i), fmt.Sprintf("%04d%01000d", number, i)))
	}
	return ops
}
