package scsi

import (
	"context"
	"errors"
	"maps"
	"slices"

	"odx/target/handover"
	"odx/target/scsi/sense"
)

// Suspend returns the state of a nexus that goes on in another process. No task of it
// runs, and none may arrive any more. The nexus must not be detached: that would be its
// loss. ctx bounds the wait for background work of the nexus, which is then aborted.
func (tg *Target) Suspend(ctx context.Context, n *Nexus) handover.Nexus {
	state := handover.Nexus{Doubted: n.doubted.Load()}
	units := n.units.Load()
	if units == nil {
		return state
	}
	for _, lun := range slices.Sorted(maps.Keys(*units)) {
		state.Units = append(state.Units, (*units)[lun].suspend(ctx))
	}
	return state
}

// suspend returns the state of an I_T_L nexus.
func (i *itlNexus) suspend(ctx context.Context) handover.Unit {
	id := i.lu.ID()
	u := handover.Unit{LUN: i.lun, ID: id[:], Reserved: i.lu.reservations.Holds(&i.nexus.ID)}
	i.lu.mu.Lock()
	callbacks := i.lu.onSuspend
	i.lu.mu.Unlock()
	for _, fn := range callbacks {
		fn(ctx, i.nexus, &u)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, asc := range i.attentions {
		u.Attentions = append(u.Attentions, uint16(asc))
	}
	u.Deferred = SuspendSense(i.deferred)
	return u
}

// Continue is AttachWith for a nexus that the process before this one has suspended. It
// begins without a unit attention other than those in state, unless it finds other
// logical units than before: then REPORTED LUNS DATA HAS CHANGED announces that
// everywhere, and a LUN where it found none or another one begins as after power on.
func (tg *Target) Continue(id NexusID, r Rights, state *handover.Nexus) *Nexus {
	n := newNexus(tg, id, r)
	if state.Doubted {
		n.DropProof()
	}
	before := make(map[uint16]*handover.Unit, len(state.Units))
	for k := range state.Units {
		before[state.Units[k].LUN] = &state.Units[k]
	}
	tg.attach(n, func(NexusID) beginning { return poweredOn }, before)
	for seen, itl := range *n.units.Load() {
		if u := before[seen]; itl.lu.continues(u) {
			itl.lu.goOn(n, u)
		}
	}
	return n
}

// continues reports whether u is the state of the logical unit for a nexus before.
func (lu *LogicalUnit) continues(u *handover.Unit) bool {
	id := lu.ID()
	return u != nil && slices.Equal(u.ID, id[:])
}

// restore queues the unit attentions and the deferred error of u, before those that were
// established since.
func (i *itlNexus) restore(u *handover.Unit) {
	i.mu.Lock()
	since := i.attentions
	i.attentions = nil
	for _, asc := range u.Attentions[:min(len(u.Attentions), maxAttentions)] {
		i.attentions = append(i.attentions, sense.ASC(asc))
	}
	if u.Deferred != nil {
		i.deferred = ContinueSense(u.Deferred)
	}
	i.mirrorPending()
	i.mu.Unlock()
	for _, asc := range since {
		i.establish(asc)
	}
}

// goOn restores what the logical unit has for a nexus.
func (lu *LogicalUnit) goOn(n *Nexus, u *handover.Unit) {
	if u.Reserved {
		lu.reservations.Restore(&n.ID)
	}
	lu.mu.Lock()
	callbacks := lu.onContinue
	lu.mu.Unlock()
	for _, fn := range callbacks {
		fn(n, u)
	}
}

// OnSuspend registers fn, which adds its state of a nexus to u when the nexus is
// suspended. It belongs to the set-up.
func (lu *LogicalUnit) OnSuspend(fn func(ctx context.Context, n *Nexus, u *handover.Unit)) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.onSuspend = append(lu.onSuspend, fn)
}

// OnContinue registers fn, which restores the state that OnSuspend has added. It belongs
// to the set-up.
func (lu *LogicalUnit) OnContinue(fn func(n *Nexus, u *handover.Unit)) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.onContinue = append(lu.onContinue, fn)
}

// SuspendSense returns sense data for another process; nil for nil.
func SuspendSense(e *sense.Error) *handover.Sense {
	if e == nil {
		return nil
	}
	s := &handover.Sense{Key: byte(e.Key), ASC: uint16(e.ASC), Deferred: e.Deferred}
	if e.HasInformation {
		s.Information = &e.Information
	}
	if e.HasCommandSpecific {
		s.CommandSpecific = &e.CommandSpecific
	}
	if e.SenseKeySpecific != [3]byte{} {
		s.SenseKeySpecific = slices.Clone(e.SenseKeySpecific[:])
	}
	if e.Err != nil {
		s.Cause = e.Err.Error()
	}
	if f := e.Forwarded; f != nil {
		s.Forwarded = &handover.Forwarded{Destination: f.Destination, Status: f.Status, Sense: SuspendSense(f.Sense)}
	}
	return s
}

// ContinueSense returns the sense data of another process; nil for nil.
func ContinueSense(s *handover.Sense) *sense.Error {
	if s == nil {
		return nil
	}
	e := sense.New(sense.Key(s.Key), sense.ASC(s.ASC))
	e.Deferred = s.Deferred
	if s.Information != nil {
		e.Information, e.HasInformation = *s.Information, true
	}
	if s.CommandSpecific != nil {
		e.CommandSpecific, e.HasCommandSpecific = *s.CommandSpecific, true
	}
	copy(e.SenseKeySpecific[:], s.SenseKeySpecific)
	if s.Cause != "" {
		e.Err = errors.New(s.Cause)
	}
	if f := s.Forwarded; f != nil {
		e.Forwarded = &sense.Forwarded{Destination: f.Destination, Status: f.Status, Sense: ContinueSense(f.Sense)}
	}
	return e
}
