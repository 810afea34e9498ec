package doctor

import (
	"errors"

	"odx/initiator"
)

// bySense is the advice for a failed copy command by additional sense code and
// qualifier (SPC-4 r37 annex F).
var bySense = []struct {
	asc    uint16
	advice string
}{
	{0x2000, "the target does not support the command: its LUN does not support copies by token"},
	{0x2400, "the target does not support the command: its LUN does not support copies by token"},
	{0x2002, "a rule of the server (copy.rules) forbids this copy to this initiator"},
	{0x2300, "the server restricts tokens to the initiator that created them, or to a group (tokens.access, tokens.rules), without this initiator"},
	{0x2301, "the destination does not support tokens of this type"},
	{0x2302, "the token was created by another server: both LUNs must be of one server and one store"},
	{0x2304, "the destination does not know the token: both LUNs must be of one server and one store"},
	{0x2305, "the token was modified, or is of another server: both LUNs must be of one server and one store"},
	{0x2306, "an administrator revoked the token"},
	{0x2307, "the token expired immediately: increase tokens.default_inactivity"},
	{0x2308, "the server canceled the token immediately: its limits on tokens are reached (odx token stats)"},
	{0x2309, "another client deleted the token"},
	{0x2700, "the destination is write-protected: read_only of the LUN, of the initiator's access or of the volume, or software write protection set by the initiator"},
	{0x2707, "the store is full: delete data or increase its capacity"},
	{0x550c, "the server does not create tokens for LUNs outside its store (tokens.unmapped), or has no space for their data"},
	{0x550d, "the limits on tokens are reached (tokens.max, tokens.max_per_initiator, tokens.memory; odx token stats)"},
	{0x0402, "the LUN is stopped: start it with START STOP UNIT"},
	{0x040b, "the path is in standby: use another portal group"},
	{0x040c, "the path is unavailable: use another portal group"},
}

// byStatus is the advice by status, without sense data (SAM-5 5.3.1).
var byStatus = map[byte]string{
	0x08: "the server is overloaded: try again later",
	0x18: "another initiator has reserved the LUN",
	0x28: "the server is overloaded: try again later",
}

// Advice returns what to do about a refusal with an additional sense code and qualifier;
// empty where none is known.
func Advice(asc uint16) string {
	for _, s := range bySense {
		if s.asc == asc {
			return s.advice
		}
	}
	return ""
}

// adviceFor returns the advice for an error of a copy command.
func adviceFor(err error) string {
	var sense *initiator.SenseError
	var status *initiator.StatusError
	switch {
	case errors.As(err, &sense):
		if advice := Advice(sense.ASC); advice != "" {
			return advice
		}
	case errors.As(err, &status):
		if advice := byStatus[status.Status]; advice != "" {
			return advice
		}
	}
	return "see odx token stats and the server's log for the cause of each failed copy command"
}
