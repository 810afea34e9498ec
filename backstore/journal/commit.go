package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// commit makes all records durable that were appended before.
func (j *Journal) commit() error {
	defer j.trim()
	if err := j.writeOut(); err != nil {
		return err
	}
	if err := j.settle(); err != nil {
		return err
	}
	if j.out.handle != nil && j.out.end > j.out.limit/2 {
		j.prepare()
	}
	return nil
}

// writeOut gives all records to the kernel that were appended before. When it
// fails none of those that were not durable counts as written.
func (j *Journal) writeOut() error {
	if j.finished {
		return ErrClosed
	}
	j.mu.Lock()
	end := j.queue.end
	j.batch = append(j.batch[:0], j.queue.chunks...)
	j.splitting = append(j.splitting[:0], j.splits...)
	j.mu.Unlock()
	if j.written.lsn == end.lsn {
		return nil
	}
	if j.o.BeforeSync != nil {
		if err := j.o.BeforeSync(); err != nil {
			return fmt.Errorf("before journal commit: %w", err)
		}
	}
	for j.written.lsn < end.lsn {
		if err := j.writeNext(); err != nil {
			return j.abandon(err)
		}
	}
	if err := j.out.flush(); err != nil {
		return j.abandon(fmt.Errorf("write journal: %w", err))
	}
	return nil
}

// writeNext writes the record behind j.written.
func (j *Journal) writeNext() error {
	at := j.written
	// Only the last chunk still grows, and it is not looked at for its end.
	if at.chunk < len(j.batch)-1 && at.off == j.batch[at.chunk].n {
		at.chunk, at.off = at.chunk+1, 0
	}
	p := j.batch[at.chunk].memory[at.off:]
	length := int(binary.LittleEndian.Uint32(p))
	payload := p[prefixLength : prefixLength+length]

	size := recordLength(length)
	if err := j.makeRoom(at.lsn+1, size); err != nil {
		return err
	}
	encodeRecordHeader(&j.out.header, j.out.seed, at.lsn+1, payload)
	pad := int(size) - recordHeader - length
	for _, part := range [...][]byte{j.out.header[:], payload, zeros[:pad]} {
		if err := j.out.put(part); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
	j.written = at.next(length)
	return nil
}

// makeRoom sees to it that the next record, of size bytes on the disk, has a
// file that it fits in and belongs in.
func (j *Journal) makeRoom(lsn LSN, size int64) error {
	if j.out.handle != nil {
		first := j.files[len(j.files)-1].header.first
		split := slices.ContainsFunc(j.splitting, func(s LSN) bool { return first < s && s <= lsn })
		if !split && j.out.end+size <= j.out.limit {
			return nil
		}
		// The next file may exist only when this one is durable to its end.
		if err := j.out.flush(); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
		if err := j.settle(); err != nil {
			return err
		}
		if err := j.closeOutput(); err != nil {
			return fmt.Errorf("close journal file: %w", err)
		}
	}
	return j.begin(size)
}

// settle makes durable what was written.
func (j *Journal) settle() error {
	if j.settled.lsn == j.written.lsn {
		return nil
	}
	if err := j.out.handle.Sync(); err != nil {
		return j.abandon(fmt.Errorf("sync journal: %w", err))
	}
	j.settled = j.written
	return nil
}

// abandon gives the file up after an error, which it returns: what was not
// durable counts as not written, and goes to a new file.
func (j *Journal) abandon(cause error) error {
	if j.out.handle != nil {
		cause = errors.Join(cause, j.closeOutput())
	}
	j.out.stage = j.out.stage[:0]
	j.written = j.settled
	if n := len(j.files); n > 0 && j.files[n-1].header.first > j.settled.lsn {
		// It holds nothing durable. If it cannot be removed it does no harm.
		_ = j.o.FS.Remove(j.files[n-1].name)
		j.files = j.files[:n-1]
	}
	return cause
}

// trim frees the memory of durable records, and says that they are.
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
	j.splits = slices.DeleteFunc(j.splits, func(s LSN) bool { return s <= j.settled.lsn })
	j.durable.Store(uint64(j.settled.lsn))
	j.wakeAt = j.queue.end.encoded + j.step()
	j.tellRoom()
}
