package scsi

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"odx/target/qos"
	"odx/target/scsi/nexus"
	"odx/target/scsi/sense"
)

// NexusID names an I_T nexus.
type NexusID = nexus.ID

// Nexus is an I_T nexus while its session exists. The state of a logical unit for it
// (unit attentions, reservations, copy list identifiers) is keyed by the pointer.
type Nexus struct {
	ID NexusID

	target *Target
	// inventory is the digest of the logical units that REPORTED LUNS DATA HAS CHANGED
	// announces; zero if none was replaced. The target's mu guards it.
	inventory [16]byte

	view View // the target's mu guards it
	// proof is Rights.Proof.
	proof atomic.Pointer[string]
	// doubted: proof no longer stands for all connections of the nexus.
	doubted atomic.Bool
	// limiter has the limits of the initiator over all its LUNs, or is nil.
	limiter *qos.Limiter
	// units is the nexus's view of the LUNs. It is replaced as a whole, so that
	// commands look their logical unit up without a lock.
	units atomic.Pointer[map[uint16]*itlNexus]
	// ended are the counts of logical units that the nexus has lost, recent those of the
	// last minute. The target's mu guards both.
	ended  Stats
	recent recent
	// aborter is the transport's, nil before the session begins.
	aborter atomic.Pointer[TaskAborter]
}

// newNexus returns a nexus that is not attached.
func newNexus(tg *Target, id NexusID, r Rights) *Nexus {
	n := &Nexus{ID: id, target: tg, view: r.View}
	n.proof.Store(&r.Proof)
	n.recent.sample(time.Now(), Stats{})
	if tg.initiators != nil {
		n.limiter = tg.initiators.Join(id.InitiatorName)
	}
	return n
}

// DropProof ends the proof of the nexus: a connection has joined its session that was
// authenticated otherwise. Its copies then reach no logical unit of another target that
// requires a proof, and no other nexus reaches one through it.
func (n *Nexus) DropProof() { n.doubted.Store(true) }

// requiresProof reports whether the target of the nexus requires a proof.
func (n *Nexus) requiresProof() bool { return *n.proof.Load() != "" }

// provenLike reports whether both nexuses have the same initiator.
func (n *Nexus) provenLike(other *Nexus) bool {
	return *n.proof.Load() == *other.proof.Load() && !n.doubted.Load() && !other.doubted.Load()
}

// unit returns the I_T_L nexus of a LUN, or nil if the LUN has no logical unit.
func (n *Nexus) unit(lun [8]byte) *itlNexus {
	units := n.units.Load()
	number, ok := decodeLUN(lun)
	if units == nil || !ok {
		return nil
	}
	return (*units)[number]
}

// dropAttentions drops a unit attention at every LUN of the nexus, and reports whether
// there was one.
func (n *Nexus) dropAttentions(asc sense.ASC) (any bool) {
	units := n.units.Load()
	if units == nil {
		return false
	}
	for _, itl := range *units {
		any = itl.dropAttention(asc) || any
	}
	return any
}

// beginning is how an I_T nexus begins.
type beginning int

const (
	// poweredOn: the nexus is new since the last loss of power.
	poweredOn beginning = iota
	// lost: the nexus was there, in this process, and ended.
	lost
	// resumed: the nexus was there, and the end of a process interrupted it.
	resumed
	// continued: another process has handed the nexus over, and nothing interrupted it.
	continued
)

// attention returns the unit attention that a nexus begins with (SAM-5 6.3), ASCNone for
// none.
func (b beginning) attention() sense.ASC {
	switch b {
	case poweredOn:
		return sense.ASCPowerOnOrReset
	case continued:
		return sense.ASCNone
	}
	return sense.ASCITNexusLossOccurred
}

// maxAttentions bounds the unit attention queue of one I_T_L nexus. Each condition is
// queued once, so regular operation does not reach the bound.
const maxAttentions = 16

// itlNexus is an I_T_L nexus: the state of a logical unit for one I_T nexus.
type itlNexus struct {
	nexus *Nexus
	lun   uint16 // where the nexus finds lu
	lu    *LogicalUnit
	port  atomic.Pointer[luPort] // nil where the target does not know it
	// readOnly: for this nexus, whatever the logical unit is.
	readOnly atomic.Bool
	// revoked: the nexus has lost the right to use the logical unit.
	revoked atomic.Bool
	account *account
	stats   atomic.Pointer[counters] // nil until the first command

	// tasks are those of this nexus in the task set.
	tasks atomic.Int32

	// pending mirrors that there is something below, so that a command for which
	// there is nothing takes no lock.
	pending atomic.Bool

	mu         sync.Mutex // guards what follows
	attentions []sense.ASC
	deferred   *sense.Error // the first deferred error that has not been reported
}

// establish queues a unit attention condition (SAM-5 5.14) unless it is already queued.
func (i *itlNexus) establish(asc sense.ASC) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range i.attentions {
		if a == asc {
			return
		}
	}
	if len(i.attentions) < maxAttentions {
		at := len(i.attentions)
		if isReset(asc) {
			// A reset precedes all others (SAM-5 5.14.1): earlier conditions are
			// reported after it.
			at = slices.IndexFunc(i.attentions, func(a sense.ASC) bool { return !isReset(a) })
			if at < 0 {
				at = len(i.attentions)
			}
		}
		i.attentions = slices.Insert(i.attentions, at, asc)
		i.pending.Store(true)
	}
}

// isReset: power on, a reset, or the loss of the nexus.
func isReset(a sense.ASC) bool { return a>>8 == byteOfResets }

// byteOfResets is the additional sense code of all resets, which differ in the
// qualifier.
const byteOfResets = 0x29

// deferError keeps a deferred error (SPC-4 r37 4.5.7) for the next command, unless one
// is pending.
func (i *itlNexus) deferError(se *sense.Error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.deferred == nil {
		i.deferred = se
		i.pending.Store(true)
	}
}

// takePending removes and returns the sense data that ends the next command of the
// nexus in place of its execution: the oldest unit attention, else a deferred error,
// else nil.
func (i *itlNexus) takePending() *sense.Error {
	if !i.pending.Load() {
		return nil
	}
	asc, deferred := i.takeOldest()
	switch asc {
	case sense.ASCNone:
		return deferred
	case sense.ASCInquiryDataChanged:
		i.nexus.target.notified(i, asc)
	case sense.ASCReportedLUNsDataChanged:
		i.nexus.target.notified(i, asc)
		i.nexus.dropAttentions(asc) // LUICLR (SPC-4 r37 7.8.7)
	}
	return i.lu.attention(asc)
}

// takeOldest removes and returns the oldest unit attention, else, with ASCNone, the
// deferred error, nil where there is none.
func (i *itlNexus) takeOldest() (sense.ASC, *sense.Error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	defer i.mirrorPending()
	if len(i.attentions) == 0 {
		se := i.deferred
		i.deferred = nil
		return sense.ASCNone, se
	}
	asc := i.attentions[0]
	i.attentions = append(i.attentions[:0], i.attentions[1:]...)
	return asc, nil
}

// mirrorPending sets pending. The caller holds i.mu.
func (i *itlNexus) mirrorPending() {
	i.pending.Store(len(i.attentions) > 0 || i.deferred != nil)
}

// dropAttention drops a queued unit attention, and reports whether there was one.
func (i *itlNexus) dropAttention(asc sense.ASC) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	before := len(i.attentions)
	i.attentions = slices.DeleteFunc(i.attentions, func(a sense.ASC) bool { return a == asc })
	i.mirrorPending()
	return len(i.attentions) < before
}
