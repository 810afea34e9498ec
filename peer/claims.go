package peer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	v1 "odx/api/v1"
	"odx/backstore"
)

const (
	// claimDelay is how long claims wait for others that come up, and for the first try after a
	// failure.
	claimDelay = time.Second
	// claimEvery is how often each peer gets claims though none is due.
	claimEvery = time.Hour
	// maxClaimDelay bounds how long a claim that failed waits.
	maxClaimDelay = time.Minute
	claimTime     = 20 * time.Second
)

// Claims reports to the peers of a server which of their segments its store needs, so that they end
// the other holds: when it begins, when segments are not needed any more, and once an hour. Close ends
// it.
type Claims struct {
	store *backstore.Store
	peers *Directory
	log   *logrus.Entry

	stop    context.CancelFunc
	running sync.WaitGroup
}

// NewClaims begins to send claims.
func NewClaims(store *backstore.Store, peers *Directory, log *logrus.Entry) *Claims {
	c := &Claims{store: store, peers: peers, log: log}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.running.Go(func() { c.loop(ctx) })
	return c
}

// Close ends sending claims. What is due is due again when the store is opened.
func (c *Claims) Close() {
	c.stop()
	c.running.Wait()
}

// loop sends claims until ctx ends.
func (c *Claims) loop(ctx context.Context) {
	sent := make(map[[16]byte]time.Time)
	wait, soon := claimDelay, false // soon: the timer is for what is due
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.store.ClaimsDue():
			if !soon { // what comes up all the time must not put it off
				soon = true
				timer.Reset(claimDelay)
			}
			continue
		case <-timer.C:
		}
		if soon = !c.sendDue(ctx, sent); !soon {
			wait = claimDelay
			timer.Reset(maxClaimDelay) // peers that are configured later
		} else {
			timer.Reset(wait)
			wait = min(2*wait, maxClaimDelay)
		}
	}
}

// sendDue sends claims to the peers that are to get one, and reports whether all were settled.
func (c *Claims) sendDue(ctx context.Context, sent map[[16]byte]time.Time) (all bool) {
	all = true
	owed := c.store.Owed()
	for _, p := range c.peers.All() {
		at, before := sent[p.Store()]
		if before && time.Since(at) < claimEvery && !slices.Contains(owed, p.Store()) {
			continue
		}
		if err := c.Send(ctx, p); err != nil {
			// One that is not there is owed it still, if anything.
			all = all && !slices.Contains(owed, p.Store())
			continue
		}
		sent[p.Store()] = time.Now()
	}
	return all
}

// Send sends the claims on a peer, which lends nothing if it is an older server.
func (c *Claims) Send(ctx context.Context, p Peer) error {
	claims, settled := c.store.Claims(p.Store())
	for i := range claims {
		missing, err := sendClaim(ctx, p, &claims[i], false)
		if errors.Is(err, backstore.ErrNotFound) && len(claims[i].Segments) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			c.log.WithField("peer", p.Name()).WithField("segments", len(missing)).
				Error("the peer does not hold segments that data of this store lies in: it can be lost there")
		}
	}
	settled()
	return nil
}

// sendClaim sends one claim, and returns the segments that are not held.
func sendClaim(ctx context.Context, p Peer, c *backstore.Claim, check bool) (missing []uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	store := p.Store()
	var a v1.PeerClaimed
	err = p.Call(ctx, http.MethodPost, Path+"claims", v1.PeerClaim{
		Store: fmt.Sprintf("%x", store), Taker: fmt.Sprintf("%x", c.Taker), Epoch: c.Stamp.Epoch, Seq: c.Stamp.Seq,
		First: c.First, Last: c.Last, Segments: orNone(c.Segments), Check: check,
	}, &a)
	return a.Missing, err
}

// Check asks the peers whether they hold what the store needs, and returns what they do not, or
// cannot say. Nothing changes.
func (c *Claims) Check(ctx context.Context) (findings []string, err error) {
	for _, maker := range c.store.Makers() {
		p, ok := c.peers.Resolve(maker)
		if !ok {
			findings = append(findings, fmt.Sprintf("data lies in segments of store %x, which is no peer: it is not known whether they are held", maker))
			continue
		}
		claims, _ := c.store.Claims(maker)
		for i := range claims {
			missing, err := sendClaim(ctx, p, &claims[i], true)
			if ctx.Err() != nil {
				return findings, ctx.Err()
			}
			if err != nil {
				findings = append(findings, fmt.Sprintf("data lies in %d segments of peer %s, and it is not known whether they are held: %v", len(claims[i].Segments), p.Name(), err))
				continue
			}
			if len(missing) > 0 {
				findings = append(findings, fmt.Sprintf("data lies in %d segments of peer %s that are not held there, the first one %08x", len(missing), p.Name(), missing[0]))
			}
		}
	}
	return findings, nil
}
