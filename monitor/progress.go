package monitor

import (
	"context"
	"sync/atomic"
	"time"
)

// Progress checks again and again that the process makes progress: that a check returns,
// which takes the locks that all commands and logins take, and waits for nothing that a disk
// can delay. A stalled disk therefore does not stop it: a restart would not mend the disk.
type Progress struct {
	// Check is the check.
	Check func()
	// Passed is called after each check that returned; nil for nothing.
	Passed func()
	// Every is the time between checks.
	Every time.Duration

	last atomic.Int64 // when the last check returned, in Unix nanoseconds
}

// progressLimit is how many intervals may pass without a check that returned.
const progressLimit = 4

// Run checks until ctx ends. A check that does not return is left behind: then the process
// is to be replaced.
func (p *Progress) Run(ctx context.Context) {
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	for {
		passed := make(chan struct{})
		go func() {
			p.Check()
			close(passed)
		}()
		select {
		case <-ctx.Done():
			return
		case <-passed:
		}
		p.last.Store(time.Now().UnixNano())
		if p.Passed != nil {
			p.Passed()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Stuck returns for how long no check has returned, 0 as long as that is not too long.
func (p *Progress) Stuck() time.Duration {
	last := p.last.Load()
	if last == 0 {
		return 0 // not begun
	}
	if since := time.Since(time.Unix(0, last)); since > progressLimit*p.Every {
		return since
	}
	return 0
}
