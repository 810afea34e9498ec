package iscsi

import (
	"math/bits"
	"time"
)

const (
	// sampleInterval is the time between the samples of a session's traffic, of which
	// trafficSamples cover a minute.
	sampleInterval = 5 * time.Second
	trafficSamples = int(time.Minute/sampleInterval) + 1
	// latencyBuckets are two for each power of two of a latency in microseconds. The last
	// one begins at more than half an hour.
	latencyBuckets = 64
)

// Traffic is what passed between a session and its initiator.
type Traffic struct {
	// Over is the time in which it passed.
	Over time.Duration
	// Commands is the number of commands that were answered, Errors those with another
	// status than GOOD.
	Commands, Errors uint64
	// Received and Sent are the bytes of data to and from commands that were answered.
	Received, Sent uint64
	// Mean and P99 are the mean time from the arrival of a command until it was answered,
	// and the time that 99 % of the commands stayed below, at most 50 % too much. They are 0
	// without commands.
	Mean, P99 time.Duration
}

// meter counts the traffic of a session. The session's mu guards it.
type meter struct {
	began time.Time
	total traffic
	// samples are earlier values of total, in a ring, of which next is to be overwritten.
	samples [trafficSamples]sample
	next    int
}

type sample struct {
	at    time.Time // zero: not taken yet
	total traffic
}

type traffic struct {
	commands, errors, received, sent uint64
	latency                          time.Duration
	latencies                        [latencyBuckets]uint32
}

// count counts a command that is being answered.
func (m *meter) count(t *task) {
	c := &m.total
	c.commands++
	if t.failure != nil || t.st.Result != statusGood {
		c.errors++
	}
	if t.failure == nil {
		c.sent += uint64(t.in.sent) + uint64(min(len(t.st.DataIn()), int(t.st.ExpectedIn-t.in.sent)))
		if t.write && !t.early {
			c.received += uint64(t.out.want)
		}
	}
	took := max(t.ended-t.arrived, 0)
	c.latency += took
	c.latencies[latencyBucket(took)]++
}

// latencyBucket returns the bucket of a latency.
func latencyBucket(d time.Duration) int {
	us := max(uint64(d.Microseconds()), 1)
	n := bits.Len64(us) - 1 // 2^n ≤ us
	half := 0
	if n > 0 {
		half = int(us >> (n - 1) & 1)
	}
	return min(2*n+half, latencyBuckets-1)
}

// latencyLimit returns the end of a bucket.
func latencyLimit(bucket int) time.Duration {
	begins := time.Microsecond << (bucket / 2) // of the power of two
	if bucket%2 == 0 {
		return begins + begins/2
	}
	return 2 * begins
}

// sample records the traffic until now.
func (m *meter) sample(now time.Time) {
	m.samples[m.next] = sample{now, m.total}
	m.next = (m.next + 1) % trafficSamples
}

// all returns the traffic since the session began in this process.
func (m *meter) all(now time.Time) Traffic { return m.total.summary(now.Sub(m.began)) }

// lastMinute returns the traffic since the last sample that is a minute old, or else since
// the session began.
func (m *meter) lastMinute(now time.Time) Traffic {
	since := sample{at: m.began}
	if oldest := &m.samples[m.next]; !oldest.at.IsZero() {
		since = *oldest // the ring is full
	}
	for i := range m.samples {
		if s := &m.samples[i]; s.at.After(since.at) && now.Sub(s.at) >= time.Minute {
			since = *s
		}
	}
	passed := m.total.sub(&since.total)
	return passed.summary(now.Sub(since.at))
}

// sub returns the traffic since before.
func (t traffic) sub(before *traffic) traffic {
	t.commands -= before.commands
	t.errors -= before.errors
	t.received -= before.received
	t.sent -= before.sent
	t.latency -= before.latency
	for i := range t.latencies {
		t.latencies[i] -= before.latencies[i]
	}
	return t
}

func (t *traffic) summary(over time.Duration) Traffic {
	s := Traffic{Over: over, Commands: t.commands, Errors: t.errors, Received: t.received, Sent: t.sent}
	if t.commands == 0 {
		return s
	}
	s.Mean = t.latency / time.Duration(t.commands)
	above := t.commands / 100
	for i := latencyBuckets - 1; i >= 0 && s.P99 == 0; i-- {
		n := uint64(t.latencies[i])
		if n > above {
			s.P99 = latencyLimit(i)
		}
		above -= min(n, above)
	}
	return s
}

// sampleTraffic samples the traffic of all sessions.
func (srv *Server) sampleTraffic(now time.Time) {
	for _, s := range srv.allSessions() {
		s.mu.Lock()
		s.meter.sample(now)
		s.mu.Unlock()
	}
}
