//go:build e2e

package peers

import (
	"encoding/binary"
	"slices"
	"testing"

	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
)

// conflict is the status RESERVATION CONFLICT.
const conflict = 0x18

// reserving is what a host of a cluster does with a disk: it registers a key without APTPL, and
// may reserve the disk for those that have (type 5, write exclusive, registrants only).
func reserving(t *testing.T, url string, key uint64, reserve bool) {
	t.Helper()
	s := harness.Open(t, harness.Client(t), url)
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list[8:], key)
	a, err := s.Command([]byte{0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list, 0)
	good(t, "REGISTER", a, err)
	if !reserve {
		return
	}
	list = make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	a, err = s.Command([]byte{0x5f, 1, 5, 0, 0, 0, 0, 0, 24, 0}, list, 0)
	good(t, "RESERVE", a, err)
}

// reserved requires that a disk has these keys registered, and whether it is reserved: then a host
// that is not registered cannot write.
func reserved(t *testing.T, url string, reserved bool, want ...uint64) {
	t.Helper()
	s := harness.Open(t, harness.Client(t), url)
	a, err := s.Command([]byte{0x5e, 0, 0, 0, 0, 0, 0, 0, 255, 0}, nil, 255)
	good(t, "READ KEYS", a, err)
	var got []uint64
	for p := a.Data[8:][:binary.BigEndian.Uint32(a.Data[4:])]; len(p) >= 8; p = p[8:] {
		got = append(got, binary.BigEndian.Uint64(p))
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("keys %x are registered, want %x", got, want)
	}
	a, err = s.Command([]byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, blockLength), 0)
	harness.Must(t, err)
	if (a.Status == conflict) != reserved {
		t.Errorf("write of another host: %v", a)
	}
}

// changeRoles runs a command of odx replicate that says what came along.
func changeRoles(t *testing.T, s *cluster.Server, args ...string) (dropped int, age float64) {
	t.Helper()
	var answer struct {
		Adopted *struct {
			Dropped int     `json:"dropped_registrations"`
			Age     float64 `json:"age_seconds"`
		} `json:"adopted"`
	}
	harness.Must(t, s.Admin(t.Context(), &answer, append([]string{"replicate"}, args...)...))
	if answer.Adopted == nil {
		t.Fatalf("replicate %q does not say what came along", args)
	}
	return answer.Adopted.Dropped, answer.Adopted.Age
}

// TestReplicate_Reservations: the reservation of a disk that fails over to B keeps other hosts out
// there; also back on A, by force, after B was killed. On C, which has no target of that name, the
// registrations are dropped, and counted.
func TestReplicate_Reservations(t *testing.T) {
	const one, two = 0x1111, 0x2222
	c := servers(t, mib, "a", "b", "c")
	first, second, third := c.Servers[0], c.Servers[1], c.Servers[2]
	target := func(volume map[string]any) map[string]any {
		volume["lun"] = 0
		return map[string]any{"name": movedIQN, "luns": []any{volume}}
	}
	url := func(s *cluster.Server) string { return "iscsi://" + s.Portal + "/" + movedIQN + "/0" }
	harness.Must(t, first.AddTarget(t.Context(), target(map[string]any{"volume": "disk", "size": "4MiB"})))
	replicate(t, second, "start", "a", "disk", replicaName)
	harness.Must(t, second.AddTarget(t.Context(), target(map[string]any{"volume": replicaName})))

	reserving(t, url(first), one, true)
	reserved(t, url(first), true, one)
	reserved(t, url(second), false)
	if dropped, age := changeRoles(t, second, "failover", replicaName, "--reservations"); dropped != 0 || age != 0 {
		t.Errorf("planned: %d registrations were dropped, and the rest is %v s old", dropped, age)
	}
	reserved(t, url(second), true, one)
	reserved(t, url(first), false)

	reserving(t, url(second), two, false)
	replicate(t, first, "run", replicaName)
	harness.Must(t, second.Kill())
	if dropped, age := changeRoles(t, first, "failover", replicaName, "--reservations", "--force"); dropped != 0 || age <= 0 {
		t.Errorf("by force: %d registrations were dropped, and the rest is %v s old", dropped, age)
	}
	reserved(t, url(first), true, one, two)
	harness.Must(t, second.Restart(t.Context()))
	changeRoles(t, second, "failback", replicaName, "--reservations")
	reserved(t, url(second), true, one, two)

	replicate(t, third, "start", "b", replicaName, "third")
	if dropped, _ := changeRoles(t, third, "failover", "third", "--reservations"); dropped != 2 {
		t.Errorf("%d registrations were dropped, want 2", dropped)
	}
	harness.Must(t, third.Admin(t.Context(), nil, "lun", "add", third.IQN, "third", "--lun", "7"))
	reserved(t, copyURL(third), false)
	allSound(t, c)
}
