//go:build e2e

package peers

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

// fullMiB is what the destination has to take, and has no space for.
const fullMiB = 320

// bounded gives the store of a server a capacity.
func bounded(t *testing.T, s *cluster.Server, capacity string) {
	t.Helper()
	err := s.Change(t.Context(), func(file map[string]any) { file["store"] = map[string]any{"capacity": capacity} })
	if err == nil {
		t.Error("the capacity changes without a restart")
	}
	kill(t, s)
}

// TestFullDestination: a destination without space says so, whatever brings the data, shows nothing
// that is not whole, and has all its space again; the source is as it was.
func TestFullDestination(t *testing.T) {
	c := servers(t, fullMiB*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	bounded(t, second, "256MiB")
	a, b := newDisk(t, first, 0), newDisk(t, second, 0)
	for at := 0; at < fullMiB; at += 32 {
		a.fill(uint64(at), at, 32)
	}
	free := func(what string) { // as much as at the beginning
		t.Helper()
		until(t, patience, what+": server b has no data", func() bool {
			var info struct {
				Live      int64 `json:"live_bytes"`
				Snapshots int   `json:"snapshots"`
			}
			harness.Must(t, second.Admin(t.Context(), &info, "store", "info"))
			return info.Live == 0 && info.Snapshots == 0
		})
		if got := volumes(t, second); !slices.Equal(got, []string{"vol0", "vol1"}) {
			t.Errorf("%s: server b has the volumes %q", what, got)
		}
	}
	says := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "space") {
			t.Errorf("%s: %v", what, err)
		}
	}

	var answer tokenclient.Answer
	for at := range 2 {
		answer = b.spendAll(a.token(at*fullMiB/2, fullMiB/2), at*fullMiB/2, fullMiB/2)
	}
	if !answer.Sense.Is(7, 0x27, 7) {
		t.Errorf("write of a token: %v, want 7/27/07", answer)
	}
	b.unmap(0, fullMiB*mib)
	free("token")

	says("replica", second.Admin(t.Context(), nil, "replicate", "start", "a", "vol0", replicaName))
	free("replica")
	replicate(t, second, "forget", replicaName)

	harness.Must(t, first.Admin(t.Context(), nil, "volume", "snapshot", "vol0", "s"))
	says("stream", pipe(t, first, second, []string{"s"}, []string{"copy"}, nil))
	harness.Must(t, second.Admin(t.Context(), nil, "receive", "--drop", "copy"))
	free("stream")

	harness.Must(t, first.AddTarget(t.Context(), map[string]any{"name": movedIQN, "luns": []any{map[string]any{"lun": 0, "volume": "disk0", "size": fmt.Sprintf("%dMiB", fullMiB)}}}))
	harness.Must(t, second.AddTarget(t.Context(), map[string]any{"name": movedIQN, "redirect": map[string]any{"to": first.Portal}}))
	moves := &disk{t: t, s: open2(t, "iscsi://"+first.Portal+"/"+movedIQN+"/0"), want: make([]byte, fullMiB*mib)}
	for at := 0; at < fullMiB; at += 32 {
		moves.fill(uint64(1000+at), at, 32)
	}
	since := len(first.Log())
	harness.Must(t, first.Admin(t.Context(), new(kit.Migration), "volume", "migrate", "start", "disk0", "b:disk1"))
	awaitLog(t, first, since, patience, `migration: tried again.*space|space.*migration: tried again`)
	if m := migration(t, first); m.State != "copying" || !strings.Contains(m.Problem, "space") {
		t.Errorf("the migration is %+v", m)
	}
	moves.fill(9, 0, 1)
	moves.same()
	harness.Must(t, first.Admin(t.Context(), new(kit.Migration), "volume", "migrate", "abort", "disk0"))
	free("migration")

	// They have been idle for long.
	a.again(first, 0)
	b.again(second, 0)
	b.spend(a.token(0, 8), 0, a.want[:8*mib])
	b.same()
	a.same()
	allSound(t, c)
}

// spendAll writes a token to so many MiB from at on, until all of it is there, or a command fails.
func (d *disk) spendAll(token []byte, at, length int) (a tokenclient.Answer) {
	d.t.Helper()
	for done, blocks := uint64(0), uint64(length*perMiB); done < blocks; {
		var err error
		a, err = d.s.WriteUsingToken(token, tokenclient.WriteTokenOptions{Offset: done}, tokenclient.Range{LBA: uint64(at*perMiB) + done, Blocks: uint32(blocks - done)})
		harness.Must(d.t, err)
		switch {
		case a.Sense.Key == 6, a.Status == busy: // the threshold of thin provisioning is an event
		case a.Sense.ASC == 0x0d && a.Sense.Information > 0:
			done += a.Sense.Information
		default:
			return a
		}
	}
	return a
}
