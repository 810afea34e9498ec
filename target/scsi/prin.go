package scsi

import (
	"context"
	"encoding/binary"
)

// Service actions of PERSISTENT RESERVE IN (SPC-4 r37 6.15.1).
const (
	prInReadKeys           = 0x00
	prInReadReservation    = 0x01
	prInReportCapabilities = 0x02
	prInReadFullStatus     = 0x03
)

// persistentReserveIn returns the Execute function of one service action.
func persistentReserveIn(build func(lu *LogicalUnit) []byte) func(context.Context, *Task) error {
	return func(_ context.Context, t *Task) error {
		t.SetDataIn(build(t.LU), uint32(binary.BigEndian.Uint16(t.CDB()[7:])))
		return nil
	}
}

// prInData begins parameter data: PRGENERATION and room for ADDITIONAL LENGTH.
func (s *persistentState) prInData() []byte {
	return binary.BigEndian.AppendUint32(make([]byte, 0, 8), s.generation)[:8]
}

// withLength sets ADDITIONAL LENGTH.
func withLength(d []byte) []byte {
	binary.BigEndian.PutUint32(d[4:], uint32(len(d)-8))
	return d
}

// readKeys is READ KEYS (SPC-4 r37 6.15.2).
func (lu *LogicalUnit) readKeys() []byte {
	s := lu.persistent.Load()
	d := s.prInData()
	for _, r := range s.registrations {
		d = binary.BigEndian.AppendUint64(d, r.key)
	}
	return withLength(d)
}

// readReservation is READ RESERVATION (SPC-4 r37 6.15.3). A reservation that all
// registrants hold has no key.
func (lu *LogicalUnit) readReservation() []byte {
	s := lu.persistent.Load()
	d := s.prInData()
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
func (lu *LogicalUnit) reportCapabilities() []byte {
	const (
		crh   = 0x10 // RESERVE and RELEASE beside registrations, as SPC-4 5.12.3 has it
		sipC  = 0x08 // SPEC_I_PT
		atpC  = 0x04 // ALL_TG_PT
		ptplC = 0x01 // APTPL
		tmv   = 0x80 // the type mask is valid
		// allowCommands is 011b: TEST UNIT READY passes every persistent
		// reservation; MODE SENSE, REPORT SUPPORTED OPERATION CODES and their like
		// pass write exclusive ones.
		allowCommands = 3 << 4
		ptplA         = 0x01
	)
	d := []byte{0, 8, crh | sipC | atpC, tmv | allowCommands, 0, 0, 0, 0}
	if lu.config.Records != nil {
		d[2] |= ptplC
	}
	if lu.persistent.Load().aptpl {
		d[3] |= ptplA
	}
	// WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX; EX_AC_AR: the bits of the type
	// codes, counted on from byte 4.
	for k := range reservationType(16) {
		if k.valid() {
			d[4+k/8] |= 1 << (k % 8)
		}
	}
	return d
}

// readFullStatus is READ FULL STATUS (SPC-4 r37 6.15.5). Each registration is
// one I_T nexus, also where ALL_TG_PT made several.
func (lu *LogicalUnit) readFullStatus() []byte {
	s := lu.persistent.Load()
	d := s.prInData()
	for _, r := range s.registrations {
		d = s.appendFullStatus(d, r, lu.relativePort(r.nexus))
	}
	return withLength(d)
}

// appendFullStatus appends one full status descriptor.
func (s *persistentState) appendFullStatus(d []byte, r registration, relativePort uint16) []byte {
	const rHolder = 0x01
	var fixed [24]byte
	binary.BigEndian.PutUint64(fixed[:], r.key)
	if s.isHolder(r.nexus) {
		fixed[12], fixed[13] = rHolder, byte(s.kind)
	}
	binary.BigEndian.PutUint16(fixed[18:], relativePort)
	id := appendTransportID(nil, r.nexus)
	binary.BigEndian.PutUint32(fixed[20:], uint32(len(id)))
	return append(append(d, fixed[:]...), id...)
}

// reservationCommands are PERSISTENT RESERVE IN and OUT, a row for each service
// action.
func reservationCommands() []command {
	in := func(action byte, name string, build func(*LogicalUnit) []byte) command {
		return command{int(action), Operation{Name: "PERSISTENT RESERVE IN, " + name,
			Usage:  []byte{opPersistentReserveIn, action, 0, 0, 0, 0, 0, 0xFF, 0xFF, naca},
			Access: AccessPersistentReserve, Execute: persistentReserveIn(build)}}
	}
	out := func(action, scopeType byte, name string) command {
		return command{int(action), Operation{Name: "PERSISTENT RESERVE OUT, " + name,
			Usage:  []byte{opPersistentReserveOut, action, scopeType, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, naca},
			Access: AccessPersistentReserve, Prepare: preparePersistentReserveOut, Execute: executePersistentReserveOut}}
	}
	return []command{
		in(prInReadKeys, "READ KEYS", (*LogicalUnit).readKeys),
		in(prInReadReservation, "READ RESERVATION", (*LogicalUnit).readReservation),
		in(prInReportCapabilities, "REPORT CAPABILITIES", (*LogicalUnit).reportCapabilities),
		in(prInReadFullStatus, "READ FULL STATUS", (*LogicalUnit).readFullStatus),
		out(prOutRegister, 0, "REGISTER"),
		out(prOutReserve, 0xFF, "RESERVE"),
		out(prOutRelease, 0xFF, "RELEASE"),
		out(prOutClear, 0, "CLEAR"),
		out(prOutPreempt, 0xFF, "PREEMPT"),
		out(prOutPreemptAndAbort, 0xFF, "PREEMPT AND ABORT"),
		out(prOutRegisterAndIgnore, 0, "REGISTER AND IGNORE EXISTING KEY"),
		out(prOutRegisterAndMove, 0, "REGISTER AND MOVE"),
	}
}
