package target

import (
	"time"

	"odx/conf"
	"odx/target/iscsi"
)

// transportOptions returns the transport's options with the configured limits.
func transportOptions(l conf.Limits, m conf.Memory) iscsi.Options {
	o := iscsi.DefaultOptions()
	o.BufferBytes = m.Buffers
	// Without a configured limit, connections take at most half of the rest, those that
	// have not logged in a quarter, and workers an eighth.
	o.MaxConnections = int(min(int64(o.MaxConnections), m.Rest/2/iscsi.ConnectionBytes))
	o.MaxUnauthenticated = int(min(int64(o.MaxUnauthenticated), m.Rest/4/iscsi.LoginBytes))
	o.MaxUnauthenticatedPerAddress = min(o.MaxUnauthenticatedPerAddress, o.MaxUnauthenticated/2)
	o.MaxWorkers = int(min(int64(o.MaxWorkers), m.Rest/8/iscsi.WorkerBytes))
	set(&o.MaxSessions, l.Sessions)
	set(&o.MaxSessionsPerInitiator, l.SessionsPerInitiator)
	set(&o.ConnectionsPerSession, l.ConnectionsPerSession)
	set(&o.MaxConnections, l.Connections)
	set(&o.MaxUnauthenticated, l.Logins)
	set(&o.MaxUnauthenticatedPerAddress, l.LoginsPerAddress)
	set(&o.LoginTimeout, l.LoginTimeout)
	set(&o.QueueDepth, l.Commands)
	set(&o.MaxRecvDataSegmentLength, l.DataSegment)
	set(&o.MaxBurstLength, l.MaxBurst)
	set(&o.FirstBurstLength, l.FirstBurst)
	if set(&o.PingInterval, l.PingAfter); l.PingAfter == conf.NoPings {
		o.PingInterval = 0
	}
	set(&o.PingTimeout, l.PingTimeout)
	switch {
	case l.FirstBurst == 0: // the default follows max_burst
		o.FirstBurstLength = min(o.FirstBurstLength, o.MaxBurstLength)
	case l.MaxBurst == 0:
		o.MaxBurstLength = max(o.FirstBurstLength, o.MaxBurstLength)
	}
	return o
}

// slowCommand returns the duration from which on commands are logged, 0 for none.
func slowCommand(l conf.Log) time.Duration { return max(l.SlowCommand, 0) }

// set sets an option that the configuration has.
func set[T comparable](option *T, value T) {
	var silent T
	if value != silent {
		*option = value
	}
}

// redirect returns where the transport redirects initiators; nil: nowhere.
func redirect(r *conf.Redirect) *iscsi.Redirect {
	if r == nil {
		return nil
	}
	return &iscsi.Redirect{Address: r.To.String(), Permanent: r.Permanent}
}
