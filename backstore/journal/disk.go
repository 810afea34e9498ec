package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"odx/backstore/vfs"
	"odx/owner"
)

const (
	suffix     = ".journal"
	sparePart  = "spare" // prefix of the name of a spare file
	pageLength = 4096
	stageBytes = 256 << 10 // bytes per write
	// firstFileBytes is the length of the first file, unless FileBytes is less.
	firstFileBytes = 4 << 20
	// readySpares is the number of spare files kept with allocated blocks. On a full
	// disk, a checkpoint needs one for the records after its cut, and a disk error can
	// use another.
	readySpares = 2
	maxSpares   = 4
)

// disk is the part of a Journal guarded by io.
type disk struct {
	finished bool
	seq      uint64 // of the newest file
	files    []file // files with needed records, oldest first
	out      output
	written  cursor // after the last record written or staged
	settled  cursor // after the last durable record
	need     int64  // length of the record that needs a new file

	batch     []*chunk // snapshot of queue.chunks
	splitting LSN      // snapshot of split
	spares    []spare
	taken     map[string]bool // spare names that other files have
	preparing chan spare      // receives the spare being created; nil if none is
	spareErr  error           // error of the last creation of a spare
	nextBytes int64           // length of the next file
}

// file is a journal file with records.
type file struct {
	name   string
	header fileHeader
	start  int64 // cursor.encoded of the first record
	bytes  int64 // length of the file, as far as it is preallocated
	lost   bool  // it was removed: nothing can be done with its name

	// For a file read by Open: the first LSN of the next file (0: none), and in the
	// last file the ends of the durable and of the valid records.
	seal         LSN
	durable, end int64
}

// output is the file being written; handle is nil if there is none.
type output struct {
	handle vfs.File
	seed   uint32
	limit  int64              // maximum end of a record
	end    int64              // offset in the file after the last record
	header [recordHeader]byte // scratch

	stage   []byte // bytes not yet written, zero or more
	stageAt int64  // their offset in the file
}

func fileName(dir string, seq uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", seq, suffix))
}

// parseName returns the sequence number in a file's name, or false if it is not the
// name of a journal file.
func parseName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 16 || strings.ToLower(digits) != digits {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 16, 64)
	return seq, err == nil
}

// put stages p for the file and writes a full stage. Stages end at page boundaries, so
// that the kernel does not read the rest of a page of a reused file.
func (o *output) put(p []byte) error {
	for len(p) > 0 {
		room := stageBytes - int((o.stageAt+int64(len(o.stage)))%stageBytes)
		n := min(room, len(p))
		o.stage = append(o.stage, p[:n]...)
		p = p[n:]
		o.end += int64(n)
		if n == room {
			if err := o.write(); err != nil {
				return err
			}
		}
	}
	return nil
}

var zeros [pageLength]byte

// flush writes the staged bytes, and zeros up to the end of the page.
func (o *output) flush() error {
	if len(o.stage) == 0 {
		return nil
	}
	if over := int(o.end % pageLength); over > 0 {
		o.stage = append(o.stage, zeros[over:]...)
	}
	return o.write()
}

func (o *output) write() error {
	_, err := o.handle.WriteAt(o.stage, o.stageAt)
	o.stage = o.stage[:0]
	o.stageAt = o.end
	return err
}

// createFile creates a file whose first record is the next one, of the given length.
// All records before it are durable. syncing and io are held.
func (j *Journal) createFile(length int64) error {
	j.seq++
	h := fileHeader{version: headerVersion, store: j.o.StoreID, seq: j.seq, first: j.written.lsn + 1}
	name := fileName(j.o.Dir, j.seq)
	handle, bytes, err := j.newFile(name, headerBlock+length)
	if err != nil {
		return fmt.Errorf("new journal file: %w", err)
	}
	h.bytes = bytes
	_, err = handle.WriteAt(h.encode(), 0)
	if err == nil {
		err = handle.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("new journal file: %w", err), handle.Close(), removeIfThere(j.o.FS, name))
	}
	// From here on it is a file of the journal, even after a later error.
	empty := j.cutEmpty(h.first)
	j.files = append(j.files, file{name: name, header: h, start: j.written.encoded, bytes: bytes})
	err = j.dropEmpty(empty, h.first)
	if n := len(j.files); n > 1 && err == nil && !j.files[n-2].lost {
		err = j.seal(j.files[n-2], h.first)
		// Its absence says that records are missing, as a seal would. The next attempt
		// goes on without it: the records are needed only until the next checkpoint.
		j.files[n-2].lost = missing(err)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("seal journal file: %w", err), handle.Close())
	}
	j.out.handle, j.out.seed = handle, h.seed()
	if j.out.limit = bytes; bytes == 0 {
		j.out.limit = max(j.o.FileBytes, headerBlock+length)
	}
	j.out.stage, j.out.stageAt, j.out.end = j.out.stage[:0], headerBlock, headerBlock
	j.prepareSpare()
	return nil
}

// cutEmpty removes the files without durable records from the end of the list, if a new
// file begins at first.
func (j *Journal) cutEmpty(first LSN) []file {
	n := len(j.files)
	for n > 0 && j.files[n-1].header.first == first {
		n--
	}
	empty := j.files[n:]
	j.files = j.files[:n:n]
	return empty
}

// dropEmpty discards files replaced by one that begins at first. They keep their names
// and headers until they are reused. If the new file were lost, they would be read as
// the end of the journal, so they are sealed, too.
func (j *Journal) dropEmpty(empty []file, first LSN) error {
	for _, f := range empty {
		err := j.seal(f, first)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		_ = j.discard(f) // a file that cannot be removed is harmless
	}
	return nil
}

// missing reports whether err says that there is no file by the name.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, owner.ErrNotFile) || errors.Is(err, syscall.EISDIR)
}

// seal writes the first LSN of the next file to a file.
func (j *Journal) seal(f file, next LSN) error {
	handle, err := j.o.FS.Open(f.name)
	if err != nil {
		return err
	}
	_, err = handle.WriteAt(f.header.encodeSeal(next), sealOffset)
	if err == nil {
		err = handle.Sync()
	}
	return errors.Join(err, handle.Close())
}

// newFile returns a file with a durable name, and its preallocated length: a spare file
// if one is long enough, otherwise a new file that grows as it is written.
func (j *Journal) newFile(name string, need int64) (vfs.File, int64, error) {
	handle, bytes, err := j.useSpare(name, need)
	if err != nil {
		return nil, 0, err
	}
	if handle == nil {
		if handle, err = j.o.FS.Create(name); err != nil {
			return nil, 0, err
		}
	}
	if err := j.o.FS.SyncDir(j.o.Dir); err != nil {
		return nil, 0, errors.Join(err, handle.Close(), j.o.FS.Remove(name))
	}
	return handle, bytes, nil
}

// full reports whether an error is that of a full file system.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Room returns the number of bytes of records that fit into allocated blocks.
func (j *Journal) Room() int64 { return j.room.Load() }

func (j *Journal) noteRoom() {
	room := int64(0)
	if n := len(j.files); j.out.handle != nil && j.files[n-1].bytes > 0 {
		room = max(j.out.limit-j.out.end, 0)
	}
	for _, s := range j.spares {
		room += s.bytes - headerBlock
	}
	j.room.Store(room)
}

// FileBytes returns the length of all files.
func (j *Journal) FileBytes() int64 {
	j.acquire()
	defer j.release()
	total := int64(0)
	for _, f := range j.files {
		total += f.bytes
	}
	if n := len(j.files); n > 0 && j.files[n-1].bytes == 0 {
		total += j.out.end
	}
	for _, s := range j.spares {
		total += s.bytes
	}
	return total
}

func removeIfThere(fsys vfs.FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// truncate is Truncate.
func (j *Journal) truncate(below LSN) error {
	if err := j.inherit(); err != nil {
		return err
	}
	defer j.noteOldest()
	// The next file can reuse a discarded one.
	if err := j.discardBelow(below); err != nil {
		return err
	}
	// The file being written is discarded, too, after the next one exists: the last
	// file is never discarded.
	n := len(j.files)
	if j.written.lsn < below && j.written.lsn == j.settled.lsn && (n == 0 || j.files[n-1].header.first <= j.written.lsn) {
		if j.out.handle != nil {
			if err := j.closeOutput(); err != nil {
				return err
			}
		}
		if err := j.createFile(0); err != nil {
			return err
		}
	}
	return j.discardBelow(below)
}

// discardBelow discards the files that only have records below the given one, except
// the last file.
func (j *Journal) discardBelow(below LSN) error {
	for len(j.files) > 1 && j.files[1].header.first <= below {
		if err := j.discard(j.files[0]); err != nil {
			return fmt.Errorf("truncate journal: %w", err)
		}
		j.files = j.files[1:]
	}
	return nil
}

// discard keeps a file for reuse, or removes it if there are enough spares or newer
// files are much longer.
func (j *Journal) discard(f file) error {
	if f.lost {
		return nil // what else may have its name stays
	}
	if len(j.spares) < readySpares && f.bytes >= 2*headerBlock || len(j.spares) < maxSpares && f.bytes >= j.nextBytes/2 {
		j.spares = append(j.spares, spare{name: f.name, bytes: f.bytes})
		return nil
	}
	if err := removeIfThere(j.o.FS, f.name); err != nil {
		j.o.left(f.name, err)
	}
	return nil
}

// left reports a file that is not removed or reused.
func (o *Options) left(name string, err error) {
	if o.Left != nil {
		o.Left(name, err)
	}
}

func (j *Journal) noteOldest() {
	oldest := j.written.encoded
	if len(j.files) > 0 {
		oldest = j.files[0].start
	}
	j.oldest.Store(oldest)
	j.noteRoom()
}

func (j *Journal) closeOutput() error {
	err := j.out.handle.Close()
	j.out.handle = nil
	return err
}

// finish closes all open files.
func (j *Journal) finish() error {
	j.finished = true
	var err error
	if j.out.handle != nil {
		if j.o.NoteAfter > 0 {
			j.note()
		}
		err = j.closeOutput()
	}
	if j.preparing != nil {
		j.addSpare(<-j.preparing)
	}
	return err
}
