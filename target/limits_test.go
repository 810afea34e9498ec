package target

import (
	"testing"
	"time"

	"odx/conf"
	"odx/target/iscsi"
)

// TestLimits: what the configuration says goes to the transport, the rest is
// the transport's, and a burst is never shorter than its first part.
func TestLimits(t *testing.T) {
	full, err := conf.Load("../conf/examples/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defaults := iscsi.DefaultOptions()
	clean := func(o iscsi.Options) iscsi.Options {
		o.Log, o.Pool = nil, nil
		return o
	}
	m := full.DivideMemory(0)
	defaults.BufferBytes = m.Buffers
	for _, l := range []conf.Limits{{}, full.Limits} {
		got, want := clean(transportOptions(l, m)), clean(defaults)
		if got.MaxBurstLength != want.MaxBurstLength || got.QueueDepth != want.QueueDepth || got.MaxSessions != want.MaxSessions ||
			got.MaxSessionsPerInitiator != want.MaxSessionsPerInitiator || got.ConnectionsPerSession != want.ConnectionsPerSession ||
			got.MaxConnections != want.MaxConnections || got.MaxUnauthenticated != want.MaxUnauthenticated ||
			got.MaxUnauthenticatedPerAddress != want.MaxUnauthenticatedPerAddress || got.LoginTimeout != want.LoginTimeout ||
			got.MaxRecvDataSegmentLength != want.MaxRecvDataSegmentLength || got.FirstBurstLength != want.FirstBurstLength ||
			got.BufferBytes != want.BufferBytes || got.PingInterval != want.PingInterval || got.PingTimeout != want.PingTimeout {
			t.Errorf("the example does not give the defaults:\n%+v\n%+v", got, want)
		}
	}
	o := transportOptions(conf.Limits{Sessions: 1, SessionsPerInitiator: 2, ConnectionsPerSession: 3, Connections: 4, Logins: 5, LoginsPerAddress: 6,
		LoginTimeout: 7 * time.Second, Commands: 8, DataSegment: 1024, MaxBurst: 4096, PingAfter: 9 * time.Second, PingTimeout: 10 * time.Second}, m)
	if o.MaxSessions != 1 || o.MaxSessionsPerInitiator != 2 || o.ConnectionsPerSession != 3 || o.MaxConnections != 4 || o.MaxUnauthenticated != 5 ||
		o.MaxUnauthenticatedPerAddress != 6 || o.LoginTimeout != 7*time.Second || o.QueueDepth != 8 || o.MaxRecvDataSegmentLength != 1024 ||
		o.MaxBurstLength != 4096 || o.FirstBurstLength != 4096 || o.PingInterval != 9*time.Second || o.PingTimeout != 10*time.Second {
		t.Errorf("options %+v", o)
	}
	if o := transportOptions(conf.Limits{FirstBurst: 4 << 20}, m); o.MaxBurstLength != 4<<20 {
		t.Errorf("a first burst of 4 MiB in bursts of %d bytes", o.MaxBurstLength)
	}
	if o := transportOptions(conf.Limits{PingAfter: conf.NoPings}, m); o.PingInterval != 0 {
		t.Errorf("pings are off, and come after %v", o.PingInterval)
	}
	// Connections have to fit into the rest, unless the file has a limit of its own.
	m.Rest = 64 << 20
	if o := transportOptions(conf.Limits{}, m); int64(o.MaxConnections)*iscsi.ConnectionBytes > m.Rest/2 || o.MaxConnections < 100 {
		t.Errorf("%d connections in %d bytes", o.MaxConnections, m.Rest)
	}
	if o := transportOptions(conf.Limits{Connections: 5000}, m); o.MaxConnections != 5000 {
		t.Errorf("%d connections, the file says 5000", o.MaxConnections)
	}
}

// TestSlowCommand: the transport takes 0 for none.
func TestSlowCommand(t *testing.T) {
	if d := slowCommand(conf.Log{SlowCommand: conf.NoSlowCommand}); d != 0 {
		t.Errorf("none: %v", d)
	}
	if d := slowCommand(conf.Log{SlowCommand: time.Minute}); d != time.Minute {
		t.Errorf("a minute: %v", d)
	}
}
