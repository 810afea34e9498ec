package tokens

import (
	"errors"
	"fmt"
	"strings"

	"odx/blockdev"
)

// Policy holds the choices that an administrator has. The zero value is the default.
type Policy struct {
	// WhenFull says what a new token does when a limit is reached.
	WhenFull WhenFull
	// Pressure says what the manager does when the store runs out of space.
	Pressure Pressure
	// Deletion says what a user's deletion of a token does.
	Deletion Deletion
	// RunningCopy says what happens to a copy whose token ends.
	RunningCopy RunningCopy
	// Unmapped is about volumes outside the store, whose data has to be copied
	// when a token is made, and stays pinned as long as it lives.
	Unmapped Unmapped
	// Access is who may use a token for which no rule has another.
	Access Access
	// Groups are the groups of initiators that Access can name.
	Groups []Group
	// Rules give priorities and access rights to new tokens. The first that matches
	// decides.
	Rules []Rule
}

// WhenFull says what a new token does when a limit is reached.
type WhenFull uint8

const (
	// EvictOthers cancels an unused token of no higher priority; the new one is refused
	// when there is none.
	EvictOthers WhenFull = iota
	// RefuseNew refuses the new token.
	RefuseNew
)

// Pressure says what the manager does when the store runs out of space.
type Pressure uint8

const (
	// GiveUp cancels tokens, so that writes continue.
	GiveUp Pressure = iota
	// Keep lets writes fail.
	Keep
)

// Deletion says what a user's deletion of a token (DEL_TKN) does.
type Deletion uint8

const (
	// DeletionMandatory: the token has ended when the call returns.
	DeletionMandatory Deletion = iota
	// DeletionHint: the token becomes the first eviction candidate, and expires after
	// the minimum inactivity timeout; until then it can be used. So clients that share
	// a token need not agree on which of them is the last.
	DeletionHint
)

// RunningCopy says what happens to a copy whose token ends.
type RunningCopy uint8

const (
	// FinishCopy lets it finish; its data stays pinned until then.
	FinishCopy RunningCopy = iota
	// AbortCopy ends it with the token's error and the bytes done before.
	AbortCopy
)

// Unmapped says what an offload read of a volume outside the store does.
type Unmapped uint8

const (
	// AllowUnmapped treats it like any other.
	AllowUnmapped Unmapped = iota
	// LowerUnmapped gives its token less than the lowest priority.
	LowerUnmapped
	// RefuseUnmapped gives ErrUnmapped.
	RefuseUnmapped
)

// Priorities of tokens. Tokens of a lower priority are cancelled first.
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

// Matches reports whether a name matches the pattern.
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

// Rule sets priority and access of the tokens that it matches.
type Rule struct {
	// Initiator matches the creator's name; empty matches all.
	Initiator Pattern
	// Use matches ReadOptions.Use; empty matches all.
	Use      string
	Priority int
	// Access, if not empty, replaces Policy.Access.
	Access Access
}

func (r *Rule) fits(initiator, use string) bool {
	return (r.Initiator == "" || r.Initiator.Matches(initiator)) && (r.Use == "" || r.Use == use)
}

// rule returns priority and access of a new token.
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
	// A client may narrow the access that the policy gives, but not widen it.
	if o.Access != "" && (access == AccessAnyone || o.Access == AccessInitiator) {
		access = o.Access
	}
	return priority, access
}

func (p *Policy) check() error {
	if p.WhenFull > RefuseNew || p.Pressure > Keep || p.Deletion > DeletionHint || p.RunningCopy > AbortCopy || p.Unmapped > RefuseUnmapped {
		return errors.New("token policy: unknown value of a choice")
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
	return fmt.Errorf("token policy: access %q names a group that does not exist", a)
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
