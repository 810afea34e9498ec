package vhdfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"odx/blockdev"
	"odx/vhd/disk"
)

// image has the structures of a file that could be read.
type image struct {
	fileSize int64

	footer    footer
	footerRaw []byte // 512 bytes
	// endAt is the offset of the footer at the end, or -1 if it is not valid; endFault
	// is then the cause.
	endAt    int64
	endFault error
	// copyFault is the fault of the copy of the footer at 0. A fixed disk has no copy.
	copyFault error
	copied    footer // if copyFault is nil

	kind        disk.Kind
	size        int64
	blockLength int64

	header header // not of a fixed disk
	bat    []uint32
	parent *disk.Parent // of a differencing disk
	// parentFaults are the faults of the parent's locators and name.
	parentFaults []string
}

// invalid returns an error that wraps disk.ErrFormat.
func invalid(format string, args ...any) error {
	return fmt.Errorf("vhd: %w: %s", disk.ErrFormat, fmt.Sprintf(format, args...))
}

// load reads the structures of a file. With an error it returns those read before.
func load(ctx context.Context, r blockdev.Reader) (*image, error) {
	m, err := loadHead(ctx, r)
	if err != nil || m.kind == disk.Fixed {
		return m, err
	}
	return m, m.loadBAT(ctx, r)
}

// loadHead is load without the BAT.
func loadHead(ctx context.Context, r blockdev.Reader) (*image, error) {
	m := &image{fileSize: r.Size()}
	err := m.loadFooters(ctx, r)
	if m.endAt < 0 && (err == nil || errors.Is(err, disk.ErrFormat)) {
		err = m.findBeforeTail(ctx, r, err)
	}
	if err != nil {
		return m, err
	}
	if m.footer.version>>16 != version1>>16 {
		return m, fmt.Errorf("vhd: %w: version %d.%d of the format; supported is 1.0", errors.ErrUnsupported, m.footer.version>>16, m.footer.version&0xFFFF)
	}
	if m.kind, err = m.footer.kind(); err != nil {
		return m, fmt.Errorf("vhd: %w", err)
	}
	if m.size, err = m.footer.size(); err != nil {
		return m, invalid("%v", err)
	}
	if m.kind == disk.Fixed {
		m.blockLength = defaultBlockLength
		if m.size > m.endAt {
			return m, invalid("the disk has %d bytes, the file only %d before the footer", m.size, m.endAt)
		}
		m.size = m.footer.sizeWithin(m.size, m.endAt)
		return m, nil
	}
	if err := m.loadHeader(ctx, r); err != nil {
		return m, err
	}
	if m.kind == disk.Differencing {
		m.parent, m.parentFaults, err = readParent(ctx, r, &m.header)
	}
	return m, err
}

// loadFooters reads the footer at the end, of either length, and the copy at 0. The
// footer at the end takes precedence: the bytes at 0 of a fixed disk are its guest's.
func (m *image) loadFooters(ctx context.Context, r blockdev.Reader) error {
	m.endAt = -1
	for _, length := range []int64{footerLength, oldFooterLength} {
		f, raw, fault, err := readFooter(ctx, r, m.fileSize-length, length)
		if err != nil {
			return err
		}
		if fault == nil {
			m.footer, m.footerRaw, m.endAt, m.endFault = f, raw, m.fileSize-length, nil
			break
		}
		if m.endFault == nil {
			m.endFault = fault
		}
	}
	copied, raw, fault, err := readFooter(ctx, r, 0, footerLength)
	if err != nil {
		return err
	}
	if fault == nil && copied.diskType == typeFixed {
		fault = errors.New("is that of a fixed disk, which has no copy")
	}
	m.copied, m.copyFault = copied, fault
	switch {
	case m.endAt >= 0:
		return nil
	case fault == nil:
		m.footer, m.footerRaw = copied, raw
		return nil
	}
	return invalid("the footer at the end %v; its copy at the start %v", m.endFault, fault)
}

// maxTail bounds the distance of a fixed disk's footer from the end of the file.
const maxTail = 64 << 20

// findBeforeTail searches for the footer of a fixed disk with bytes after it, such as
// padding added by a copy. The payload before it has the length that the footer states.
// It returns err if there is no such footer.
func (m *image) findBeforeTail(ctx context.Context, r blockdev.Reader, err error) error {
	const part = 1 << 20
	end := m.fileSize &^ (sectorLength - 1)
	buf := make([]byte, min(part, max(end, 0)))
	for low := max(0, end-maxTail); end > low; {
		p := buf[:min(part, end-low)]
		if err := r.ReadAt(ctx, p, end-int64(len(p))); err != nil {
			return fmt.Errorf("vhd: search for the footer: %w", err)
		}
		for at := len(p) - footerLength; at >= 0; at -= sectorLength {
			off := end - int64(len(p)) + int64(at)
			f, fault := decodeFooter(p[at:][:footerLength])
			if fault != nil || f.diskType != typeFixed || off != roundUp(int64(min(f.currentSize, 1<<62)), sectorLength) {
				continue
			}
			if err == nil {
				return invalid("the kind is ambiguous: the start is that of a dynamic or differencing disk, and the footer of a fixed one is at %d", off)
			}
			m.footer, m.footerRaw, m.endAt, m.endFault = f, bytes.Clone(p[at:][:footerLength]), off, nil
			return nil
		}
		end -= int64(len(p))
	}
	return err
}

// HasFooter reports whether a file has the footer of a VHD at its end or, for a disk
// that is not fixed, at its start.
func HasFooter(ctx context.Context, r blockdev.Reader) (bool, error) {
	m := image{fileSize: r.Size()}
	err := m.loadFooters(ctx, r)
	if errors.Is(err, disk.ErrFormat) {
		return false, nil
	}
	return err == nil, err
}

// readFooter reads the footer at off. fault is why it is not valid.
func readFooter(ctx context.Context, r blockdev.Reader, off, length int64) (f footer, raw []byte, fault, err error) {
	if off < 0 || r.Size() < off+length {
		return f, nil, fmt.Errorf("is missing: the file has %d bytes", r.Size()), nil
	}
	raw = make([]byte, footerLength)
	if err := r.ReadAt(ctx, raw[:length], off); err != nil {
		return f, nil, nil, fmt.Errorf("vhd: read footer: %w", err)
	}
	f, fault = decodeFooter(raw)
	return f, raw, fault, nil
}

// limit returns the end of the file's range before the footer at the end.
func (m *image) limit() int64 {
	if m.endAt >= 0 {
		return m.endAt
	}
	return m.fileSize
}

// inside reports whether a range is in the file and does not overlap the footer at its
// end.
func (m *image) inside(off uint64, length int64) bool {
	limit := m.limit()
	return length >= 0 && length <= limit && off <= uint64(limit-length)
}

func (m *image) loadHeader(ctx context.Context, r blockdev.Reader) error {
	at := m.footer.dataOffset
	if !m.inside(at, headerLength) {
		return invalid("the dynamic disk header at %d does not fit into a file of %d bytes", at, m.fileSize)
	}
	p := make([]byte, headerLength)
	if err := r.ReadAt(ctx, p, int64(at)); err != nil {
		return fmt.Errorf("vhd: read dynamic disk header: %w", err)
	}
	h, err := decodeHeader(p)
	if err != nil {
		return invalid("the dynamic disk header %v", err)
	}
	m.header = h
	if h.version>>16 != version1>>16 {
		return fmt.Errorf("vhd: %w: version %d.%d of the dynamic disk header; supported is 1.0", errors.ErrUnsupported, h.version>>16, h.version&0xFFFF)
	}
	length := int64(h.blockSize)
	if length == 0 || length%sectorLength != 0 || length&(length-1) != 0 {
		return invalid("blocks of %d bytes, which is not a power of two of sectors", length)
	}
	m.size = m.footer.sizeWithin(m.size, length*int64(h.maxTableEntries))
	if err := checkBlocks(m.size, length); err != nil {
		return fmt.Errorf("vhd: %w: %w", errors.ErrUnsupported, err)
	}
	m.blockLength = length
	return nil
}

// checkBlocks returns an error if blocks of the length are not supported. The length
// may be from a hostile file.
func checkBlocks(size, length int64) error {
	if length < minimumBlockLength || length > maximumBlockLength || length&(length-1) != 0 {
		return fmt.Errorf("blocks of %d bytes: supported are powers of two from %d to %d", length, minimumBlockLength, int64(maximumBlockLength))
	}
	if n := (size + length - 1) / length; n > maximumBlocks {
		return fmt.Errorf("%d blocks of %d bytes: the maximum is %d blocks", n, length, maximumBlocks)
	}
	return nil
}

// loadBAT reads the entries of the disk's blocks.
func (m *image) loadBAT(ctx context.Context, r blockdev.Reader) error {
	at, entries := m.header.tableOffset, int64(m.header.maxTableEntries)
	n := (m.size + m.blockLength - 1) / m.blockLength
	if n > entries {
		return invalid("the BAT has %d entries, the disk %d blocks", entries, n)
	}
	if !m.inside(at, 4*entries) {
		return invalid("the BAT, with %d entries at %d, does not fit into a file of %d bytes", entries, at, m.fileSize)
	}
	m.bat = make([]uint32, n)
	const part = 1 << 18
	buf := make([]byte, 4*min(n, part))
	for i := int64(0); i < n; i += part {
		p := buf[:4*min(n-i, part)]
		if err := r.ReadAt(ctx, p, int64(at)+4*i); err != nil {
			return fmt.Errorf("vhd: read BAT: %w", err)
		}
		for k := range len(p) / 4 {
			m.bat[int(i)+k] = binary.BigEndian.Uint32(p[4*k:])
		}
	}
	return nil
}

// bitmapAt returns the offset of the sector bitmap of an allocated block.
func (m *image) bitmapAt(i int64) int64 { return int64(m.bat[i]) * sectorLength }

// payloadAt returns the offset of the payload of an allocated block.
func (m *image) payloadAt(i int64) int64 { return m.bitmapAt(i) + bitmapLength(m.blockLength) }

// placeLength returns the length of a block in the file, bitmap and payload.
func (m *image) placeLength() int64 { return bitmapLength(m.blockLength) + m.blockLength }

// placeOf returns the range of an allocated block in the file. The last block can extend
// beyond the disk; a file that ends there, or has its footer there, has all of it.
func (m *image) placeOf(i int64) fileRange {
	part := min(m.blockLength, m.size-i*m.blockLength)
	e := fileRange{off: m.bitmapAt(i), length: bitmapLength(m.blockLength) + part}
	if m.inside(uint64(e.off), m.placeLength()) {
		e.length = m.placeLength()
	}
	return e
}

// outside returns the allocated blocks that are not in the file.
func (m *image) outside() (blocks []int64) {
	for i, sector := range m.bat {
		if e := m.placeOf(int64(i)); sector != unused && !m.inside(uint64(e.off), e.length) {
			blocks = append(blocks, int64(i))
		}
	}
	return blocks
}

// fileRange is a used range of the file.
type fileRange struct {
	off, length int64
	name        string // "" for a block
}

func (e fileRange) end() int64 { return e.off + e.length }

// structures returns the used ranges except blocks, by ascending offset.
func (m *image) structures() []fileRange {
	var all []fileRange
	if m.kind == disk.Fixed {
		all = append(all, fileRange{0, m.size, "the payload"})
	} else {
		all = append(all,
			fileRange{0, footerLength, "the copy of the footer"},
			fileRange{int64(m.footer.dataOffset), headerLength, "the dynamic disk header"},
			fileRange{int64(m.header.tableOffset), 4 * int64(m.header.maxTableEntries), "the BAT"})
	}
	if m.kind == disk.Differencing {
		for _, l := range m.header.locators {
			length := max(l.spaceLength(), int64(l.length))
			if l.platform != [4]byte{} && length > 0 && m.inside(l.offset, length) {
				all = append(all, fileRange{int64(l.offset), length, "a parent locator"})
			}
		}
	}
	if m.endAt >= 0 {
		all = append(all, fileRange{m.endAt, m.fileSize - m.endAt, "the footer at the end"})
	}
	slices.SortFunc(all, func(a, b fileRange) int { return int(min(max(a.off-b.off, -1), 1)) })
	return all
}

// survey calls gap with each unused range of the file and overlap with ranges that
// overlap. All blocks must be in the file.
func (m *image) survey(gap func(off, length int64), overlap func(a, b fileRange)) {
	sectors := make([]uint32, 0, len(m.bat))
	for _, sector := range m.bat {
		if sector != unused {
			sectors = append(sectors, sector)
		}
	}
	slices.Sort(sectors)
	var last fileRange
	visit := func(e fileRange) {
		switch {
		case e.off > last.end():
			gap(last.end(), e.off-last.end())
		case e.off < last.end() && e.length > 0:
			overlap(last, e)
		}
		if e.end() > last.end() {
			last = e
		}
	}
	structures := m.structures()
	for _, sector := range sectors {
		block := fileRange{int64(sector) * sectorLength, m.placeLength(), ""}
		if end := int64(len(m.bat) - 1); sector == m.bat[end] {
			block = m.placeOf(end)
		}
		for len(structures) > 0 && structures[0].off <= block.off {
			visit(structures[0])
			structures = structures[1:]
		}
		visit(block)
	}
	for _, e := range structures {
		visit(e)
	}
	if last.end() < m.fileSize {
		gap(last.end(), m.fileSize-last.end())
	}
}
