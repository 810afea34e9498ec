package tokens

import (
	"errors"
	"fmt"
	"strings"

	"odx/blockdev"
)

// Policy says what a Manager does where there is a choice. The zero value is the
// default.
type Policy struct {
	// WhenFull is what becomes of a new token when a limit is reached.
	WhenFull WhenFull
	// Pressure is what tokens do for a store that runs out of space.
	Pressure Pressure
	// Deletion is what a user's deletion of a token means.
	Deletion Deletion
	// RunningCopy is what becomes of a copy whose token ends.
	RunningCopy RunningCopy
	// Unmapped is about volumes outside the store, whose data has to be copied
	// when a token is made, and stays pinned as long as it lives.
	Unmapped Unmapped
	// Access is who may use a token for which no rule says anything else.
	Access Access
	// Groups are the groups of initiators that Access can name.
	Groups []Group
	// Rules give priorities and access rights to new tokens. The first one that
	// fits decides.
	Rules []Rule
}

// WhenFull is what becomes of a new token when a limit is reached.
type WhenFull uint8

const (
	// EvictOthers gives up another token, of no higher priority, that nobody uses
	// at the moment; the new one is refused when there is none.
	EvictOthers WhenFull = iota
	// RefuseNew gives up nothing.
	RefuseNew
)

// Pressure is what tokens do for a store that runs out of space.
type Pressure uint8

const (
	// GiveUp ends tokens, so that writes go on.
	GiveUp Pressure = iota
	// Keep lets writes fail.
	Keep
)

// Deletion is what a user's deletion of a token (DEL_TKN) means.
type Deletion uint8

const (
	// DeletionMandatory: the token has ended when the call returns.
	DeletionMandatory Deletion = iota
	// DeletionHint: the token is the first to be given up, and expires after the
	// minimum inactivity timeout; until then it can be used. That spares clients
	// that share a token from agreeing on who is last.
	DeletionHint
)

// RunningCopy is what becomes of a copy whose token ends.
type RunningCopy uint8

const (
	// FinishCopy lets it go on; the data stays pinned until then.
	FinishCopy RunningCopy = iota
	// AbortCopy ends it with the token's error, and says how far it came.
	AbortCopy
)

// Unmapped is what becomes of an offload read of a volume outside the store.
type Unmapped uint8

const (
	// AllowUnmapped treats it like any other.
	AllowUnmapped Unmapped = iota
	// LowerUnmapped gives its token less than the lowest priority.
	LowerUnmapped
	// RefuseUnmapped gives ErrUnmapped.
	RefuseUnmapped
)

// Priorities of tokens. When tokens are given up, lower ones go first.
const (
	MinPriority = -100
	MaxPriority = 100
)

// checkPriority checks one that a client asks for.
func checkPriority(p int) error {
	if p < MinPriority || p > MaxPriority {
		return fmt.Errorf("%w: priority %d is not between %d and %d", blockdev.ErrInvalid, p, MinPriority, MaxPriority)
	}
	return nil
}

// Pattern is the name of an initiator, or the beginning of some followed by "*".
type Pattern string

// Matches reports whether the pattern fits a name.
func (p Pattern) Matches(name string) bool {
	if prefix, ok := strings.CutSuffix(string(p), "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return string(p) == name
}

// Group is a set of initiators.
type Group struct {
	Name       string
	Initiators []Pattern
}

// Rule gives a priority and an access right to the tokens that it fits.
type Rule struct {
	// Initiator fits the creator's name; empty fits all.
	Initiator Pattern
	// Use fits ReadOptions.Use; empty fits all.
	Use      string
	Priority int
	// Access, if not empty, takes the place of Policy.Access.
	Access Access
}

func (r *Rule) fits(initiator, use string) bool {
	return (r.Initiator == "" || r.Initiator.Matches(initiator)) && (r.Use == "" || r.Use == use)
}

// rule returns what the policy gives a new token.
func (p *Policy) rule(o *ReadOptions) (priority int, access Access) {
	priority, access = o.Priority, p.Access
	for i := range p.Rules {
		if r := &p.Rules[i]; r.fits(o.Creator.Initiator, o.Use) {
			priority = r.Priority
			if r.Access != "" {
				access = r.Access
			}
			break
		}
	}
	if access == "" {
		access = AccessAnyone
	}
	// A client may keep a token to itself, and not hand it to more than the policy
	// does.
	if o.Access != "" && (access == AccessAnyone || o.Access == AccessInitiator) {
		access = o.Access
	}
	return priority, access
}

func (p *Policy) check() error {
	if p.WhenFull > RefuseNew || p.Pressure > Keep || p.Deletion > DeletionHint || p.RunningCopy > AbortCopy || p.Unmapped > RefuseUnmapped {
		return errors.New("token policy: a choice is not one of those that there are")
	}
	if err := p.checkAccess(p.Access); err != nil {
		return err
	}
	for _, r := range p.Rules {
		if r.Priority < MinPriority || r.Priority > MaxPriority {
			return fmt.Errorf("token policy: priority %d is not between %d and %d", r.Priority, MinPriority, MaxPriority)
		}
		if err := p.checkAccess(r.Access); err != nil {
			return err
		}
	}
	return nil
}

func (p *Policy) checkAccess(a Access) error {
	name, ok := a.group()
	if !ok || p.group(name) != nil {
		if a == "" || a == AccessAnyone || a == AccessInitiator || ok {
			return nil
		}
		return fmt.Errorf("token policy: access %q; use %s, %s or group:NAME", a, AccessAnyone, AccessInitiator)
	}
	return fmt.Errorf("token policy: access %q names a group that there is not", a)
}

// group returns the group of a name, nil if there is none.
func (p *Policy) group(name string) *Group {
	for i := range p.Groups {
		if p.Groups[i].Name == name {
			return &p.Groups[i]
		}
	}
	return nil
}
