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
	// foregroundTime is the constant; tests may change it before commands come.
	foregroundTime time.Duration

	// units are the logical units that Install has met; fixed once commands come.
	units []*unit

	// base is the context of every copy operation; running are their goroutines.
	base    context.Context
	stop    context.CancelCauseFunc
	running sync.WaitGroup

	began time.Time
	mu    sync.Mutex // guards what follows
	stats Stats
	// recent are the last refusals, in a ring whose oldest is number next.
	recent []Refusal
	next   int
}

// New returns a copy manager that makes and takes the tokens of t, and copies
// what rules allow. Close ends it.
func New(t *tokens.Manager, rules Rules, log *logrus.Entry) *Manager {
	m := &Manager{tokens: t, engine: t.Engine(), rules: rules, log: log, foregroundTime: foregroundTime, operations: newOperations(), began: time.Now(), stats: Stats{RefusedBy: make(map[string]uint64)}}
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
