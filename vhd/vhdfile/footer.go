package vhdfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"odx/vhd/disk"
)

const (
	sectorLength = 512
	footerLength = 512
	// oldFooterLength is the length of a footer written by Virtual PC before 2004.
	oldFooterLength = 511

	footerCookie = "conectix"
	version1     = 0x00010000
	// noOffset is the data offset of no structure.
	noOffset = ^uint64(0)

	// maximumSize is the capacity that a BAT can address with blocks of 2 MiB, rounded
	// down: 2040 GiB.
	maximumSize = 2040 << 30
)

// The disk types.
const (
	typeFixed        = 2
	typeDynamic      = 3
	typeDifferencing = 4
)

// creatorWindows is the creator application of Windows. Readers that use the current
// size or the geometry depending on the creator use the current size for it, so a disk
// can have any size.
var creatorWindows = [4]byte{'w', 'i', 'n', ' '}

// epoch is the time of time stamp 0.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// geometry is the number of cylinders, heads, and sectors per track.
type geometry struct {
	cylinders    uint16
	heads, track uint8
}

// sectors returns the number of sectors that g addresses.
func (g geometry) sectors() int64 {
	return int64(g.cylinders) * int64(g.heads) * int64(g.track)
}

// maximumGeometry is the geometry of all disks larger than a geometry can address.
var maximumGeometry = geometry{65535, 16, 255}

// geometryOf returns the geometry of a disk (appendix "CHS Calculation").
func geometryOf(size int64) geometry {
	total := min(size/sectorLength, maximumGeometry.sectors())
	if total >= 65535*16*63 {
		return geometry{uint16(total / 255 / 16), 16, 255}
	}
	track := int64(17)
	heads := max((total/track+1023)/1024, 4)
	if heads > 16 || total/track >= heads*1024 {
		track, heads = 31, 16
	}
	if total/track >= heads*1024 {
		track = 63
	}
	return geometry{uint16(total / track / heads), uint8(heads), uint8(track)}
}

// footer is the Hard Disk Footer, with the fields that this package uses.
type footer struct {
	version     uint32
	dataOffset  uint64 // of the Dynamic Disk Header
	timeStamp   uint32 // time of creation, seconds since epoch
	creator     [4]byte
	currentSize uint64 // bytes; at 48, after the original size
	geometry    geometry
	diskType    uint32
	uniqueID    disk.GUID
}

// encode returns the bytes of f.
func (f *footer) encode() []byte {
	p := make([]byte, footerLength)
	copy(p, footerCookie)
	be := binary.BigEndian
	be.PutUint32(p[8:], 2) // features: a reserved bit, always set
	be.PutUint32(p[12:], f.version)
	be.PutUint64(p[16:], f.dataOffset)
	be.PutUint32(p[24:], f.timeStamp)
	copy(p[28:], f.creator[:])
	be.PutUint32(p[32:], 0x000A0000)    // creator version of Windows
	copy(p[36:], "Wi2k")                // creator host OS: Windows
	be.PutUint64(p[40:], f.currentSize) // original size
	be.PutUint64(p[48:], f.currentSize)
	be.PutUint16(p[56:], f.geometry.cylinders)
	p[58], p[59] = f.geometry.heads, f.geometry.track
	be.PutUint32(p[60:], f.diskType)
	copy(p[68:], f.uniqueID[:])
	be.PutUint32(p[64:], checksum(p, 64))
	return p
}

// checksum returns the one's complement of the sum of the bytes of p, without the four
// bytes of the checksum field at skip.
func checksum(p []byte, skip int) uint32 {
	var sum uint32
	for i, b := range p {
		if i < skip || i >= skip+4 {
			sum += uint32(b)
		}
	}
	return ^sum
}

// decodeFooter decodes a footer of either length and verifies its cookie and checksum.
func decodeFooter(p []byte) (footer, error) {
	be := binary.BigEndian
	switch {
	case !bytes.HasPrefix(p, []byte(footerCookie)):
		return footer{}, fmt.Errorf("does not begin with %q", footerCookie)
	case be.Uint32(p[64:]) != checksum(p, 64):
		return footer{}, fmt.Errorf("has the checksum %08X, its bytes have %08X", be.Uint32(p[64:]), checksum(p, 64))
	}
	return footer{
		version:     be.Uint32(p[12:]),
		dataOffset:  be.Uint64(p[16:]),
		timeStamp:   be.Uint32(p[24:]),
		creator:     [4]byte(p[28:]),
		currentSize: be.Uint64(p[48:]),
		geometry:    geometry{be.Uint16(p[56:]), p[58], p[59]},
		diskType:    be.Uint32(p[60:]),
		uniqueID:    disk.GUID(p[68:]),
	}, nil
}

// size returns the capacity of the disk in bytes: the Current Size. Virtual PC and qemu
// round a capacity to a geometry and show their own disks up to that; other programs
// may have written the sectors after it.
func (f *footer) size() (int64, error) {
	sectors := f.currentSize / sectorLength
	switch {
	case sectors == 0:
		return 0, errors.New("its footer has a size of no sectors")
	case sectors > maximumSize/sectorLength:
		return 0, fmt.Errorf("its footer has a size of %d sectors; the maximum is %d, 2040 GiB", sectors, int64(maximumSize/sectorLength))
	}
	return int64(sectors) * sectorLength, nil
}

// sizeWithin returns the larger of a capacity and, for a creator that uses the
// geometry, the size by geometry if that is at most room, the bytes in the file: so
// sectors that another program shows are included.
func (f *footer) sizeWithin(size, room int64) int64 {
	if byGeometry := f.geometry.sectors() * sectorLength; f.goesByGeometry() && byGeometry > size && byGeometry <= min(room, maximumSize) {
		return byGeometry
	}
	return size
}

// goesByGeometry reports whether the program that made the disk takes its size from the
// geometry.
func (f *footer) goesByGeometry() bool {
	creator := string(f.creator[:])
	return (creator == "vpc " || creator == "qemu") && f.geometry != maximumGeometry && f.geometry.sectors() > 0
}

// kind returns the Kind of the disk type.
func (f *footer) kind() (disk.Kind, error) {
	switch f.diskType {
	case typeFixed:
		return disk.Fixed, nil
	case typeDynamic:
		return disk.Dynamic, nil
	case typeDifferencing:
		return disk.Differencing, nil
	}
	return 0, fmt.Errorf("%w: VHD of disk type %d; supported are fixed (2), dynamic (3) and differencing (4)", errors.ErrUnsupported, f.diskType)
}

// creatorName returns the creator application in printable characters.
func (f *footer) creatorName() string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, string(f.creator[:])))
}

// timeOf returns the time of a time stamp, or the zero time for 0.
func timeOf(stamp uint32) time.Time {
	if stamp == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(stamp) * time.Second)
}

// stampOf returns the time stamp of t, or 0 if it has none.
func stampOf(t time.Time) uint32 {
	seconds := t.Unix() - epoch.Unix()
	if t.IsZero() || seconds < 0 || seconds > 1<<32-1 {
		return 0
	}
	return uint32(seconds)
}
