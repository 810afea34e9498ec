package journal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// damaged is a journal of several files with only durable records, and an earlier state
// of it.
type damaged struct {
	base, older *vfs.Mem
	files       []string // of the chain
	ends        [][]int64
	first       []LSN // record of each file
	last        LSN
}

const damagedFiles = 4

func newDamaged(t *testing.T) *damaged {
	t.Helper()
	m := vfs.NewMem()
	o := small(m)
	o.FileBytes = 12 << 10
	j, _ := openAt(t, o)
	d := &damaged{base: m}
	for i := 0; ; i++ {
		must.Succeed(t, j.Commit(ctx, add(t, j)))
		s, err := newSurvey(ctx, small(m))
		must.Succeed(t, err)
		if n := len(s.chain); n == damagedFiles && j.Last() >= s.chain[n-1].header.first+6 {
			break
		} else if n < damagedFiles || j.Last() < s.chain[n-1].header.first+3 {
			d.older = m.ProcessClone()
		}
	}
	s, err := newSurvey(ctx, small(m))
	must.Succeed(t, err)
	d.base, d.last = m.ProcessClone(), j.Last()
	for i, f := range s.chain {
		d.files, d.first = append(d.files, f.name), append(d.first, f.header.first)
		off, ends := int64(headerBlock), []int64{headerBlock}
		next := s.limit(i)
		if next == 0 {
			next = d.last + 1
		}
		for lsn := f.header.first; lsn < next; lsn++ {
			off += recordLength(len(payload(lsn)))
			ends = append(ends, off)
		}
		d.ends = append(d.ends, ends)
	}
	return d
}

func content(t *testing.T, m *vfs.Mem, name string) []byte {
	t.Helper()
	f, err := m.Open(name)
	must.Succeed(t, err)
	defer f.Close()
	size, err := f.Size()
	must.Succeed(t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	must.Succeed(t, err)
	return b
}

func state(t *testing.T, m *vfs.Mem) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range names(t, m) {
		all[name] = string(content(t, m, "/j/"+name))
	}
	return all
}

func replace(t *testing.T, m *vfs.Mem, name string, b []byte) {
	t.Helper()
	must.Succeed(t, m.Remove(name))
	f, err := m.Create(name)
	must.Succeed(t, err)
	_, err = f.WriteAt(b, 0)
	must.Succeed(t, err)
	must.Succeed(t, f.Close())
}

// expect opens and reads a damaged journal. lost are the records that cannot be read,
// if any. The damage must be reported with the file, and no file may change.
func (d *damaged) expect(t *testing.T, m *vfs.Mem, file string, lost []LSN) {
	t.Helper()
	before := state(t, m)
	var found []LSN
	c, err := Read(ctx, small(m), func(r Record) error {
		if string(r.Payload) != string(payload(r.LSN)) {
			t.Errorf("record %d has another record's payload", r.LSN)
		}
		found = append(found, r.LSN)
		return nil
	})
	must.Succeed(t, err)
	// No mark names the last remaining record.
	if n := len(found); n > 0 && c.Mark+1 < found[n-1] {
		t.Errorf("durable up to %d, found up to %d", c.Mark, found[n-1])
	}
	var want []LSN
	for lsn := LSN(1); lsn <= d.last; lsn++ {
		if !slices.Contains(lost, lsn) {
			want = append(want, lsn)
		}
	}
	if !slices.Equal(found, want) {
		t.Errorf("read %d, want %d", found, want)
	}
	for _, lsn := range lost {
		if !slices.ContainsFunc(c.Damages, func(x Damage) bool { return x.First <= lsn && (x.Last == 0 || lsn <= x.Last) }) {
			t.Errorf("record %d is not reported: %v", lsn, c.Damages)
		}
	}
	j, err := Open(ctx, small(m), func(r Record) error {
		if len(c.Damages) > 0 {
			t.Errorf("record %d is replayed from a damaged journal", r.LSN)
		}
		return nil
	})
	if len(c.Damages) == 0 {
		must.Succeed(t, err)
		must.Succeed(t, j.Close())
		return
	}
	var damage *DamageError
	if !errors.As(err, &damage) || !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v, want one that names %s", err, file)
	}
	for name, b := range state(t, m) {
		if before[name] != b {
			t.Errorf("%s changed", name)
		}
		delete(before, name)
	}
	if len(before) > 0 {
		t.Errorf("files are gone: %d", len(before))
	}
}

func (d *damaged) records(from, to LSN) (l []LSN) {
	for lsn := from; lsn <= to; lsn++ {
		l = append(l, lsn)
	}
	return l
}

// end is the last record of file i.
func (d *damaged) end(i int) LSN { return d.first[i] + LSN(len(d.ends[i])) - 2 }

// TestJournal_Damage flips a bit in each record and each field of each file.
func TestJournal_Damage(t *testing.T) {
	d := newDamaged(t)
	for i, name := range d.files {
		for k, from := range d.ends[i][:len(d.ends[i])-1] {
			lsn := d.first[i] + LSN(k)
			offsets := []int64{0, 4, 7, 8, 15, 16, 23} // each field of the header
			if n := int64(len(payload(lsn))); n > 0 {
				offsets = append(offsets, recordHeader, recordHeader+n/2, recordHeader+n-1)
			}
			for _, off := range offsets {
				t.Run(fmt.Sprintf("file %d record %d byte %d", i, lsn, off), func(t *testing.T) {
					m := d.base.ProcessClone()
					flip(t, m, name, from+off)
					d.expect(t, m, name, []LSN{lsn})
				})
			}
		}
		for _, off := range []int64{0, 8, 16, 31, 32, 40, 48, 56, 59} {
			t.Run(fmt.Sprintf("file %d header byte %d", i, off), func(t *testing.T) {
				m := d.base.ProcessClone()
				flip(t, m, name, off)
				d.expect(t, m, name, d.records(d.first[i], d.end(i)))
			})
		}
		for _, off := range []int64{60, 200, sealOffset, sealOffset + 8, 1000, 4095} {
			t.Run(fmt.Sprintf("file %d seal byte %d", i, off), func(t *testing.T) {
				m := d.base.ProcessClone()
				flip(t, m, name, off)
				d.expect(t, m, name, nil)
			})
		}
		t.Run(fmt.Sprintf("file %d after the records", i), func(t *testing.T) {
			m := d.base.ProcessClone()
			flip(t, m, name, d.ends[i][len(d.ends[i])-1])
			d.expect(t, m, name, nil)
		})
	}
}

func flip(t *testing.T, m *vfs.Mem, name string, off int64) {
	t.Helper()
	b := content(t, m, name)
	if off >= int64(len(b)) {
		return
	}
	spoil(t, m, name, off, []byte{b[off] ^ 4})
}

// TestJournal_DamagedFiles removes, truncates, swaps and replaces whole files.
func TestJournal_DamagedFiles(t *testing.T) {
	d := newDamaged(t)
	for i, name := range d.files {
		all := d.records(d.first[i], d.end(i))
		newest := i == len(d.files)-1
		run := func(what string, spoil func(t *testing.T, m *vfs.Mem), named string, lost []LSN) {
			t.Run(fmt.Sprintf("file %d %s", i, what), func(t *testing.T) {
				m := d.base.ProcessClone()
				spoil(t, m)
				d.expect(t, m, named, lost)
			})
		}
		// A missing file is reported by the directory.
		run("is missing", func(t *testing.T, m *vfs.Mem) { must.Succeed(t, m.Remove(name)) }, "/j", all)
		run("is empty", func(t *testing.T, m *vfs.Mem) { replace(t, m, name, nil) }, name, all)
		run("is zeros", func(t *testing.T, m *vfs.Mem) {
			replace(t, m, name, make([]byte, len(content(t, m, name))))
		}, name, all)
		for k, end := range d.ends[i][:len(d.ends[i])-1] {
			run(fmt.Sprintf("is cut at %d", end), func(t *testing.T, m *vfs.Mem) {
				replace(t, m, name, content(t, m, name)[:end+8])
			}, name, all[k:])
		}
		if !newest {
			other := d.files[i+1]
			run("is swapped with the next", func(t *testing.T, m *vfs.Mem) {
				a, b := content(t, m, name), content(t, m, other)
				replace(t, m, name, b)
				replace(t, m, other, a)
			}, "/j/", append(all, d.records(d.first[i+1], d.end(i+1))...))
			run("is another one", func(t *testing.T, m *vfs.Mem) { replace(t, m, name, content(t, m, other)) }, name, all)
		}
	}
}

// TestJournal_ReplacedEmptyFile: a file that replaced an empty one, which is kept for
// reuse, is reported if it is damaged or missing.
func TestJournal_ReplacedEmptyFile(t *testing.T) {
	m := vfs.NewMem()
	j, err := createOpen(small(m), ignore)
	must.Succeed(t, err)
	last := addMany(t, j, 3)
	must.Succeed(t, j.Commit(ctx, last))
	o := small(m)
	for range 3 { // each leaves an empty file
		must.Succeed(t, j.Truncate(last+1))
		must.Succeed(t, j.Close())
		o.First = last + 1
		j, err = Open(ctx, o, ignore)
		must.Succeed(t, err)
	}
	must.Succeed(t, j.Commit(ctx, add(t, j)))
	newest := j.files[len(j.files)-1].name
	must.Succeed(t, j.Close())
	for what, spoil := range map[string]func(m *vfs.Mem){
		"gone":               func(m *vfs.Mem) { must.Succeed(t, m.Remove(newest)) },
		"empty":              func(m *vfs.Mem) { replace(t, m, newest, nil) },
		"without its header": func(m *vfs.Mem) { flip(t, m, newest, 10) },
	} {
		t.Run(what, func(t *testing.T) {
			m := m.ProcessClone()
			spoil(m)
			before := state(t, m)
			o.FS = m
			j, err := Open(ctx, o, ignore)
			if err == nil {
				j.Close()
			}
			wantErr(t, "open", err, ErrCorrupt)
			if after := state(t, m); !maps.Equal(before, after) {
				t.Error("the failed Open changed files")
			}
		})
	}
}

// TestJournal_OlderFiles replaces a file by an older version: for the newest file that
// cannot be distinguished from a power cut, otherwise it is damage.
func TestJournal_OlderFiles(t *testing.T) {
	d := newDamaged(t)
	for i, name := range d.files {
		for _, old := range names(t, d.older) {
			old = "/j/" + old
			b := content(t, d.older, old)
			t.Run(fmt.Sprintf("file %d is %s of before", i, old), func(t *testing.T) {
				m := d.base.ProcessClone()
				replace(t, m, name, b)
				if i == len(d.files)-1 && old == name {
					_, last := openAt(t, small(m))
					if last < d.first[i] || last >= d.last {
						t.Errorf("replayed up to %d", last)
					}
					return
				}
				j, err := Open(ctx, small(m), ignore)
				if old == name { // it was complete, except for the seal
					must.Succeed(t, err)
					must.Succeed(t, j.Close())
					return
				}
				wantErr(t, "open", err, ErrCorrupt)
			})
		}
	}
}

// TestOpen_Version1: a journal of version 1 with a torn tail is replayed and continued
// with files of version 2, which are reported if missing.
func TestOpen_Version1(t *testing.T) {
	m := vfs.NewMem()
	must.Succeed(t, m.MkdirAll("/j"))
	lsn := LSN(1)
	for seq, records := range map[uint64]int{3: 0, 4: 5} {
		h := fileHeader{store: store, seq: seq, first: lsn}
		header, _ := encodeV1(h, 0, nil)
		var b []byte
		for range records {
			_, r := encodeV1(h, lsn, payload(lsn))
			b = append(b, r...)
			lsn++
		}
		_, torn := encodeV1(h, lsn, payload(lsn))
		torn[17] ^= 1
		f, err := m.Create(fileName("/j", seq))
		must.Succeed(t, err)
		_, err = f.WriteAt(append(append(header, b...), torn...), 0)
		must.Succeed(t, err)
		must.Succeed(t, f.Close())
	}
	o := small(m)
	o.Legacy = true
	j, last := openAt(t, o)
	if last != 5 {
		t.Errorf("replayed up to %d", last)
	}
	addMany(t, j, 5)
	must.Succeed(t, j.Close())
	j, last = openAt(t, o)
	if last != 10 {
		t.Errorf("replayed up to %d", last)
	}
	must.Succeed(t, j.Close())
	first, lost := fileName("/j", 4), lastFile(t, m)
	must.Succeed(t, m.Remove(lost))
	_, err := Open(ctx, o, ignore)
	wantErr(t, "open", err, ErrCorrupt)
	must.Succeed(t, m.Remove(first))
	j, last = openAt(t, o) // as an empty one of version 1
	if last != 0 {
		t.Errorf("replayed up to %d", last)
	}
	must.Succeed(t, j.Close())
}
