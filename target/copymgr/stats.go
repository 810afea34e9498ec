package copymgr

import (
	"fmt"
	"maps"
	"time"

	"odx/blockdev"
	"odx/target/qos"
	"odx/target/scsi"
	"odx/target/scsi/sense"
)

// Stats counts copy commands since the creation of the copy manager.
type Stats struct {
	Since time.Time
	// Populated and Written count the commands that completed, Partial those that
	// completed in part.
	Populated uint64
	Written   uint64
	Extended  uint64
	Partial   uint64
	// PopulatedBytes were represented by tokens, WrittenBytes written with them;
	// ExtendedBytes were written by EXTENDED COPY. The moved bytes of each were read
	// and written, because they are not in the store, or not equally aligned to its
	// blocks. The rest was mapped.
	PopulatedBytes      uint64
	PopulatedMovedBytes uint64
	WrittenBytes        uint64
	WrittenMovedBytes   uint64
	ExtendedBytes       uint64
	ExtendedMovedBytes  uint64
	// Aborted counts the aborted operations.
	Aborted uint64
	// Refused counts the commands without effect that ended with CHECK CONDITION or
	// another error status, RefusedBy the same by additional sense code ("23h/07h") or
	// status ("BUSY").
	Refused   uint64
	RefusedBy map[string]uint64
	// Recent are the last refusals, the latest first, at most 32.
	Recent []Refusal
}

// Refusal describes why one command had no effect.
type Refusal struct {
	Time      time.Time
	Command   string
	Initiator string
	Target    string
	Volume    string
	// Sense is the abbreviated sense data, or the status.
	Sense  string
	Reason string
}

// maxRecent bounds Stats.Recent.
const maxRecent = 32

// Stats returns the current counts.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Since = m.began.UTC()
	s.RefusedBy = maps.Clone(s.RefusedBy)
	s.Recent = make([]Refusal, 0, len(m.recent))
	for i := range m.recent {
		s.Recent = append(s.Recent, m.recent[(m.next+len(m.recent)-1-i)%len(m.recent)])
	}
	return s
}

// refuse counts a command that ends with sense and logs the cause.
func (m *Manager) refuse(o origin, se *sense.Error, cause error) {
	if cause == nil {
		cause = se
	}
	m.countRefusal(o, se.ASC.String(), Refusal{Sense: fmt.Sprintf("%v, %v", se.Key, se.ASC), Reason: cause.Error()})
}

// refuseStatus is refuse for a command that ends with a status without sense data.
func (m *Manager) refuseStatus(o origin, status byte, cause error) {
	words := statusWords(status)
	m.countRefusal(o, words, Refusal{Sense: words, Reason: cause.Error()})
}

const busyWords = "BUSY"

// statusWords returns the name of a status in SAM-5 5.3.1.
func statusWords(status byte) string {
	switch status {
	case scsi.StatusBusy:
		return busyWords
	case scsi.StatusReservationConflict:
		return "RESERVATION CONFLICT"
	case scsi.StatusTaskSetFull:
		return "TASK SET FULL"
	}
	return fmt.Sprintf("status %02Xh", status)
}

// countRefusal counts r, of the command o, and logs it.
func (m *Manager) countRefusal(o origin, by string, r Refusal) {
	r.Time, r.Command, r.Volume = time.Now().UTC(), o.command, o.volume
	r.Initiator, r.Target = o.nexus.InitiatorName, o.nexus.TargetName
	m.mu.Lock()
	m.stats.Refused++
	m.stats.RefusedBy[by]++
	if len(m.recent) < maxRecent {
		m.recent = append(m.recent, r)
	} else {
		m.recent[m.next] = r
		m.next = (m.next + 1) % maxRecent
	}
	m.mu.Unlock()
	m.refusals.log(keyOf(&r), m.log.WithFields(o.fields()).WithField("sense", r.Sense).WithField("error", r.Reason))
}

// copyCounts are the counts of one command in Stats; whole is nil for a part of it.
type copyCounts struct{ whole, bytes, moved *uint64 }

// countCopy counts a command that copied n bytes, in full or in part, and moved some
// of them.
func (m *Manager) countCopy(c copyCounts, n uint64, moved int64, partial bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*c.bytes += n
	*c.moved += min(uint64(moved), n)
	switch {
	case partial:
		m.stats.Partial++
	case c.whole != nil:
		*c.whole++
	}
}

// nodeSpan is how many bytes a leaf of the map of a volume of the store has.
const nodeSpan = 512 * blockdev.BlockLength

// countCopy counts a command that copied n bytes, in full or in part, for its initiator
// too. What was mapped is charged as the map nodes that it takes, each like a block, and
// what was moved as its bytes.
func (op *operation) countCopy(c copyCounts, n uint64, partial bool) {
	moved := op.copied.Load()
	op.manager.countCopy(c, n, moved, partial)
	op.manager.refusals.succeeded(op.origin)
	op.account.AddBytes(scsi.KindCopy, n)
	nodes := (max(int64(n)-moved, 0) + nodeSpan - 1) / nodeSpan
	op.account.Charge(qos.Cost{Operations: nodes, Bytes: nodes*blockdev.BlockLength + moved})
}

// countPart counts the n bytes that an operation has copied here, which another process
// goes on with.
func (op *operation) countPart(c copyCounts, n uint64) {
	c.whole = nil
	op.countCopy(c, n, false)
}

func (m *Manager) countAbort() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Aborted++
}
