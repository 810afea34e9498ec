package backstore

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"odx/owner"
)

// A store that is not this process's any more answers nothing and writes nothing, and
// another process finds all that was acknowledged.
func TestStore_Lost(t *testing.T) {
	ctx, d := context.Background(), newDisk()
	claim := func(place owner.Driver) *owner.Owner {
		o, err := owner.Claim(ctx, place)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	place := owner.NewMemory(0, 0, 0, nil)
	open := func(o *owner.Owner) (*Store, *Volume) {
		s, err := Open(ctx, d.options(Options{Owner: o}))
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Volume("v")
		if errors.Is(err, ErrNotFound) {
			v, err = s.CreateVolume(ctx, "v", 1<<20)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s, v
	}
	first := claim(place)
	old, v := open(first)
	block := func(b byte) []byte { return bytes.Repeat([]byte{b}, BlockLength) }
	if err := errors.Join(v.WriteAt(ctx, block('a'), 0), old.WriteOut(ctx), old.Owned()); err != nil {
		t.Fatal(err)
	}

	place.Revoke() // noticed by the next renewal
	second := claim(place)
	select {
	case <-old.Lost():
	case <-time.After(time.Minute):
		t.Fatal("the loss is not noticed")
	}
	before := files(t, d.fs, "/store")
	_, created := old.CreateVolume(ctx, "w", 1<<20)
	for what, err := range map[string]error{
		"owned": old.Owned(), "read": v.ReadAt(ctx, make([]byte, 1), 0), "read of a hole": v.ReadAt(ctx, make([]byte, 1), 1<<19),
		"write": v.WriteAt(ctx, block('b'), 0), "unmap": v.Unmap(ctx, 0, BlockLength), "flush": old.Flush(ctx), "create": created,
		"checkpoint": old.Checkpoint(ctx), "clean": old.Clean(ctx), "close": old.Close(),
	} {
		if !errors.Is(err, owner.ErrLost) && what != "close" && !errors.Is(err, ErrClosed) || err == nil {
			t.Errorf("%s: %v, want an ErrLost", what, err)
		}
	}
	if after := files(t, d.fs, "/store"); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("files have changed")
	}

	now, v := open(second)
	got := make([]byte, BlockLength)
	if err := v.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, block('a')) {
		t.Errorf("%q, %v", got[0], err)
	}
	if now.Epoch() != 2 || old.Epoch() != 1 {
		t.Errorf("epochs %d and %d", old.Epoch(), now.Epoch())
	}
	if err := errors.Join(now.Owned(), now.Close()); err != nil {
		t.Error(err)
	}
	<-now.Lost()
}
