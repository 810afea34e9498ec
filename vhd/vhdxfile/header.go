package vhdxfile

import (
	"bytes"
	"context"
	"fmt"

	"odx/vhd/disk"
)

// header is one of the two headers (MS-VHDX 2.2.2). Offsets and lengths are in bytes.
type header struct {
	sequence            uint64
	fileWrite           disk.GUID
	dataWrite           disk.GUID
	log                 disk.GUID
	logVersion, version uint16
	logLength           uint32
	logOffset           uint64
}

func (h header) encode() []byte {
	p := make([]byte, headerLength)
	copy(p, "head")
	le.PutUint64(p[8:], h.sequence)
	putGUID(p[16:], h.fileWrite)
	putGUID(p[32:], h.dataWrite)
	putGUID(p[48:], h.log)
	le.PutUint16(p[64:], h.logVersion)
	le.PutUint16(p[66:], h.version)
	le.PutUint32(p[68:], h.logLength)
	le.PutUint64(p[72:], h.logOffset)
	seal(p)
	return p
}

func decodeHeader(p []byte) header {
	return header{
		sequence:   le.Uint64(p[8:]),
		fileWrite:  getGUID(p[16:]),
		dataWrite:  getGUID(p[32:]),
		log:        getGUID(p[48:]),
		logVersion: le.Uint16(p[64:]),
		version:    le.Uint16(p[66:]),
		logLength:  le.Uint32(p[68:]),
		logOffset:  le.Uint64(p[72:]),
	}
}

// headers has the current header and its number.
type headers struct {
	header
	current int
	torn    bool // the other header is damaged
}

// readHeaders returns the current header. One header may be damaged.
func readHeaders(ctx context.Context, v *view, report reporter) (headers, error) {
	var raw [2][]byte
	var valid []int
	for n := range raw {
		raw[n] = make([]byte, headerLength)
		if err := v.readAt(ctx, raw[n], headerAt(n)); err != nil {
			return headers{}, err
		}
		if sealed(raw[n], "head") {
			valid = append(valid, n)
		} else if err := report(harmless, "header %d is damaged, the other one is used; open the disk for writing to repair it", n+1); err != nil {
			return headers{}, err
		}
	}
	damaged := len(valid) < 2
	switch len(valid) {
	case 0:
		return headers{}, bad("both headers are damaged")
	case 2:
		a, b := decodeHeader(raw[0]), decodeHeader(raw[1])
		switch {
		case a.sequence > b.sequence:
			valid = valid[:1]
		case b.sequence > a.sequence:
			valid = valid[1:]
		case !bytes.Equal(raw[0], raw[1]):
			// One program writes two equal headers, which is unambiguous.
			return headers{}, bad("both headers have sequence number %d but differ", a.sequence)
		}
	}
	h := headers{decodeHeader(raw[valid[0]]), valid[0], damaged}
	return h, h.check(v.size)
}

// check validates a header against the size of the file.
func (h headers) check(size int64) error {
	switch {
	case h.version != 1:
		return bad("unsupported format version %d; want 1", h.version)
	case h.logVersion != 0 && h.log != disk.GUID{}:
		return bad("unsupported log version %d; want 0", h.logVersion)
	case h.logLength == 0 && h.log == disk.GUID{}:
		return nil
	case h.logLength == 0 || h.logLength%mib != 0 || h.logOffset%mib != 0 || h.logOffset < headerSection:
		return bad("invalid log of %d bytes at %d", h.logLength, h.logOffset)
	case h.logLength > maxLog:
		return bad("log of %d bytes; maximum is %d", h.logLength, maxLog)
	case h.logOffset > uint64(size) || uint64(h.logLength) > uint64(size)-h.logOffset:
		return bad("log of %d bytes at %d exceeds the file of %d bytes", h.logLength, h.logOffset, size)
	}
	return nil
}

// update changes both headers, one after the other, so that one of them is valid at any
// time, and both have the same content afterwards (MS-VHDX 2.2.2.1).
func (h *headers) update(ctx context.Context, c disk.Container, change func(*header)) error {
	next := h.header
	change(&next)
	for range 2 {
		next.sequence = h.sequence + 1
		other := 1 - h.current
		if err := c.WriteAt(ctx, next.encode(), headerAt(other)); err != nil {
			return fmt.Errorf("write header %d: %w", other+1, err)
		}
		if err := c.Barrier(ctx); err != nil {
			return fmt.Errorf("write header %d: %w", other+1, err)
		}
		*h = headers{header: next, current: other}
	}
	return nil
}

// severity is the consequence of a finding.
type severity uint8

const (
	harmless severity = iota // no effect on data
	harmful                  // lost information that is not needed now
	fatal                    // the file must not be opened
)

// reporter receives a finding. An error stops reading.
type reporter func(s severity, format string, args ...any) error
