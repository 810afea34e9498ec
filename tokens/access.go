package tokens

import (
	"fmt"
	"slices"
	"strings"
)

// Access is which initiators may use a token: AccessAnyone, AccessInitiator, or the
// result of AccessGroup. It is stored with the token.
type Access string

const (
	// AccessAnyone: every holder of the token.
	AccessAnyone Access = "anyone"
	// AccessInitiator: only the initiator that made it.
	AccessInitiator Access = "initiator"

	groupPrefix = "group:"
)

// AccessGroup lets the initiators of a group of the policy use the token. Who
// belongs to the group is looked up at each use.
func AccessGroup(name string) Access { return Access(groupPrefix + name) }

func (a Access) group() (name string, ok bool) { return strings.CutPrefix(string(a), groupPrefix) }

// Requester identifies the caller of an offload operation. The zero value is the server
// itself or its administrator, for whom all tokens are usable.
type Requester struct {
	// Initiator is the iSCSI name of the initiator.
	Initiator string
	// Peer is the server on which the initiator is, if that is another one: its name in the
	// configuration here. Without an initiator, the requester is that server itself, which
	// has no more rights than an initiator without a name.
	Peer string
}

// admit returns ErrAccess unless the requester may use a token with this record.
func (m *Manager) admit(rec *record, who Requester) error {
	if who == (Requester{}) {
		return nil
	}
	ok := false
	switch name, isGroup := rec.Access.group(); {
	case isGroup:
		g := m.policy().group(name)
		ok = g != nil && slices.ContainsFunc(g.Initiators, func(p Pattern) bool { return p.Matches(who.Initiator) })
	case rec.Access == AccessInitiator:
		ok = who.Initiator == rec.Creator.Initiator && who.Initiator != ""
	default:
		ok = true // tokens older than access rights have none
	}
	if !ok {
		return fmt.Errorf("%w: initiator %s, the token is for %s", ErrAccess, who.Initiator, rec.Access)
	}
	return nil
}
