// Package parttable reads partition tables: GUID (UEFI 2.10 chapter 5) and MBR, with
// the logical partitions of an extended one. It validates all input: a table that is
// inconsistent or exceeds the disk is an error.
package parttable

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrNoTable reports that the disk has no partition table.
var ErrNoTable = errors.New("no partition table")

// ErrDamaged reports an invalid partition table.
var ErrDamaged = errors.New("damaged partition table")

// Disk is the source of a table. Offsets are in bytes.
type Disk interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, off int64) error
}

// Partition is an entry of a table.
type Partition struct {
	// Number counts from 1 in the order of the table; logical partitions count from 5.
	Number        int
	Start, Length int64 // in bytes
	// Type is a GUID, or two hexadecimal digits.
	Type string
	// Name and GUID are empty for MBR.
	Name, GUID string
}

// Table is a partition table.
type Table struct {
	Scheme     string // "gpt" or "mbr"
	Partitions []Partition
	// Backup reports that the primary header is damaged and the table is the backup.
	Backup bool
}

// Find returns the partition with the given number.
func (t *Table) Find(number int) (Partition, bool) {
	i := slices.IndexFunc(t.Partitions, func(p Partition) bool { return p.Number == number })
	if i < 0 {
		return Partition{}, false
	}
	return t.Partitions[i], true
}

const (
	mbrBytes      = 512
	mbrEntries    = 446
	mbrEntryBytes = 16
	typeEmpty     = 0x00
	typeGPT       = 0xEE
	maxLogical    = 128
)

// mbrEntry is an entry of an MBR, or of an extended boot record.
type mbrEntry struct {
	status, kind byte
	start, count uint32 // logical blocks
}

func (e mbrEntry) extended() bool { return e.kind == 0x05 || e.kind == 0x0F || e.kind == 0x85 }
func (e mbrEntry) used() bool     { return e.kind != typeEmpty && e.count > 0 }

// Read returns the partition table of a disk with logical blocks of blockLength bytes.
// The error is ErrNoTable, ErrDamaged, or one of the disk.
func Read(ctx context.Context, d Disk, blockLength int64) (*Table, error) {
	entries, err := readMBR(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	var t *Table
	if slices.ContainsFunc(entries, func(e mbrEntry) bool { return e.kind == typeGPT }) {
		t, err = readGPT(ctx, d, blockLength)
	} else {
		t, err = readLogical(ctx, d, blockLength, entries)
	}
	if err != nil {
		return nil, err
	}
	return t, t.check(d.Size())
}

// check refuses partitions that overlap or exceed the disk.
func (t *Table) check(size int64) error {
	sorted := slices.Clone(t.Partitions)
	slices.SortFunc(sorted, func(a, b Partition) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	for i, p := range sorted {
		if p.Start <= 0 || p.Length <= 0 || p.Start > size || p.Length > size-p.Start {
			return fmt.Errorf("%w: partition %d of %d bytes at %d exceeds the disk of %d bytes", ErrDamaged, p.Number, p.Length, p.Start, size)
		}
		if i > 0 && sorted[i-1].Start+sorted[i-1].Length > p.Start {
			return fmt.Errorf("%w: partitions %d and %d overlap", ErrDamaged, sorted[i-1].Number, p.Number)
		}
	}
	return nil
}

// readMBR returns the four entries of the record at off.
func readMBR(ctx context.Context, d Disk, off int64) ([]mbrEntry, error) {
	if off > d.Size()-mbrBytes {
		return nil, ErrNoTable
	}
	var b [mbrBytes]byte
	if err := d.ReadAt(ctx, b[:], off); err != nil {
		return nil, err
	}
	if b[510] != 0x55 || b[511] != 0xAA {
		return nil, fmt.Errorf("%w: no signature 55AAh at byte %d", ErrNoTable, off+510)
	}
	entries := make([]mbrEntry, 4)
	for i := range entries {
		e := b[mbrEntries+i*mbrEntryBytes:]
		entries[i] = mbrEntry{e[0], e[4], binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])}
		if e[0]&0x7F != 0 {
			// The boot sector of a file system has the same signature.
			return nil, fmt.Errorf("%w: status %02Xh in the entry at byte %d", ErrNoTable, e[0], off+mbrEntries+int64(i)*mbrEntryBytes)
		}
	}
	return entries, nil
}

// readLogical returns the partitions of an MBR.
func readLogical(ctx context.Context, d Disk, blockLength int64, entries []mbrEntry) (*Table, error) {
	t := &Table{Scheme: "mbr"}
	var extended *mbrEntry
	for i, e := range entries {
		switch {
		case !e.used():
		case e.extended():
			if extended != nil {
				return nil, fmt.Errorf("%w: two extended partitions", ErrDamaged)
			}
			extended = &e
		default:
			t.add(i+1, int64(e.start), e, blockLength)
		}
	}
	if extended == nil {
		return t, nil
	}
	return t, t.addChain(ctx, d, blockLength, *extended)
}

func (t *Table) add(number int, start int64, e mbrEntry, blockLength int64) {
	t.Partitions = append(t.Partitions, Partition{
		Number: number, Start: start * blockLength, Length: int64(e.count) * blockLength, Type: fmt.Sprintf("%02x", e.kind),
	})
}

// addChain adds the logical partitions. Each is preceded by a record with its offset
// relative to the record, and the offset of the next record relative to the extended
// partition.
func (t *Table) addChain(ctx context.Context, d Disk, blockLength int64, extended mbrEntry) error {
	first, end := int64(extended.start), int64(extended.start)+int64(extended.count)
	seen := map[int64]bool{}
	for at := first; ; {
		if at < first || at >= end || seen[at] || len(seen) >= maxLogical {
			return fmt.Errorf("%w: chain of logical partitions is cyclic or leaves the extended partition", ErrDamaged)
		}
		seen[at] = true
		entries, err := readMBR(ctx, d, at*blockLength)
		if errors.Is(err, ErrNoTable) {
			return fmt.Errorf("%w: no record of a logical partition at block %d", ErrDamaged, at)
		}
		if err != nil {
			return err
		}
		if e := entries[0]; e.used() {
			start := at + int64(e.start)
			if start <= at || start+int64(e.count) > end {
				return fmt.Errorf("%w: logical partition %d exceeds the extended one", ErrDamaged, 4+len(seen))
			}
			t.add(4+len(seen), start, e, blockLength)
		}
		if !entries[1].used() {
			return nil
		}
		at = first + int64(entries[1].start)
	}
}
