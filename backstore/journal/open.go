package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"odx/backstore/vfs"
)

// Open reads the journal in o.Dir and hands each record from o.First on to
// replay, in order. It ends at the first record that is torn or missing: all
// that was committed is before it. The payload is valid only during the call;
// an error of replay aborts Open, as does the end of ctx. ErrCorrupt when
// durable records are missing or damaged, and when files belong to another
// store; then nothing was changed.
func Open(ctx context.Context, o Options, replay func(lsn LSN, payload []byte) error) (*Journal, error) {
	o.FileBytes = max(cmp.Or(o.FileBytes, DefaultFileBytes), 2*headerBlock) &^ (pageLength - 1)
	o.MaxUnsynced = min(max(cmp.Or(o.MaxUnsynced, DefaultMaxUnsynced), 64), 1<<30)
	o.First = max(o.First, 1)
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	f, err := listFiles(o)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	r := reader{o: o, next: o.First, replay: replay}
	kept, err := r.readAll(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := removeDead(o, f, kept); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}

	j := &Journal{
		o:    o,
		io:   make(chan struct{}, 1),
		turn: make(chan struct{}, 1),
		wake: make(chan struct{}, 1),
		stop: make(chan struct{}),
		done: make(chan struct{}),
	}
	at := cursor{lsn: r.next - 1, encoded: r.encoded}
	j.queue = queue{unit: max(min(1<<20, o.MaxUnsynced/4), pageLength), start: at, end: at}
	j.disk = disk{seq: f.seq, files: kept, written: at, settled: at, nextBytes: min(firstFileBytes, o.FileBytes)}
	j.out.stage = make([]byte, 0, stageBytes)
	j.durable.Store(uint64(at.lsn))
	j.wakeAt = at.encoded + j.step()
	j.noteOldest()
	j.prepare()
	go j.background()
	return j, nil
}

// found is what is in the folder.
type found struct {
	names []string // of journal files and spare ones, whatever they hold
	files []file   // those with a header, by sequence number
	seq   uint64   // the largest in any name or header
}

func listFiles(o Options) (f found, err error) {
	names, err := o.FS.List(o.Dir)
	if err != nil {
		return f, err
	}
	for _, base := range names {
		name := filepath.Join(o.Dir, base)
		seq, ok := parseName(base)
		if !ok {
			if base == spareName {
				f.names = append(f.names, name)
			}
			continue
		}
		f.names = append(f.names, name)
		f.seq = max(f.seq, seq)
		h, err := readHeader(o.FS, name)
		if errors.Is(err, errNoHeader) {
			continue // made, and the power went before it was used
		}
		if err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
		if h.store != o.StoreID {
			return f, fmt.Errorf("%s: %w: belongs to store %x, not to %x", name, ErrCorrupt, h.store, o.StoreID)
		}
		f.seq = max(f.seq, h.seq)
		if h.seq == seq { // else the power went while it was made another file
			f.files = append(f.files, file{name: name, header: h})
		}
	}
	slices.SortFunc(f.files, func(a, b file) int { return cmp.Compare(a.header.seq, b.header.seq) })
	return f, nil
}

func readHeader(fsys vfs.FS, name string) (fileHeader, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return fileHeader{}, err
	}
	defer f.Close()
	b := make([]byte, headerLength)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return fileHeader{}, err
	}
	return decodeHeader(b[:n])
}

// reader replays files.
type reader struct {
	o       Options
	replay  func(lsn LSN, payload []byte) error
	next    LSN   // expected
	encoded int64 // length of the records read, on the disk
}

// readAll replays the records from r.next on and returns the files that hold
// them.
func (r *reader) readAll(ctx context.Context, f found) (kept []file, err error) {
	files := f.files
	// What is before the file of the first record is not needed.
	for len(files) > 1 && files[1].header.first <= r.o.First {
		files = files[1:]
	}
	if len(files) == 0 {
		return nil, nil
	}
	if first := files[0].header.first; first > r.o.First {
		return nil, fmt.Errorf("%w: records %d to %d are missing", ErrCorrupt, r.o.First, first-1)
	}
	r.next = files[0].header.first
	for i, file := range files {
		limit := LSN(0)
		if i+1 < len(files) {
			limit = files[i+1].header.first
		}
		file.start = r.encoded
		from := r.next
		if err := r.readFile(ctx, &file, limit); err != nil {
			return nil, fmt.Errorf("%s: %w", file.name, err)
		}
		if r.next > from {
			kept = append(kept, file)
		}
	}
	if r.next < r.o.First {
		// The caller had the rest from elsewhere before it was durable here.
		r.next, r.encoded = r.o.First, 0
		return nil, nil
	}
	return kept, nil
}

// readFile replays the records of one file, up to limit (0: as far as they
// are valid), and makes them durable: after a crash without a power cut they
// may be in the kernel's memory only, and later files must not outlive them.
func (r *reader) readFile(ctx context.Context, f *file, limit LSN) error {
	if f.header.first != r.next {
		return fmt.Errorf("%w: begins with record %d, not %d", ErrCorrupt, f.header.first, r.next)
	}
	handle, err := r.o.FS.Open(f.name)
	if err != nil {
		return err
	}
	defer handle.Close()
	if f.bytes, err = handle.Size(); err != nil {
		return err
	}
	w := window{file: handle, off: headerBlock, end: f.bytes}
	seed := f.header.seed()
	for limit == 0 || r.next < limit {
		if err := ctx.Err(); err != nil {
			return err
		}
		payload, err := w.record(seed, r.next)
		if err != nil {
			return err
		}
		if payload == nil {
			break
		}
		if r.next >= r.o.First {
			if err := r.replay(r.next, payload); err != nil {
				return fmt.Errorf("replay record %d: %w", r.next, err)
			}
		}
		r.encoded += recordLength(len(payload))
		r.next++
	}
	if limit > 0 && r.next < limit {
		return fmt.Errorf("%w: record %d is damaged", ErrCorrupt, r.next)
	}
	return handle.Sync()
}

// window reads a file from front to back.
type window struct {
	file vfs.File
	off  int64 // of the next record
	end  int64 // length of the file
	buf  []byte
	at   int64 // offset of buf in the file
}

// record returns the payload of record want, nil (and no error) if it is not
// there. It is valid until the next call.
func (w *window) record(seed uint32, want LSN) ([]byte, error) {
	for {
		b := w.buf[min(w.off-w.at, int64(len(w.buf))):]
		payload, need, ok := decodeRecord(b, seed, want)
		if ok {
			w.off += recordLength(len(payload))
			return payload, nil
		}
		if need == 0 || need > w.end-w.off {
			return nil, nil
		}
		if err := w.load(need); err != nil {
			return nil, err
		}
	}
}

// load reads need or more bytes from off on.
func (w *window) load(need int64) error {
	n := min(max(need, 1<<20), w.end-w.off)
	if int64(cap(w.buf)) < n {
		w.buf = make([]byte, n)
	}
	w.buf, w.at = w.buf[:n], w.off
	_, err := w.file.ReadAt(w.buf, w.off)
	return err
}

// removeDead removes the files that hold nothing, or nothing that is needed.
// Should a power cut bring one back, the next Open finds the same of it.
func removeDead(o Options, f found, kept []file) error {
	for _, name := range f.names {
		if slices.ContainsFunc(kept, func(k file) bool { return k.name == name }) {
			continue
		}
		if err := removeIfThere(o.FS, name); err != nil {
			return err
		}
	}
	return nil
}
