package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"odx/admin"
	"odx/audit"
	"odx/conf"
)

const hostile = `"><script>alert(1)</script><img src=x onerror='alert(1)'>`

// hostileAdmin is an administrator whose every name is hostile.
type hostileAdmin struct{ admin.Administrator }

func (h hostileAdmin) Status(ctx context.Context) (admin.Status, error) {
	s, err := h.Administrator.Status(ctx)
	s.Vitals.Policies = []admin.PolicyStatus{{Policy: hostile, Configured: true, LastError: hostile}}
	s.MissingPortals = []admin.MissingPortal{{Address: hostile, Problem: hostile}}
	s.LUNs = append(s.LUNs, admin.LUNStatus{Target: hostile, Medium: hostile, Problem: hostile})
	return s, err
}

func (hostileAdmin) Volumes(context.Context) ([]admin.Volume, error) {
	return []admin.Volume{{Name: hostile, LUNs: []string{hostile}}, {Name: hostile + "2", Origin: hostile}}, nil
}

func (hostileAdmin) Files(context.Context) ([]admin.File, error) {
	return []admin.File{{Name: hostile + ".vhdx"}}, nil
}

func (hostileAdmin) Disk(context.Context, string) (admin.Disk, error) {
	return admin.Disk{}, errors.New(hostile)
}

func (hostileAdmin) Tokens(context.Context) ([]admin.TokenInfo, error) {
	return []admin.TokenInfo{{ID: 1, TypeName: hostile, Volume: hostile, Initiator: hostile}}, nil
}

func (hostileAdmin) CopyStats(context.Context) (admin.CopyStats, error) {
	return admin.CopyStats{Commands: admin.CopyCommands{
		RefusedBy: map[string]uint64{hostile: 1},
		Recent:    []admin.CopyRefusal{{Command: hostile, Initiator: hostile, Target: hostile, Volume: hostile, Sense: hostile, Reason: hostile}},
	}}, nil
}

type hostileLive struct{ admin.Live }

func (hostileLive) Sessions(context.Context) ([]admin.Session, error) {
	return []admin.Session{{Initiator: hostile, Alias: hostile, Target: hostile, Addresses: []string{hostile}, User: hostile}}, nil
}

// TestPage_Escaping: no name is more than text, in any view, and in what an act asks.
func TestPage_Escaping(t *testing.T) {
	f := serve(t, func(o *Options) { o.Administrator, o.Live = hostileAdmin{o.Administrator}, hostileLive{o.Live} })
	f.service.Audit().Record(audit.With(t.Context(), audit.Initiator(hostile, "")), audit.Change{What: hostile, Subject: hostile, Before: hostile, After: hostile, Err: errors.New(hostile)})
	b := f.as(t, conf.RoleAdminister)
	paths := []string{"/ui/act/create?name=" + strings.ReplaceAll(hostile, " ", "+") + "&size=1", "/ui/act/revert?snapshot=" + strings.ReplaceAll(hostile, " ", "+")}
	for _, v := range views() {
		paths = append(paths, strings.TrimSuffix(v.path, "{$}"))
	}
	for _, path := range paths {
		a := b.get(path)
		if a.status != http.StatusOK || strings.Contains(a.body, "<script>alert") || strings.Contains(a.body, "<img") {
			t.Errorf("%s: %d\n%s", path, a.status, a.body)
		}
		if !strings.Contains(a.body, "&lt;script&gt;alert(1)") {
			t.Errorf("%s does not show the name", path)
		}
		if strings.Contains(a.body, "style=") || strings.Contains(a.body, "onclick=") {
			t.Errorf("%s has what the policy forbids", path)
		}
	}
}

// TestArrange: each node follows the one it was made of, and none is lost.
func TestArrange(t *testing.T) {
	for name, c := range map[string]struct {
		nodes []node
		want  string
	}{
		"none":             {nil, ""},
		"roots by name":    {[]node{{Name: "b"}, {Name: "a"}}, "0a 0b"},
		"a chain":          {[]node{{Name: "a"}, {Name: "b", Parent: "a"}, {Name: "c", Parent: "b"}, {Name: "d"}}, "0a 1b 2c 0d"},
		"brothers":         {[]node{{Name: "c", Parent: "a"}, {Name: "b", Parent: "a"}, {Name: "a"}}, "0a 1b 1c"},
		"an unknown above": {[]node{{Name: "a", Parent: "gone"}}, "0a"},
		"a circle":         {[]node{{Name: "a", Parent: "b"}, {Name: "b", Parent: "a"}, {Name: "c"}}, "0c 0a 1b"},
		"itself":           {[]node{{Name: "a", Parent: "a"}}, "0a"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, n := range arrange(c.nodes) {
				got = append(got, string(rune('0'+n.Depth))+n.Name)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%v, want %s", got, c.want)
			}
		})
	}
}

// FuzzArrange: whatever the names above nodes are, each node is there once, and no further
// right than its parent allows.
func FuzzArrange(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3})
	f.Add([]byte{1, 0, 3, 2, 9})
	f.Fuzz(func(t *testing.T, above []byte) {
		var nodes []node
		for i, a := range above {
			nodes = append(nodes, node{Name: fmt.Sprint(i), Parent: fmt.Sprint(a)})
		}
		sorted := arrange(nodes)
		depth := map[string]int{}
		for _, n := range sorted {
			if _, twice := depth[n.Name]; twice {
				t.Fatalf("%s twice: %+v", n.Name, sorted)
			}
			depth[n.Name] = n.Depth
			if over, ok := depth[n.Parent]; n.Depth > 0 && (!ok || n.Depth != min(over+1, maxDepth)) {
				t.Fatalf("%s is at %d, the one above it at %d: %+v", n.Name, n.Depth, over, sorted)
			}
		}
		if len(depth) != len(nodes) {
			t.Fatalf("%d of %d nodes", len(depth), len(nodes))
		}
	})
}

// TestPage_Busy: a request that waits too long for others is answered.
func TestPage_Busy(t *testing.T) {
	f := serve(t, nil)
	b := f.as(t, conf.RoleRead)
	for range maxRequests {
		f.running <- struct{}{}
	}
	u, ok := f.userOf(b.request("/ui/"))
	if !ok {
		t.Fatal("no session")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	f.asUser(func(http.ResponseWriter, *http.Request, *user) { t.Errorf("%s ran", u.Name) })(w, b.request("/ui/").WithContext(ctx))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", w.Code)
	}
	for range maxRequests {
		<-f.running
	}
	if a := b.get("/ui/"); a.status != http.StatusOK {
		t.Errorf("afterwards: %d", a.status)
	}
}

// TestCounted: a figure is counted for one at a time, is kept for nine times as long as it
// took, and a failure is not kept.
func TestCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, at atomic.Int32
		fail := errors.New("broken")
		c := newCounted(func(context.Context) (int, error) {
			if at.Add(1) > 1 {
				t.Error("counted twice at the same time")
			}
			time.Sleep(10 * time.Second) // of the bubble
			at.Add(-1)
			if calls.Add(1) == 1 {
				return 0, fail
			}
			return int(calls.Load()), nil
		})
		if _, err := c.get(t.Context()); !errors.Is(err, fail) {
			t.Errorf("error %v", err)
		}
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if n, err := c.get(t.Context()); n != 2 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
			})
		}
		all.Wait()
		time.Sleep(89 * time.Second)
		if n, _ := c.get(t.Context()); n != 2 {
			t.Errorf("after 89 s: %d", n)
		}
		time.Sleep(2 * time.Second)
		go func() { _, _ = c.get(t.Context()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while another counts: %v", err)
		}
		time.Sleep(20 * time.Second)
		if calls.Load() != 3 {
			t.Errorf("%d calls", calls.Load())
		}
	})
}

// TestAdvice: a refusal has the advice of the doctor.
func TestAdvice(t *testing.T) {
	for text, want := range map[string]string{"ILLEGAL REQUEST 23h/07h": "expired", "27h/07h": "full", "BUSY": "", "": "", "FFh/FFh": "", "23h": ""} {
		if got := adviceIn(text); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%q: %q", text, got)
		}
	}
}
