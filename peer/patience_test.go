package peer_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"odx/blockdev"
	"odx/internal/kit/sample"
	"odx/offload"
	"odx/peer/peertest"
	"odx/tokens"
)

var errOutOfTime = errors.New("the time of the command is over")

// command writes a token from a byte on as a command does that has some time.
func command(task context.Context, s *peertest.Server, token *tokens.Token, dst blockdev.Volume, at, length int64, d time.Duration) (int64, error) {
	limited, cancel := blockdev.WithTime(task, d, errOutOfTime)
	defer cancel()
	return s.Tokens.OffloadWrite(limited, token, at, offload.Destination{Volume: dst, BlockLength: 512},
		[]blockdev.Range{{Offset: at, Length: length}}, tokens.WriteOptions{Requester: tokens.Requester{Initiator: "i"}})
}

// every returns what fails each n-th step, beginning with the n-th.
func every(n int64, err error) func() error {
	var steps atomic.Int64
	return func() error {
		if steps.Add(1)%n == 0 {
			return err
		}
		return nil
	}
}

// TestTokens_SlowLink: a token that comes over a link which its own copy fills, in many commands
// whose time ends in the middle of requests, is never refused: not where a connection cannot be
// made in time, nor where one is reset, which happens all along.
func TestTokens_SlowLink(t *testing.T) {
	size := sample.Size[int64](16<<20, 256<<20, 256<<20)
	a, b := pair(t, peertest.Options{})
	data := peertest.Random(1, int(size))
	src, dst := a.Volume("src", size, data), b.Volume("dst", size, nil)
	token := tokenOf(t, a, src, tokens.ReadOptions{}, blockdev.Range{Length: size})
	// 1 Gbit/s: the time of a command is short of that of its requests, as on a busy machine.
	a.Through(peertest.Link{Rate: 125e6, Dial: every(3, os.ErrDeadlineExceeded), Read: every(400, syscall.ECONNRESET)})
	commands, none := 0, 0
	for done := int64(0); done < size; commands++ {
		n, err := command(ctx, b, token, dst, done, min(size-done, 64<<20), 250*time.Millisecond)
		switch {
		case errors.Is(err, tokens.ErrRemote), err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errOutOfTime) && !errors.Is(err, blockdev.ErrBusy):
			t.Fatalf("command %d, at byte %d: %d bytes done, %v", commands, done, n, err)
		case n > 0:
			none = 0
		default:
			if none++; none > 100 {
				t.Fatalf("%d commands did nothing, the last one: %v", none, err)
			}
		}
		done += n
	}
	t.Logf("%d commands", commands)
	a.Through(peertest.Link{})
	if !bytes.Equal(content(t, dst), data) {
		t.Error("other bytes")
	}
}

// TestTokens_Lost: a peer that is lost in the middle of a copy has its commands be busy until it
// has failed for some time; then the token is one made elsewhere, and the error names the peer.
func TestTokens_Lost(t *testing.T) {
	const size = 1 << 20
	a, b := pair(t, peertest.Options{})
	b.Remote.Hurry(200*time.Millisecond, time.Second)
	src, dst := a.Volume("src", size, peertest.Random(1, size)), b.Volume("dst", size, nil)
	token := tokenOf(t, a, src, tokens.ReadOptions{}, blockdev.Range{Length: size})
	if n, err := command(ctx, b, token, dst, 0, size/2, time.Second); n != size/2 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	began := time.Now()
	a.CutOff(true)
	busy := 0
	for {
		n, err := command(ctx, b, token, dst, size/2, size/2, 150*time.Millisecond)
		took := time.Since(began)
		switch {
		case n != 0 || err == nil:
			t.Fatalf("%d, %v", n, err)
		case took > 10*time.Second:
			t.Fatalf("still %v after %v", err, took)
		case !errors.Is(err, tokens.ErrRemote):
			busy++
			continue
		case took < time.Second || busy == 0:
			t.Errorf("refused after %v, %d commands were busy: %v", took, busy, err)
		case !strings.Contains(err.Error(), ": a: "):
			t.Errorf("no name of the peer: %v", err)
		}
		break
	}
	a.CutOff(false)
	for end := time.Now().Add(20 * time.Second); ; {
		n, err := command(ctx, b, token, dst, size/2, size/2, time.Second)
		if n == size/2 && err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after it was back: %d, %v", n, err)
		}
	}
}

// TestTokens_Aborted: a command that is aborted while its token is being opened ends, also where
// its time for data was over before.
func TestTokens_Aborted(t *testing.T) {
	a, b := pair(t, peertest.Options{})
	b.Remote.Hurry(time.Hour, time.Hour)
	src, dst := a.Volume("src", 1<<20, nil), b.Volume("dst", 1<<20, nil)
	token := tokenOf(t, a, src, tokens.ReadOptions{}, blockdev.Range{Length: 1 << 20})
	a.CutOff(true)
	for _, after := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond} {
		task, abort := context.WithCancel(ctx)
		time.AfterFunc(after, abort)
		began := time.Now()
		n, err := command(task, b, token, dst, 0, 1<<20, 50*time.Millisecond)
		if n != 0 || err == nil || errors.Is(err, tokens.ErrRemote) {
			t.Errorf("aborted after %v: %d, %v", after, n, err)
		}
		if took := time.Since(began); took < after/2 || took > 5*time.Second {
			t.Errorf("aborted after %v, it took %v", after, took)
		}
	}
}
