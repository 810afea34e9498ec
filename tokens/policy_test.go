package tokens_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"odx/internal/kit/logs"
	"odx/offload/offloadtest"
	"odx/tokens"
)

// Each new token above the limit cancels one, in the documented order.
func TestEviction_Order(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		log, hook := logtest.NewNullLogger()
		m := openWith(t, tokens.Options{
			Store: s, Log: logrus.NewEntry(log), Limits: tokens.Limits{Tokens: 8},
			Policy: tokens.Policy{Deletion: tokens.DeletionHint},
		})
		names := map[tokens.ID]string{}
		add := func(name string, o tokens.ReadOptions) *tokens.Token {
			t.Helper()
			tok := mustRead(t, m, v, ranges(0, 4096), o)
			names[tok.ID()] = name
			time.Sleep(time.Second)
			return tok
		}
		use := func(tok *tokens.Token, times int) {
			for range times {
				mustWrite(t, m, tok, 0, v, ranges(8192, 512), 512)
			}
		}
		add("persistent", tokens.ReadOptions{Type: tokens.RODTypePointInTimePersistent})
		add("important", tokens.ReadOptions{Priority: 5})
		old := add("old, used seldom", tokens.ReadOptions{})
		often := add("old, used often", tokens.ReadOptions{})
		use(often, 20)
		use(old, 1)
		add("recent", tokens.ReadOptions{})
		time.Sleep(8 * time.Second)
		add("new", tokens.ReadOptions{})
		add("unimportant", tokens.ReadOptions{Priority: -5})
		hinted := add("deleted as a hint", tokens.ReadOptions{Priority: 50})
		if err := m.Delete(ctx, hinted.ID(), tokens.Deleted); err != nil {
			t.Fatal(err)
		}
		// After the hint the token can be used until it expires.
		use(hinted, 1)
		var gone []string
		for range 8 {
			before := m.List()
			if _, err := m.OffloadRead(ctx, source(v), ranges(0, 4096), tokens.ReadOptions{Priority: 100}); err != nil {
				t.Fatal(err)
			}
			for _, i := range before {
				if _, err := m.Find(i.ID); err != nil {
					gone = append(gone, names[i.ID])
				}
			}
		}
		want := []string{"deleted as a hint", "unimportant", "recent", "old, used seldom", "new", "old, used often", "persistent", "important"}
		if !slices.Equal(gone, want) {
			t.Errorf("cancelled in the order\n%q, want\n%q", gone, want)
		}
		// What holders, counters and the log report.
		wantRefused(t, m, old, v, tokens.ErrCancelled)
		wantRefused(t, m, hinted, v, tokens.ErrDeleted)
		if _, err := m.Lookup(old); !strings.Contains(err.Error(), "too many tokens") {
			t.Errorf("holder: %v", err)
		}
		st := m.Stats()
		if st.CancelledFor[tokens.TooManyTokens] != 8 || st.Cancelled != 7 || st.Deleted != 1 || st.Live != 8 || st.Refused["token was cancelled"] != 3 {
			t.Errorf("%+v", st)
		}
		if e := hook.LastEntry(); e == nil || e.Message != "token cancelled" || e.Data["cause"] != "too many tokens" || e.Data["priority"] != 5 {
			t.Errorf("log: %+v", e)
		}
	})
}

func TestLimits_NewToken(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limits tokens.Limits
		policy tokens.Policy
		o      tokens.ReadOptions
		want   error
	}{
		{"as many as there may be", tokens.Limits{Tokens: 3}, tokens.Policy{}, tokens.ReadOptions{}, nil},
		{"one more takes the place of another", tokens.Limits{Tokens: 2}, tokens.Policy{}, tokens.ReadOptions{}, nil},
		{"one more is refused by policy", tokens.Limits{Tokens: 2}, tokens.Policy{WhenFull: tokens.RefuseNew}, tokens.ReadOptions{}, tokens.ErrNoResources},
		{"others are more important", tokens.Limits{Tokens: 2}, tokens.Policy{}, tokens.ReadOptions{Priority: -1}, tokens.ErrNoResources},
		{"more than an initiator may have", tokens.Limits{TokensPerInitiator: 2}, tokens.Policy{}, tokens.ReadOptions{}, tokens.ErrNoResources},
		{"another initiator's first", tokens.Limits{TokensPerInitiator: 2}, tokens.Policy{}, tokens.ReadOptions{Creator: tokens.Creator{Initiator: "iqn.b"}}, nil},
		{"more memory than there is", tokens.Limits{MemoryBytes: 1500}, tokens.Policy{WhenFull: tokens.RefuseNew}, tokens.ReadOptions{}, tokens.ErrNoResources},
		{"memory of others", tokens.Limits{MemoryBytes: 1500}, tokens.Policy{}, tokens.ReadOptions{}, nil},
		{"more memory than all take", tokens.Limits{MemoryBytes: 100}, tokens.Policy{}, tokens.ReadOptions{}, tokens.ErrNoResources},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := offloadtest.NewStore([16]byte{1})
			v := s.NewVolume("v", volumeSize)
			m := openWith(t, tokens.Options{Store: s, Limits: tc.limits, Policy: tc.policy})
			o := tokens.ReadOptions{Creator: tokens.Creator{Initiator: "iqn.a"}}
			for range 2 {
				if _, err := m.OffloadRead(ctx, source(v), ranges(0, 4096), o); err != nil && tc.limits.MemoryBytes != 100 {
					t.Fatal(err)
				}
			}
			if tc.o.Creator.Initiator == "" {
				tc.o.Creator = o.Creator
			}
			if _, err := m.OffloadRead(ctx, source(v), ranges(0, 4096), tc.o); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if tc.want != nil && m.Stats().Refused[tokens.ErrNoResources.Error()] == 0 {
				t.Errorf("not counted: %+v", m.Stats())
			}
			if got, most := m.Stats().MemoryBytes, tc.limits.MemoryBytes; most > 0 && got > most {
				t.Errorf("%d bytes of memory, at most %d", got, most)
			}
		})
	}
}

// A deleted token no longer counts against the limits.
func TestLimits_Deletion(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	o := tokens.Options{Store: s, Limits: tokens.Limits{TokensPerInitiator: 2}}
	m := openWith(t, o)
	read := tokens.ReadOptions{Creator: tokens.Creator{Initiator: "iqn.a"}}
	var toks []*tokens.Token
	for range 5 {
		toks = append(toks, mustRead(t, m, v, ranges(0, 512), read), mustRead(t, m, v, ranges(0, 512), read))
		m = openWith(t, o) // what is loaded counts
		if _, err := m.OffloadRead(ctx, source(v), ranges(0, 512), read); !errors.Is(err, tokens.ErrNoResources) {
			t.Fatal(err)
		}
		for _, tok := range toks {
			if err := m.Delete(ctx, tok.ID(), tokens.Revoked); err != nil {
				t.Fatal(err)
			}
		}
		toks = nil
	}
	if got := m.Stats(); got.MemoryBytes != 0 {
		t.Errorf("%d bytes of memory without tokens", got.MemoryBytes)
	}
}

// The limit on held bytes cancels tokens that hold data, and none that holds nothing,
// whatever its length.
func TestLimits_HeldBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		m := open(t, s, tokens.Limits{HeldBytes: 3 * 4096})
		pattern(t, v, 1)
		nothing := mustRead(t, m, v, ranges(512<<10, 256<<10), tokens.ReadOptions{})
		low := mustRead(t, m, v, ranges(0, 2*4096), tokens.ReadOptions{Priority: -1})
		first := mustRead(t, m, v, ranges(4*4096, 2*4096), tokens.ReadOptions{})
		time.Sleep(time.Second)
		second := mustRead(t, m, v, ranges(8*4096, 2*4096), tokens.ReadOptions{})
		if err := v.WriteAt(ctx, make([]byte, 64<<10), 0); err != nil { // all three hold 8 KiB now
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second)
		for _, tok := range []*tokens.Token{low, first} {
			wantRefused(t, m, tok, v, tokens.ErrCancelled)
		}
		for _, tok := range []*tokens.Token{nothing, second} {
			if _, err := m.Lookup(tok); err != nil {
				t.Error(err)
			}
		}
		if held, err := m.HeldBytes(ctx); err != nil || held != 8192 || m.Stats().CancelledFor[tokens.HoldsTooMuch] != 2 {
			t.Errorf("%d bytes are held, %v; %+v", held, err, m.Stats())
		}
	})
}

func TestManager_Relieve(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		o := tokens.Options{Store: s}
		if keep {
			o.Policy.Pressure = tokens.Keep
		}
		m := openWith(t, o)
		pattern(t, v, 1)
		var toks []*tokens.Token
		for i := range int64(4) {
			toks = append(toks, mustRead(t, m, v, ranges(i*65536, 8192), tokens.ReadOptions{Priority: int(i)}))
		}
		if s.Full(ctx, 4096) {
			t.Error("cancelled a token that holds nothing")
		}
		// All but the first are overwritten.
		if err := v.WriteAt(ctx, make([]byte, volumeSize-65536), 65536); err != nil {
			t.Fatal(err)
		}
		asked := s.Full(ctx, 12288)
		if asked == keep {
			t.Errorf("keep %t: gave up %t", keep, asked)
		}
		for i, tok := range toks {
			want := i != 1 && i != 2 || keep
			if _, err := m.Lookup(tok); (err == nil) != want || err != nil && !errors.Is(err, tokens.ErrCancelled) {
				t.Errorf("keep %t, token %d: %v", keep, i, err)
			}
		}
		if n := m.Stats().CancelledFor[tokens.OutOfSpace]; (n == 2) == keep {
			t.Errorf("keep %t: %d tokens cancelled", keep, n)
		}
		s.FailWith(func(string) error { return errors.New("broken") })
		if s.Full(ctx, 4096) {
			t.Error("reports success although the store refuses to end tokens")
		}
		s.FailWith(nil)
	}
}

// On the extent store, writes succeed as long as tokens can be cancelled for them.
func TestManager_Relieve_extentStore(t *testing.T) {
	d := newDisk()
	w := &extentWorld{options: d.options()}
	w.options.CapacityBytes = 4 << 20
	w.open(t)
	defer func() { w.close(t) }()
	v := w.create(t, "v", 2<<20, 512)
	write := func(seed byte) error {
		p := make([]byte, 1<<20)
		for i := range p {
			p[i] = seed ^ byte(i>>12) ^ byte(i>>20)
		}
		for i := 0; i < len(p); i += 4096 {
			copy(p[i:], fmt.Sprint(seed, i))
		}
		return v.WriteAt(ctx, p, 0)
	}
	var all []*tokens.Token
	for seed := byte(1); seed < 20; seed++ {
		if err := write(seed); err != nil {
			t.Fatalf("write %d: %v", seed, err)
		}
		all = append(all, mustRead(t, w.manager, v, ranges(0, 1<<20), tokens.ReadOptions{}))
	}
	live := 0
	for _, tok := range all {
		_, err := w.manager.Lookup(tok)
		if err == nil {
			live++
		} else if !errors.Is(err, tokens.ErrCancelled) {
			t.Error(err)
		}
	}
	if st := w.manager.Stats(); live == 0 || live > 4 || st.CancelledFor[tokens.OutOfSpace] != uint64(19-live) {
		t.Errorf("%d tokens live; %+v", live, st)
	}
	if _, err := w.manager.Lookup(all[len(all)-1]); err != nil {
		t.Errorf("the last token went before older ones: %v", err)
	}
	if findings, err := w.store.Check(ctx); err != nil || len(findings) > 0 {
		t.Errorf("check of the store: %v, %v", findings, err)
	}
}

func TestPolicy_DeletionHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		m := openWith(t, tokens.Options{Store: s, Policy: tokens.Policy{Deletion: tokens.DeletionHint}, Limits: tokens.Limits{MinInactivity: 5 * time.Second}})
		tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{Type: tokens.RODTypePointInTimePersistent})
		revoked := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
		if _, err := m.OffloadWrite(ctx, tok, 0, destination(v), ranges(8192, 4096), tokens.WriteOptions{Completion: tokens.DeleteToken}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		mustWrite(t, m, tok, 0, v, ranges(8192, 4096), 4096) // another client still uses it
		time.Sleep(4 * time.Second)
		if _, err := m.Lookup(tok); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		wantRefused(t, m, tok, v, tokens.ErrDeleted)
		// Revoke is not a hint.
		if err := m.Delete(ctx, revoked.ID(), tokens.Revoked); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, m, revoked, v, tokens.ErrRevoked)
	})
}

// A running copy whose token ends finishes or is aborted, as the policy says.
func TestPolicy_RunningCopy(t *testing.T) {
	for _, policy := range []tokens.RunningCopy{tokens.FinishCopy, tokens.AbortCopy} {
		s := offloadtest.NewStore([16]byte{1})
		src, vol := s.NewVolume("src", 4<<20), s.NewVolume("dst", 4<<20)
		m := openWith(t, tokens.Options{Store: s, Policy: tokens.Policy{RunningCopy: policy}})
		data := pattern(t, src, 1)
		tok := mustRead(t, m, src, ranges(0, 3<<20), tokens.ReadOptions{})
		dst := &blockingVolume{offloadtest.Foreign{Volume: vol}, make(chan struct{}), make(chan struct{})}
		type result struct {
			n   int64
			err error
		}
		done := make(chan result)
		go func() {
			n, err := m.OffloadWrite(ctx, tok, 0, destination(dst), ranges(0, 3<<20), tokens.WriteOptions{})
			done <- result{n, err}
		}()
		<-dst.entered
		dst.proceed <- struct{}{}
		<-dst.entered // the first piece of 1 MiB is written
		if err := m.Delete(ctx, tok.ID(), tokens.Revoked); err != nil {
			t.Fatal(err)
		}
		go func() {
			for range dst.entered {
			}
		}()
		close(dst.proceed)
		r := <-done
		close(dst.entered)
		if policy == tokens.FinishCopy && (r.n != 3<<20 || r.err != nil) || policy == tokens.AbortCopy && (r.n >= 3<<20 || !errors.Is(r.err, tokens.ErrRevoked)) {
			t.Errorf("policy %d: %d bytes, %v", policy, r.n, r.err)
		}
		if !bytes.Equal(contents(t, vol)[:r.n], data[:r.n]) {
			t.Error("wrong data")
		}
		if exist, open := s.Snapshots(); exist != 0 || open != 0 {
			t.Errorf("%d snapshots, %d handles are left", exist, open)
		}
	}
}

func TestPolicy_Unmapped(t *testing.T) {
	for _, tc := range []struct {
		policy   tokens.Unmapped
		want     error
		priority int
	}{
		{tokens.AllowUnmapped, nil, 7},
		{tokens.LowerUnmapped, nil, tokens.MinPriority - 1},
		{tokens.RefuseUnmapped, tokens.ErrUnmapped, 0},
	} {
		s, other := offloadtest.NewStore([16]byte{1}), offloadtest.NewStore([16]byte{2})
		v := offloadtest.Foreign{Volume: other.NewVolume("v", volumeSize)}
		m := openWith(t, tokens.Options{Store: s, Policy: tokens.Policy{Unmapped: tc.policy}})
		res, err := m.OffloadRead(ctx, source(v), ranges(0, 4096), tokens.ReadOptions{Priority: 7})
		if !errors.Is(err, tc.want) {
			t.Errorf("policy %d: %v", tc.policy, err)
		}
		if err != nil {
			continue
		}
		if i, err := m.Lookup(res.Token); err != nil || i.Priority != tc.priority {
			t.Errorf("policy %d: %+v, %v", tc.policy, i, err)
		}
	}
}

// Uses of a busy token store a bounded number of records.
func TestLimits_UseRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		m, err := tokens.Open(ctx, tokens.Options{Store: s, Log: logs.Discard(), Limits: tokens.Limits{UseRecordsPerSecond: 2}})
		if err != nil {
			t.Fatal(err)
		}
		var toks []*tokens.Token
		for range 20 {
			toks = append(toks, mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{}))
		}
		puts := 0
		s.FailWith(func(op string) error {
			if op == "PutRecords" {
				puts++
			}
			return nil
		})
		for range 10 {
			time.Sleep(1500 * time.Millisecond)
			for _, tok := range toks {
				mustWrite(t, m, tok, 0, v, ranges(8192, 512), 512)
			}
		}
		if puts == 0 || puts > 2*16+2 {
			t.Errorf("%d records in 15 s, at most 2 a second", puts)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		m = open(t, s, tokens.Limits{})
		for _, i := range m.List() {
			if i.Uses != 10 {
				t.Errorf("%d uses are known after Close", i.Uses)
			}
		}
	})
}

func TestPolicy_Validation(t *testing.T) {
	for _, p := range []tokens.Policy{
		{WhenFull: 9}, {Pressure: 9}, {Deletion: 9}, {RunningCopy: 9}, {Unmapped: 9},
		{Access: "nobody"}, {Access: "group:none"},
		{Rules: []tokens.Rule{{Priority: 101}}}, {Rules: []tokens.Rule{{Access: "group:none"}}},
	} {
		if _, err := tokens.Open(ctx, tokens.Options{Store: offloadtest.NewStore([16]byte{1}), Log: logs.Discard(), Policy: p}); err == nil {
			t.Errorf("%+v: no error", p)
		}
	}
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	if _, err := m.OffloadRead(ctx, source(v), ranges(0, 512), tokens.ReadOptions{Access: "group:none"}); !errors.Is(err, tokens.ErrAccess) {
		t.Errorf("token for an unknown group: %v", err)
	}
}

// A use of a token that is cancelled concurrently is refused, or its copy is complete.
func TestEviction_DuringUse(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	src, dst := s.NewVolume("src", volumeSize), s.NewVolume("dst", volumeSize)
	m := open(t, s, tokens.Limits{Tokens: 2})
	data := pattern(t, src, 1)
	stop, stopped := context.WithCancel(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for stop.Err() == nil {
			if _, err := m.OffloadRead(ctx, source(src), ranges(0, 512), tokens.ReadOptions{}); err != nil && !errors.Is(err, tokens.ErrNoResources) {
				t.Error(err)
			}
		}
	}()
	for range 300 {
		tok := mustRead(t, m, src, ranges(0, 65536), tokens.ReadOptions{Priority: 1})
		n, err := m.OffloadWrite(ctx, tok, 0, destination(dst), ranges(0, 65536), tokens.WriteOptions{Completion: tokens.DeleteToken})
		if err != nil || n != 65536 || !bytes.Equal(contents(t, dst)[:n], data[:n]) {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	stopped()
	<-gone
	if exist, open := s.Snapshots(); open != 0 || exist > 2 {
		t.Errorf("%d snapshots, %d handles", exist, open)
	}
}
