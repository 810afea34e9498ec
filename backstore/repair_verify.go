package backstore

import (
	"errors"
	"fmt"

	"odx/backstore/extent"
)

// badExtent is an extent that was made though blocks of it fail their checksums: they
// are read errors by themselves.
type badExtent struct {
	blocks uint32 // bit k: block k
	reason string
}

// verifyExtent reads the data of an extent that is being made. One that is damaged
// loses its fingerprint, so that the same data is stored again when it is written.
func (m *repair) verifyExtent(id extent.ID, x *extent.Extent) {
	if m.from.reader.superblockLost {
		defer m.newFingerprint(x)
	}
	if m.o.SkipData {
		return
	}
	data := m.data[:int(x.Blocks)*BlockLength]
	bad, err := uint32(1)<<x.Blocks-1, m.from.parts.segments.ReadAt(x.Addr, data)
	if err == nil {
		bad, err = m.from.reader.verifyExtent(x, data)
	}
	if err == nil {
		return
	}
	// Ranges with the same reason are reported as one.
	for _, known := range []error{errCRC, errFingerprint} {
		if errors.Is(err, known) {
			err = known
		}
	}
	if m.bad == nil {
		m.bad = make(map[extent.ID]badExtent)
	}
	m.bad[id] = badExtent{bad, fmt.Sprintf("segment %08x: %v", uint32(x.Addr.Segment), err)}
	x.Fingerprint = extent.Fingerprint{}
}

// newFingerprint gives an extent the fingerprint by the new key, if its data was read and
// it had one.
func (m *repair) newFingerprint(x *extent.Extent) {
	if m.o.SkipData {
		x.Fingerprint = extent.Fingerprint{}
	}
	if x.Fingerprint != (extent.Fingerprint{}) {
		x.Fingerprint = m.from.parts.fingerprints.Sum(m.data[:int(x.Blocks)*BlockLength])
	}
}

// badBlock says why a block of an extent that was made is a read error, if it is.
func (m *repair) badBlock(id extent.ID, block int) string {
	if bad, ok := m.bad[id]; ok && bad.blocks&(1<<block) != 0 {
		return bad.reason
	}
	return ""
}
