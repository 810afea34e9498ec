package vhdxfile

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
	"odx/vhd/disk"
	"odx/vhd/disk/disktest"
)

// look describes each block of a file: its state, its first byte, and its sectors, if
// not all are present.
func look(t *testing.T, m blockdev.Reader, f *File) []string {
	t.Helper()
	var seen []string
	for i := range f.table.blocks {
		b := f.block(i)
		text := fmt.Sprint(b.State)
		if b.State == disk.Full || b.State == disk.Partial {
			p := make([]byte, 1)
			must.Succeed(t, m.ReadAt(t.Context(), p, b.Offset))
			text += fmt.Sprintf(" reads %d", p[0])
		}
		if b.State == disk.Partial {
			bits, err := f.Present(t.Context(), i, 0, f.sectors(i))
			must.Succeed(t, err)
			for n, length := int64(0), int64(0); n < f.sectors(i); n += length {
				var set bool
				if set, length = bits.Run(n, f.sectors(i)); set {
					text += fmt.Sprintf(" has %d+%d", n, length)
				}
			}
		}
		seen = append(seen, text)
	}
	return seen
}

// history returns the operations on a disk before and between power failures.
func history(ctx interface{ testing.TB }, m *disktest.Memory, f **File) map[string][]func() error {
	c := ctx.Context()
	allocate := func(blocks ...int64) func() error { return func() error { return (*f).Allocate(c, blocks) } }
	complete := func(blocks ...int64) func() error { return func() error { return (*f).Complete(c, blocks) } }
	free := func(blocks ...int64) func() error { return func() error { return (*f).Free(c, blocks) } }
	present := func(i, first, count int64) func() error {
		return func() error { return (*f).SetPresent(c, i, first, count) }
	}
	write := func(i int64) func() error {
		return func() error {
			if err := (*f).Changing(c); err != nil {
				return err
			}
			if err := m.WriteAt(c, slices.Repeat([]byte{byte(i + 1)}, 512), (*f).block(i).Offset); err != nil {
				return err
			}
			return m.Barrier(c)
		}
	}
	again := func() error {
		if err := (*f).Close(c); err != nil {
			return err
		}
		var err error
		*f, err = Open(c, m)
		return err
	}
	return map[string][]func() error{
		"dynamic": {
			allocate(0, 3), write(0), write(3), free(0), allocate(1), write(1), again,
			free(1, 3), allocate(2, 0, 4), write(4), free(4, 2), allocate(1), allocate(3), again, free(0),
		},
		"differencing": {
			allocate(0, 3), write(0), present(0, 0, 8), present(0, 2000, 48), write(3), complete(3), again,
			free(0), allocate(0, 1), write(1), present(1, 0, 100), present(1, 100, 1948), free(3), free(2),
			complete(2, 4), again, allocate(3),
		},
		"small log": {allocate(0), write(0), free(0), allocate(1, 0), free(1, 0)},
	}
}

// The power fails after every change and, of the writes since the last barrier, a
// random part or everything is kept. The file must open without findings, and each
// block must be as before or after the current operation.
func TestFile_PowerFailure(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"dynamic", "differencing", "small log"} {
		t.Run(name, func(t *testing.T) {
			kind := disk.Dynamic
			if name == "differencing" {
				kind = disk.Differencing
			}
			m, f := newDisk(t, spec(kind, 5*mib))
			if name == "small log" {
				// A new log starts every few entries.
				f.log.length = 4 * sectorLength
			}
			base := m.Bytes()
			m.Forget()
			before := look(t, m, f)
			done := 0
			for step, op := range history(t, m, &f)[name] {
				must.Succeed(t, op())
				after := look(t, m, f)
				for ; done <= m.Changes(); done++ {
					if done%sample.Size(8, 1, 1) > 0 {
						continue
					}
					checkCrash(t, fmt.Sprintf("step %d, change %d, in part", step, done), m.Cut(base, done, rng), before, after, done%8 == 0)
					if done%2 == 0 {
						checkCrash(t, fmt.Sprintf("step %d, change %d", step, done), m.Cut(base, done, nil), before, after, done%8 == 4)
					}
				}
				if done--; t.Failed() {
					return
				}
				before = after
			}
			t.Logf("%d changes", done)
		})
	}
}

// checkCrash checks the state after a power failure.
func checkCrash(t *testing.T, where string, crashed *disktest.Memory, before, after []string, use bool) {
	t.Helper()
	clean(t, crashed)
	r, readErr := OpenReadOnly(t.Context(), crashed)
	var read []string
	if readErr == nil {
		read = look(t, r.Payload(), r)
	} else {
		t.Errorf("%s: %v", where, readErr)
	}
	f, err := Open(t.Context(), crashed)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	got := look(t, crashed, f)
	for i := range got {
		if got[i] != before[i] && got[i] != after[i] {
			t.Errorf("%s: block %d is %s; it was %s and became %s", where, i, got[i], before[i], after[i])
		}
	}
	if readErr == nil && !slices.Equal(read, got) {
		t.Errorf("%s: opened for reading it is %v, for writing %v", where, read, got)
	}
	if !use {
		return
	}
	// It can be used, and is in order then.
	must.Succeed(t, f.Allocate(t.Context(), []int64{0, 1, 2, 3, 4}))
	closeFile(t, f)
	if text := clean(t, crashed); strings.Contains(text, "log") {
		t.Errorf("%s: after Close Check finds %s", where, text)
	}
}

// Every operation of the container fails once. A failed operation has no effect, unless
// Table documents otherwise, and the file remains usable and valid.
func TestFile_Errors(t *testing.T) {
	for _, op := range []string{"write", "barrier", "truncate", "unmap", "read"} {
		for n := range 12 {
			ctx := t.Context()
			m, f := newDisk(t, spec(disk.Differencing, 5*mib))
			must.Succeed(t, f.Allocate(ctx, []int64{0, 1}))
			must.Succeed(t, f.Free(ctx, []int64{1}))
			f = reopen(t, m, f)
			left, changing := n, false
			m.FailWith(func(what string) error {
				if changing && what == op {
					if left--; left == -1 {
						return fmt.Errorf("container failure")
					}
				}
				return nil
			})
			before := look(t, m, f)
			for _, change := range []func() error{
				func() error { return f.Allocate(ctx, []int64{2, 3}) },
				func() error { return f.SetPresent(ctx, 0, 0, 1) },
				func() error { return f.Free(ctx, []int64{0}) },
				func() error { return f.Complete(ctx, []int64{4}) },
			} {
				changing = true
				err := change()
				changing = false
				after := look(t, m, f)
				if err != nil {
					if op != "unmap" && !slices.Equal(after, before) {
						t.Errorf("%s %d: %v, but %v became %v", op, n, err, before, after)
					}
					if err := change(); err != nil && f.broken == nil {
						t.Errorf("%s %d: it fails again: %v", op, n, err)
					}
					after = look(t, m, f)
				}
				before = after
			}
			m.FailWith(nil)
			if f.broken == nil {
				closeFile(t, f)
			}
			f, err := Open(ctx, m)
			must.Succeed(t, err)
			if got := look(t, m, f); !slices.Equal(got, before) {
				t.Errorf("%s %d: opened again it is %v, not %v", op, n, got, before)
			}
			closeFile(t, f)
			clean(t, m)
		}
	}
}
