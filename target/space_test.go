package target

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/target/scsi/sense"
)

// TestSoftThreshold: one warning each time that the use rises over the
// threshold, not for each write above it.
func TestSoftThreshold(t *testing.T) {
	var said bytes.Buffer
	log := logrus.New()
	log.SetOutput(&said)
	left := int64(1000)
	measure := func() (int64, error) {
		if left < 0 {
			return 0, errors.New("the disk does not answer")
		}
		return left, nil
	}
	live := func() int64 { return 1000 }
	w, err := newSpaceWatch(live, 80, measure, logrus.NewEntry(log)) // 2000 bytes, warns at 1600
	if err != nil {
		t.Fatal(err)
	}
	warnings := 0
	for i, step := range []struct{ left, warnings int64 }{
		{1000, 0}, {401, 0}, {400, 1}, {100, 1}, {-1, 1}, {0, 1},
		{410, 1}, {390, 1}, // not far enough below to warn again
		{421, 1}, {400, 2},
		{5000, 2}, // space was freed outside of the store
	} {
		left = step.left
		w.look(func() { warnings++ })
		if int64(warnings) != step.warnings {
			t.Errorf("step %d: %d bytes left, %d warnings, want %d", i, step.left, warnings, step.warnings)
		}
	}
	if used, left := w.usage(); used != 1000 || left != 2000 {
		t.Errorf("used %d, left %d", used, left)
	}
	if n := strings.Count(said.String(), "above the soft threshold"); n != 2 {
		t.Errorf("%d lines in the log:\n%s", n, said.String())
	}

	w.warned, left = false, 400
	w.look(func() {})
	w.warned = false // as in the process that takes over
	if w.goOn(); !w.warned {
		t.Error("a watch that goes on warns again")
	}
	left = 1000
	w.look(func() {})
	if w.goOn(); w.warned {
		t.Error("a watch that goes on below the threshold will not warn")
	}

	off, err := newSpaceWatch(live, 0, measure, logrus.NewEntry(log))
	if err != nil {
		t.Fatal(err)
	}
	left = 0
	off.look(func() { t.Error("warned without a threshold") })
}

// TestSoftThresholdReachesInitiators through the configuration, the watch and
// the logical unit.
func TestSoftThresholdReachesInitiators(t *testing.T) {
	log, said := logs.Discard(), make(logged, 10)
	log.Logger.AddHook(said)
	cfg := parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`)+"store: {capacity: 256MiB, soft_threshold: 10}\n")
	s := startWith(t, cfg, log)
	i := attach(t, s, "volume src")
	if s.space.total != 256<<20 || s.space.threshold.Load() != 256<<20/10 {
		t.Errorf("total %d, threshold %d", s.space.total, s.space.threshold.Load())
	}
	if asc := i.attention(); asc != 0 {
		t.Errorf("unit attention %04x before anything was written", int(asc))
	}
	p := make([]byte, 1<<20)
	for n := range 26 {
		for at := 0; at < len(p); at += 4096 {
			p[at], p[at+1], p[at+2] = byte(at>>12), byte(n), 1
		}
		if err := s.state.Load().unit("volume src").Volume().WriteAt(t.Context(), p, int64(n)<<20); err != nil {
			t.Fatal(err)
		}
	}
	if line := <-said; !strings.Contains(line, "above the soft threshold") {
		t.Errorf("warned with %q", line)
	}
	if asc := i.attention(); asc != sense.ASCSoftThresholdReached {
		t.Errorf("told %04x", int(asc))
	}
}

// TestLogSense_used_space: what is in use is the live data, at the time of the
// question, with a capacity and without: it falls with an UNMAP.
func TestLogSense_used_space(t *testing.T) {
	for _, more := range []string{"", "store: {capacity: 1GiB}\n"} {
		cfg := parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`)+more)
		s := start(t, cfg)
		volume := s.state.Load().unit("volume src").Volume()
		c := session(t, s, "iqn.2026-11.example:host")
		used := func() uint32 {
			t.Helper()
			se := &client.Command{CDB: []byte{0x4D, 0, 0x0C, 0, 0, 0, 2, 0, 64, 0}, In: make([]byte, 64)}
			if err := c.Do(t.Context(), se); err != nil {
				t.Fatal(err)
			}
			return binary.BigEndian.Uint32(se.In[8:])
		}
		before := used()
		p := make([]byte, 8<<20)
		rand.NewChaCha8([32]byte{1}).Read(p)
		if err := volume.WriteAt(t.Context(), p, 0); err != nil {
			t.Fatal(err)
		}
		if got := used(); got != before+8 {
			t.Errorf("%q: %d MiB used after 8 MiB more, %d before", more, got, before)
		}
		if err := volume.Unmap(t.Context(), 0, 8<<20); err != nil {
			t.Fatal(err)
		}
		// References are passed on in the background, no more.
		got := used()
		for deadline := time.Now().Add(10 * time.Second); got != before && time.Now().Before(deadline); {
			got = used()
		}
		if got != before {
			t.Errorf("%q: %d MiB used after UNMAP, %d before the write", more, got, before)
		}
		stop(t, s)
	}
}

// logged receives the warnings of a log.
type logged chan string

func (logged) Levels() []logrus.Level { return []logrus.Level{logrus.WarnLevel} }

func (c logged) Fire(e *logrus.Entry) error {
	c <- e.Message
	return nil
}

// TestSpaceWatch_Period: near the threshold it is looked at often, so that the warning
// comes before writes fail.
func TestSpaceWatch_Period(t *testing.T) {
	left := int64(1000)
	live := func() int64 { return 0 }
	measure := func() (int64, error) { return left, nil }
	w, err := newSpaceWatch(live, 80, measure, logs.Discard()) // warns at 800
	if err != nil {
		t.Fatal(err)
	}
	for used, want := range map[int64]time.Duration{0: spacePeriod, 599: spacePeriod, 600: spacePeriodNear, 799: spacePeriodNear, 800: spacePeriod, 1000: spacePeriod} {
		left = 1000 - used
		w.look(func() {})
		if got := w.period(); got != want {
			t.Errorf("%d used: again in %v, want %v", used, got, want)
		}
	}
	off, err := newSpaceWatch(live, 0, measure, logs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	left = 100
	off.look(func() {})
	if got := off.period(); got != spacePeriod {
		t.Errorf("without a threshold: again in %v", got)
	}
}

// TestService_Capacity: the sums are those of what there is, served or not.
func TestService_Capacity(t *testing.T) {
	dir := t.TempDir()
	cfg := parse(t, dir, fmt.Sprintf(disks, `"127.0.0.1:0"`)+"store: {capacity: 256MiB, soft_threshold: 50}\n")
	check := func(what string, s *admin.Store) {
		t.Helper()
		c, err := s.Capacity()
		if err != nil {
			t.Fatal(err)
		}
		live := s.Backstore().LiveBytes()
		if c.ProvisionedBytes != 2*64<<20+5000 || c.FreeBytes+live != 256<<20 || c.WarnBytes != 128<<20 || c.HostFreeBytes < c.FreeBytes {
			t.Errorf("%s: %+v, %d bytes are live", what, c, live)
		}
	}
	s := start(t, cfg)
	putFile(t, s, "odd.raw", make([]byte, 5000))
	if err := login(t, s, 0).WriteAt(t.Context(), random(3, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	check("served", s.admin)
	stop(t, s)
	if err := admin.Inspect(t.Context(), cfg, logs.Discard(), func(s *admin.Store) error { check("not served", s); return nil }); err != nil {
		t.Error(err)
	}
}
