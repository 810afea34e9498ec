package api

import (
	"cmp"
	"context"
	"time"
)

// change is how a request is recorded in the audit log.
type change struct {
	// what is audit.Change.What.
	what string
	// summed: there are too many of these requests for a line each.
	summed bool
	// live: admin.Live has lines of its own, one for each key of the configuration.
	live bool
}

// changes is a request with a line of its own, writes one with a share of a line.
// reconfigures is one that admin.Live records, looks one that changes nothing.
func changes(what string) change { return change{what: what} }
func writes(what string) change  { return change{what: what, summed: true} }

var (
	reconfigures = change{live: true}
	looks        = change{}
)

// auditPatience bounds how long an answer waits for its line, in case the disk of the
// audit file does not respond.
const auditPatience = time.Second

// subject sets what the request is about to change. A request that fails before this call
// has changed nothing, and has no line.
func (c *call) subject(what string) { c.changed.Subject = what }

// record records what the request changed, or failed to change.
func (s *Server) record(r *route, c *call, result any, err error) {
	line := c.changed
	if r.change == looks || line.Subject == "" {
		return
	}
	line.What, line.Err = cmp.Or(line.What, r.change.what), err
	if r.change.summed {
		s.audit.Sum(c.ctx, line, c.changedBytes)
		return
	}
	if !r.change.live {
		if line.After == nil && err == nil {
			line.After = result
		}
		s.audit.Record(c.ctx, line)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), auditPatience)
	defer cancel()
	s.audit.Sync(ctx)
}
