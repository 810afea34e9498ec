package copymgr

import (
	"context"
	"fmt"
	"sync"
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
	rules      Rules
	// foregroundTime is the constant; tests may change it before commands arrive.
	foregroundTime time.Duration

	// units are the logical units passed to Install; fixed once commands arrive.
	units []*logicalUnit

	// base is the context of every copy operation; running counts their goroutines.
	base    context.Context
	stop    context.CancelCauseFunc
	running sync.WaitGroup

	began time.Time
	mu    sync.Mutex // guards the fields below
	stats Stats
	// recent is a ring of the last refusals; next is the index of the oldest.
	recent []Refusal
	next   int
}

// New returns a copy manager that uses the tokens of t and permits copies by rules.
// Close ends it.
func New(t *tokens.Manager, rules Rules, log *logrus.Entry) *Manager {
	m := &Manager{tokens: t, engine: t.Engine(), rules: rules, log: log, foregroundTime: foregroundTime, operations: newOperations(), began: time.Now(), stats: Stats{RefusedBy: make(map[string]uint64)}}
	m.base, m.stop = context.WithCancelCause(context.Background())
	return m
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
