package copymgr

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"odx/offload"
	"odx/tokens"
)

// Manager is the copy manager of a target service.
type Manager struct {
	tokens     *tokens.Manager
	engine     *offload.Engine
	log        *logrus.Entry
	operations *operations
	refusals   refusalLog
	rules      atomic.Pointer[Rules]
	// foregroundTime is the constant; tests may change it before commands arrive.
	foregroundTime time.Duration

	// base is the context of every copy operation; running counts their goroutines.
	base    context.Context
	stop    context.CancelCauseFunc
	running sync.WaitGroup

	began time.Time
	mu    sync.Mutex     // guards the fields below
	units []*logicalUnit // of Install
	stats Stats
	// recent is a ring of the last refusals; next is the index of the oldest.
	recent []Refusal
	next   int
}

// New returns a copy manager that uses the tokens of t and permits copies by rules.
// Close ends it.
func New(t *tokens.Manager, rules Rules, log *logrus.Entry) *Manager {
	m := &Manager{tokens: t, engine: t.Engine(), log: log, foregroundTime: foregroundTime, operations: newOperations(), began: time.Now(), stats: Stats{RefusedBy: make(map[string]uint64)}}
	m.rules.Store(&rules)
	m.base, m.stop = context.WithCancelCause(context.Background())
	return m
}

// Reconfigure replaces the rules, and adopts the limits of the tokens. Copies that are under
// way go on.
func (m *Manager) Reconfigure(rules Rules) {
	m.rules.Store(&rules)
	for _, u := range m.installed() {
		u.limit(m.tokens.Limits())
	}
}

// installed returns the logical units of Install.
func (m *Manager) installed() []*logicalUnit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.units)
}

// Close aborts the copy operations in the background and waits for their end; if ctx
// ends first, it returns the context's error. No command may arrive any more.
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
		return fmt.Errorf("copy operations still running: %w", ctx.Err())
	}
}
