package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"odx/backstore/vfs"
)

// survey is what is known of a journal before a record of it is replayed.
type survey struct {
	dir   string
	names []string // of journal files and spare ones, whatever they hold
	// chain are the files from the one that has record First on.
	chain  []file
	seq    uint64           // the largest in any name or header
	mark   LSN              // up to which records, and what they point at, were durable
	end    LSN              // the last record that counts
	strays map[string]stray // by name, files that are none of the chain
	alone  map[string]bool  // names of files that are not touched
	damage []Damage
}

// stray says why a file of the journal is none of its chain.
type stray struct {
	why string
	err error // why it cannot be opened, nil where it can
}

// cannotRead says why a file of the journal cannot be read.
func cannotRead(err error) string {
	switch {
	case errors.Is(err, errForeign):
		return err.Error()
	case errors.Is(err, fs.ErrNotExist):
		return "it is a link to what does not exist"
	}
	return fmt.Sprintf("it cannot be opened: %v", err)
}

// look surveys the journal. It changes nothing.
func look(ctx context.Context, o Options) (*survey, error) {
	s := &survey{dir: o.Dir, strays: map[string]stray{}, alone: map[string]bool{}}
	names, err := o.FS.List(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []file
	for _, base := range names {
		seq, ok := parseName(base)
		if !ok && !isSpareName(base) {
			continue
		}
		name := filepath.Join(o.Dir, base)
		s.names = append(s.names, name)
		if !ok {
			continue
		}
		s.seq = max(s.seq, seq)
		f, err := readHeader(o, name)
		switch {
		case errors.Is(err, errNoHeader):
			// It was made, and the power went before it was used; or it is damaged.
			s.strays[name] = stray{why: "its header is damaged"}
		case err != nil:
			// What cannot be opened, or is of another store, is as good as damaged
			// where it is needed, and left alone where it is not.
			s.strays[name], s.alone[name] = stray{cannotRead(err), err}, true
			if !o.blind {
				o.left(name, err)
			}
		case f.header.seq != seq:
			// The power went while it was made another file; or it is not this one.
			s.seq = max(s.seq, f.header.seq)
			s.strays[name] = stray{why: fmt.Sprintf("it is file %016x of the journal", f.header.seq)}
		default:
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.header.seq, b.header.seq) })
	s.link(o, files)
	return s, s.readAll(ctx, o)
}

// errForeign: a file is of the journal of another store.
var errForeign = fmt.Errorf("%w: of another store", ErrCorrupt)

// readHeader returns what the first block of a file of this store says.
func readHeader(o Options, name string) (file, error) {
	f, err := headerOf(o.FS, name)
	if err == nil && f.header.store != o.StoreID {
		err = fmt.Errorf("%w: belongs to store %x, not to %x", errForeign, f.header.store, o.StoreID)
	}
	return f, err
}

// headerOf returns what the first block of a file says.
func headerOf(fsys vfs.FS, name string) (file, error) {
	handle, err := fsys.Open(name)
	if err != nil {
		return file{}, err
	}
	defer handle.Close()
	b := make([]byte, headerBlock)
	n, err := handle.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return file{}, err
	}
	h, err := decodeHeader(b[:n])
	if err != nil {
		return file{}, err
	}
	f := file{name: name, header: h, seal: h.decodeSeal(b[:n])}
	f.bytes, err = handle.Size()
	return f, err
}

// link makes the chain of files, and finds what it lacks.
func (s *survey) link(o Options, files []file) {
	// What is before the file of the first record is not needed.
	for len(files) > 1 && files[1].header.first <= o.First {
		files = files[1:]
	}
	s.chain = files
	if len(files) == 0 {
		if !o.Legacy {
			s.missing("", o.First, 0)
		}
		return
	}
	s.mark = files[len(files)-1].header.first - 1
	if first := files[0].header.first; first > o.First {
		s.missing("", o.First, first-1)
	}
	for i, f := range files {
		if i > 0 && f.header.first < files[i-1].header.first {
			s.damage = append(s.damage, Damage{File: f.name, First: f.header.first,
				Cause: fmt.Sprintf("the file before it begins with record %d", files[i-1].header.first)})
		}
	}
	if last := files[len(files)-1]; last.seal > 0 {
		s.mark = max(s.mark, last.seal-1)
		s.missing(last.name, last.seal, 0)
	}
}

// missing notes records that no file has, though one that follows the given file
// ("": that is the first of all) must have had them. A file that is not part of
// the chain can be what is left of it.
func (s *survey) missing(after string, first, last LSN) {
	d := Damage{File: s.dir, First: first, Last: last, Cause: "there is no file that holds them"}
	for _, name := range s.names {
		if f, ok := s.strays[name]; ok && name > after {
			d.File, d.Cause, d.Err = name, f.why, f.err
			break
		}
	}
	s.damage = append(s.damage, d)
}

// readAll reads all files of the chain. It finds what is damaged, and where the
// journal ends.
func (s *survey) readAll(ctx context.Context, o Options) error {
	s.end = o.First - 1
	for i, f := range s.chain {
		if err := s.check(ctx, o, f, s.limit(i)); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if s.end+1 < o.First && !o.Legacy {
		last := s.chain[len(s.chain)-1]
		s.damage = append(s.damage, Damage{File: last.name, First: s.end + 1, Last: o.First - 1,
			Cause: "it ends before what is stored elsewhere"})
	}
	return nil
}

// limit is where the next file takes over; 0 for the last one.
func (s *survey) limit(i int) LSN {
	if i+1 < len(s.chain) {
		return s.chain[i+1].header.first
	}
	return 0
}

// check reads one file of the chain.
func (s *survey) check(ctx context.Context, o Options, f file, limit LSN) error {
	var gaps []Damage
	w := walk{o: o, f: f, limit: limit}
	w.gap = func(first, last LSN, cause string) {
		gaps = append(gaps, Damage{File: f.name, First: first, Last: last, Cause: cause})
	}
	w.record = func(r frame) error {
		s.mark = max(s.mark, r.mark)
		return nil
	}
	end, err := w.run(ctx)
	if err != nil {
		return err
	}
	if limit > 0 {
		s.inside(f, gaps, limit)
		return nil
	}
	s.tail(f, gaps, end)
	return nil
}

// inside notes what is missing between the beginning of a file and that of the
// next one: of the file, or of one that was between them.
func (s *survey) inside(f file, gaps []Damage, limit LSN) {
	for _, g := range gaps {
		if f.seal == 0 || g.Last < f.seal {
			s.damage = append(s.damage, g)
			continue
		}
		if g.First < f.seal {
			s.damage = append(s.damage, Damage{File: f.name, First: g.First, Last: f.seal - 1, Cause: g.Cause})
		}
		s.missing(f.name, max(g.First, f.seal), g.Last)
	}
}

// tail distinguishes what is damaged in the last file, up to the mark, from what a power
// cut left after it: the journal ends with the first of that. end is the last
// record that was found.
func (s *survey) tail(f file, gaps []Damage, end LSN) {
	if f.header.version > 1 && end < s.mark {
		gaps = append(gaps, Damage{File: f.name, First: end + 1, Last: s.mark, Cause: "damaged"})
	}
	for _, g := range gaps {
		if g.First > s.mark || f.header.version == 1 {
			end = g.First - 1
			break
		}
		last := g.Last
		g.Last = min(last, s.mark)
		s.damage = append(s.damage, g)
		if last > s.mark {
			end = s.mark
			break
		}
	}
	s.end = max(end, s.mark)
	if f.header.bytes > f.bytes && len(gaps) == 0 {
		s.damage = append(s.damage, Damage{File: f.name, First: s.end + 1,
			Cause: fmt.Sprintf("it has %d bytes and was given %d", f.bytes, f.header.bytes)})
	}
}
