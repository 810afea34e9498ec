package copymgr

import (
	"context"
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
	refusals   refusalLog
	rules      Rules

	// units are the logical units that Install has met; fixed once commands come.
	units []*unit

	// base is the context of every copy operation; running are their goroutines.
	base    context.Context
	stop    context.CancelCauseFunc
	running sync.WaitGroup

	mu    sync.Mutex // guards stats
	stats Stats
}

// Stats counts copy commands since the start.
type Stats struct {
	// Populated and Written count the commands that did all they were asked to,
	// Partial those that did some of it.
	Populated, Written, Extended, Partial uint64
	// PopulatedBytes were represented by tokens, WrittenBytes written with them;
	// ExtendedBytes were written by EXTENDED COPY.
	PopulatedBytes, WrittenBytes, ExtendedBytes uint64
	// Aborted counts the operations that were ended from outside.
	Aborted uint64
	// Refused counts the commands that ended with CHECK CONDITION or BUSY and did
	// nothing, RefusedBy the same by additional sense code ("23h/07h") or status.
	Refused   uint64
	RefusedBy map[string]uint64
}

// New returns a copy manager that makes and takes the tokens of t, and copies
// what rules allow. Close ends it.
func New(t *tokens.Manager, rules Rules, log *logrus.Entry) *Manager {
	m := &Manager{tokens: t, rules: rules, log: log, operations: newOperations(), stats: Stats{RefusedBy: make(map[string]uint64)}}
	m.base, m.stop = context.WithCancelCause(context.Background())
	return m
}

// Close aborts the copy operations that run in the background and waits for
// their end, or until ctx ends: then it returns the context's error. No command
// may come any more.
func (m *Manager) Close(ctx context.Context) error {
	m.stop(errStopping)
	ended := make(chan struct{})
	go func() {
		m.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("copy operations still run: %w", ctx.Err())
	}
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
func (m *Manager) refuse(o origin, sense *scsi.SenseError, cause error) {
	m.countRefusal(sense.ASC.String())
	m.refusals.log(m.log.WithFields(o.fields()).WithField("sense", sense.Error()).WithError(cause))
}

// refuseBusy is refuse for a command that ends with BUSY status.
func (m *Manager) refuseBusy(o origin, cause error) {
	m.countRefusal("BUSY")
	m.refusals.log(m.log.WithFields(o.fields()).WithError(cause))
}

func (m *Manager) countRefusal(by string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Refused++
	m.stats.RefusedBy[by]++
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

func (m *Manager) countAbort() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Aborted++
}
