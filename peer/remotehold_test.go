package peer_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/peer"
	"odx/peer/peertest"
)

// TestRemoteHold_Stream: one request has several frames, each of which is used as it comes. Who
// compares no checksums gets no frame that was damaged; who stops gets its own error.
func TestRemoteHold_Stream(t *testing.T) {
	const mib = 1 << 20
	a, _ := pair(t, peertest.Options{})
	data := peertest.Random(1, 8*mib)
	a.Volume("src", 8*mib, data)
	ranges := []blockdev.Range{{Offset: 5 * mib, Length: 4096}, {Offset: mib, Length: 3 * mib}}
	want := slices.Concat(data[5*mib:5*mib+4096], data[mib:4*mib])
	full := errors.New("full")
	for _, tt := range []struct {
		name    string
		damage  int64 // after so many bytes
		checked bool
		stop    int // each fails once it has so many bytes
		good    int // bytes that come
		err     error
	}{
		{"all", 1 << 40, false, 1 << 40, len(want), nil},
		{"all, checked", 1 << 40, true, 1 << 40, len(want), nil},
		{"damaged", 2*mib + mib/2, false, 1 << 40, 2 * mib, peer.ErrProtocol},
		{"damaged, checked", 2*mib + mib/2, true, 1 << 40, 2 * mib, nil},
		{"stopped", 1 << 40, true, 2 * mib, 2 * mib, full},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var at atomic.Int64
			at.Store(1 << 40)
			o := a.Options("b")
			dial := o.Dial
			o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				return changed{c, &at}, err
			}
			r := peer.NewRemote(o)
			defer r.Close()
			h, err := r.HoldVolume(ctx, "src", "")
			must.Succeed(t, err)
			at.Store(tt.damage)
			var got []byte
			err = peer.Stream(ctx, h, ranges, tt.checked, func(p []byte) error {
				if got = append(got, p...); len(got) >= tt.stop {
					return full
				}
				return nil
			})
			at.Store(1 << 40)
			if !errors.Is(err, tt.err) || tt.err == full && err != full {
				t.Errorf("%v, want %v", err, tt.err)
			}
			if len(got) < tt.good || !bytes.Equal(got[:tt.good], want[:tt.good]) {
				t.Errorf("%d bytes came, want %d right ones", len(got), tt.good)
			}
			if tt.err != nil && len(got) != tt.good {
				t.Errorf("%d bytes came, want %d", len(got), tt.good)
			}
			if tt.checked && tt.err == nil && tt.damage < 1<<40 && bytes.Equal(got, want) {
				t.Error("nothing was damaged")
			}
			must.Succeed(t, h.Release(ctx))
			if s := r.Status(); !s.Up {
				t.Errorf("the peer is down: %s", s.Problem)
			}
		})
	}
}
