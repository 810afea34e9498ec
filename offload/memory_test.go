package offload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"odx/blockdev"
	"odx/offload"
	"odx/offload/offloadtest"
)

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

// copies starts copies from a gate and waits for them.
type copies struct {
	engine  *offload.Engine
	outside *offloadtest.Store
	from    *gate
	all     sync.WaitGroup
}

// begin starts the copy of a client, which has to succeed.
func (c *copies) begin(t *testing.T, client, name string) {
	size := c.from.Size()
	to := c.outside.NewVolume(name, size)
	c.all.Go(func() {
		if err := c.engine.Copy(offload.WithClient(t.Context(), client), c.from, 0, to, 0, size, func(int64) {}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(contents(t, to), contents(t, c.from.Volume)) {
			t.Errorf("%s: wrong data", name)
		}
	})
}

// reading waits until no copy gets on, and compares how many of them read.
func (c *copies) reading(t *testing.T, want int32) {
	t.Helper()
	synctest.Wait()
	if n := c.from.reading.Load(); n != want {
		t.Errorf("%d pieces are read, want %d", n, want)
	}
}

// TestEngine_LimitMemory: copies that move bytes have no more memory than there is, however
// many they are, a client leaves some of it to others, and all of them get on.
func TestEngine_LimitMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, size = 8 << 20, 3 << 20
		c := &copies{engine: open(t, offloadtest.NewStore([16]byte{1})), outside: offloadtest.NewStore([16]byte{9})}
		c.engine.LimitMemory(limit)
		c.from = &gate{Volume: c.outside.NewVolume("source", size), open: make(chan struct{})}
		pattern(t, c.from.Volume, 1)
		for k := range 20 {
			c.begin(t, "greedy", fmt.Sprint("greedy", k))
		}
		c.reading(t, 2) // half of the memory, with as much for what is below
		c.begin(t, "other", "other")
		c.reading(t, 3)
		if held := c.engine.Buffered(); held > limit {
			t.Errorf("%d bytes are held, %d is the limit", held, limit)
		}
		close(c.from.open)
		c.all.Wait()
		if held := c.engine.Buffered(); held != 0 {
			t.Errorf("%d bytes are held at the end", held)
		}
	})
}

// TestEngine_WithMemory_deadline: a copy that gets no memory ends as busy, before it is
// late, and one whose context ends with its error.
func TestEngine_WithMemory_deadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, v := open(t, offloadtest.NewStore([16]byte{1})), offloadtest.NewStore([16]byte{9}).NewVolume("v", 1<<20)
		e.LimitMemory(2 << 20)
		err := e.WithBuffer(t.Context(), func(context.Context, []byte) error {
			fn := func(context.Context) error { return errors.New("there is memory") }
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			if err := e.WithMemory(ctx, v, fn); !errors.Is(err, blockdev.ErrBusy) {
				t.Errorf("%v, want ErrBusy", err)
			}
			if took := time.Since(began); took != time.Second-blockdev.Grace {
				t.Errorf("it waited %v", took)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			if err := e.WithMemory(ended, v, fn); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want Canceled", err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestEngine_WithBuffer: a task that has memory and copies below takes no more of it, and that
// of another engine is not its own.
func TestEngine_WithBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, other := open(t, offloadtest.NewStore([16]byte{1})), open(t, offloadtest.NewStore([16]byte{2}))
		e.LimitMemory(2 << 20)
		depth := 0
		err := e.WithBuffer(t.Context(), func(ctx context.Context, above []byte) error {
			above[0] = 1
			return e.WithBuffer(ctx, func(ctx context.Context, below []byte) error {
				depth++
				below[0] = 2
				if above[0] != 1 {
					t.Error("both have the same buffer")
				}
				return other.WithBuffer(ctx, func(context.Context, []byte) error {
					if e.Buffered() == 0 || other.Buffered() == 0 {
						t.Error("a buffer is not counted")
					}
					return nil
				})
			})
		})
		if err != nil || depth != 1 {
			t.Errorf("%v", err)
		}
	})
}

// lockedView is a View of equal volumes, of which it uses the first one, and reports the
// memory in use where it would lock.
type lockedView struct {
	blockdev.Volume
	legs   int
	engine *offload.Engine
	locked func(memory int64)
}

func (v lockedView) Pieces(_ context.Context, ranges []blockdev.Range, take func([]offload.Piece) error) error {
	v.locked(v.engine.Buffered())
	return take([]offload.Piece{{Volume: v.Volume, Offset: ranges[0].Offset, Length: ranges[0].Length}})
}

func (v lockedView) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	v.locked(v.engine.Buffered())
	return v.engine.MapTo(ctx, v.Volume, dst, s, src, length)
}

func (v lockedView) Backing() []blockdev.Volume {
	return slices.Repeat([]blockdev.Volume{v.Volume}, v.legs)
}

// TestEngine_View_memory: the engine has memory before it calls what locks a view: a buffer
// and one for each volume outside the store.
func TestEngine_View_memory(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	e := open(t, s)
	object := s.NewVolume("object", volumeSize)
	data := pattern(t, object, 1)
	snapshot, err := e.Snapshot(ctx, object, []blockdev.Range{{Length: volumeSize}}, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Release()
	for name, c := range map[string]struct {
		volume blockdev.Volume
		legs   int
		want   int64
	}{
		"in the store":     {s.NewVolume("view", volumeSize), 2, 0},
		"outside":          {offloadtest.NewStore([16]byte{9}).NewVolume("view", volumeSize), 1, 2 << 20},
		"of three outside": {offloadtest.NewStore([16]byte{9}).NewVolume("view", volumeSize), 3, 4 << 20},
	} {
		for call, do := range map[string]func(v offload.View) error{
			"CopySnapshot": func(v offload.View) error {
				return e.CopySnapshot(ctx, snapshot, 0, v, 0, volumeSize, func(int64) {})
			},
			"Write": func(v offload.View) error {
				_, _, err := e.Write(ctx, snapshot, 0, offload.Destination{Volume: v, BlockLength: 512}, []blockdev.Range{{Length: volumeSize}}, nil)
				return err
			},
			"Snapshot": func(v offload.View) error {
				s, err := e.Snapshot(ctx, v, []blockdev.Range{{Length: volumeSize}}, 512)
				if err == nil {
					s.Release()
				}
				return err
			},
		} {
			calls := 0
			v := lockedView{c.volume, c.legs, e, func(memory int64) {
				if calls++; memory != c.want {
					t.Errorf("%s, %s: %d bytes of memory, want %d", name, call, memory, c.want)
				}
			}}
			if err := do(v); err != nil || calls == 0 {
				t.Errorf("%s, %s: %d calls, %v", name, call, calls, err)
			}
		}
		if !bytes.Equal(contents(t, c.volume), data) {
			t.Errorf("%s: wrong data", name)
		}
	}
}
