package backstore

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"odx/blockdev"
)

// Map does all that it is asked to, unless its context asks it to stop: then one step,
// so that a caller that calls again gets to the end.
func TestVolume_Map(t *testing.T) {
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	const size = 4 << 20
	src, dst := createVolume(t, s, "src", size), createVolume(t, s, "dst", size)
	if err := src.WriteAt(t.Context(), make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	n, err := src.Snapshot(t.Context(), []Range{{Offset: 0, Length: size}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Release()
	const length = size - 512
	for _, tt := range []struct {
		name     string
		late     bool
		from, to int64
		want     int64
		copied   int64
	}{
		{"alike to blocks", false, 0, 0, length, length % BlockLength},
		{"not alike", false, 0, 512, length, length},
		{"not alike and late", true, 0, 512, copyBuffer - 512, copyBuffer - 512},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var copied atomic.Int64
			ctx := blockdev.WithCopied(t.Context(), &copied)
			if tt.late {
				ctx = blockdev.StopAfter(ctx, 0)
			}
			got, err := dst.Map(ctx, tt.to, n, tt.from, length)
			if err != nil || got != tt.want || copied.Load() != tt.copied {
				t.Errorf("did %d bytes, %v, %d of them copied; want %d, %d copied", got, err, copied.Load(), tt.want, tt.copied)
			}
		})
	}
	t.Run("context ended", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := dst.Map(ctx, 0, n, 0, length); got != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("did %d bytes, %v", got, err)
		}
	})
}
