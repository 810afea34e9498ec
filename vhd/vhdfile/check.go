package vhdfile

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"odx/blockdev"
	"odx/vhd/disk"
)

// Check returns the faults of a file as text for an administrator, or nil. It returns
// an error only if the container does.
func Check(ctx context.Context, r blockdev.Reader) ([]disk.Finding, error) {
	var c checker
	m, err := load(ctx, r)
	if m.footerRaw != nil {
		c.footers(m)
	}
	switch {
	case errors.Is(err, disk.ErrFormat), errors.Is(err, errors.ErrUnsupported):
		c.harmful("%v", err)
		return c, nil
	case err != nil:
		return nil, err
	}
	c.size(m)
	c.parent(m)
	if c.places(m) {
		c.alignment(m)
		err = c.bitmaps(ctx, r, m)
	}
	return c, err
}

// checker collects findings.
type checker []disk.Finding

func (c *checker) harmful(format string, args ...any) {
	*c = append(*c, disk.Finding{Text: fmt.Sprintf(format, args...)})
}

func (c *checker) overlap(format string, args ...any) {
	*c = append(*c, disk.Finding{Overlap: true, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) harmless(format string, args ...any) {
	*c = append(*c, disk.Finding{Harmless: true, Text: fmt.Sprintf(format, args...)})
}

// footers compares the footer with its copy.
func (c *checker) footers(m *image) {
	const repaired = "opening the disk for writing repairs it"
	switch {
	case m.footer.diskType == typeFixed:
		if tail := m.fileSize - m.endAt - footerLength; tail > 0 {
			c.harmless("%d bytes follow the footer and are not part of the disk; compact the disk to remove them", tail)
		}
	case m.endFault != nil:
		c.harmless("the footer at the end of the file %v; the copy at the start was used; %s", m.endFault, repaired)
	case m.copyFault != nil:
		c.harmless("the copy of the footer at the start of the file %v; the footer at the end was used; %s", m.copyFault, repaired)
	default:
		if text := m.disagreement(); text != "" {
			c.harmful("%s", text)
		}
	}
}

// disagreement returns what differs between a valid footer and its valid copy, or "".
func (m *image) disagreement() string {
	if m.footer.diskType == typeFixed || m.endFault != nil || m.copyFault != nil || m.copied == m.footer {
		return ""
	}
	return fmt.Sprintf("the footer at the end and its copy at the start are both valid and differ (%s); the footer at the end was used, other programs may use the copy", differences(&m.footer, &m.copied))
}

// Disagreement returns a description of how the footer differed from its copy when the
// file was opened, or "" if only one of them was valid or they were equal.
func (f *File) Disagreement() string { return f.disagreed }

// differences names the fields in which two footers differ.
func differences(a, b *footer) string {
	var all []string
	add := func(what string, differ bool) {
		if differ {
			all = append(all, what)
		}
	}
	add("version", a.version != b.version)
	add("data offset", a.dataOffset != b.dataOffset)
	add("time stamp", a.timeStamp != b.timeStamp)
	add("creator application", a.creator != b.creator)
	add("current size", a.currentSize != b.currentSize)
	add("geometry", a.geometry != b.geometry)
	add("disk type", a.diskType != b.diskType)
	add("unique id", a.uniqueID != b.uniqueID)
	return strings.Join(all, ", ")
}

// size compares the sizes that the footer states in more than one field.
func (c *checker) size(m *image) {
	if rest := m.footer.currentSize % sectorLength; rest != 0 {
		c.harmless("the current size, %d bytes, is not a multiple of 512; the last %d bytes are not part of the disk", m.footer.currentSize, rest)
	}
	g := m.footer.geometry
	byGeometry := g.sectors() * sectorLength
	// A geometry has whole cylinders: a difference of less than one is rounding.
	cylinder := int64(g.heads) * int64(g.track) * sectorLength
	switch {
	case g == maximumGeometry || g == geometryOf(m.size) && !m.footer.goesByGeometry():
	case byGeometry == m.size && uint64(m.size) != m.footer.currentSize&^(sectorLength-1):
		c.harmless("size and geometry disagree: the current size is %d bytes; the geometry, which the program that made the disk, %q, uses, is %d bytes, and the file has room for them: the disk is shown with the size of the geometry, other programs show less", m.footer.currentSize, m.footer.creatorName(), byGeometry)
	case byGeometry > m.size:
		c.harmless("size and geometry disagree: the disk has %d bytes, its geometry is that of one with %d", m.size, byGeometry)
	case byGeometry < m.size && m.footer.goesByGeometry():
		c.harmless("size and geometry disagree: the disk has %d bytes, by its geometry %d; Virtual PC and qemu show only those of a disk made by %q, odx and Windows show all of it", m.size, byGeometry, m.footer.creatorName())
	case m.size-byGeometry >= max(cylinder, 1):
		c.harmless("size and geometry disagree: the disk has %d bytes, by its geometry %d; programs that use the geometry show less of it", m.size, byGeometry)
	}
}

func (c *checker) parent(m *image) {
	if m.kind != disk.Differencing {
		return
	}
	for _, fault := range m.parentFaults {
		c.harmless("%s", fault)
	}
	if len(m.parent.Paths) == 0 {
		c.harmful("the differencing disk does not say where its parent is")
	}
}

// places checks the offsets of blocks. It reports whether all blocks are in the file.
func (c *checker) places(m *image) bool {
	outside := m.outside()
	if len(outside) > 0 {
		c.harmful("%s beyond the end of the file, which is truncated or damaged: their data is lost, other blocks are not affected", some("block", outside, "is", "are"))
		return false
	}
	var gaps, unusedBytes int64
	overlaps := 0
	m.survey(
		func(_, length int64) {
			if length >= pageLength { // smaller gaps align payload for mapping
				gaps++
				unusedBytes += length
			}
		},
		func(a, b fileRange) {
			if overlaps++; overlaps <= mostNamed {
				c.overlap("%s: a write to one changes the other", m.usedTwice(a, b))
			}
		})
	if overlaps > mostNamed {
		c.overlap("%d more ranges of the file belong to two structures", overlaps-mostNamed)
	}
	if gaps > 0 && m.kind == disk.Fixed {
		c.harmless("%d bytes between the end of the disk, as the footer states it, and the footer are not part of the disk; if they should be, the size in the footer is wrong; compact drops them", unusedBytes)
	} else if gaps > 0 {
		c.harmless("%d bytes in %d places of the file are unused; new blocks use them first, compact the disk to free them", unusedBytes, gaps)
	}
	return true
}

// alignment reports blocks that the store cannot map.
func (c *checker) alignment(m *image) {
	var odd []int64
	for i, sector := range m.bat {
		if sector != unused && m.payloadAt(int64(i))%pageLength != 0 {
			odd = append(odd, int64(i))
		}
	}
	if len(odd) > 0 {
		c.harmless("%s not at a multiple of 4 KiB, as other programs add blocks: copies of them move bytes instead of mapping; compact or defragment the disk to align them", some("block", odd, "is", "are"))
	}
}

// bitmaps reports allocated blocks of a dynamic disk with clear bits in their bitmap.
// Such sectors read as zeros, since the disk has no parent.
func (c *checker) bitmaps(ctx context.Context, r blockdev.Reader, m *image) error {
	if m.kind != disk.Dynamic {
		return nil
	}
	var odd []int64
	for i, sector := range m.bat {
		if sector == unused {
			continue
		}
		n := min(m.blockLength, m.size-int64(i)*m.blockLength) / sectorLength
		p := make([]byte, (n+7)/8)
		if err := r.ReadAt(ctx, p, m.bitmapAt(int64(i))); err != nil {
			return fmt.Errorf("vhd: read bitmap of block %d: %w", i, err)
		}
		present := make(disk.Bits, len(p))
		if shiftBits(present, p, 0, n); !allSet(present, n) {
			odd = append(odd, int64(i))
		}
	}
	if len(odd) > 0 {
		c.harmless("%s sectors that are absent by the bitmap: they read as zeros, as the format specifies; some programs show what is in the file instead", some("block", odd, "has", "have"))
	}
	return nil
}

// mostNamed is the number of items of a kind that findings name.
const mostNamed = 5

// some lists the first of numbers, with a verb: "blocks 1, 2 and 7 more are".
func some(noun string, numbers []int64, one, many string) string {
	if len(numbers) == 1 {
		return fmt.Sprintf("%s %d %s", noun, numbers[0], one)
	}
	named := numbers[:min(len(numbers), mostNamed)]
	more := ""
	if rest := len(numbers) - len(named); rest > 0 {
		more = fmt.Sprintf(" and %d more", rest)
	}
	return fmt.Sprintf("%ss %s%s %s", noun, strings.Trim(strings.Join(strings.Fields(fmt.Sprint(named)), ", "), "[]"), more, many)
}

// usedTwice describes the bytes that two ranges have in common.
func (m *image) usedTwice(a, b fileRange) string {
	nameA, nameB := m.nameOf(a, 0), m.nameOf(b, 0)
	if a == b {
		nameB = m.nameOf(b, 1) // a second block at the same offset
	}
	return fmt.Sprintf("bytes %d to %d of the file belong to %s and to %s", b.off, min(a.end(), b.end())-1, nameA, nameB)
}

// nameOf names a range. Of blocks at the same offset it names the one with index
// number.
func (m *image) nameOf(e fileRange, number int) string {
	if e.name != "" {
		return e.name
	}
	for i, sector := range m.bat {
		if sector != unused && int64(sector)*sectorLength == e.off {
			if number == 0 {
				return fmt.Sprintf("block %d", i)
			}
			number--
		}
	}
	return "a block"
}
