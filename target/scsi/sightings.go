package scsi

import (
	"crypto/sha256"
	"maps"
	"slices"
)

// Sightings keep, over restarts, which logical unit a nexus found at a LUN when it was
// last told what is there. Methods are called with locks held: they do not block.
type Sightings interface {
	// Last returns the identity of the logical unit that the nexus found at its LUN
	// lun before this start; ok is false where that is not known.
	Last(id NexusID, lun uint16) (unit [16]byte, ok bool)
	// Saw notes what the nexus finds there now.
	Saw(id NexusID, lun uint16, unit [16]byte)
}

// maxSeenNexuses bounds how many nexuses a target remembers the logical units of that
// they found since the start. Who is forgotten may be notified once more.
const maxSeenNexuses = 1024

// sightings are what nexuses were told since the start. Whoever has the target's mu
// uses them.
type sightings struct {
	before Sightings // nil: nothing is known from before the start
	seen   map[NexusID]map[uint16][16]byte
	ring   []NexusID // in the order of their first attachment
	next   int
}

// last returns the identity of the logical unit that the nexus found at lun.
func (s *sightings) last(id NexusID, lun uint16) (unit [16]byte, ok bool) {
	if unit, ok = s.seen[id][lun]; !ok && s.before != nil {
		unit, ok = s.before.Last(id, lun)
	}
	return unit, ok
}

// saw notes what the nexus finds at lun.
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

// KeepSightings has the target ask s what nexuses found before the start, and tell it
// what they find. It belongs to the set-up.
func (tg *Target) KeepSightings(s Sightings) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	tg.sightings.before = s
}

// findsAnother notes that the nexus finds lu at its LUN seen, unless that is another
// logical unit than it found last: then it has to be told first. replaced says that the
// LUN has changed hands, for a nexus of which nothing is known. tg.mu is held.
func (tg *Target) findsAnother(n *Nexus, seen uint16, lu *LogicalUnit, replaced bool) bool {
	last, known := tg.sightings.last(n.ID, seen)
	if known && last != lu.ID() || !known && replaced {
		return true
	}
	tg.sightings.saw(n.ID, seen, lu.ID())
	return false
}

// inventoryLUN is where sightings have the digest of all that a nexus sees; it is no LUN.
const inventoryLUN = 0xFFFF

// inventory is a digest of what the nexus sees in units, by LUN.
func inventory(units map[uint16]*itlNexus) (digest [16]byte) {
	h := sha256.New()
	for _, lun := range slices.Sorted(maps.Keys(units)) {
		id := units[lun].lu.ID()
		h.Write(append([]byte{byte(lun >> 8), byte(lun)}, id[:]...))
	}
	copy(digest[:], h.Sum(nil))
	return digest
}

// announceReplaced queues REPORTED LUNS DATA HAS CHANGED everywhere, unless the nexus has
// been told of these very units: it may leave a LUN alone, which then has to be told for
// itself when it is used. tg.mu is held.
func (tg *Target) announceReplaced(n *Nexus, units map[uint16]*itlNexus) {
	n.inventory = inventory(units)
	if last, known := tg.sightings.last(n.ID, inventoryLUN); known && last == n.inventory {
		return
	}
	for _, itl := range units {
		itl.establish(ASCReportedLUNsDataChanged)
	}
}

// told notes what the nexus was told by a unit attention at its LUN, or by REPORT LUNS.
func (tg *Target) told(i *itlNexus, asc ASC) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	switch {
	case asc == ASCInquiryDataChanged:
		tg.sightings.saw(i.nexus.ID, i.lun, i.lu.ID())
	case i.nexus.inventory != [16]byte{}:
		tg.sightings.saw(i.nexus.ID, inventoryLUN, i.nexus.inventory)
	}
}
