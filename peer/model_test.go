package peer_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
	"odx/offload"
	"odx/peer"
	"odx/peer/peertest"
	"odx/tokens"
)

const (
	modelBytes = 1 << 20
	// modelSteps is about how many steps a write of so many bytes has.
	modelSteps = 28
)

// modelToken is a token of the model: what it stands for, and which server made it.
type modelToken struct {
	token *tokens.Token
	data  []byte
	by    int
}

// model is three servers that are peers of each other, and what they must have.
type model struct {
	t       *testing.T
	rng     *rand.Rand
	servers []*peertest.Server
	volumes int
	tokens  []modelToken
	after   int // kills after the end of the write
}

// TestModel_Kills: three servers write tokens of each other while one of them is killed at any
// step, with its power cut: what a write says it has done is there, nothing is half done in the
// part that counts, what is sound stays sound, and no pin is left.
func TestModel_Kills(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 1))}
	o := peertest.Options{Limits: peer.Limits{Lease: 300 * time.Millisecond}, Tokens: tokens.Limits{DefaultInactivity: 5 * time.Minute}}
	for _, name := range []string{"a", "b", "c"} {
		m.servers = append(m.servers, peertest.New(t, name, o))
	}
	m.know()
	kills := sample.Size(4, 25, 500)
	for range kills {
		m.step()
	}
	t.Logf("%d kills, of which %d after the end of the write", kills, m.after)
	m.end()
}

// know makes all servers the peers of each other.
func (m *model) know() {
	for i, s := range m.servers {
		var others []*peertest.Server
		for k, o := range m.servers {
			if k != i {
				others = append(others, o)
			}
		}
		s.Know(others...)
	}
}

// make makes a token on a server, durably.
func (m *model) make(by int) {
	s := m.servers[by]
	data := peertest.Random(m.rng.Uint64(), modelBytes)
	if m.rng.IntN(2) == 0 {
		at := m.rng.IntN(modelBytes/4096) * 4096
		clear(data[at:]) // with zeros at the end
	}
	m.volumes++
	v := s.Volume("v"+string(rune('a'+m.volumes%26))+time.Now().Format("150405.000000000"), modelBytes, data)
	m.tokens = append(m.tokens, modelToken{tokenOf(m.t, s, v, tokens.ReadOptions{}, blockdev.Range{Length: modelBytes}), data, by})
}

// step writes a token to another server while one of the two, or the third, is killed.
func (m *model) step() {
	for len(m.tokens) < 6 {
		m.make(m.rng.IntN(len(m.servers)))
	}
	token := m.tokens[m.rng.IntN(len(m.tokens))]
	to := (token.by + 1 + m.rng.IntN(2)) % len(m.servers)
	dst := m.servers[to].Volume("d"+time.Now().Format("150405.000000000"), modelBytes, nil)
	must.Succeed(m.t, m.servers[to].Store.Flush(ctx))
	killed := m.rng.IntN(len(m.servers))
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	var n int64
	var err error
	reached, written := m.countdown(), make(chan struct{})
	go func() {
		defer close(written)
		n, err = m.servers[to].Tokens.OffloadWrite(running, token.token, 0, offload.Destination{Volume: dst, BlockLength: 512},
			[]blockdev.Range{{Length: modelBytes}}, tokens.WriteOptions{Requester: tokens.Requester{Initiator: "i"}})
	}()
	select {
	case <-reached:
	case <-written:
		m.after++
	}
	if killed == to {
		cancel()
		<-written
	}
	if killed != to {
		m.servers[killed].Kill(m.rng)
		m.servers[killed].Start()
		<-written
		m.compare(dst, token, n, err)
		return
	}
	if n > 0 {
		must.Succeed(m.t, m.servers[to].Store.Flush(ctx)) // as copymgr does before it answers
	}
	m.servers[to].Kill(m.rng)
	m.servers[to].Start()
	again, found := m.servers[to].Store.Volume(dst.Name())
	must.Succeed(m.t, found)
	m.compare(again, token, n, nil)
}

// countdown returns a channel that is closed at a step to come of any server: a change of a
// disk, or an answer that crosses the wire.
func (m *model) countdown() <-chan struct{} {
	reached, at := make(chan struct{}), 1+m.rng.Int64N(modelSteps)
	var count atomic.Int64
	for _, s := range m.servers {
		s.OnStep(func() {
			if count.Add(1) == at {
				close(reached)
			}
		})
	}
	return reached
}

// compare compares what a write says it has done with what is there.
func (m *model) compare(dst *backstore.Volume, token modelToken, n int64, err error) {
	m.t.Helper()
	got := content(m.t, dst)
	if !bytes.Equal(got[:n], token.data[:n]) {
		m.t.Fatalf("%d bytes done, and others are there", n)
	}
	for at := n; at < modelBytes; at += 4096 { // the rest: the token's, or none
		end := min(at+4096, modelBytes)
		if part := got[at:end]; !bytes.Equal(part, token.data[at:end]) && !bytes.Equal(part, make([]byte, end-at)) {
			m.t.Fatalf("the block at %d is neither the token's nor as it was", at)
		}
	}
	if err != nil && !errors.Is(err, tokens.ErrRemote) && !errors.Is(err, context.Canceled) && !errors.Is(err, blockdev.ErrBusy) {
		m.t.Fatalf("after %d bytes: %v", n, err)
	}
}

// end waits for the leases, and looks for what was left.
func (m *model) end() {
	for _, s := range m.servers {
		noHolds(m.t, s, 10*time.Second)
		for _, info := range s.Tokens.List() {
			if info.InUse != 0 {
				m.t.Errorf("server %s: a token is in use by %d", s.Name, info.InUse)
			}
			must.Succeed(m.t, s.Tokens.Delete(ctx, info.ID, tokens.Revoked))
		}
		f, err := s.Store.Figures()
		must.Succeed(m.t, err)
		if f.Snapshots != 0 {
			m.t.Errorf("server %s: %d snapshots are left", s.Name, f.Snapshots)
		}
		findings, err := s.Store.Check(ctx)
		must.Succeed(m.t, err)
		if len(findings) > 0 {
			m.t.Errorf("server %s: %v", s.Name, findings)
		}
	}
}
