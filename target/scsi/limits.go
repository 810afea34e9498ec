package scsi

import (
	"time"

	"odx/target/qos"
)

// maxCopyWait bounds how long limits hold a third-party copy back: Windows permits four
// seconds for the whole command.
const maxCopyWait = 2 * time.Second

// SetLimits changes the limits of the logical unit: those of all initiators together, and
// those that ofInitiator returns for each of them by its name; nil: none. Commands that
// wait follow the new limits at once.
//
// Limited are the commands that read, write, unmap or copy data, and others that access
// the medium, but for TEST UNIT READY. A copy counts as the map nodes that it changes
// (Account.Charge), not as its bytes.
func (lu *LogicalUnit) SetLimits(l qos.Limits, ofInitiator func(initiator string) qos.Limits) {
	lu.limiter.Set(l)
	lu.initiators.Set(ofInitiator)
}

// Limits returns the limits of the logical unit for all initiators together, and those for
// each initiator that is there, by its name.
func (lu *LogicalUnit) Limits() (all qos.Limits, initiators map[string]qos.Limits) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	initiators = make(map[string]qos.Limits, len(lu.accounts.by))
	for name, a := range lu.accounts.by {
		initiators[name] = a.limiter.Limits()
	}
	return lu.limiter.Limits(), initiators
}

// LiftLimits lets all commands pass, those that wait first, because the server ends or is
// handed over. Limits that are set later hold again.
func (tg *Target) LiftLimits() {
	if tg.initiators != nil {
		tg.initiators.Set(nil)
	}
	for _, lu := range tg.LUs() {
		lu.SetLimits(qos.Limits{}, nil)
	}
}

// limited reports whether there are limits for commands of the nexus.
func (i *itlNexus) limited() bool {
	return i.account.limiter.Limited() || i.lu.limiter.Limited() || i.nexus.limiter != nil && i.nexus.limiter.Limited()
}

// cost returns what the task counts as before it runs; none for a task that no limit holds
// back.
func (t *Task) cost() (c qos.Cost) {
	const testUnitReady = 0x00
	switch {
	case t.itl == nil || t.op == nil || t.kind == KindOther && (!t.op.Medium || t.OpCode == testUnitReady):
		return c
	case t.kind != KindUnmap:
		c.Bytes = int64(t.TL) // 0 for a copy
	}
	c.Operations = 1
	return c
}

// withinLimits reports whether limits let the task run. It takes what it costs at the first
// call.
func (t *Task) withinLimits() bool {
	switch {
	case t.passed:
	case t.gated:
		t.passed = t.wait.Try()
	case t.place.Load() == placeNone || !t.itl.limited():
		t.passed = true
	default:
		t.passed = t.beginLimits()
	}
	return t.passed
}

// beginLimits takes the task to its limits, and reports whether it passes at once.
func (t *Task) beginLimits() bool {
	c := t.cost()
	if c == (qos.Cost{}) {
		return true
	}
	t.gated = true
	// The narrowest first, so that what waits for it takes nothing from the others.
	t.wait.Begin(c, t.itl.account.limiter, t.itl.nexus.limiter, &t.LU.limiter)
	if t.Attribute == AttributeHeadOfQueue {
		t.wait.First()
	}
	if t.kind == KindCopy {
		t.wait.Within(maxCopyWait)
	}
	return t.wait.Try()
}

// whenWithinLimits reports whether limits let the task run; otherwise wake is called once,
// when they do. wake is as for WhenEnabled.
func (t *Task) whenWithinLimits(wake func()) (passed bool) {
	if t.withinLimits() {
		return true
	}
	if t.wait.Pass(func() {
		t.passed = true
		wake()
	}) {
		t.passed = true
		return true
	}
	return false // and the task may be woken by now
}
