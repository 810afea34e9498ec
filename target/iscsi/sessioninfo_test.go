package iscsi

import (
	"testing"
	"time"

	"odx/chap"
)

// only returns the only session.
func (b *bench) only() SessionInfo {
	b.tb.Helper()
	list := b.srv.Sessions()
	if len(list) != 1 {
		b.tb.Fatalf("%d sessions", len(list))
	}
	return list[0]
}

// Sessions describes who is logged in, from where, by what right, and what was negotiated.
func TestServer_Sessions(t *testing.T) {
	b := newBench(t, func(o *Options) { o.QueueDepth = 17 }, nil)
	b.demand(Authentication{CHAP: newCHAP(t)})
	i := b.dial()
	i.step(csgSecurity|toOperational, name, normal, wantTarget, "InitiatorAlias=host", offerCHAP)
	i.step(csgSecurity|toOperational, i.proof(chap.SHA256, chapUser, chapSecret)...)
	answer, data := i.step(csgOperational|toFullFeature, "HeaderDigest=CRC32C", "MaxConnections=3", "InitialR2T=No", "MaxBurstLength=16384",
		"FirstBurstLength=8192", "MaxOutstandingR2T=2", "MaxRecvDataSegmentLength=4096", "DefaultTime2Wait=3", "DefaultTime2Retain=5")
	i.loggedIn(answer, data)
	i.alive()
	got := b.only()
	if got.InitiatorName != testInitiator || got.InitiatorAlias != "host" || got.TargetName != testTarget || got.PortalGroup != 7 ||
		got.ISID != "800102030405" || got.TSIH != i.tsih || got.User != chapUser || got.Since.IsZero() || got.LoggingOut {
		t.Errorf("session %+v", got)
	}
	if want := (Keys{MaxConnections: 3, ImmediateData: true, MaxBurstLength: 16384, FirstBurstLength: 8192, MaxOutstandingR2T: 2,
		DefaultTime2Wait: 3, QueueDepth: 17}); got.Keys != want {
		t.Errorf("keys %+v, want %+v", got.Keys, want)
	}
	want := ConnectionInfo{Remote: i.nc.LocalAddr().String(), Local: b.addr, HeaderDigest: true, InitiatorSegment: 4096, TargetSegment: 256 << 10}
	if len(got.Connections) != 1 || got.Connections[0] != want {
		t.Errorf("connections %+v, want %+v", got.Connections, want)
	}
}

// Sessions has a line for each connection.
func TestServer_Sessions_Connections(t *testing.T) {
	b := newBench(t, nil, nil)
	m := b.loginMulti(2)
	got := b.only()
	for n, c := range got.Connections {
		if c.CID != uint16(n) || c.Remote != m.conns[n].nc.LocalAddr().String() || c.DataDigest != (n == 1) {
			t.Errorf("connection %d: %+v", n, c)
		}
	}
	if len(got.Connections) != 2 {
		t.Errorf("%d connections", len(got.Connections))
	}
}

// Sessions counts the commands that were answered, their data, and those that failed.
func TestServer_Sessions_Traffic(t *testing.T) {
	b := newBench(t, nil, nil)
	running, release := b.disk.delay(0x35)
	i := b.login("ImmediateData=No")
	data := pattern(1, 3*memBlock)
	h := i.command(bitWrite, uint32(len(data)), write10(0, 3)...)
	i.send(h, nil, nil)
	r2t, _ := i.expect(opR2T)
	i.answerR2T(h, r2t, data, memBlock)
	i.good(h)
	i.readBlocks(0, 5)
	h = i.command(bitRead, memBlock, read10(1<<30, 1)...)
	i.send(h, nil, nil)
	i.senseOf(h)
	flush := i.command(0, 0, 0x35)
	i.send(flush, nil, nil)
	<-running
	got := b.only()
	if got.Commands != 1 {
		t.Errorf("%d commands are outstanding", got.Commands)
	}
	for what, n := range map[string]Traffic{"total": got.Total, "last minute": got.LastMinute} {
		if n.Commands != 3 || n.Errors != 1 || n.Received != 3*memBlock || n.Sent != 5*memBlock || n.Over <= 0 || n.Mean <= 0 || n.P99 < n.Mean/3 || n.P99 > patience {
			t.Errorf("%s: %+v", what, n)
		}
	}
	release()
	i.good(flush)
	if n := b.only().Total.Commands; n != 4 {
		t.Errorf("%d commands", n)
	}
}

// The last minute begins with the sample that is a minute old.
func TestMeter_LastMinute(t *testing.T) {
	began := time.Now()
	m := meter{began: began}
	for tick := range 100 {
		now := began.Add(time.Duration(tick) * sampleInterval)
		m.total.commands = uint64(tick * 10)
		m.total.latency = time.Duration(tick*10) * time.Millisecond
		m.total.latencies[latencyBucket(time.Millisecond)] = uint32(tick * 10)
		got := m.lastMinute(now)
		m.sample(now)
		want := uint64(min(tick, 12) * 10) // of 12 intervals
		if got.Commands != want || want > 0 && got.Mean != time.Millisecond {
			t.Errorf("tick %d: %+v, want %d commands", tick, got, want)
		}
		if got.Over > time.Minute+2*sampleInterval || tick > 13 && got.Over < time.Minute {
			t.Errorf("tick %d: over %v", tick, got.Over)
		}
	}
}

// A latency is in the bucket whose end is the first one above it, at most half of it away.
func TestLatencyBucket(t *testing.T) {
	for d := time.Microsecond; d < 20*time.Minute; d += d/7 + time.Microsecond {
		limit := latencyLimit(latencyBucket(d))
		if d >= limit || limit > d+d/2+time.Microsecond {
			t.Errorf("%v: bucket up to %v", d, limit)
		}
	}
	for _, d := range []time.Duration{-time.Hour, 0, 100 * time.Hour} {
		latencyBucket(d) // no panic, and in range
		if b := latencyBucket(d); b < 0 || b >= latencyBuckets {
			t.Errorf("%v: bucket %d", d, b)
		}
	}
}

// 99 % of the commands are below P99.
func TestTraffic_Summary(t *testing.T) {
	var n traffic
	for k := range 1000 {
		took := time.Millisecond
		if k%100 == 0 {
			took = time.Second
		}
		n.commands++
		n.latency += took
		n.latencies[latencyBucket(took)]++
	}
	if got := n.summary(time.Minute); got.P99 < time.Millisecond || got.P99 > 2*time.Millisecond {
		t.Errorf("P99 %v with 1 %% of a second", got.P99)
	}
	n.latencies[latencyBucket(time.Second)]++
	n.commands++
	if got := n.summary(time.Minute); got.P99 < time.Second {
		t.Errorf("P99 %v with more than 1 %% of a second", got.P99)
	}
	if got := (&traffic{}).summary(time.Minute); got != (Traffic{Over: time.Minute}) {
		t.Errorf("without commands: %+v", got)
	}
}
