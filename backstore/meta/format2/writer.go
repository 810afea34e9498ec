package format2

import (
	"errors"
	"fmt"

	"odx/backstore/meta"
)

// The limits of an update of the engine.
const (
	maxOps   = 16384   // changes
	maxBytes = 2 << 20 // bytes of all keys and values
)

// writer collects changes and applies them in order, in pieces that fit one
// update. Each piece is atomic, the whole is not. It is not for concurrent
// use. After an error the rest is dropped, and every call returns the error.
type writer struct {
	update func(ops []meta.Op) error
	ops    []meta.Op
	arena  []byte // what ops point into; its capacity never grows
	err    error
}

func newWriter(update func(ops []meta.Op) error) *writer {
	return &writer{update: update, arena: make([]byte, 0, maxBytes)}
}

func (w *writer) add(key, value []byte) error {
	if w.err != nil {
		return w.err
	}
	if w.err = check(key, value); w.err != nil {
		return w.err
	}
	if len(w.ops) == maxOps || len(w.arena)+len(key)+len(value) > cap(w.arena) {
		if err := w.apply(); err != nil {
			return err
		}
	}
	op := meta.Op{Key: w.copy(key)}
	if value != nil {
		op.Value = w.copy(value)
	}
	w.ops = append(w.ops, op)
	return nil
}

func (w *writer) copy(p []byte) []byte {
	n := len(w.arena)
	w.arena = append(w.arena, p...)
	return w.arena[n:len(w.arena):len(w.arena)]
}

func (w *writer) apply() error {
	if len(w.ops) > 0 {
		w.err = w.update(w.ops)
	}
	w.ops, w.arena = w.ops[:0], w.arena[:0]
	return w.err
}

// close applies what is left.
func (w *writer) close() error {
	if w.err != nil {
		return w.err
	}
	return w.apply()
}

// check refuses what no update can take.
func check(key, value []byte) error {
	switch {
	case len(key) == 0:
		return errors.New("metadata update with an empty key")
	case len(key) > meta.MaxKey || len(value) > meta.MaxValue:
		return fmt.Errorf("key of %d bytes, value of %d: %w", len(key), len(value), meta.ErrTooLarge)
	}
	return nil
}
