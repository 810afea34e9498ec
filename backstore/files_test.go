package backstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// file does something with one of the two files of a history.
func (h *history) file() {
	name, other := "/x", "/y"
	if h.rng.IntN(2) == 0 {
		name, other = other, name
	}
	vals, ok := h.now().volumes[name]
	switch n := h.rng.IntN(11); {
	case !ok:
		src := h.name()
		next := h.now().clone()
		next.volumes[name] = next.volumes[src]
		h.do(fmt.Sprintf("copy %s to %s", src, name), next, func(ctx context.Context) error {
			_, err := h.store.CloneFile(ctx, h.volume(src), name[1:])
			return err
		})
		h.durable()
	case n < 4 && len(vals) > 0:
		h.writeTo(name)
	case n < 7:
		h.truncate(name, vals)
	case n < 9:
		next := h.now().clone()
		delete(next.volumes, name)
		next.volumes[other] = vals
		h.do(fmt.Sprintf("rename %s to %s", name, other), next, func(ctx context.Context) error {
			return h.store.RenameFile(ctx, name[1:], other[1:])
		})
		h.durable()
	case n < 10 && h.now().volumes[other] != nil:
		next := h.now().clone()
		delete(next.volumes, other)
		h.do("delete in one step with a rename "+other, next, func(ctx context.Context) error {
			return h.store.RenameFile(ctx, name[1:], name[1:], other[1:])
		})
		h.durable()
	default:
		next := h.now().clone()
		delete(next.volumes, name)
		h.do("delete "+name, next, func(ctx context.Context) error { return h.store.DeleteFile(ctx, name[1:]) })
	}
}

// truncate makes a file shorter or longer. Its end becomes zeros first, which a
// crash can leave.
func (h *history) truncate(name string, vals []uint32) {
	n := h.rng.IntN(modelSectors + 1)
	v := h.volume(name)
	if n < len(vals) {
		h.do(fmt.Sprintf("zero the end of %s", name), h.now().overwrite(name, n, make([]uint32, len(vals)-n)), func(ctx context.Context) error {
			return v.Zero(ctx, int64(n)*sector, int64(len(vals)-n)*sector)
		})
		vals = h.now().volumes[name]
	}
	next := h.now().clone()
	next.volumes[name] = append(slices.Clone(vals[:min(n, len(vals))]), make([]uint32, max(n-len(vals), 0))...)
	h.do(fmt.Sprintf("truncate %s to %d", name, n), next, func(ctx context.Context) error { return v.Truncate(ctx, int64(n)*sector) })
}

// TestStore_RenameFile_Replaced: a handle on the file that is replaced reads nothing of
// the one that replaces it.
func TestStore_RenameFile_Replaced(t *testing.T) {
	ctx := context.Background()
	s := newDisk().open(t, 16<<10)
	defer s.Close()
	var files [2]*Volume
	for i, name := range []string{"a", "b"} {
		f, err := s.CreateFile(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = f
	}
	if err := s.RenameFile(ctx, "a", "b"); err != nil {
		t.Fatal(err)
	}
	if files[0].Name() != "b" {
		t.Errorf("the file is called %s", files[0].Name())
	}
	if err := files[1].ReadAt(ctx, nil, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("read of a file that was replaced: %v", err)
	}
}
