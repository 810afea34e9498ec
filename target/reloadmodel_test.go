package target

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/admin"
	"odx/conf"
	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

const modelHost = "iqn.2026-11.example:host"

// desired is a configuration as the test sees it: by name of the target, what it has.
type desired struct {
	targets map[string]desiredTarget
	views   map[int]bool // number of the volume that a view is over
	// readOnly are the numbers of volumes whose LUNs are write protected.
	readOnly map[int]bool
	// settings are lines that initiators do not see.
	tokens, threshold, iops int
	second                  bool // portal
}

type desiredTarget struct {
	// luns has the number of the volume of each LUN. LUN 0 is always there.
	luns map[uint16]int
	// mapped are the LUNs that the host sees, by its number; nil: all.
	mapped map[uint16]uint16
	// admits the host.
	admits bool
}

func (d desired) clone() desired {
	d.targets, d.views, d.readOnly = maps.Clone(d.targets), maps.Clone(d.views), maps.Clone(d.readOnly)
	for name, t := range d.targets {
		t.luns, t.mapped = maps.Clone(t.luns), maps.Clone(t.mapped)
		d.targets[name] = t
	}
	return d
}

const modelVolumes = 6

// change makes one random difference.
func (d *desired) change(rng *rand.Rand) {
	names := []string{"a", "b", "c"}
	name := "iqn.2026-11.example.odx:" + names[rng.IntN(len(names))]
	t, ok := d.targets[name]
	if !ok {
		d.targets[name] = desiredTarget{luns: map[uint16]int{0: -1}, admits: true}
		return
	}
	lun := uint16(1 + rng.IntN(5))
	switch n := rng.IntN(20); {
	case n < 9:
		v := rng.IntN(modelVolumes)
		if _, there := t.luns[lun]; there && rng.IntN(3) > 0 {
			delete(t.luns, lun)
			maps.DeleteFunc(t.mapped, func(_, at uint16) bool { return at == lun })
		} else if !slices.Contains(slices.Collect(maps.Values(t.luns)), v) {
			t.luns[lun] = v
		}
	case n < 11:
		if t.mapped = nil; rng.IntN(3) > 0 {
			t.mapped = map[uint16]uint16{0: 0}
			for at := range t.luns {
				if at != 0 && rng.IntN(2) == 0 {
					t.mapped[at+10] = at
				}
			}
		}
	case n < 12:
		t.admits = !t.admits
	case n < 13 && len(d.targets) > 1:
		delete(d.targets, name)
		return
	case n < 14:
		v := rng.IntN(modelVolumes)
		d.readOnly[v] = !d.readOnly[v]
	case n < 15:
		d.changeView(rng.IntN(modelVolumes))
	case n < 16:
		d.second = !d.second
	default:
		d.tokens, d.threshold, d.iops = 1+rng.IntN(1000), rng.IntN(100), rng.IntN(3)*100000
	}
	d.targets[name] = t
}

// changeView puts a view over a volume, or takes it away. Of a volume that is a LUN this is
// refused: the LUN writes to it until the reload has ended.
func (d *desired) changeView(v int) {
	if d.views[v] {
		delete(d.views, v)
	} else {
		d.views[v] = true
	}
}

// text is the configuration file. second is the address of the other portal.
func (d *desired) text(second string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "data_dir: data\nportals: [\"127.0.0.1:0\"")
	if d.second {
		fmt.Fprintf(&b, ", %q", second)
	}
	fmt.Fprintf(&b, "]\ntokens: {max: %d}\nstore: {soft_threshold: %d, scrub_every: never}\nmemory: 256MiB\n", d.tokens+1, d.threshold)
	if d.iops > 0 {
		fmt.Fprintf(&b, "qos: {initiators: [{initiators: [\"*\"], iops: %d}]}\n", d.iops)
	}
	b.WriteString("targets:\n")
	for _, name := range slices.Sorted(maps.Keys(d.targets)) {
		t := d.targets[name]
		fmt.Fprintf(&b, "  - name: %s\n    luns:\n", name)
		for _, lun := range slices.Sorted(maps.Keys(t.luns)) {
			fmt.Fprintf(&b, "      - {lun: %d, %s", lun, d.medium(name, t.luns[lun]))
			if d.readOnly[t.luns[lun]] {
				b.WriteString(", read_only: true")
			}
			b.WriteString("}\n")
		}
		switch {
		case !t.admits:
			b.WriteString("    access: [{initiators: [\"iqn.2026-11.example:nobody\"]}]\n")
		case t.mapped != nil:
			fmt.Fprintf(&b, "    access: [{initiators: [\"%s\"], luns: [", modelHost)
			for _, as := range slices.Sorted(maps.Keys(t.mapped)) {
				fmt.Fprintf(&b, "{lun: %d, as: %d}, ", t.mapped[as], as)
			}
			b.WriteString("]}]\n")
		}
	}
	if len(d.views) > 0 {
		b.WriteString("views:\n")
		for _, v := range slices.Sorted(maps.Keys(d.views)) {
			fmt.Fprintf(&b, "  - {name: view%d, cache: {of: vol%d, memory: 1MiB}, size: 1MiB}\n", v, v)
		}
	}
	return b.String()
}

// medium is that of a LUN: of each target its own, or one of those that they share.
func (d *desired) medium(target string, v int) string {
	switch {
	case v < 0:
		return "volume: " + strings.ReplaceAll(target, ":", "-") + ", size: 1MiB"
	case d.views[v]:
		return fmt.Sprintf("view: view%d", v)
	}
	return fmt.Sprintf("volume: vol%d, size: 1MiB", v)
}

// lists returns what the host sees at a target: the medium at each LUN.
func (d *desired) lists(name string) map[uint16]string {
	t, ok := d.targets[name]
	if !ok || !t.admits {
		return nil
	}
	seen := map[uint16]string{}
	for lun, v := range t.luns {
		if t.mapped == nil {
			seen[lun] = d.medium(name, v)
		}
	}
	for as, lun := range t.mapped {
		seen[as] = d.medium(name, t.luns[lun])
	}
	return seen
}

// modelledHost is the initiator of the test: a session at each target that admits it.
type modelledHost struct {
	t        *testing.T
	s        *reloaded
	sessions map[string]*client.Session
}

// reportLUNs returns the LUNs that a session finds.
func (h *modelledHost) reportLUNs(c *client.Session) (luns []uint16) {
	h.t.Helper()
	report := &client.Command{CDB: []byte{0xA0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}, In: make([]byte, 1024)}
	must.Succeed(h.t, c.Do(h.t.Context(), report))
	for at := 8; at < 8+int(binary.BigEndian.Uint32(report.In)); at += 8 {
		luns = append(luns, binary.BigEndian.Uint16(report.In[at:])&0x3FFF)
	}
	slices.Sort(luns)
	return luns
}

// follow compares what the host sees with the model after a change from before to now.
func (h *modelledHost) follow(before, now *desired) error {
	for _, name := range []string{"iqn.2026-11.example.odx:a", "iqn.2026-11.example.odx:b", "iqn.2026-11.example.odx:c"} {
		was, is := before.lists(name), now.lists(name)
		c := h.sessions[name]
		switch {
		case is == nil && c != nil: // the initiator was asked to log out
			c.Close()
			delete(h.sessions, name)
			continue
		case is == nil:
			continue
		case c == nil:
			url := "iscsi://" + h.s.Portals()[0] + "/" + name + "/0"
			c, err := tryDial(h.t, url, modelHost)
			if err != nil {
				return fmt.Errorf("a login that sees the new state: %w", err)
			}
			h.sessions[name] = c
			attentions(h.t, c)
		default:
			var want []uint16
			if !maps.Equal(was, is) {
				want = []uint16{0x3F0E}
			}
			got := slices.DeleteFunc(attentions(h.t, c), func(a uint16) bool {
				return a == 0x2A01 || a == 0x3807 // the soft threshold is a mode parameter, and may be reached
			})
			if !slices.Equal(got, want) {
				return fmt.Errorf("%s: unit attentions %04x, want %04x, from %v to %v", name, got, want, was, is)
			}
		}
		if got, want := h.reportLUNs(h.sessions[name]), slices.Sorted(maps.Keys(is)); !slices.Equal(got, want) {
			return fmt.Errorf("%s: LUNs %v, want %v", name, got, want)
		}
	}
	return nil
}

// compare compares a service with the model.
func (d *desired) compare(s *Service) error {
	var want, got []string
	for name, t := range d.targets {
		for lun, v := range t.luns {
			medium, _, _ := strings.Cut(d.medium(name, v), ",")
			want = append(want, fmt.Sprintf("%s %d %s %t", name, lun, strings.ReplaceAll(medium, ":", ""), d.readOnly[v]))
		}
	}
	for _, l := range s.LUNs() {
		got = append(got, fmt.Sprintf("%s %d %s %t", l.Target, l.Number, strings.ReplaceAll(l.Medium, ":", ""), l.ReadOnly))
		if l.Problem != "" {
			got = append(got, l.Problem)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("LUNs\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	st := s.state.Load()
	served := map[string]bool{}
	for name, device := range st.devices {
		for _, lun := range device.LUNs() {
			served[fmt.Sprintf("%s %d", name, lun)] = true
		}
	}
	portals := 1
	if d.second {
		portals = 2
	}
	switch {
	case len(served) != len(want):
		return fmt.Errorf("device servers have %v", served)
	case len(st.views.devices) != len(d.views) || len(st.views.closers) != len(d.views):
		return fmt.Errorf("%d views, %d to close; want %d", len(st.views.devices), len(st.views.closers), len(d.views))
	case s.tokens.Limits().Tokens != d.tokens+1:
		return fmt.Errorf("%d tokens, want %d", s.tokens.Limits().Tokens, d.tokens+1)
	case len(s.Portals()) != portals:
		return fmt.Errorf("portals %v", s.Portals())
	}
	for _, v := range s.store.Volumes() {
		if admin.IsScratchVolume(v.Name()) {
			return fmt.Errorf("volume %s is left", v.Name())
		}
	}
	return nil
}

// TestService_ReloadModel applies random differences of configurations to a running service
// and compares it with a plain model of the desired state: what it serves, what an initiator
// that stays logged in finds and is notified of, and what is left of configurations that
// could not be applied. Now and then the process ends between two steps of a reload: the next
// start has the old state or the new one, and nothing else.
func TestService_ReloadModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	second := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	now := desired{targets: map[string]desiredTarget{}, views: map[int]bool{}, readOnly: map[int]bool{}, threshold: 90}
	now.change(rng)
	s := serveFile(t, now.text(second))
	h := &modelledHost{t: t, s: s, sessions: map[string]*client.Session{}}
	defer func() {
		for _, c := range h.sessions {
			c.Close()
		}
	}()
	must.Succeed(t, h.follow(&now, &now))
	var applied, refused, kills int
	var longest, locked time.Duration
	reloads := sample.Size(40, 150, 10_000)
	for step := range reloads {
		before := now.clone()
		for range 1 + rng.IntN(3) {
			now.change(rng)
		}
		text, wrong := now.text(second), ""
		switch rng.IntN(12) {
		case 0:
			wrong = text + "unknown: 1\n"
		case 1:
			wrong = strings.Replace(text, "data_dir: data", "data_dir: other", 1)
		case 2:
			wrong = strings.Replace(text, "    luns:\n", "    luns:\n      - {lun: 99, volume: missing}\n", 1)
		}
		kill := ""
		if step%37 == 36 {
			kill = []string{"prepared", "stored", "file replaced", "settled", "committed"}[rng.IntN(5)]
		}
		put := rng.IntN(2) == 0
		if wrong != "" {
			if err := s.try(wrong, put); err == nil {
				t.Fatalf("step %d: applied:\n%s", step, wrong)
			}
			must.Succeed(t, before.compare(s.Service))
			must.Succeed(t, h.follow(&before, &before))
			s.write(before.text(second))
			refused++
		}
		s.reached = func(at string) {
			if at == kill {
				kills++
				s.restarts(&before, &now, second, put)
			}
		}
		begin := time.Now()
		if err := s.try(text, put); err != nil {
			// A device that the old state has open until it leaves.
			if !strings.Contains(err.Error(), "until this reload has ended") {
				t.Fatalf("step %d: %v\n%s", step, err, text)
			}
			must.Succeed(t, before.compare(s.Service))
			now = before
			s.write(before.text(second))
			refused++
			continue
		}
		applied++
		longest, locked = max(longest, time.Since(begin)), max(locked, s.last.LockedFor)
		if err := now.compare(s.Service); err != nil {
			t.Fatalf("step %d: %v\n%s", step, err, text)
		}
		if err := h.follow(&before, &now); err != nil {
			t.Fatalf("step %d: %v\nbefore:\n%s\nafter:\n%s", step, err, before.text(second), text)
		}
	}
	t.Logf("%d applied, %d refused, %d kills; the longest took %v and held a lock for %v", applied, refused, kills, longest, locked)
	if reloads >= 100 && (applied < reloads/2 || refused == 0 || kills == 0) {
		t.Error("too few of a kind")
	}
}

// try applies a text, through the file or as a text that becomes the file.
func (l *reloaded) try(text string, put bool) error {
	var err error
	if put {
		l.last, err = l.PutConfig(l.t.Context(), []byte(text), "")
		return err
	}
	l.write(text)
	l.last, err = l.Reload(l.t.Context())
	return err
}

// restarts starts a service over what is left of this one when its process ends now, and
// compares it with the states before and after.
func (l *reloaded) restarts(before, after *desired, second string, put bool) {
	l.t.Helper()
	dir := l.t.TempDir()
	defer os.RemoveAll(dir)
	must.Succeed(l.t, os.CopyFS(filepath.Join(dir, "data"), withoutSockets{os.DirFS(l.state.Load().cfg.DataDir)}))
	text, err := os.ReadFile(l.file)
	must.Succeed(l.t, err)
	// The second portal is that of the process that is still there.
	other := fmt.Sprintf("127.0.0.1:%d", freePort(l.t))
	cfg, err := conf.Parse(filepath.Join(dir, "odx.yaml"), []byte(strings.Replace(string(text), second, other, 1)))
	must.Succeed(l.t, err)
	s, err := Start(l.t.Context(), cfg, logs.Discard())
	must.Succeed(l.t, err)
	defer stop(l.t, s)
	want := after
	if string(text) == before.text(second) && put {
		want = before
	}
	if err := want.compare(s); err != nil {
		l.t.Errorf("after the end of the process: %v", err)
	}
}
