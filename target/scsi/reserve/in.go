package reserve

import (
	"encoding/binary"

	"odx/target/scsi/nexus"
)

// Service actions of PERSISTENT RESERVE IN (SPC-4 r37 6.15.1).
const (
	ReadKeys           = 0x00
	ReadReservation    = 0x01
	ReportCapabilities = 0x02
	ReadFullStatus     = 0x03
)

// data returns the start of parameter data: PRGENERATION and ADDITIONAL LENGTH.
func (s *state) data() []byte {
	return binary.BigEndian.AppendUint32(make([]byte, 0, 8), s.generation)[:8]
}

// withLength sets ADDITIONAL LENGTH.
func withLength(d []byte) []byte {
	binary.BigEndian.PutUint32(d[4:], uint32(len(d)-8))
	return d
}

// readKeys is READ KEYS (SPC-4 r37 6.15.2).
func (r *Reservations) readKeys() []byte {
	s := r.persistent.Load()
	d := s.data()
	for _, g := range s.registrations {
		d = binary.BigEndian.AppendUint64(d, g.key)
	}
	return withLength(d)
}

// readReservation is READ RESERVATION (SPC-4 r37 6.15.3). A reservation held by all
// registrants has no key.
func (r *Reservations) readReservation() []byte {
	s := r.persistent.Load()
	d := s.data()
	if s.kind == 0 {
		return d
	}
	var key uint64
	if !s.kind.allRegistrants() {
		key = s.key(s.holder)
	}
	d = binary.BigEndian.AppendUint64(d, key)
	return withLength(append(d, 0, 0, 0, 0, 0, byte(s.kind), 0, 0))
}

// reportCapabilities is REPORT CAPABILITIES (SPC-4 r37 6.15.4).
func (r *Reservations) reportCapabilities() []byte {
	const (
		crh   = 0x10 // RESERVE and RELEASE in addition to registrations (SPC-4 5.12.3)
		sipC  = 0x08 // SPEC_I_PT
		atpC  = 0x04 // ALL_TG_PT
		ptplC = 0x01 // APTPL
		tmv   = 0x80 // the type mask is valid
		// allowCommands is 011b: TEST UNIT READY passes every persistent reservation;
		// MODE SENSE, REPORT SUPPORTED OPERATION CODES and similar commands pass write
		// exclusive ones.
		allowCommands = 3 << 4
		ptplA         = 0x01
	)
	d := []byte{0, 8, crh | sipC | atpC, tmv | allowCommands, 0, 0, 0, 0}
	if r.records != nil {
		d[2] |= ptplC
	}
	if r.persistent.Load().aptpl {
		d[3] |= ptplA
	}
	// WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX; EX_AC_AR: bits by type code, from
	// byte 4 on.
	for k := range Type(16) {
		if k.valid() {
			d[4+k/8] |= 1 << (k % 8)
		}
	}
	return d
}

// readFullStatus is READ FULL STATUS (SPC-4 r37 6.15.5). Each registration is one I_T
// nexus, even if ALL_TG_PT created several.
func (r *Reservations) readFullStatus() []byte {
	s := r.persistent.Load()
	d := s.data()
	for _, g := range s.registrations {
		d = s.appendFullStatus(d, g, r.unit.RelativePort(g.nexus))
	}
	return withLength(d)
}

// appendFullStatus appends one full status descriptor.
func (s *state) appendFullStatus(d []byte, r registration, relativePort uint16) []byte {
	const rHolder = 0x01
	var fixed [24]byte
	binary.BigEndian.PutUint64(fixed[:], r.key)
	if s.isHolder(r.nexus) {
		fixed[12], fixed[13] = rHolder, byte(s.kind)
	}
	binary.BigEndian.PutUint16(fixed[18:], relativePort)
	id := nexus.AppendTransportID(nil, r.nexus)
	binary.BigEndian.PutUint32(fixed[20:], uint32(len(id)))
	return append(append(d, fixed[:]...), id...)
}
