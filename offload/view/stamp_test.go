package view

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// stampedFile is a plain file with a stamp, which copies include.
type stampedFile struct {
	blockdev.Volume
	mu     sync.Mutex
	stamp  []byte
	writes int
	fail   error
}

func (f *stampedFile) DataBytes() int64 { return f.Size() }

func (f *stampedFile) ReadStamp(context.Context) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Clone(f.stamp), nil
}

func (f *stampedFile) WriteStamp(_ context.Context, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.writes++
	f.stamp = bytes.Clone(p)
	return nil
}

// fileCopy is the content of a file at a point in time.
type fileCopy struct{ data, stamp []byte }

func (f *stampedFile) copy(t *testing.T) fileCopy {
	t.Helper()
	stamp, _ := f.ReadStamp(ctx)
	return fileCopy{contents(t, f), stamp}
}

func (f *stampedFile) restore(t *testing.T, c fileCopy) {
	t.Helper()
	must.Succeed(t, f.WriteAt(ctx, c.data, 0))
	f.stamp = c.stamp
}

// files creates a mirror's legs in plain files.
func (b *bed) files(t *testing.T, size int64, n int) (files []*stampedFile, c MirrorConfig) {
	t.Helper()
	c = MirrorConfig{Name: b.name(), Engine: b.manager.Engine(), Records: b.store, Log: logs.Discard(), StampEvery: time.Hour}
	for range n {
		f := &stampedFile{Volume: b.outside(size)}
		files = append(files, f)
		c.Legs = append(c.Legs, Leg{Device: b.base(f), ID: "backing:" + b.name(), Files: []Stamped{f}})
	}
	return files, c
}

func openMirror(t *testing.T, c MirrorConfig) *Mirror {
	t.Helper()
	m, err := OpenMirror(ctx, c)
	must.Succeed(t, err)
	m.resyncs.Wait()
	return m
}

// crash ends a mirror like the end of its process.
func (v *Mirror) crash() {
	v.stop()
	v.resyncs.Wait()
	v.stamping.Wait()
}

// TestMirror_OlderCopy: after one leg is replaced or damaged between two starts, reads
// return the latest data, and both legs have it after the sync.
func TestMirror_OlderCopy(t *testing.T) {
	const size = 64 << 10
	for leg := range 2 {
		for name, tt := range map[string]struct {
			clean  bool // the mirror is closed
			change func(t *testing.T, f *stampedFile, older fileCopy)
		}{
			"closed, older copy":         {true, func(t *testing.T, f *stampedFile, older fileCopy) { f.restore(t, older) }},
			"crashed, older copy":        {false, func(t *testing.T, f *stampedFile, older fileCopy) { f.restore(t, older) }},
			"closed, file without stamp": {true, func(t *testing.T, f *stampedFile, older fileCopy) { f.restore(t, fileCopy{older.data, nil}) }},
			"crashed, torn stamp": {false, func(t *testing.T, f *stampedFile, older fileCopy) {
				torn := bytes.Clone(older.stamp)
				torn[40] ^= 1
				f.restore(t, fileCopy{older.data, torn})
			}},
			"closed, file of another mirror": {true, func(t *testing.T, f *stampedFile, older fileCopy) {
				s, err := ParseStamp(f.stamp)
				must.Succeed(t, err)
				s.Mirror[0]++
				f.restore(t, fileCopy{older.data, s.Encode()})
			}},
		} {
			t.Run(name, func(t *testing.T) {
				b := start(t)
				files, c := b.files(t, size, 2)
				m := openMirror(t, c)
				must.Succeed(t, m.WriteAt(ctx, pattern(1, size), 0))
				must.Succeed(t, m.Close(ctx))
				older := files[leg].copy(t)
				m = openMirror(t, c)
				must.Succeed(t, m.WriteAt(ctx, pattern(2, size), 0))
				if tt.clean {
					must.Succeed(t, m.Close(ctx))
				} else {
					m.crash()
				}
				tt.change(t, files[leg], older)
				m = openMirror(t, c)
				same(t, "mirror", contents(t, m), pattern(2, size))
				for i, f := range files {
					same(t, m.Legs[i].ID, contents(t, f), pattern(2, size))
				}
				if len(m.InSync()) != 2 {
					t.Errorf("in sync: %v", m.InSync())
				}
				must.Succeed(t, m.Close(ctx))
			})
		}
	}
}

// TestMirror_HotCopy: a copy made while the mirror is in use is detected as older after
// Close, or after writes in a later generation.
func TestMirror_HotCopy(t *testing.T) {
	const size = 64 << 10
	for _, clean := range []bool{true, false} {
		b := start(t)
		files, c := b.files(t, size, 2)
		c.StampEvery = time.Millisecond
		m := openMirror(t, c)
		must.Succeed(t, m.WriteAt(ctx, pattern(1, size), 0))
		older := files[0].copy(t)
		must.Succeed(t, m.WriteAt(ctx, pattern(2, size), 0))
		before := func() int { files[0].mu.Lock(); defer files[0].mu.Unlock(); return files[0].writes }
		n := before()
		for began := time.Now(); !clean && before() < n+2; {
			if time.Since(began) > 20*time.Second {
				t.Fatal("no new generation during writes")
			}
			must.Succeed(t, m.WriteAt(ctx, pattern(2, 512), 0))
		}
		if clean {
			must.Succeed(t, m.Close(ctx))
		} else {
			m.crash()
		}
		files[0].restore(t, older)
		m = openMirror(t, c)
		same(t, "mirror", contents(t, m), pattern(2, size))
		must.Succeed(t, m.Close(ctx))
	}
}

// breaking are records whose store fails after a number of puts.
type breaking struct {
	Records
	left int
}

var errBroken = errors.New("the process has ended")

func (r *breaking) Flush(ctx context.Context) error {
	if r.left--; r.left < 0 {
		return errBroken
	}
	return r.Records.Flush(ctx)
}

// TestMirror_EndWhileStamping: after a process ends at any step of a new generation,
// the next start reads the latest data.
func TestMirror_EndWhileStamping(t *testing.T) {
	const size = 64 << 10
	for starts := range 3 {
		for left := range 4 {
			for _, failing := range []int{-1, 0, 1} {
				b := start(t)
				files, c := b.files(t, size, 2)
				m := openMirror(t, c)
				must.Succeed(t, m.WriteAt(ctx, pattern(3, size), 0))
				m.crash()
				for range starts + 1 {
					broken := c
					broken.Records = &breaking{b.store, left}
					if failing >= 0 {
						files[failing].fail = errBroken // the process ends before this leg is stamped
					}
					if m, err := OpenMirror(ctx, broken); err == nil {
						m.crash()
					}
					for _, f := range files {
						f.fail = nil
					}
				}
				m = openMirror(t, c)
				same(t, "mirror", contents(t, m), pattern(3, size))
				if got := m.InSync(); len(got) != 2 {
					t.Errorf("in sync: %v", got)
				}
				must.Succeed(t, m.Close(ctx))
			}
		}
	}
}

// TestMirror_StampFails: a leg that cannot be stamped is dropped, except the last one.
func TestMirror_StampFails(t *testing.T) {
	const size = 64 << 10
	b := start(t)
	files, c := b.files(t, size, 2)
	m := openMirror(t, c)
	files[0].fail = errInjected
	must.Succeed(t, m.advance(ctx, false))
	if got := m.InSync(); !slices.Equal(got, []string{c.Legs[1].ID}) {
		t.Errorf("in sync: %v", got)
	}
	files[1].fail = errInjected
	if err := m.advance(ctx, false); !errors.Is(err, errInjected) {
		t.Errorf("stamp with all legs failing: %v", err)
	}
	must.Succeed(t, m.WriteAt(ctx, pattern(4, size), 0))
	files[0].fail, files[1].fail = nil, nil
	must.Succeed(t, m.Resync(ctx))
	must.Succeed(t, m.Close(ctx))
	m = openMirror(t, c)
	same(t, "mirror", contents(t, m), pattern(4, size))
	if len(m.InSync()) != 2 {
		t.Errorf("in sync: %v", m.InSync())
	}
	must.Succeed(t, m.Close(ctx))
}

// TestMirror_AllOlder: if all legs are older copies, the newest is used.
func TestMirror_AllOlder(t *testing.T) {
	const size = 64 << 10
	b := start(t)
	files, c := b.files(t, size, 2)
	var copies []fileCopy
	for i := range 3 {
		m := openMirror(t, c)
		must.Succeed(t, m.WriteAt(ctx, pattern(byte(i), size), 0))
		must.Succeed(t, m.Close(ctx))
		copies = append(copies, files[0].copy(t))
	}
	files[0].restore(t, copies[0])
	files[1].restore(t, copies[1])
	m := openMirror(t, c)
	same(t, "mirror", contents(t, m), pattern(1, size))
	must.Succeed(t, m.Close(ctx))
}

// TestMirror_WithoutGeneration: legs are in sync if the record is of an older version
// without a generation.
func TestMirror_WithoutGeneration(t *testing.T) {
	const size = 64 << 10
	b := start(t)
	files, c := b.files(t, size, 2)
	must.Succeed(t, files[0].WriteAt(ctx, pattern(1, size), 0))
	must.Succeed(t, files[1].WriteAt(ctx, pattern(1, size), 0))
	text, err := mirrorRecord{InSync: []string{c.Legs[0].ID, c.Legs[1].ID}, Clean: true}.encode()
	must.Succeed(t, err)
	must.Succeed(t, b.store.PutRecords(ctx, backstore.Record{Key: recordKey(c.Name, "mirror"), Value: text}))
	m, err := OpenMirror(ctx, c)
	must.Succeed(t, err)
	if len(m.InSync()) != 2 {
		t.Errorf("in sync: %v", m.InSync())
	}
	must.Succeed(t, m.Close(ctx))
	if _, err := ParseStamp(files[1].stamp); err != nil {
		t.Errorf("the second leg: %v", err)
	}
}

func TestStamp_Encode(t *testing.T) {
	s := Stamp{Mirror: [16]byte{1, 2, 3}, Generation: 0x1122334455667788, DataBytes: 8 << 20}
	const golden = "6f6478206d6972726f72206c656720310102030000000000000000000000000088776655443322110000800000000000b8fd5aa1"
	p := s.Encode()
	if got := hex.EncodeToString(p[:stampSum+4]); len(p) != StampLength || got != golden {
		t.Errorf("%d bytes, %s, want %s", len(p), got, golden)
	}
	if got, err := ParseStamp(p); err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range stampSum + 100 {
		bad := bytes.Clone(p)
		bad[i] ^= 0x40
		if _, err := ParseStamp(bad); !errors.Is(err, ErrNoStamp) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	for _, bad := range [][]byte{nil, p[:100], make([]byte, StampLength), append(bytes.Clone(p), 0)} {
		if _, err := ParseStamp(bad); !errors.Is(err, ErrNoStamp) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

func FuzzParseStamp(f *testing.F) {
	s := Stamp{Generation: 7, DataBytes: 4096}
	f.Add(s.Encode())
	f.Add([]byte(stampMagic))
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := ParseStamp(p)
		if err == nil && !bytes.Equal(s.Encode(), p) {
			t.Errorf("%+v differs from its encoded form", s)
		}
	})
}
