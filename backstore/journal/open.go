package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"odx/backstore/vfs"
)

// Record is a record read from the journal.
type Record struct {
	LSN     LSN
	Payload []byte // valid only during the call
	// Durable reports that the data that the record refers to was durable. Otherwise a
	// power cut may have lost that data and not the record.
	Durable bool
}

func (o *Options) setDefaults() {
	o.FileBytes = max(cmp.Or(o.FileBytes, DefaultFileBytes), 2*headerBlock) &^ (pageLength - 1)
	o.MaxUnsynced = min(max(cmp.Or(o.MaxUnsynced, DefaultMaxUnsynced), 64), 1<<30)
	o.First = max(o.First, 1)
}

// Create creates the journal of a new store, whose first record is o.First. From then
// on Open reports missing files. The error wraps fs.ErrExist if files of a journal
// exist.
func Create(o Options) error {
	o.setDefaults()
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	names, err := o.FS.List(o.Dir)
	if err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	for _, base := range names {
		if _, ok := parseName(base); ok {
			return fmt.Errorf("create journal: %s: %w", filepath.Join(o.Dir, base), fs.ErrExist)
		}
	}
	// The file is named when it is complete.
	h := fileHeader{version: headerVersion, store: o.StoreID, seq: 1, first: o.First}
	made := filepath.Join(o.Dir, sparePart+suffix)
	err = writeNew(o.FS, made, h.encode())
	if err == nil {
		err = o.FS.Rename(made, fileName(o.Dir, h.seq))
	}
	if err == nil {
		err = o.FS.SyncDir(o.Dir)
	}
	if err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	return nil
}

// writeNew writes a file durably, replacing an existing one.
func writeNew(fsys vfs.FS, name string, content []byte) error {
	if err := removeIfThere(fsys, name); err != nil {
		return err
	}
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Open reads the journal in o.Dir and calls replay with each record from o.First on, in
// order. The journal ends before the first record after the mark that is torn or
// missing, or for which replay returns ErrCut; all committed records are before it.
// Another error of replay, or the end of ctx, aborts Open. Records that were not
// durable are made durable in the background, and by the next Commit.
//
// The error is a *DamageError if durable records are damaged or missing, and wraps
// ErrCorrupt if files belong to another store. Then Open has replayed and changed
// nothing.
func Open(ctx context.Context, o Options, replay func(Record) error) (*Journal, error) {
	o.setDefaults()
	o.blind = false
	if o.Legacy {
		if err := o.FS.MkdirAll(o.Dir); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
	}
	s, err := newSurvey(ctx, o)
	if err == nil && len(s.damage) > 0 {
		err = &DamageError{s.damage}
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	encoded, err := s.replay(ctx, o, replay)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	spares := s.adopt(o)
	j := newJournal(o)
	j.spares = spares
	for _, f := range spares {
		j.nextBytes = min(max(j.nextBytes, f.bytes), o.FileBytes)
	}
	at := cursor{lsn: s.end, encoded: encoded}
	j.replayed, j.torn = s.end, s.torn
	j.queue.start, j.queue.end = at, at
	j.seq, j.files, j.written, j.settled = s.seq, s.chain, at, at
	j.durable.Store(uint64(at.lsn))
	if s.mark < s.end {
		j.durable.Store(uint64(s.mark))
		j.inherited = func() error { return s.makeDurable(o) }
	}
	j.inKernel.Store(uint64(at.lsn))
	j.wakeAt = at.encoded + j.step()
	j.noteOldest()
	j.prepareSpare()
	go j.background()
	return j, nil
}

func newJournal(o Options) *Journal {
	j := &Journal{
		o:       o,
		disk:    disk{taken: make(map[string]bool)},
		syncing: make(chan struct{}, 1),
		io:      make(chan struct{}, 1),
		turn:    make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		late:    time.NewTimer(time.Hour),
	}
	j.late.Stop() // the first sync sets it
	j.queue.unit = max(min(1<<20, o.MaxUnsynced/4), pageLength)
	j.nextBytes = min(firstFileBytes, o.FileBytes)
	j.out.stage = make([]byte, 0, stageBytes)
	return j
}

// replay calls replay with the records of the chain, and truncates the chain at the end
// of the journal. It returns the length of the records on the disk.
func (s *survey) replay(ctx context.Context, o Options, replay func(Record) error) (encoded int64, err error) {
	for i := range s.chain {
		f := &s.chain[i]
		f.start = encoded
		limit := s.limit(i)
		if limit == 0 {
			limit = s.end + 1
		}
		w, cut := walk{o: o, f: *f, limit: limit}, false
		w.record = func(r frame) error {
			if r.lsn >= o.First {
				err := replay(Record{LSN: r.lsn, Payload: r.payload, Durable: s.durable(f.header, r.lsn)})
				cut = !s.durable(f.header, r.lsn) && errors.Is(err, ErrCut)
				if err != nil {
					return fmt.Errorf("replay record %d: %w", r.lsn, err)
				}
			}
			if encoded += r.length; r.lsn <= s.mark {
				f.durable = r.off + r.length
			}
			f.end = r.off + r.length
			return nil
		}
		last, err := w.run(ctx)
		switch {
		case cut:
			s.end, s.torn = last, last+1
		case err != nil:
			return 0, fmt.Errorf("%s: %w", f.name, err)
		case last+1 < limit:
			return 0, &DamageError{[]Damage{{File: f.name, First: last + 1, Last: limit - 1, Cause: "the file changed while the journal was opened"}}}
		}
	}
	if s.end+1 < o.First { // only for a journal of version 1
		s.end, s.chain, encoded = o.First-1, nil, 0
	}
	return encoded, nil
}

// durable reports whether the data that a record refers to was durable. Version 1 wrote
// records only after that.
func (s *survey) durable(h fileHeader, lsn LSN) bool { return h.version == 1 || lsn <= s.mark }

// makeDurable makes the replayed records and the data that they refer to durable: after
// a crash without a power cut they may only be in the kernel's memory, and later files
// must not survive without them.
func (s *survey) makeDurable(o Options) error {
	if o.BeforeSync != nil {
		if err := o.BeforeSync(); err != nil {
			return err
		}
	}
	if len(s.chain) == 0 {
		return nil
	}
	f := s.chain[len(s.chain)-1]
	handle, err := o.FS.Open(f.name)
	if err != nil {
		return err
	}
	err = rewrite(handle, max(f.durable, headerBlock), f.end)
	if err == nil {
		err = handle.Sync()
	}
	return errors.Join(err, handle.Close())
}

// rewrite rewrites bytes [from, to) unchanged: after a failed sync of the previous
// process the kernel may consider them written.
func rewrite(handle vfs.File, from, to int64) error {
	for b := make([]byte, min(1<<20, max(to-from, 0))); from < to; from += int64(len(b)) {
		b = b[:min(int64(len(b)), to-from)]
		if _, err := handle.ReadAt(b, from); err != nil {
			return err
		}
		if _, err := handle.WriteAt(b, from); err != nil {
			return err
		}
	}
	return nil
}

// adopt makes spares of the files without needed records, longest first, and removes
// surplus ones: their blocks may be the last ones of a full disk. If a power cut
// restores one, the next Open treats it the same. Files that cannot be opened or
// removed, or are of another store, are not changed.
func (s *survey) adopt(o Options) (spares []spare) {
	for _, name := range s.names {
		if s.alone[name] || slices.ContainsFunc(s.chain, func(f file) bool { return f.name == name }) {
			continue
		}
		bytes, err := assigned(o.FS, name)
		if err != nil {
			o.left(name, err)
			continue
		}
		spares = append(spares, spare{name: name, bytes: bytes})
	}
	slices.SortStableFunc(spares, func(a, b spare) int { return cmp.Compare(b.bytes, a.bytes) })
	for n := len(spares); n > 0 && (n > maxSpares || spares[n-1].bytes < 2*headerBlock); n-- {
		if err := removeIfThere(o.FS, spares[n-1].name); err != nil {
			o.left(spares[n-1].name, err)
		}
		spares = spares[:n-1]
	}
	return spares
}

// maxSpareBytes bounds the length of a spare file. A longer one is not of this journal, or
// was made for one record, and would take blocks and time that no file needs.
const maxSpareBytes = 2 * DefaultFileBytes

// assigned returns the length of a file after allocating all its blocks, or 0 if there
// are not enough blocks, or if it is too long for a spare.
func assigned(fsys vfs.FS, name string) (bytes int64, err error) {
	handle, err := fsys.Open(name)
	if err != nil {
		return 0, err
	}
	bytes, err = handle.Size()
	bytes &^= pageLength - 1
	if bytes > maxSpareBytes {
		bytes = 0
	}
	if err == nil && bytes > 0 {
		if err = handle.Allocate(bytes); full(err) {
			bytes, err = 0, nil
		}
	}
	return bytes, errors.Join(err, handle.Close())
}

// Contents is the result of Read.
type Contents struct {
	// Mark is the last record known to be durable, with the data that it refers to. End
	// is the last valid record.
	Mark, End LSN
	Damages   []Damage
	// Torn is the first record of the tail that does not count though valid records
	// follow, or 0.
	Torn LSN
}

// Read calls visit with each readable record from o.First on, in order, including those
// after damage, and returns the damage. It changes nothing. The journal may be open;
// Read may then miss its last records. An error of visit ends Read, except ErrCut,
// after which the journal ends as in Open.
func Read(ctx context.Context, o Options, visit func(Record) error) (Contents, error) {
	o.setDefaults()
	o.blind = true
	s, err := newSurvey(ctx, o)
	if err == nil {
		err = s.visit(ctx, o, visit)
	}
	if err != nil && !errors.Is(err, ErrCut) {
		return Contents{}, fmt.Errorf("read journal: %w", err)
	}
	return Contents{Mark: s.mark, End: s.end, Damages: s.damage, Torn: s.torn}, nil
}

// Torn returns the first record that did not count when the journal was opened, though
// valid ones follow in its tail, or 0: a power cut keeps later records and loses earlier
// ones, or their data. The records are there until they are truncated: see ReadTorn.
func (j *Journal) Torn() LSN { return j.torn }

// ReadTorn calls visit with each valid record from o.First on, in order, in the last file
// of the journal, whether they count or not. It changes nothing.
func ReadTorn(ctx context.Context, o Options, visit func(Record)) error {
	o.setDefaults()
	o.blind = true
	s, err := newSurvey(ctx, o)
	if err != nil || len(s.chain) == 0 {
		return err
	}
	w := walk{o: o, f: s.chain[len(s.chain)-1], gap: func(LSN, LSN, string) {}}
	w.record = func(r frame) error {
		if !r.note && r.lsn >= o.First {
			visit(Record{LSN: r.lsn, Payload: r.payload})
		}
		return nil
	}
	_, err = w.run(ctx)
	return err
}

func (s *survey) visit(ctx context.Context, o Options, visit func(Record) error) error {
	for i, f := range s.chain {
		w := walk{o: o, f: f, limit: s.limit(i), gap: func(LSN, LSN, string) {}}
		w.record = func(r frame) error {
			if r.note || r.lsn < o.First || r.lsn > s.end {
				return nil
			}
			err := visit(Record{LSN: r.lsn, Payload: r.payload, Durable: s.durable(f.header, r.lsn)})
			if errors.Is(err, ErrCut) && !s.durable(f.header, r.lsn) {
				s.end, s.torn = r.lsn-1, r.lsn
			}
			return err
		}
		if _, err := w.run(ctx); err != nil {
			return err
		}
	}
	return nil
}
