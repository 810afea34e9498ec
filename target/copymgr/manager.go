package copymgr

import (
	"fmt"
	"maps"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/target/scsi"
	"odx/tokens"
)

// Manager is the copy manager of a target service.
type Manager struct {
	tokens     *tokens.Manager
	log        *logrus.Entry
	operations *operations

	mu    sync.Mutex // guards stats
	stats Stats
}

// Stats counts copy commands since the start.
type Stats struct {
	// Populated and Written count the commands that did all they were asked to,
	// Partial those that did some of it.
	Populated, Written, Partial uint64
	// PopulatedBytes were represented by tokens, WrittenBytes written with them.
	PopulatedBytes, WrittenBytes uint64
	// Refused counts the commands that ended with CHECK CONDITION and did
	// nothing, RefusedBy the same by additional sense code ("23h/07h").
	Refused   uint64
	RefusedBy map[string]uint64
}

// New returns a copy manager that makes and takes the tokens of t.
func New(t *tokens.Manager, log *logrus.Entry) *Manager {
	return &Manager{tokens: t, log: log, operations: newOperations(), stats: Stats{RefusedBy: make(map[string]uint64)}}
}

// Stats returns the counts of now.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.RefusedBy = maps.Clone(s.RefusedBy)
	return s
}

// refuse counts a command that ends with sense and tells the log why.
func (m *Manager) refuse(t *scsi.Task, command string, sense *scsi.SenseError, cause error) {
	m.mu.Lock()
	m.stats.Refused++
	m.stats.RefusedBy[sense.ASC.String()]++
	m.mu.Unlock()
	m.describe(t, command).WithField("sense", sense.Error()).WithError(cause).Warn("copy command refused")
}

// countCopy counts a command that moved bytes, in full or in part.
func (m *Manager) countCopy(whole, bytes *uint64, n uint64, partial bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*bytes += n
	if partial {
		m.stats.Partial++
		return
	}
	*whole++
}

// describe returns a log entry that says whose command is meant.
func (m *Manager) describe(t *scsi.Task, command string) *logrus.Entry {
	return m.log.WithFields(logrus.Fields{
		"command":   command,
		"initiator": t.Nexus.ID.InitiatorName,
		"target":    t.Nexus.ID.TargetName,
		"lun":       fmt.Sprintf("%x", t.Lun),
	})
}
