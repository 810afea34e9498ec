package target

import (
	"strings"
	"testing"

	"odx/target/qos"
)

// TestService_limits: the limits of the configuration hold from the start, and those of a
// reload at once, for sessions that are there.
func TestService_limits(t *testing.T) {
	const host, disksTarget = "iqn.2026-11.example:host", "iqn.2026-11.example.odx:disks"
	limited := strings.Replace(one(), "volume: src", "volume: src, qos: {iops: 100, iops_burst: 7, bytes_per_s: 1MiB, bytes_burst: 2MiB}", 1) + `qos:
  initiators: [{initiators: ["` + host + `"], iops: 50, iops_burst: 5}]
  luns: [{target: "` + disksTarget + `", lun: 0, initiators: ["*"], bytes_per_s: 3MiB, bytes_burst: 3MiB}]
  background: {bytes_per_s: 4MiB, bytes_burst: 4MiB}
`
	type limits struct{ lun, ofInitiator, initiator, background qos.Limits }
	want := limits{
		lun:         qos.Limits{Operations: 100, OperationsBurst: 7, Bytes: 1 << 20, BytesBurst: 2 << 20},
		ofInitiator: qos.Limits{Bytes: 3 << 20, BytesBurst: 3 << 20},
		initiator:   qos.Limits{Operations: 50, OperationsBurst: 5},
		background:  qos.Limits{Bytes: 4 << 20, BytesBurst: 4 << 20},
	}
	s := serveFile(t, limited)
	c := session(t, s.Service, host)
	defer c.Close()
	check := func(when string, want limits) {
		t.Helper()
		var got limits
		lu := s.state.Load().devices[disksTarget].LU(0)
		all, of := lu.Limits()
		limiter := s.initiators.Join(host)
		defer s.initiators.Leave(host)
		got = limits{all, of[host], limiter.Limits(), s.background.Limits()}
		if got != want {
			t.Errorf("%s: limits %+v, want %+v", when, got, want)
		}
	}
	check("at the start", want)
	s.reload(one())
	check("without limits", limits{})
	s.reload(limited)
	check("with limits again", want)
}
