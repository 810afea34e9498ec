package view

import (
	"context"

	"odx/offload"
)

// copying is a Device that moves bytes below its locks where it is written, or is over one.
// The memory for that comes before the locks: see Engine.WithMemory.
type copying interface {
	// copier returns the engine whose memory a change of the range may take, and a flush
	// in its course; nil if neither takes any. A nil stays true until the change.
	copier(off, length int64) *offload.Engine
}

// copierOf returns the copier of d for a range.
func copierOf(d Device, off, length int64) *offload.Engine {
	if c, ok := d.(copying); ok {
		return c.copier(off, length)
	}
	return nil
}

// withMemory calls fn, which locks and changes a range of d, with the memory of copies that
// this takes. In the usual case, which takes none, it allocates nothing.
func withMemory(ctx context.Context, d Device, off, length int64, fn func(ctx context.Context) error) error {
	if e := copierOf(d, off, length); e != nil {
		return e.WithMemory(ctx, inner{d}, fn)
	}
	return fn(ctx)
}
