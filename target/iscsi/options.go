package iscsi

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"odx/target/bufpool"
)

// Options has the limits and services of a Server. DefaultOptions sets all of them.
// Lengths are in bytes.
type Options struct {
	Log  *logrus.Entry
	Pool *bufpool.Pool
	// Settler makes changes durable before commands are answered.
	Settler Settler
	// Owned returns nil while this process may answer. It is called before each write to
	// a socket, takes no lock and allocates nothing. After an error, connections are closed
	// and what was ready is not sent.
	Owned func() error

	// MaxSessions bounds the sessions of all initiators, MaxSessionsPerInitiator those of
	// each.
	MaxSessions, MaxSessionsPerInitiator int
	// ConnectionsPerSession is the target's value of MaxConnections.
	ConnectionsPerSession int
	// MaxConnections bounds the logged-in connections.
	MaxConnections int
	// MaxUnauthenticated bounds the connections that have not logged in, and
	// MaxUnauthenticatedPerAddress those of one address (a /64 of IPv6). Further ones
	// are queued; see pendingLogins.
	MaxUnauthenticated, MaxUnauthenticatedPerAddress int
	// DiscoveryAuthentication is the authentication of discovery sessions.
	DiscoveryAuthentication Authentication
	// LoginTimeout bounds the duration of a login, and the time in the queue before it.
	// LoginPatience is the time after which a login may be evicted in favor of an address
	// with fewer logins.
	LoginTimeout, LoginPatience time.Duration

	// MaxRecvDataSegmentLength is the value that the target declares.
	MaxRecvDataSegmentLength int
	// MaxBurstLength and FirstBurstLength are the target's values of those keys.
	MaxBurstLength, FirstBurstLength int
	// QueueDepth bounds the outstanding commands of a session: the CmdSN window of RFC
	// 7143 4.2.2.1.
	QueueDepth int
	// Workers bounds the concurrent commands of a session, in addition to one on each
	// reader. MaxWorkers bounds those of all sessions, where each may have one in any
	// case and as many as remain.
	Workers, MaxWorkers int
	// MaxTransferLength bounds the Data-Out of a command.
	MaxTransferLength int
	// BufferBytes bounds the memory for the data of commands of all sessions; see budget.
	BufferBytes int64
	// StallTimeout bounds how long an initiator may receive no pending Data-In, or send
	// no solicited Data-Out, while memory is short. Its connection is then closed.
	StallTimeout time.Duration

	// PingInterval is the idle time after which the initiator is pinged (NOP-In), or 0
	// to disable pings. PingTimeout bounds the response time before the connection is
	// closed.
	PingInterval, PingTimeout time.Duration
	// AbortTimeout bounds the time that task management waits for aborted commands. It
	// then detaches them and their results are dropped.
	AbortTimeout time.Duration
	// LogoutTimeout bounds the time that an initiator has to log out when requested, or
	// to receive the last PDUs of a connection.
	LogoutTimeout time.Duration
	// SlowCommand is the duration from which on a command is logged, or 0 for none.
	SlowCommand time.Duration
}

// DefaultOptions returns options for a server with a few initiators and no log.
func DefaultOptions() Options {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	return Options{
		Log:                          logrus.NewEntry(quiet),
		Pool:                         &bufpool.Pool{},
		Settler:                      settled{},
		Owned:                        func() error { return nil },
		MaxSessions:                  1024,
		MaxSessionsPerInitiator:      256,
		ConnectionsPerSession:        4,
		MaxConnections:               1024,
		MaxUnauthenticated:           256,
		MaxUnauthenticatedPerAddress: 64,
		LoginTimeout:                 15 * time.Second,
		LoginPatience:                time.Second,
		MaxRecvDataSegmentLength:     256 << 10,
		MaxBurstLength:               1 << 20,
		FirstBurstLength:             256 << 10,
		QueueDepth:                   128,
		Workers:                      32,
		MaxWorkers:                   1024,
		MaxTransferLength:            64 << 20,
		BufferBytes:                  256 << 20,
		StallTimeout:                 10 * time.Second,
		PingInterval:                 15 * time.Second,
		PingTimeout:                  15 * time.Second,
		AbortTimeout:                 2 * time.Second,
		LogoutTimeout:                2 * time.Second,
	}
}

// check returns an error for the first invalid option.
func (o *Options) check() error {
	if o.Log == nil || o.Pool == nil || o.Settler == nil || o.Owned == nil {
		return errors.New("iscsi: options: missing log, buffer pool, settler or owner")
	}
	for _, l := range []struct {
		name      string
		v         int64
		low, high int64
	}{
		{"MaxSessions", int64(o.MaxSessions), 1, 1<<16 - 2},
		{"MaxSessionsPerInitiator", int64(o.MaxSessionsPerInitiator), 1, 1<<16 - 2},
		{"ConnectionsPerSession", int64(o.ConnectionsPerSession), 1, 1<<16 - 1},
		{"MaxConnections", int64(o.MaxConnections), 1, 1 << 20},
		{"MaxUnauthenticated", int64(o.MaxUnauthenticated), 1, 1 << 20},
		{"MaxUnauthenticatedPerAddress", int64(o.MaxUnauthenticatedPerAddress), 1, 1 << 20},
		{"MaxRecvDataSegmentLength", int64(o.MaxRecvDataSegmentLength), 512, 1<<24 - 1},
		{"MaxBurstLength", int64(o.MaxBurstLength), 512, 1<<24 - 1},
		{"FirstBurstLength", int64(o.FirstBurstLength), 512, int64(o.MaxBurstLength)},
		{"QueueDepth", int64(o.QueueDepth), 1, 1 << 16},
		{"Workers", int64(o.Workers), 1, 1 << 16},
		{"MaxWorkers", int64(o.MaxWorkers), 1, 1 << 24},
		{"MaxTransferLength", int64(o.MaxTransferLength), 512, 1 << 31},
		{"BufferBytes", o.BufferBytes, 1, 1 << 50},
		{"StallTimeout", int64(o.StallTimeout), 1, 1 << 62},
		{"LoginTimeout", int64(o.LoginTimeout), 1, 1 << 62},
		{"LoginPatience", int64(o.LoginPatience), 1, 1 << 62},
		{"PingInterval", int64(o.PingInterval), 0, 1 << 62},
		{"PingTimeout", int64(o.PingTimeout), 1, 1 << 62},
		{"AbortTimeout", int64(o.AbortTimeout), 1, 1 << 62},
		{"LogoutTimeout", int64(o.LogoutTimeout), 1, 1 << 62},
	} {
		if l.v < l.low || l.v > l.high {
			return fmt.Errorf("iscsi: option %s: %d is out of range, %d to %d", l.name, l.v, l.low, l.high)
		}
	}
	return nil
}
