package doctor

import (
	"errors"

	"odx/initiator"
)

// bySense says what to do about a refusal of a copy command, by additional sense
// code and qualifier (SPC-4 r37 annex F).
var bySense = []struct {
	asc    uint16
	advice string
}{
	{0x2000, "the target does not know the command: its LUN is not copied by token"},
	{0x2400, "the target does not know the command: its LUN is not copied by token"},
	{0x2002, "a rule of the server (copy.rules) forbids this copy to this initiator"},
	{0x2300, "the server keeps tokens to the initiator that made them, or to a group (tokens.access, tokens.rules), and this one is not meant"},
	{0x2301, "the destination takes no tokens of this type"},
	{0x2302, "the token was made by another server: both LUNs have to belong to one, and to one store"},
	{0x2304, "the destination does not know the token: both LUNs have to belong to one server, and to one store"},
	{0x2305, "the token was changed on its way, or is one of another server: both LUNs have to belong to one, and to one store"},
	{0x2306, "an administrator has revoked the token"},
	{0x2307, "the token has expired at once; let tokens live longer (tokens.default_inactivity)"},
	{0x2308, "the server gave the token up at once; its limits on tokens are reached (odx token stats)"},
	{0x2309, "another client has deleted the token"},
	{0x2700, "the destination may not be written: read_only of the LUN, of the initiator's access or of the volume, or the initiator's own software write protection"},
	{0x2707, "the store is full: delete something, or give it more capacity"},
	{0x550c, "the server makes no tokens of LUNs outside its store (tokens.unmapped), or has no room for their data"},
	{0x550d, "the limits on tokens are reached (tokens.max, tokens.max_per_initiator, tokens.memory; odx token stats)"},
	{0x0402, "the LUN is stopped: START STOP UNIT starts it"},
	{0x040b, "the path is in standby: use another portal group"},
	{0x040c, "the path is unavailable: use another portal group"},
}

// byStatus is the same for a status without sense data (SAM-5 5.3.1).
var byStatus = map[byte]string{
	0x08: "the server has too much to do; try again later",
	0x18: "another initiator has reserved the LUN",
	0x28: "the server has too much to do; try again later",
}

// adviceFor returns what to do about an error of a copy command.
func adviceFor(err error) string {
	var sense *initiator.SenseError
	var status *initiator.StatusError
	switch {
	case errors.As(err, &sense):
		for _, s := range bySense {
			if s.asc == sense.ASC {
				return s.advice
			}
		}
	case errors.As(err, &status):
		if advice := byStatus[status.Status]; advice != "" {
			return advice
		}
	}
	return "odx token stats and the log of the server have the reason for each copy command that was refused"
}
