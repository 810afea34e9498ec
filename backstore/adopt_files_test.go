package backstore

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"odx/backstore/segment"
	"odx/backstore/vfs/rados"
	"odx/internal/kit/must"
)

// TestShared_FilesNotReused: in a pool the file of a removed segment becomes no other one, whatever
// an earlier version has kept for that: what has it open finds it gone, and never other data.
func TestShared_FilesNotReused(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 1, Options{DedupUnit: 4 << 10})
	s := p.stores[0]
	spare := filepath.Join(s.opts.segmentPath(), "000000ff.spare")
	f, err := s.opts.FS.Create(spare)
	must.Succeed(t, err)
	_, err = f.WriteAt(make([]byte, 1<<20), 0)
	must.Succeed(t, err, f.Sync(), f.Close())
	must.Succeed(t, s.Close())
	p.start(0)
	s = p.stores[0]
	v := createVolume(t, s, "v", 1<<20)
	must.Succeed(t, v.WriteAt(ctx, randomBytes(1, 1<<20), 0), s.Checkpoint(ctx))
	id := s.parts.segments.List()[0]
	open, err := rados.NewSibling(p.twins[0].Client()).Open(s.opts.segmentFile(id))
	must.Succeed(t, err)
	b := make([]byte, BlockLength)
	_, err = open.ReadAt(b, BlockLength)
	must.Succeed(t, err)

	must.Succeed(t, v.Unmap(ctx, 0, 1<<20))
	reaped(t, s)
	s.parts.segments.Seal()
	must.Succeed(t, s.Checkpoint(ctx)) // Clean keeps no file to be used again
	if slices.Contains(s.parts.segments.List(), id) {
		t.Fatal("a segment without live data is there")
	}
	must.Succeed(t, v.WriteAt(ctx, randomBytes(2, 1<<20), 0), s.Checkpoint(ctx))
	if n, err := open.ReadAt(b, BlockLength); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of a removed segment has %d bytes, %v", n, err)
	}
	must.Succeed(t, s.Close())
	p.start(0)
	names, err := p.stores[0].opts.FS.List(s.opts.segmentPath())
	must.Succeed(t, err)
	if slices.ContainsFunc(names, segment.IsSpare) {
		t.Errorf("there are files to be used again: %q", names)
	}
	p.close()
}

// staleSiblings opens files of store 2 in place of those of others, until it is to forget that.
type staleSiblings struct {
	twinSiblings
	stale *bool
}

func (s staleSiblings) Open(place, name string) (segment.File, error) {
	if *s.stale {
		place = "2"
	}
	return s.twinSiblings.Open(place, name)
}

func (s staleSiblings) Forget(string) { *s.stale = false }

// TestAdopted_MakerMadeAgain: names that were read of a store that was in the place of the maker
// before keep no data of the maker from being read.
func TestAdopted_MakerMadeAgain(t *testing.T) {
	p := newShared(t, 3, Options{DedupUnit: 4 << 10})
	data := randomBytes(1, 1<<20)
	for i, content := range map[int][]byte{0: data, 2: randomBytes(2, 1<<20)} {
		must.Succeed(t, createVolume(t, p.stores[i], "src", 1<<20).WriteAt(t.Context(), content, 0), p.stores[i].Flush(t.Context()))
	}
	src, err := p.stores[0].Volume("src")
	must.Succeed(t, err)
	stale := true
	p.stores[1].opts.Siblings = staleSiblings{twinSiblings{p, 1}, &stale}
	v := createVolume(t, p.stores[1], "v", 1<<20)
	mustAdopt(t, p, 0, pin(t, src), v, 0, 0, 1<<20)
	if !bytes.Equal(readAll(t, v), data) {
		t.Error("other data")
	}
	if stale {
		t.Error("the names were not read again")
	}
	p.close()
}

// TestHolds_Lost: a hold whose record is damaged is ended by no claim, since one from before it can
// be on its way; it is as good as others once it was given again.
func TestHolds_Lost(t *testing.T) {
	ctx := t.Context()
	p := newShared(t, 1, Options{})
	s, taker := p.stores[0], [16]byte{1}
	v := createVolume(t, s, "v", 1<<20)
	must.Succeed(t, v.WriteAt(ctx, randomBytes(1, 1<<20), 0))
	id := s.parts.segments.List()[0]
	s.holds.mu.Lock()
	err := s.holds.loadLost([][]byte{holdKey(taker, id)})
	s.holds.mu.Unlock()
	must.Succeed(t, err)
	claim := Claim{Taker: taker, Stamp: Stamp{5, 8}, Last: 1 << 31}
	_, err = s.Settle(ctx, claim)
	must.Succeed(t, err)
	if !s.holds.has(id) {
		t.Fatal("a claim that may be from before the hold has ended it")
	}
	must.Succeed(t, s.hold(ctx, taker, Stamp{5, 9}, []segment.ID{id}))
	_, err = s.Settle(ctx, claim)
	must.Succeed(t, err)
	if !s.holds.has(id) {
		t.Error("a claim from before the hold has ended it")
	}
	claim.Stamp.Seq = 9
	_, err = s.Settle(ctx, claim)
	must.Succeed(t, err)
	if s.holds.has(id) {
		t.Error("the hold goes on after a claim without it")
	}
	p.close()
}
