package reserve

import (
	"slices"

	"odx/target/scsi/nexus"
)

// Fit returns a record under RecordKey without the registrations of I_T nexuses whose target port
// another server does not have, which fits tells by the name of the target and the portal group
// tag, and how many those are. Without its holder, a reservation is released, as if its
// registration had been removed (SPC-4 r37 5.9.11.2). era: the record is one that outlives the
// process and no loss of power. Of a record without registrations nothing is left: nil.
func Fit(data []byte, era bool, fits func(target string, tag uint16) bool) (kept []byte, dropped int, err error) {
	read, write := decode, (*state).encode
	if era {
		read, write = decodeCurrent, (*state).encodeCurrent
	}
	s, err := read(data)
	if err != nil {
		return nil, 0, err
	}
	there := func(n nexus.ID) bool { return fits(n.TargetName, n.TargetPortalGroupTag) }
	before := len(s.registrations)
	s.registrations = slices.DeleteFunc(s.registrations, func(r registration) bool { return !there(r.nexus) })
	if s.kind.allRegistrants() && len(s.registrations) == 0 || s.kind != 0 && !s.kind.allRegistrants() && !there(s.holder) {
		s.kind, s.holder = 0, nexus.ID{}
	}
	if len(s.registrations) == 0 {
		return nil, before, nil
	}
	kept, err = write(s)
	return kept, before - len(s.registrations), err
}
