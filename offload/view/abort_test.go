package view

import (
	"context"
	"errors"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/tokens"
)

// stalling is a volume whose next write blocks until it is released, even after its
// context ends, like a write in the kernel.
type stalling struct {
	blockdev.Volume
	armed            chan struct{}
	entered, proceed chan struct{}
}

func newStalling(v blockdev.Volume) *stalling {
	return &stalling{v, make(chan struct{}, 1), make(chan struct{}), make(chan struct{})}
}

func (s *stalling) wait() {
	select {
	case <-s.armed:
		s.entered <- struct{}{}
		<-s.proceed
	default:
	}
}

func (s *stalling) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.wait()
	return s.Volume.WriteAt(context.WithoutCancel(ctx), p, off)
}

func (s *stalling) Unmap(ctx context.Context, off, length int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.wait()
	return s.Volume.Unmap(context.WithoutCancel(ctx), off, length)
}

// TestStack_AbortedWrite: for each view, the range of an aborted write that has not
// returned is busy for reads and all writes, and later writes are not overwritten.
func TestStack_AbortedWrite(t *testing.T) {
	const size, off, length = 4 << 20, 64 << 10, 8 << 10
	kinds := map[string]func(t *testing.T, b *bed, of Device) Device{
		"base": func(_ *testing.T, _ *bed, of Device) Device { return of },
		"partition": func(t *testing.T, _ *bed, of Device) Device {
			p, err := NewPartition(of, 0, size)
			must.Succeed(t, err)
			return p
		},
		"stripe": func(t *testing.T, b *bed, of Device) Device {
			return stripeOf(t, 4096, of, b.base(b.outside(size)))
		},
		"mirror, first leg": func(t *testing.T, b *bed, of Device) Device {
			m := b.mirror(t, of, b.base(b.outside(size)))
			m.resyncs.Wait()
			return m
		},
		"mirror, second leg": func(t *testing.T, b *bed, of Device) Device {
			m := b.mirror(t, b.base(b.outside(size)), of)
			m.resyncs.Wait()
			return m
		},
		"cache":  func(_ *testing.T, b *bed, of Device) Device { return b.cache(of, false, 64) },
		"verify": func(t *testing.T, b *bed, of Device) Device { return b.verify(t, of) },
		"origin": func(t *testing.T, b *bed, of Device) Device { return b.origin(t, of) },
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			b := start(t)
			bottom := newStalling(b.outside(size))
			s := NewStack(kind(t, b, b.base(bottom)), NewGate())
			token, _ := b.populate(t, b.volume(t, size), blockdev.Range{Length: length})
			command, abort := context.WithCancel(ctx)
			bottom.armed <- struct{}{}
			returned := make(chan error, 1)
			go func() { returned <- s.WriteAt(command, pattern(1, length), off) }()
			<-bottom.entered
			abort()
			p := make([]byte, 512)
			_, compared := s.CompareAndWrite(ctx, p, p, off)
			_, mapped := b.manager.OffloadWrite(ctx, token, 0, offload.Destination{Volume: s, BlockLength: 512}, []blockdev.Range{{Offset: off, Length: length}}, tokens.WriteOptions{})
			for what, err := range map[string]error{
				"read":              s.ReadAt(ctx, p, off),
				"write":             s.WriteAt(ctx, p, off+length-512),
				"unmap":             s.Unmap(ctx, 0, size),
				"COMPARE AND WRITE": compared,
				"update":            s.Update(ctx, off, 512, func([]byte) {}),
				"token":             mapped,
			} {
				if !errors.Is(err, blockdev.ErrBusy) {
					t.Errorf("%s: %v, want ErrBusy", what, err)
				}
			}
			must.Succeed(t, s.ReadAt(ctx, p, 2<<20))
			bottom.proceed <- struct{}{}
			<-returned
			must.Succeed(t, s.WriteAt(ctx, pattern(2, length), off))
			got := make([]byte, length)
			must.Succeed(t, s.ReadAt(ctx, got, off))
			same(t, "after the newer write", got, pattern(2, length))
		})
	}
}

// TestMirror_AbortedWrite: the range of an aborted write to a mirror below two
// partitions is busy for both.
func TestMirror_AbortedWrite(t *testing.T) {
	const size = 64 << 10
	b := start(t)
	bottom := newStalling(b.outside(size))
	m := b.mirror(t, b.base(bottom), b.base(b.outside(size)))
	m.resyncs.Wait()
	gate := NewGate()
	one, other := NewStack(m, gate), NewStack(m, gate)
	command, abort := context.WithCancel(ctx)
	bottom.armed <- struct{}{}
	returned := make(chan error, 1)
	go func() { returned <- one.Unmap(command, 0, size) }()
	<-bottom.entered
	abort()
	p := make([]byte, 512)
	for what, err := range map[string]error{"read": other.ReadAt(ctx, p, 0), "write": other.WriteAt(ctx, p, 0)} {
		if !errors.Is(err, blockdev.ErrBusy) {
			t.Errorf("%s through the other partition: %v, want ErrBusy", what, err)
		}
	}
	bottom.proceed <- struct{}{}
	<-returned
	must.Succeed(t, other.WriteAt(ctx, p, 0))
	if n := len(m.InSync()); n != 2 {
		t.Errorf("%d legs in sync", n)
	}
}
