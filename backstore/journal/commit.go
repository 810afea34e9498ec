package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"odx/backstore/vfs"
)

// errNewFile reports that the next record needs a new file, which only a commit
// creates.
var errNewFile = errors.New("a new journal file is needed")

// commit makes all records appended before the call durable. syncing is held.
func (j *Journal) commit() error {
	if err := j.inherit(); err != nil {
		return err
	}
	j.io <- struct{}{}
	defer func() { <-j.io }()
	defer j.trim()
	if j.finished {
		return ErrClosed
	}
	for {
		err := j.writeOut()
		if err == nil {
			break
		}
		if !errors.Is(err, errNewFile) {
			return err
		}
		if err := j.nextFile(); err != nil {
			return err
		}
	}
	if err := j.settle(); err != nil {
		return err
	}
	if j.o.NoteAfter == 0 {
		j.note()
	} else {
		j.late.Reset(j.o.NoteAfter)
	}
	if j.out.handle != nil && j.out.end > j.out.limit/2 {
		j.prepareSpare()
	}
	return nil
}

// inherit makes the replayed records durable. syncing is held.
func (j *Journal) inherit() error {
	if j.inherited == nil {
		return nil
	}
	if err := j.inherited(); err != nil {
		return fmt.Errorf("sync replayed records: %w", err)
	}
	j.inherited = nil
	return nil
}

// write writes the records up to upTo to the kernel. io is held.
func (j *Journal) write(upTo LSN) error {
	if j.finished {
		return ErrClosed
	}
	if j.Written() >= upTo {
		return nil
	}
	return j.writeOut()
}

// writeOut writes all records appended before the call to the kernel. It returns
// errNewFile if they need a new file. After another error records that are not durable
// count as not written.
func (j *Journal) writeOut() error {
	j.mu.Lock()
	end := j.queue.end
	j.batch = append(j.batch[:0], j.queue.chunks...)
	j.splitting = j.split
	j.mu.Unlock()
	if j.written.lsn < end.lsn && j.o.BeforeWrite != nil {
		if err := j.o.BeforeWrite(); err != nil {
			return fmt.Errorf("before writing the journal: %w", err)
		}
	}
	var full error
	for j.written.lsn < end.lsn {
		err := j.writeNext()
		if err == errNewFile {
			full = err
			break
		}
		if err != nil {
			return j.abandon(err)
		}
	}
	if err := j.out.flush(); err != nil {
		return j.abandon(fmt.Errorf("write journal: %w", err))
	}
	j.inKernel.Store(uint64(j.written.lsn))
	return full
}

// writeNext writes the record after j.written.
func (j *Journal) writeNext() error {
	at := j.written
	// Only the last chunk grows, and its end is not used.
	if at.chunk < len(j.batch)-1 && at.off == j.batch[at.chunk].n {
		at.chunk, at.off = at.chunk+1, 0
	}
	p := j.batch[at.chunk].memory[at.off:]
	length := int(binary.LittleEndian.Uint32(p))
	payload := p[prefixLength : prefixLength+length]

	size := recordLength(length)
	if !j.fits(at.lsn+1, size) {
		j.need = size
		return errNewFile
	}
	encodeRecordHeader(&j.out.header, j.out.seed, at.lsn+1, j.settled.lsn, payload)
	pad := int(size) - recordHeader - length
	for _, part := range [...][]byte{j.out.header[:], payload, zeros[:pad]} {
		if err := j.out.put(part); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
	j.written = at.next(length)
	return nil
}

// fits reports whether the next record, of size bytes on the disk, fits into the file
// and no split precedes it.
func (j *Journal) fits(lsn LSN, size int64) bool {
	if j.out.handle == nil {
		return false
	}
	first := j.files[len(j.files)-1].header.first
	split := first < j.splitting && j.splitting <= lsn
	return !split && j.out.end+size <= j.out.limit
}

// nextFile creates the file of the next record, after the previous file is durable.
// syncing and io are held.
func (j *Journal) nextFile() error {
	if j.out.handle != nil {
		if j.settled.lsn < j.written.lsn {
			if err := j.sync(j.out.handle); err != nil {
				return j.abandon(err)
			}
			j.settled = j.written
		}
		if err := j.closeOutput(); err != nil {
			return fmt.Errorf("close journal file: %w", err)
		}
	}
	return j.createFile(j.need)
}

// settle makes written records durable. syncing and io are held; io is released during
// the sync.
func (j *Journal) settle() error {
	if j.settled.lsn == j.written.lsn {
		return nil
	}
	target, handle := j.written, j.out.handle
	<-j.io
	err := j.sync(handle)
	j.io <- struct{}{}
	switch {
	case j.out.handle != handle: // abandoned: its records go to a new file
		return errors.Join(errors.New("write journal: a write failed during the sync"), err)
	case err != nil:
		return j.abandon(err)
	}
	j.settled = target
	return nil
}

// sync makes the records of a file durable, after the data that they refer to.
func (j *Journal) sync(handle vfs.File) error {
	began := time.Now()
	j.syncBegan.Store(began.UnixNano())
	err := j.syncData(handle)
	j.syncBegan.Store(0)
	if err != nil {
		j.syncFailures.Add(1)
		return err
	}
	j.syncs.Observe(time.Since(began))
	return nil
}

// syncData syncs the data that records refer to, and then the records.
func (j *Journal) syncData(handle vfs.File) error {
	if j.o.BeforeSync != nil {
		if err := j.o.BeforeSync(); err != nil {
			return fmt.Errorf("before journal commit: %w", err)
		}
	}
	if err := handle.Sync(); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	return nil
}

// lateNote writes the note of a sync after which nothing was written for NoteAfter.
func (j *Journal) lateNote() {
	j.acquire()
	defer j.release()
	if !j.finished {
		j.note()
	}
}

// note writes a note after the last durable record, unless the next record is already
// there. It is not synced: if it is lost, less of the journal is known to be durable.
func (j *Journal) note() {
	o := &j.out
	if o.handle == nil || j.written.lsn != j.settled.lsn || o.end+recordHeader > o.limit ||
		o.end%pageLength > pageLength-recordHeader || o.end%pageLength == 0 {
		return
	}
	encodeNote(&o.header, o.seed, j.written.lsn, j.settled.lsn)
	_, _ = o.handle.WriteAt(o.header[:], o.end)
}

// abandon closes the file after an error, which it returns. Records that are not
// durable count as not written, and go to a new file.
func (j *Journal) abandon(cause error) error {
	if j.out.handle != nil {
		cause = errors.Join(cause, j.closeOutput())
	}
	j.out.stage = j.out.stage[:0]
	j.written = j.settled
	j.inKernel.Store(uint64(j.settled.lsn))
	return cause
}

// trim frees the memory of durable records, and wakes waiting callers.
func (j *Journal) trim() {
	j.noteOldest()
	j.mu.Lock()
	defer j.mu.Unlock()
	dropped := j.queue.trim(j.settled)
	j.settled = j.queue.start
	if j.written.lsn == j.settled.lsn {
		j.written = j.settled
	} else {
		j.written.chunk -= dropped
	}
	j.durable.Store(uint64(j.settled.lsn))
	j.wakeAt = j.queue.end.encoded + j.step()
	j.signalRoom()
}
