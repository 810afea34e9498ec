package scsi

import (
	"crypto/sha256"
	"maps"
	"slices"

	"odx/target/scsi/sense"
)

// Sightings store, across restarts, which logical unit a nexus found at a LUN when it
// was last notified. Methods are called with locks held, and do not block.
type Sightings interface {
	// Last returns the identity of the logical unit that the nexus found at its LUN lun
	// before this start; ok is false if it is not known.
	Last(id NexusID, lun uint16) (unit [16]byte, ok bool)
	// Saw records the logical unit at the LUN now.
	Saw(id NexusID, lun uint16, unit [16]byte)
	// Interrupted reports whether the nexus was there since the last loss of power when
	// the process before this one ended.
	Interrupted(id NexusID) bool
}

// maxSeenNexuses bounds the nexuses whose logical units a target remembers since the
// start. A forgotten nexus may be notified once more.
const maxSeenNexuses = 1024

// sightings are the logical units that nexuses have found since the start. The target's
// mu guards them.
type sightings struct {
	before Sightings // nil: nothing is known from before the start
	seen   map[NexusID]map[uint16][16]byte
	ring   []NexusID // in the order of their first attachment
	next   int
}

// last returns the identity of the logical unit that the nexus found last at lun.
func (s *sightings) last(id NexusID, lun uint16) (unit [16]byte, ok bool) {
	if unit, ok = s.seen[id][lun]; !ok && s.before != nil {
		unit, ok = s.before.Last(id, lun)
	}
	return unit, ok
}

// resumes reports whether the nexus begins for the first time in this process, and was
// there before.
func (s *sightings) resumes(id NexusID) bool {
	_, again := s.seen[id]
	return !again && s.before != nil && s.before.Interrupted(id)
}

// saw records the logical unit at lun.
func (s *sightings) saw(id NexusID, lun uint16, unit [16]byte) {
	luns, ok := s.seen[id]
	if !ok {
		if s.seen == nil {
			s.seen, s.ring = map[NexusID]map[uint16][16]byte{}, make([]NexusID, maxSeenNexuses)
		}
		delete(s.seen, s.ring[s.next])
		s.ring[s.next] = id
		s.next = (s.next + 1) % maxSeenNexuses
		luns = map[uint16][16]byte{}
		s.seen[id] = luns
	}
	luns[lun] = unit
	if s.before != nil {
		s.before.Saw(id, lun, unit)
	}
}

// KeepSightings sets where the target reads and records what nexuses find. It belongs
// to the set-up.
func (tg *Target) KeepSightings(s Sightings) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	tg.sightings.before = s
}

// findsAnother reports whether the nexus finds another logical unit at its LUN seen
// than last time, and must be notified; otherwise it records lu. replaced: the LUN has
// changed hands, for a nexus without a record. The caller holds tg.mu.
func (tg *Target) findsAnother(n *Nexus, seen uint16, lu *LogicalUnit, replaced bool) bool {
	last, known := tg.sightings.last(n.ID, seen)
	if known && last != lu.ID() || !known && replaced {
		return true
	}
	tg.sightings.saw(n.ID, seen, lu.ID())
	return false
}

// inventoryLUN is the key of the digest of all logical units of a nexus; it is not a
// valid LUN.
const inventoryLUN = 0xFFFF

// inventory returns a digest of the logical units of a nexus, by LUN.
func inventory(units map[uint16]*itlNexus) (digest [16]byte) {
	h := sha256.New()
	for _, lun := range slices.Sorted(maps.Keys(units)) {
		id := units[lun].lu.ID()
		h.Write(append([]byte{byte(lun >> 8), byte(lun)}, id[:]...))
	}
	copy(digest[:], h.Sum(nil))
	return digest
}

// announceReplaced queues REPORTED LUNS DATA HAS CHANGED everywhere, unless the nexus
// has been notified of these logical units: it may not use a LUN until later, which
// then has a unit attention of its own. The caller holds tg.mu.
func (tg *Target) announceReplaced(n *Nexus, units map[uint16]*itlNexus) {
	n.inventory = inventory(units)
	if last, known := tg.sightings.last(n.ID, inventoryLUN); known && last == n.inventory {
		return
	}
	announce(units)
}

// announce queues REPORTED LUNS DATA HAS CHANGED at all LUNs of a nexus. The first report
// of it, at any LUN, clears it at the others.
func announce(units map[uint16]*itlNexus) {
	for _, itl := range units {
		itl.establish(sense.ASCReportedLUNsDataChanged)
	}
}

// notified records what a nexus has learned by a unit attention at its LUN.
func (tg *Target) notified(i *itlNexus, asc sense.ASC) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	if asc == sense.ASCInquiryDataChanged {
		tg.sightings.saw(i.nexus.ID, i.lun, i.lu.ID())
		return
	}
	tg.sawInventory(i.nexus)
}

// sawInventory records that a nexus has learned which logical units it has. The caller
// holds tg.mu.
func (tg *Target) sawInventory(n *Nexus) {
	if n.inventory != [16]byte{} {
		tg.sightings.saw(n.ID, inventoryLUN, n.inventory)
	}
}

// learnInventory drops the unit attention for a changed inventory, which the nexus is
// about to learn.
func (n *Nexus) learnInventory() {
	if !n.dropAttentions(sense.ASCReportedLUNsDataChanged) {
		return
	}
	n.target.mu.Lock()
	defer n.target.mu.Unlock()
	n.target.sawInventory(n)
}

// luns returns the LUNs of the nexus, ascending.
func (n *Nexus) luns() []uint16 {
	units := n.units.Load()
	if units == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(*units))
}
