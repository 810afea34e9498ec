package iscsi

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"odx/target/bufpool"
)

// Options are the limits and services of a Server. DefaultOptions gives values
// for all of them; lengths are in bytes.
type Options struct {
	Log  *logrus.Entry
	Pool *bufpool.Pool
	// Settler is asked before commands that changed something are answered.
	Settler Settler

	// MaxSessions and MaxSessionsPerInitiator bound the sessions, of all
	// initiators and of each.
	MaxSessions, MaxSessionsPerInitiator int
	// ConnectionsPerSession is our side of the MaxConnections key.
	ConnectionsPerSession int
	// MaxConnections bounds the connections that are logged in.
	MaxConnections int
	// MaxUnauthenticated bounds the connections that are not logged in yet, and
	// MaxUnauthenticatedPerAddress those from one address (one /64 of IPv6). More of
	// them wait; see pendingLogins.
	MaxUnauthenticated, MaxUnauthenticatedPerAddress int
	// DiscoveryAuthentication is what initiators have to prove in discovery
	// sessions.
	DiscoveryAuthentication Authentication
	// LoginTimeout is how long a login may take in total, and how long it may wait
	// for its turn. LoginPatience is how long it has before it may have to make room
	// for one from an address with fewer.
	LoginTimeout, LoginPatience time.Duration

	// MaxRecvDataSegmentLength is the longest data segment that we accept.
	MaxRecvDataSegmentLength int
	// MaxBurstLength and FirstBurstLength are our side of those keys.
	MaxBurstLength, FirstBurstLength int
	// QueueDepth is how many commands a session may have outstanding: the CmdSN
	// window of RFC 7143 4.2.2.1.
	QueueDepth int
	// Workers is how many commands of a session run side by side, besides the
	// one that its reader may run itself.
	Workers int
	// MaxTransferLength is the most Data-Out that one command may ask for.
	MaxTransferLength int
	// BufferBytes bounds the memory of all sessions for the data of commands; see
	// budget.
	BufferBytes int64
	// StallTimeout is how long an initiator may take nothing of what it asked for,
	// or send nothing of what it was asked for, while memory is short. Its
	// connection is closed then.
	StallTimeout time.Duration

	// PingInterval is after how much silence of the initiator a NOP-In asks for
	// a sign of life (0: never), PingTimeout how long the answer may take before
	// the connection is closed.
	PingInterval, PingTimeout time.Duration
	// AbortTimeout is how long task management waits for commands that it
	// aborted. What still runs then is detached: its result is dropped.
	AbortTimeout time.Duration
	// LogoutTimeout is how long an initiator that was asked to log out, or was
	// told that the connection ends, may take.
	LogoutTimeout time.Duration
}

// DefaultOptions returns options that suit a server with a handful of
// initiators; it logs nothing.
func DefaultOptions() Options {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	return Options{
		Log:                          logrus.NewEntry(quiet),
		Pool:                         &bufpool.Pool{},
		Settler:                      settled{},
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
		MaxTransferLength:            64 << 20,
		BufferBytes:                  256 << 20,
		StallTimeout:                 10 * time.Second,
		PingInterval:                 15 * time.Second,
		PingTimeout:                  15 * time.Second,
		AbortTimeout:                 2 * time.Second,
		LogoutTimeout:                2 * time.Second,
	}
}

// check reports the first option that cannot work.
func (o *Options) check() error {
	if o.Log == nil || o.Pool == nil || o.Settler == nil {
		return errors.New("iscsi: options lack a log, a buffer pool or a settler")
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
			return fmt.Errorf("iscsi: option %s is %d, must be from %d to %d", l.name, l.v, l.low, l.high)
		}
	}
	return nil
}
