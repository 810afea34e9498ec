package parttable

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unicode/utf16"
)

// Constants of the GUID partition table (UEFI 2.10 tables 5.5 and 5.6).
const (
	gptHeaderBytes = 92
	gptEntryBytes  = 128
	// maxEntryArray bounds the memory for the entries; 128 entries take 16 KiB.
	maxEntryArray = 1 << 20
)

var gptSignature = []byte("EFI PART")

// gptHeader has the used fields of a header.
type gptHeader struct {
	firstUsable, lastUsable int64 // logical blocks
	entries                 int64 // first logical block of the entries
	count, size             int64
	crc                     uint32
}

// readGPT returns the partitions of the primary header, or of the backup in the last
// block if the primary is damaged.
func readGPT(ctx context.Context, d Disk, blockLength int64) (*Table, error) {
	t, err := readGPTAt(ctx, d, blockLength, 1)
	if !errors.Is(err, ErrDamaged) {
		return t, err
	}
	last := d.Size()/blockLength - 1
	t, backupErr := readGPTAt(ctx, d, blockLength, last)
	if errors.Is(backupErr, ErrDamaged) {
		return nil, fmt.Errorf("%w; backup: %w", err, backupErr)
	}
	if backupErr != nil {
		return nil, backupErr
	}
	t.Backup = true
	return t, nil
}

// readGPTAt returns the partitions of the header in a logical block.
func readGPTAt(ctx context.Context, d Disk, blockLength, block int64) (*Table, error) {
	blocks := d.Size() / blockLength
	if block < 1 || block >= blocks {
		return nil, fmt.Errorf("%w: no room for a header in block %d", ErrDamaged, block)
	}
	b := make([]byte, blockLength)
	if err := d.ReadAt(ctx, b, block*blockLength); err != nil {
		return nil, err
	}
	h, err := parseGPTHeader(b, block, blocks)
	if err != nil {
		return nil, err
	}
	length := h.count * h.size
	if h.entries < 1 || h.entries >= blocks || length > (blocks-h.entries)*blockLength {
		return nil, fmt.Errorf("%w: entries at block %d exceed the disk", ErrDamaged, h.entries)
	}
	array := make([]byte, (length+blockLength-1)/blockLength*blockLength)
	if err := d.ReadAt(ctx, array, h.entries*blockLength); err != nil {
		return nil, err
	}
	array = array[:length]
	if crc32.ChecksumIEEE(array) != h.crc {
		return nil, fmt.Errorf("%w: checksum mismatch of the entries", ErrDamaged)
	}
	t := &Table{Scheme: "gpt"}
	for i := range h.count {
		e := array[i*h.size:][:gptEntryBytes]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		if first < uint64(h.firstUsable) || last > uint64(h.lastUsable) || last < first {
			return nil, fmt.Errorf("%w: partition %d from block %d to %d exceeds the usable blocks %d to %d", ErrDamaged, i+1, first, last, h.firstUsable, h.lastUsable)
		}
		t.Partitions = append(t.Partitions, Partition{
			Number: int(i) + 1, Start: int64(first) * blockLength, Length: int64(last-first+1) * blockLength,
			Type: guid(e[:16]), GUID: guid(e[16:32]), Name: name(e[56:128]),
		})
	}
	return t, nil
}

// parseGPTHeader validates the header in a logical block of a disk with the given
// number of blocks.
func parseGPTHeader(b []byte, block, blocks int64) (gptHeader, error) {
	le := binary.LittleEndian
	damaged := func(what string) (gptHeader, error) {
		return gptHeader{}, fmt.Errorf("%w: header in block %d: %s", ErrDamaged, block, what)
	}
	if !bytes.Equal(b[:8], gptSignature) {
		return damaged("no signature")
	}
	n := le.Uint32(b[12:])
	if n < gptHeaderBytes || int64(n) > int64(len(b)) {
		return damaged("invalid length")
	}
	sum := le.Uint32(b[16:])
	zeroed := bytes.Clone(b[:n])
	clear(zeroed[16:20])
	if crc32.ChecksumIEEE(zeroed) != sum {
		return damaged("checksum mismatch")
	}
	if le.Uint64(b[24:]) != uint64(block) {
		return damaged("MyLBA is another block")
	}
	first, last, entries := le.Uint64(b[40:]), le.Uint64(b[48:]), le.Uint64(b[72:])
	if first < 2 || first > last || last >= uint64(blocks) || entries >= uint64(blocks) {
		return damaged("its blocks exceed the disk")
	}
	h := gptHeader{int64(first), int64(last), int64(entries), int64(le.Uint32(b[80:])), int64(le.Uint32(b[84:])), le.Uint32(b[88:])}
	if h.size < gptEntryBytes || h.size&(h.size-1) != 0 || h.count < 1 || h.count > maxEntryArray/h.size {
		return damaged("invalid number or length of entries")
	}
	return h, nil
}

// guid formats a GUID, whose first three fields are little-endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// name decodes a partition name: UTF-16 up to the first zero.
func name(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
