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

// survey is the state of a journal determined before its replay.
type survey struct {
	dir   string
	names []string // of journal and spare files, whatever their content
	// chain is the files from the one with record First on.
	chain  []file
	seq    uint64           // the largest in any header, or in any name below maxNumber
	mark   LSN              // the last record known to be durable
	end    LSN              // the last valid record
	torn   LSN              // the first record of the tail that is bad though valid ones follow, or 0
	strays map[string]stray // files not in the chain, by name
	alone  map[string]bool  // names of files that must not be changed
	damage []Damage
}

// maxNumber bounds the sequence numbers that names of files without the header of this
// journal use up. Those of files do not reach it, so the next one cannot overflow.
const maxNumber = 1 << 62

// stray is why a file of the journal is not in its chain.
type stray struct {
	why string
	err error // error of opening it, or nil
}

// cannotRead describes why a file of the journal cannot be read.
func cannotRead(err error) string {
	switch {
	case errors.Is(err, errForeign):
		return err.Error()
	case errors.Is(err, fs.ErrNotExist):
		return "it is a link to what does not exist"
	}
	return fmt.Sprintf("it cannot be opened: %v", err)
}

// newSurvey surveys the journal. It changes nothing.
func newSurvey(ctx context.Context, o Options) (*survey, error) {
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
		if seq < maxNumber {
			s.seq = max(s.seq, seq)
		}
		f, err := readHeader(o, name)
		switch {
		case errors.Is(err, errNoHeader):
			// A power cut after the file's creation, or damage.
			s.strays[name] = stray{why: "its header is damaged"}
		case err != nil:
			// A file that cannot be opened, or is of another store, counts as damaged
			// if it is needed, and is not changed otherwise.
			s.strays[name], s.alone[name] = stray{cannotRead(err), err}, true
			if !o.blind {
				o.left(name, err)
			}
		case f.header.seq != seq:
			// A power cut during the file's reuse, or it is another file.
			s.seq = max(s.seq, f.header.seq)
			s.strays[name] = stray{why: fmt.Sprintf("it is file %016x of the journal", f.header.seq)}
		default:
			files = append(files, f)
		}
	}
	for _, f := range files {
		s.seq = max(s.seq, f.header.seq)
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.header.seq, b.header.seq) })
	s.link(o, files)
	return s, s.readAll(ctx, o)
}

// errForeign reports a file of another store's journal.
var errForeign = fmt.Errorf("%w: of another store", ErrCorrupt)

// readHeader reads the first block of a file of this store.
func readHeader(o Options, name string) (file, error) {
	f, err := headerOf(o.FS, name)
	if err == nil && f.header.store != o.StoreID {
		err = fmt.Errorf("%w: belongs to store %x, not to %x", errForeign, f.header.store, o.StoreID)
	}
	return f, err
}

// headerOf reads the first block of a file.
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

// link builds the chain of files, and records missing ones.
func (s *survey) link(o Options, files []file) {
	// Files before that of the first record are not needed.
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

// missing records as damage the records that no file has. The missing file follows file
// after, or is the first if that is "". A stray file can be what remains of it.
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

// readAll reads all files of the chain, and determines the damage and the end of the
// journal.
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

// limit is the first LSN of the next file, or 0 for the last file.
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

// inside records as damage the records missing between the beginning of a file and of
// the next one: of the file, or of a file between them.
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

// tail distinguishes damage in the last file, up to the mark, from the effects of a
// power cut after it: the journal ends at the first of those. Version 1 has no marks, so
// there each gap is taken for damage. end is the last record found.
func (s *survey) tail(f file, gaps []Damage, end LSN) {
	if f.header.version > 1 && end < s.mark {
		gaps = append(gaps, Damage{File: f.name, First: end + 1, Last: s.mark, Cause: "damaged"})
	}
	for _, g := range gaps {
		if f.header.version == 1 {
			g.Cause += ", or lost in a power cut, which a file of version 1 does not tell"
			s.damage = append(s.damage, g)
			continue
		}
		if g.First > s.mark {
			end, s.torn = g.First-1, g.First
			break
		}
		last := g.Last
		g.Last = min(last, s.mark)
		s.damage = append(s.damage, g)
		if last > s.mark {
			end, s.torn = s.mark, s.mark+1
			break
		}
	}
	s.end = max(end, s.mark)
	if f.header.bytes > f.bytes && len(gaps) == 0 {
		s.damage = append(s.damage, Damage{File: f.name, First: s.end + 1,
			Cause: fmt.Sprintf("it has %d bytes and was given %d", f.bytes, f.header.bytes)})
	}
}
