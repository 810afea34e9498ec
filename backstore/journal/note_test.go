package journal

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// marked returns up to which record the files of a journal say that it is durable.
func marked(t *testing.T, m *vfs.Mem) LSN {
	t.Helper()
	s, err := newSurvey(ctx, small(m))
	must.Succeed(t, err)
	return s.mark
}

// TestJournal_NoteAfter: while records are committed one after the other, none is followed by a
// note; each says that the one before it is durable. After the last one the note follows in
// time, or when the journal is closed, and damage to it is damage from then on.
func TestJournal_NoteAfter(t *testing.T) {
	for name, end := range map[string]func(j *Journal) error{
		"idle": func(*Journal) error {
			time.Sleep(time.Second)
			synctest.Wait()
			return nil
		},
		"closed": (*Journal).Close,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := vfs.NewMem()
				o := small(m)
				o.FileBytes, o.NoteAfter = 1<<20, time.Second
				j, _ := openAt(t, o)
				must.Succeed(t, j.Commit(ctx, add(t, j))) // into a file
				writes := new(atomic.Int64)
				m.SetHook(func(kind vfs.OpKind, name string) error {
					if kind == vfs.OpWrite && !isSpareName(filepath.Base(name)) {
						writes.Add(1)
					}
					return nil
				})
				const commits = 20
				for range commits {
					last := add(t, j)
					must.Succeed(t, j.Commit(ctx, last))
					if got := marked(t, m.ProcessClone()); got != last-1 {
						t.Fatalf("record %d is durable, the files say that up to %d", last, got)
					}
					time.Sleep(time.Second / 2)
					synctest.Wait()
				}
				if got := writes.Load(); got != commits {
					t.Errorf("%d writes for %d commits", got, commits)
				}
				must.Succeed(t, end(j))
				left := m.ProcessClone()
				if got, want := marked(t, left), j.Last(); got != want {
					t.Errorf("at the end the files say that records up to %d are durable, want %d", got, want)
				}
				if got := writes.Load(); got != commits+1 {
					t.Errorf("%d writes for %d commits and a note", got, commits)
				}
				s, err := newSurvey(ctx, small(left))
				must.Succeed(t, err)
				name := s.chain[len(s.chain)-1].name
				b := content(t, left, name)
				spoil(t, left, name, int64(strings.LastIndex(string(b), string(payload(j.Last())))), []byte{^b[0]})
				_, err = Open(ctx, small(left), ignore)
				wantErr(t, "open with the last record damaged", err, ErrCorrupt)
			})
		})
	}
}

// TestJournal_Sparse: spare files get their length, and nothing is written to them.
func TestJournal_Sparse(t *testing.T) {
	m := vfs.NewMem()
	o := small(m)
	o.Sparse = true
	must.Succeed(t, Create(o))
	written := new(atomic.Int64)
	m.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpWrite && isSpareName(filepath.Base(name)) {
			written.Add(1)
		}
		return nil
	})
	j, _ := openAt(t, o)
	fill(t, m, j)
	j.acquire()
	for _, s := range j.spares {
		if size := int64(len(content(t, m, s.name))); size != s.bytes || size < 2*headerBlock {
			t.Errorf("%s: %d bytes, want %d", s.name, size, s.bytes)
		}
	}
	j.release()
	m.SetCapacity(0)
	last := addMany(t, j, 100)
	must.Succeed(t, j.Close())
	if n := written.Load(); n > 0 {
		t.Errorf("%d writes to spare files", n)
	}
	if _, got := openAt(t, o); got != last {
		t.Errorf("replayed up to %d, want %d", got, last)
	}
}
