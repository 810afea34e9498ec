package backstore

import (
	"context"
	"errors"
	"testing"
)

// TestCheckpointIsDue: what opening the store would do again is bounded by
// length, by number and by the memory it takes.
func TestCheckpointIsDue(t *testing.T) {
	ctx := context.Background()
	put := func(s *Store, records, bytes int) error {
		for range records {
			if err := s.PutRecords(ctx, Record{Key: []byte("k"), Value: make([]byte, bytes)}); err != nil {
				return err
			}
		}
		return nil
	}
	for name, tt := range map[string]struct {
		cache int64
		write func(t *testing.T, s *Store) error
	}{
		"long records": {1 << 30, func(_ *testing.T, s *Store) error { return put(s, checkpointBytes>>15+1, 1<<15) }},
		"many records": {1 << 30, func(_ *testing.T, s *Store) error { return put(s, checkpointRecords+1, 1) }},
		"much changed metadata": {1 << 20, func(t *testing.T, s *Store) error {
			v := createVolume(t, s, "v", 1<<30)
			for i := range int64(40) {
				if err := v.WriteAt(ctx, randomBytes(1, BlockLength), i<<21); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			s, err := Open(ctx, d.options(Options{CacheBytes: tt.cache}))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			// Hold the store's own checkpoints off.
			s.checkpoints.running.Lock()
			if s.due() {
				t.Error("due for an empty store")
			}
			err = tt.write(t, s)
			if err == nil && !s.due() {
				t.Error("not due")
			}
			s.checkpoints.running.Unlock()
			if err = errors.Join(err, s.Checkpoint(ctx)); err != nil {
				t.Fatal(err)
			}
			if s.due() {
				t.Error("still due after a checkpoint")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := Open(ctx, d.options(Options{CacheBytes: tt.cache}))
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if again.due() {
				t.Error("due after a restart")
			}
		})
	}
}
