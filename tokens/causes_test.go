package tokens_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"odx/blockdev"
	"odx/offload/offloadtest"
	"odx/tokens"
)

// For each Cause: which token the manager cancels, which error its holder gets, what is
// counted and what is logged.
func TestEviction_Causes(t *testing.T) {
	type world struct {
		s       *offloadtest.Store
		v       *offloadtest.Volume
		foreign offloadtest.Foreign
		m       *tokens.Manager
	}
	by := func(initiator, use string) tokens.ReadOptions {
		return tokens.ReadOptions{Creator: tokens.Creator{Initiator: initiator}, Use: use}
	}
	kind := func(k tokens.RODType) tokens.ReadOptions { return tokens.ReadOptions{Type: k} }
	for name, tc := range map[string]struct {
		limits tokens.Limits
		policy tokens.Policy
		// first and second are made in this order; foreign says of which.
		first, second tokens.ReadOptions
		foreignFirst  bool
		push          func(t *testing.T, w *world)
		gone          int // 1 or 2
		cause         tokens.Cause
	}{
		"number": {limits: tokens.Limits{Tokens: 2}, gone: 1, cause: tokens.TooManyTokens,
			push: func(t *testing.T, w *world) { mustRead(t, w.m, w.v, ranges(0, 4096), tokens.ReadOptions{}) }},
		"memory": {limits: tokens.Limits{MemoryBytes: 1500}, gone: 1, cause: tokens.TooMuchMemory,
			push: func(t *testing.T, w *world) { mustRead(t, w.m, w.v, ranges(0, 4096), tokens.ReadOptions{}) }},
		"number, priority by initiator": {limits: tokens.Limits{Tokens: 2}, gone: 2, cause: tokens.TooManyTokens,
			policy: tokens.Policy{Rules: []tokens.Rule{{Initiator: "iqn.vip*", Priority: 10}}}, first: by("iqn.vip-1", "scsi"), second: by("iqn.b", "scsi"),
			push: func(t *testing.T, w *world) { mustRead(t, w.m, w.v, ranges(0, 4096), tokens.ReadOptions{}) }},
		"number, priority by use": {limits: tokens.Limits{Tokens: 2}, gone: 2, cause: tokens.TooManyTokens,
			policy: tokens.Policy{Rules: []tokens.Rule{{Use: "api", Priority: 10}}}, first: by("", "api"), second: by("iqn.b", "scsi"),
			push: func(t *testing.T, w *world) { mustRead(t, w.m, w.v, ranges(0, 4096), tokens.ReadOptions{}) }},
		"number, cost of the copy": {limits: tokens.Limits{Tokens: 2}, gone: 1, cause: tokens.TooManyTokens, foreignFirst: true,
			policy: tokens.Policy{Unmapped: tokens.LowerUnmapped}, first: tokens.ReadOptions{Priority: 50},
			push: func(t *testing.T, w *world) { mustRead(t, w.m, w.v, ranges(0, 4096), tokens.ReadOptions{}) }},
		"number, cost of the copy is no matter": {limits: tokens.Limits{Tokens: 2}, gone: 2, cause: tokens.TooManyTokens, foreignFirst: true,
			first: tokens.ReadOptions{Priority: 50},
			push:  func(t *testing.T, w *world) { mustRead(t, w.m, w.v, ranges(0, 4096), tokens.ReadOptions{}) }},
		"bytes that only tokens keep": {limits: tokens.Limits{HeldBytes: 4096}, gone: 1, cause: tokens.HoldsTooMuch, second: tokens.ReadOptions{Priority: 1},
			push: func(t *testing.T, w *world) { pattern(t, w.v, 2); time.Sleep(31 * time.Second) }},
		"space of the store": {gone: 1, cause: tokens.OutOfSpace, second: tokens.ReadOptions{Priority: 1},
			push: func(t *testing.T, w *world) {
				pattern(t, w.v, 2)
				if !w.s.Full(ctx, 4096) {
					t.Error("no token was cancelled")
				}
			}},
		"overwritten": {gone: 2, cause: tokens.Overwritten, second: kind(tokens.RODTypePointInTimeChangeVulnerable),
			push: func(t *testing.T, w *world) { pattern(t, w.v, 2) }},
		"data gone": {gone: 2, cause: tokens.DataGone, second: kind(tokens.RODTypeAccessUponReference),
			push: func(t *testing.T, w *world) {
				if err := w.s.DeleteVolume(ctx, "v"); err != nil {
					t.Fatal(err)
				}
			}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{s: offloadtest.NewStore([16]byte{1})}
				w.v = w.s.NewVolume("v", volumeSize)
				w.foreign = offloadtest.Foreign{Volume: offloadtest.NewStore([16]byte{2}).NewVolume("f", volumeSize), BlockLength: 512}
				dst := w.s.NewVolume("dst", volumeSize)
				log, hook := logtest.NewNullLogger()
				w.m = openWith(t, tokens.Options{Store: w.s, Log: logrus.NewEntry(log), Limits: tc.limits, Policy: tc.policy})
				pattern(t, w.v, 1)
				pattern(t, w.foreign, 1)
				var toks []*tokens.Token
				for i, o := range []tokens.ReadOptions{tc.first, tc.second} {
					var v blockdev.Volume = w.v
					if tc.foreignFirst && i == 0 {
						v = w.foreign
					}
					toks = append(toks, mustRead(t, w.m, v, ranges(0, 4096), o))
					time.Sleep(time.Second)
				}
				tc.push(t, w)
				for i, tok := range toks {
					_, err := w.m.OffloadWrite(ctx, tok, 0, destination(dst), ranges(0, 4096), tokens.WriteOptions{})
					if i+1 != tc.gone {
						if err != nil {
							t.Errorf("token %d: %v", i+1, err)
						}
						continue
					}
					if !errors.Is(err, tokens.ErrCancelled) || !strings.Contains(err.Error(), tc.cause.String()) {
						t.Errorf("holder of token %d: %v", i+1, err)
					}
				}
				st := w.m.Stats()
				if st.CancelledFor[tc.cause] != 1 || len(st.CancelledFor) != 1 || st.Cancelled != 1 || st.Refused[tokens.ErrCancelled.Error()] != 1 {
					t.Errorf("counted: %+v", st)
				}
				var lines []*logrus.Entry
				for _, e := range hook.AllEntries() {
					if e.Message == "token cancelled" {
						lines = append(lines, e)
					}
				}
				if len(lines) != 1 || lines[0].Data["cause"] != tc.cause.String() || lines[0].Data["token"] != toks[tc.gone-1].ID() {
					t.Errorf("the log has %v", lines)
				}
			})
		})
	}
}
