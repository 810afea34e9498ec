package offload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/blockdev"
	"odx/quota"
)

// Engine copies between volumes. It is safe for concurrent use.
type Engine struct {
	store  Store
	log    *logrus.Entry
	memory *quota.Quota // for buffers of bytes that move
}

// Open returns the engine of a store, and removes the stages and snapshots of copies
// that the end of the last process interrupted. log receives failures for which no
// error is returned; nil discards them.
func Open(ctx context.Context, store Store, log *logrus.Entry) (*Engine, error) {
	if log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		log = logrus.NewEntry(silent)
	}
	e := &Engine{store, log, quota.New(defaultMemory)}
	if err := store.DeleteStages(ctx, stagePrefix); err != nil {
		return nil, fmt.Errorf("remove stages of interrupted copies: %w", err)
	}
	if err := e.deleteTransient(ctx); err != nil {
		return nil, fmt.Errorf("remove snapshots of interrupted copies: %w", err)
	}
	return e, nil
}

// WriteOut makes writes survive the end of this process: see Store.
func (e *Engine) WriteOut(ctx context.Context) error { return e.store.WriteOut(ctx) }

// Shares reports whether v is a volume of the engine's store, or a View of only such
// volumes, so that copying from and to it moves no bytes where the alignment allows it.
func (e *Engine) Shares(v blockdev.Volume) bool { return e.outside(v) == 0 }

// Snapshot pins the bytes of ranges of v until the caller releases them. If v is
// outside the store and ctx asks to stop, it pins fewer: the first ones, whole blocks
// of blockLength bytes.
func (e *Engine) Snapshot(ctx context.Context, v blockdev.Volume, ranges []blockdev.Range, blockLength int) (s Snapshot, err error) {
	err = e.Pin(ctx, v, ranges, blockLength, func(object Object, ranges []blockdev.Range, _ int64) error {
		s, err = e.Transient(ctx, object.Snapshot, ranges)
		return err
	})
	return s, err
}

// TakeSnapshot is Object.Snapshot or Watch.Snapshot.
type TakeSnapshot func(ctx context.Context, ranges []blockdev.Range, recs func(id uint64) []backstore.Record) (Snapshot, error)

// transientPrefix and the number of a transient snapshot are the key of its record, by
// which the next start deletes it if the process ends first.
const transientPrefix = "token/use/"

// Transient takes a snapshot that ends with its handle.
func (e *Engine) Transient(ctx context.Context, take TakeSnapshot, ranges []blockdev.Range) (Snapshot, error) {
	s, err := take(ctx, ranges, func(id uint64) []backstore.Record {
		return []backstore.Record{{Key: transientKey(id), Value: []byte{}}}
	})
	if err != nil {
		return nil, err
	}
	if err := e.store.DeleteSnapshot(ctx, s.ID(), backstore.Record{Key: transientKey(s.ID())}); err != nil {
		s.Release()
		return nil, err
	}
	return s, nil
}

func transientKey(snapshot uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(transientPrefix), snapshot)
}

// deleteTransient deletes the snapshots of copies that the end of the last process
// interrupted.
func (e *Engine) deleteTransient(ctx context.Context) error {
	var keys [][]byte
	err := e.store.ScanRecords([]byte(transientPrefix), func(key, _ []byte) error {
		keys = append(keys, append([]byte(nil), key...))
		return ctx.Err()
	})
	var lost *backstore.LostRecordsError
	if errors.As(err, &lost) {
		keys = append(keys, lost.Keys...) // the key says it all
	} else if err != nil {
		return err
	}
	for _, key := range keys {
		gone := backstore.Record{Key: key}
		err := error(backstore.ErrNotFound)
		if len(key) == len(transientPrefix)+8 {
			err = e.store.DeleteSnapshot(ctx, binary.BigEndian.Uint64(key[len(transientPrefix):]), gone)
		}
		if errors.Is(err, backstore.ErrNotFound) {
			err = e.store.PutRecords(ctx, gone)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
