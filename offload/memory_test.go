package offload_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/blockdev"
	"odx/offload"
	"odx/offload/offloadtest"
)

// patience is how long a test waits for what has to happen.
const patience = 10 * time.Second

// gate is a volume outside the store whose reads wait at a gate.
type gate struct {
	blockdev.Volume
	reading atomic.Int32
	open    chan struct{}
}

func (g *gate) ReadAt(ctx context.Context, p []byte, off int64) error {
	g.reading.Add(1)
	defer g.reading.Add(-1)
	select {
	case <-g.open:
		return g.Volume.ReadAt(ctx, p, off)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestEngine_LimitMemory: copies that move bytes have no more memory than there is, however
// many they are, a client leaves some of it to others, and all of them get on.
func TestEngine_LimitMemory(t *testing.T) {
	const limit, size = 8 << 20, 3 << 20
	e, outside := open(t, offloadtest.NewStore([16]byte{1})), offloadtest.NewStore([16]byte{9})
	e.LimitMemory(limit)
	source := outside.NewVolume("source", size)
	want := bytes.Repeat([]byte("odx!"), size/4)
	if err := source.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	g := &gate{Volume: source, open: make(chan struct{})}
	var all sync.WaitGroup
	begin := func(client string, k int) {
		to := outside.NewVolume(fmt.Sprintf("%s-%d", client, k), size)
		all.Go(func() {
			if err := e.Copy(offload.WithClient(t.Context(), client), g, 0, to, 0, size, func(int64) {}); err != nil {
				t.Errorf("%s: %v", client, err)
			}
			got := make([]byte, size)
			if err := to.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s copied something else, %v", client, err)
			}
		})
	}
	reading := func(n int32) {
		t.Helper()
		for end := time.Now().Add(patience); g.reading.Load() != n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d pieces are read, want %d", g.reading.Load(), n)
			}
		}
	}
	for k := range 20 {
		begin("greedy", k)
	}
	reading(2) // half of the memory, with as much for what is below
	begin("other", 0)
	reading(3)
	if held := e.Buffered(); held > limit {
		t.Errorf("%d bytes are held, %d is the limit", held, limit)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := e.Copy(offload.WithClient(ctx, "greedy"), g, 0, outside.NewVolume("late", size), 0, size, func(int64) {}); err == nil {
		t.Error("a copy whose time is over gets on")
	}
	close(g.open)
	all.Wait()
	if held := e.Buffered(); held != 0 {
		t.Errorf("%d bytes are held at the end", held)
	}
}

// TestEngine_WithBuffer: who has memory and copies below does not wait for itself.
func TestEngine_WithBuffer(t *testing.T) {
	e := open(t, offloadtest.NewStore([16]byte{1}))
	e.LimitMemory(2 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	depth := 0
	err := e.WithBuffer(ctx, func(ctx context.Context, above []byte) error {
		above[0] = 1
		return e.WithBuffer(ctx, func(_ context.Context, below []byte) error {
			depth++
			below[0] = 2
			if above[0] != 1 {
				t.Error("both have the same buffer")
			}
			return nil
		})
	})
	if err != nil || depth != 1 {
		t.Errorf("%v", err)
	}
}
