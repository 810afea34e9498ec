//go:build e2e

package clients

import (
	"fmt"
	"slices"
	"testing"

	"odx/internal/kit"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

// TestReload has LUNs come and go under sessions of libiscsi: each I_T nexus gets REPORTED LUNS
// DATA HAS CHANGED once for each change, and nothing else; a session that begins after a reload
// finds the LUN at once and is notified of nothing.
func TestReload(t *testing.T) {
	harness.RequireODX(t)
	target := harness.ServeWith(t, kit.Settings{}, kit.LUN{Size: 16 << 20})
	client, err := tokenclient.Start(t.Context())
	if err != nil {
		harness.Missing(t, err.Error())
	}
	defer client.Close()
	open := func(initiator, url string) *tokenclient.Session {
		t.Helper()
		s, err := client.Open(url, tokenclient.OpenOptions{Initiator: initiator})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	// ready returns the sense data of TEST UNIT READY until it is GOOD.
	ready := func(s *tokenclient.Session) (senses []string) {
		t.Helper()
		for range 10 {
			a, err := s.Command(make([]byte, 6), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			if a.Good() {
				break
			}
			senses = append(senses, a.Sense.String())
		}
		return senses
	}
	var sessions []*tokenclient.Session
	for i := range 8 {
		s := open(fmt.Sprintf("iqn.2026-11.example.odx:host%d", i/2), target.URL(0))
		ready(s)
		sessions = append(sessions, s)
	}
	luns := func(numbers ...int) {
		t.Helper()
		err := target.Reload(t.Context(), func(config map[string]any) {
			disks := config["targets"].([]any)[0].(map[string]any)
			list := slices.Clone(disks["luns"].([]any)[:1])
			for _, n := range numbers {
				list = append(list, map[string]any{"lun": n, "volume": fmt.Sprint("more", n), "size": "1MiB"})
			}
			disks["luns"] = list
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, numbers := range [][]int{{7}, {}, {7, 8}, {8}, {}} {
		luns(numbers...)
		for i, s := range sessions {
			if got := ready(s); len(got) != 1 || got[0] != changed.String() {
				t.Errorf("LUNs %v: session %d got %q, want %q once", numbers, i, got, changed)
			}
		}
		luns(numbers...) // the same again
		for i, s := range sessions {
			if got := ready(s); len(got) != 0 {
				t.Errorf("no change: session %d got %q", i, got)
			}
		}
		for _, n := range numbers {
			s := open("iqn.2026-11.example.odx:late", fmt.Sprintf("%s%s/%d", target.PortalURL(), target.IQN, n))
			if got := ready(s); slices.Contains(got, changed.String()) {
				t.Errorf("a session that begins after the reload got %q", got)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// changed is REPORTED LUNS DATA HAS CHANGED.
var changed = tokenclient.Sense{Key: 0x06, ASC: 0x3F, ASCQ: 0x0E}
