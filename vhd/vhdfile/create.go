package vhdfile

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"odx/blockdev"
	"odx/vhd/disk"
)

// Create truncates c and writes an empty virtual disk. Kind defaults to Differencing if
// s has a Parent, otherwise to Dynamic; BlockLength defaults to 2 MiB, and a fixed disk
// always has that. VHD has only logical sectors of 512 bytes and does not store the
// physical sector length, so Create ignores PhysicalSectorLength. If the format does
// not allow s, the error wraps blockdev.ErrInvalid and c is unchanged. A crash before
// Create returns can leave a file that is not a virtual disk.
func Create(ctx context.Context, c disk.Container, s disk.Spec) (*File, error) {
	return create(ctx, c, s, time.Now())
}

func create(ctx context.Context, c disk.Container, s disk.Spec, now time.Time) (*File, error) {
	s, err := complete(s)
	if err != nil {
		return nil, invalidSpec(err)
	}
	f := footer{
		version: version1, dataOffset: noOffset, timeStamp: stampOf(now),
		creator: creatorWindows, currentSize: uint64(s.Size), geometry: geometryOf(s.Size),
		diskType: typeFixed, uniqueID: s.ID,
	}
	size, pieces := s.Size+footerLength, []piece{{s.Size, f.encode()}}
	if s.Kind != disk.Fixed {
		if size, pieces, err = layOut(s, f); err != nil {
			return nil, invalidSpec(err)
		}
	}
	if err := write(ctx, c, size, pieces); err != nil {
		return nil, fmt.Errorf("vhd: create: %w", err)
	}
	return Open(ctx, c)
}

func invalidSpec(err error) error { return fmt.Errorf("vhd: %w: %w", blockdev.ErrInvalid, err) }

// complete fills in the defaults of the format and validates the result.
func complete(s disk.Spec) (disk.Spec, error) {
	if s.Kind == 0 {
		s.Kind = disk.Dynamic
		if s.Parent != nil {
			s.Kind = disk.Differencing
		}
	}
	if s.BlockLength == 0 || s.Kind == disk.Fixed {
		s.BlockLength = defaultBlockLength
	}
	if s.ID == (disk.GUID{}) {
		_, _ = rand.Read(s.ID[:])     // never fails
		s.ID[6] = s.ID[6]&0x0F | 0x40 // RFC 9562, version 4
		s.ID[8] = s.ID[8]&0x3F | 0x80
	}
	switch {
	case s.SectorLength != 0 && s.SectorLength != sectorLength:
		return s, fmt.Errorf("logical sectors of %d bytes: VHD has 512, VHDX supports 4096", s.SectorLength)
	case s.Size <= 0 || s.Size%sectorLength != 0:
		return s, fmt.Errorf("a disk of %d bytes: must be a multiple of 512", s.Size)
	case s.Size > maximumSize:
		return s, fmt.Errorf("a disk of %d bytes: the maximum is 2040 GiB, of VHDX 64 TiB", s.Size)
	case s.Kind > disk.Differencing:
		return s, fmt.Errorf("unknown kind of disk %d", s.Kind)
	case (s.Kind == disk.Differencing) != (s.Parent != nil):
		return s, errors.New("only a differencing disk has a parent, and it must have one")
	}
	return s, checkBlocks(s.Size, s.BlockLength)
}

// piece is data and its offset in the file.
type piece struct {
	off  int64
	data []byte
}

// write truncates c, sets its size and writes pieces. The footers come last: without
// them c is not a virtual disk.
func write(ctx context.Context, c disk.Container, size int64, pieces []piece) error {
	for _, length := range []int64{0, size} {
		if err := c.Truncate(ctx, length); err != nil {
			return err
		}
	}
	for _, p := range pieces {
		if bytes.HasPrefix(p.data, []byte(footerCookie)) {
			if err := c.Barrier(ctx); err != nil {
				return err
			}
		}
		if err := c.WriteAt(ctx, p.data, p.off); err != nil {
			return err
		}
	}
	return c.Barrier(ctx)
}

// layOut returns the length and the pieces of a dynamic or differencing disk without
// blocks: copy of the footer, header, parent locators, BAT, footer.
func layOut(s disk.Spec, f footer) (size int64, pieces []piece, err error) {
	const headerAt = footerLength
	end := int64(headerAt + headerLength)
	f.diskType, f.dataOffset = typeDynamic, headerAt
	h := header{
		dataOffset: noOffset, version: version1,
		maxTableEntries: uint32(s.Blocks()), blockSize: uint32(s.BlockLength),
	}
	if s.Kind == disk.Differencing {
		entries, texts, err := encodeParent(s.Parent)
		if err != nil {
			return 0, nil, err
		}
		f.diskType = typeDifferencing
		h.parentID, h.parentTimeStamp = s.Parent.ID, stampOf(s.Parent.Modified)
		h.parentName = path.Base(strings.ReplaceAll(s.Parent.Paths[0], `\`, "/"))
		for i, text := range texts {
			entries[i].offset = uint64(end)
			pieces = append(pieces, piece{end, text})
			end += entries[i].spaceLength()
		}
		h.locators = entries
	}
	// Other programs add the first block at the footer's offset. The offset aligns that
	// block's payload for mapping.
	tableLength := roundUp(4*s.Blocks(), sectorLength)
	bitmap := bitmapLength(s.BlockLength)
	tableAt := roundUp(end+tableLength+bitmap, pageLength) - bitmap - tableLength
	end = tableAt + tableLength
	h.tableOffset = uint64(tableAt)
	const part = 1 << 20
	for at := int64(0); at < tableLength; at += part {
		none := bytes.Repeat([]byte{0xFF}, int(min(part, tableLength-at)))
		pieces = append(pieces, piece{tableAt + at, none})
	}
	stride := roundUp(bitmapLength(s.BlockLength)+s.BlockLength, pageLength)
	if end+stride*(s.Blocks()+1) > int64(unused)*sectorLength {
		return 0, nil, fmt.Errorf("%d blocks of %d bytes: with their bitmaps they exceed the 2 TiB that BAT entries can address", s.Blocks(), s.BlockLength)
	}
	return end + footerLength, append(pieces,
		piece{headerAt, h.encode()}, piece{0, f.encode()}, piece{end, f.encode()}), nil
}
