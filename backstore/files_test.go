package backstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

func TestFileOfAnyLength(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	f, err := s.CreateFile(ctx, "images/base.vhdx")
	if err != nil || f.Size() != 0 || !f.IsFile() {
		t.Fatal(f, err)
	}
	want := randomBytes(1, 100_001)
	if err := f.Truncate(ctx, int64(len(want))); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteAt(ctx, want, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteAt(ctx, []byte{1}, int64(len(want))); !errors.Is(err, ErrRange) {
		t.Errorf("write beyond the end: %v", err)
	}
	// Shorter and longer again: what was cut off does not come back.
	for _, size := range []int64{99_000, 4097, 200_000} {
		if err := f.Truncate(ctx, size); err != nil {
			t.Fatal(err)
		}
		want = append(want[:min(size, int64(len(want)))], make([]byte, max(size-int64(len(want)), 0))...)
		got := make([]byte, size)
		if err := f.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("file of %d bytes: %v, equal %v", size, err, bytes.Equal(got, want))
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t, 16<<10)
	defer s.Close()
	if f, err = s.File("images/base.vhdx"); err != nil || f.Size() != 200_000 {
		t.Fatalf("opened again: %v, %v", f, err)
	}
	if n := len(s.Volumes()); n != 0 {
		t.Errorf("%d volumes", n)
	}
	if all := s.Files(); len(all) != 1 || all[0] != f || f.String() != "file images/base.vhdx" {
		t.Errorf("files %v", all)
	}
}

func TestFileErrors(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	defer s.Close()
	v := createVolume(t, s, "a", 1<<20)
	f, err := s.CreateFile(ctx, "a") // a name space of its own
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateFile(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	_, taken := s.CreateFile(ctx, "a")
	_, noFile := s.File("none")
	_, cloneTaken := s.CloneFile(ctx, v, "b")
	for name, tt := range map[string]struct{ err, want error }{
		"name taken":          {taken, ErrExists},
		"no file":             {noFile, ErrNotFound},
		"clone to taken name": {cloneTaken, ErrExists},
		"delete none":         {s.DeleteFile(ctx, "none"), ErrNotFound},
		"rename none":         {s.RenameFile(ctx, "none", "c"), ErrNotFound},
		"rename to nothing":   {s.RenameFile(ctx, "a", ""), ErrInvalid},
		"rename and delete":   {s.RenameFile(ctx, "a", "c", "a"), ErrInvalid},
		"delete twice":        {s.RenameFile(ctx, "a", "c", "b", "b"), ErrInvalid},
		"name of another":     {s.NameFile(ctx, "a", "b"), ErrExists},
		"name of its own":     {s.NameFile(ctx, "none", "c"), ErrNotFound},
		"delete none, rename": {s.RenameFile(ctx, "a", "c", "none"), ErrNotFound},
		"truncate a volume":   {v.Truncate(ctx, 512), ErrInvalid},
		"negative size":       {f.Truncate(ctx, -1), ErrInvalid},
		"huge":                {f.Truncate(ctx, MaxVolumeBytes+1), ErrInvalid},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v, want %v", name, tt.err, tt.want)
		}
	}
	b, err := s.File("b")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.NameFile(ctx, "a", "c"); err != nil {
		t.Fatal(err)
	}
	if err := s.RenameFile(ctx, "c", "b"); err != nil {
		t.Fatal(err)
	}
	if f.Name() != "b" {
		t.Errorf("the file is called %s", f.Name())
	}
	if err := b.ReadAt(ctx, nil, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("read of a file that was replaced: %v", err)
	}
	if err := s.DeleteFile(ctx, "b"); err != nil {
		t.Error(err)
	}
	if len(s.Files()) != 0 || len(s.Volumes()) != 1 {
		t.Errorf("left are %v, %v", s.Files(), s.Volumes())
	}
}

// A chain of files is replaced by one of them in one step, whenever the power fails.
func TestRenameDeletes(t *testing.T) {
	ctx := context.Background()
	d := newDisk()
	s := d.open(t, 16<<10)
	for _, name := range []string{"base", "child", "grandchild", "new"} {
		f, err := s.CreateFile(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(ctx, 4096), f.WriteAt(ctx, []byte(name), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RenameFile(ctx, "new", "base", "grandchild", "child"); err != nil {
		t.Fatal(err)
	}
	names := func(s *Store) (all []string) {
		for _, f := range s.Files() {
			all = append(all, f.Name())
		}
		return all
	}
	if got := names(s); !slices.Equal(got, []string{"base"}) {
		t.Errorf("left are %v", got)
	}
	s = d.crash(rand.New(rand.NewPCG(1, 2))).open(t, 16<<10)
	defer s.Close()
	if got := names(s); !slices.Equal(got, []string{"base"}) {
		t.Errorf("after a power cut there are %v", got)
	}
	f, err := s.File("base")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if err := f.ReadAt(ctx, got, 0); err != nil || string(got[:3]) != "new" {
		t.Errorf("base has %q, %v", got, err)
	}
	if findings, err := s.Check(ctx); err != nil || len(findings) > 0 {
		t.Errorf("check: %v, %v", findings, err)
	}
}
