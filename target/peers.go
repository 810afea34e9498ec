package target

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"sync/atomic"

	"golang.org/x/time/rate"

	"odx/admin"
	"odx/audit"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/peer"
	"odx/tokens"
)

// maxPeerPEM bounds the files of certificates of peers, in bytes.
const maxPeerPEM = 1 << 20

// peers are the other servers of a service: what it gives them, and what it has of them.
type peers struct {
	directory peer.Directory
	keeper    *peer.Keeper
	tokens    *peer.Tokens
	claims    *peer.Claims
	// pace has, by the name of a peer, what bounds its reads.
	pace atomic.Pointer[map[string]*rate.Limiter]
}

// Peers returns the other servers of the configuration.
func (s *Service) Peers() *peer.Directory { return &s.peers.directory }

// Keeper returns what gives holds to other servers.
func (s *Service) Keeper() *peer.Keeper { return s.peers.keeper }

// Claims returns what proves that other servers hold what the store has adopted.
func (s *Service) Claims() *peer.Claims { return s.peers.claims }

// openPeers begins to serve peers, and to resolve their tokens. The store is open.
func (s *Service) openPeers(cfg *conf.Config) error {
	list, unwise, err := readPeers(cfg)
	if err != nil {
		return err
	}
	for _, w := range unwise {
		s.log.Warn(w)
	}
	p := &s.peers
	p.directory.Replace(list)
	p.limit(cfg)
	memory := s.admin.Memory().Copies
	p.keeper = peer.NewKeeper(peer.KeeperOptions{
		Store: s.store, Tokens: s.tokens, Pace: p.wait, Named: s.replicas.Snapshot,
		Given: func(ctx context.Context, of string, err error) {
			s.audit.Sum(ctx, audit.Change{What: "peer hold", Subject: of, Err: err}, 0)
		},
		Limits: peer.Limits{Memory: max(memory/4, 2<<20)},
	})
	p.tokens = peer.NewTokens(&p.directory, max(memory/2, 2<<20))
	s.tokens.SetRemote(p.tokens)
	p.claims = peer.NewClaims(s.store, &p.directory, s.log)
	s.Follow(s.followPeers)
	return nil
}

// closePeers ends all holds. No command is under way, and the store is still open.
func (s *Service) closePeers() {
	if s.peers.keeper == nil {
		return
	}
	s.peers.claims.Close()
	s.peers.tokens.Close()
	s.peers.keeper.Close()
	s.peers.directory.Close()
}

// followPeers prepares other peers.
func (s *Service) followPeers(next *conf.Config) (Prepared, error) {
	list, unwise, err := readPeers(next)
	if err != nil {
		return Prepared{}, err
	}
	return Prepared{
		Warnings: unwise,
		Undo:     func() {},
		Commit: func() {
			s.peers.directory.Replace(list)
			s.peers.limit(next)
		},
	}, nil
}

// limit adopts the limits of what peers read.
func (p *peers) limit(cfg *conf.Config) {
	next := map[string]*rate.Limiter{}
	if now := p.pace.Load(); now != nil {
		maps.Copy(next, *now)
	}
	for _, c := range cfg.Peers {
		if c.ReadBytesPerSecond == 0 {
			delete(next, c.Name)
			continue
		}
		l := next[c.Name]
		if l == nil {
			// A request reads at most 4 MiB.
			l = rate.NewLimiter(rate.Limit(c.ReadBytesPerSecond), 4<<20)
			next[c.Name] = l
		}
		l.SetLimit(rate.Limit(c.ReadBytesPerSecond))
	}
	p.pace.Store(&next)
}

// wait waits until a peer may read n bytes.
func (p *peers) wait(ctx context.Context, name string, n int64) error {
	l := (*p.pace.Load())[name]
	if l == nil {
		return nil
	}
	return l.WaitN(ctx, int(n))
}

// readPeers reads the files that the configuration of peers names. Errors are
// conf.Problems.
func readPeers(cfg *conf.Config) (list []*peer.Remote, warnings []string, err error) {
	var problems conf.Problems
	for i := range cfg.Peers {
		c := &cfg.Peers[i]
		o := peer.RemoteOptions{Name: c.Name, Store: c.Store, Addresses: c.Addresses}
		at := func(key string, err error, warning string) {
			if err != nil {
				problems = append(problems, cfg.Problem(key, "%v", err))
			}
			if warning != "" {
				warnings = append(warnings, fmt.Sprintf("peer %s: %s", c.Name, warning))
			}
		}
		if c.Secret.Given() {
			secret, warning, err := c.Secret.Read()
			at(c.Secret.Key, err, warning)
			o.Secret = secret
		}
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if c.CA != "" {
			text, err := conf.ReadFile(c.CA, maxPeerPEM)
			o.TLS.RootCAs = x509.NewCertPool()
			if err == nil && !o.TLS.RootCAs.AppendCertsFromPEM(text) {
				err = fmt.Errorf("%s has no certificate in PEM", c.CA)
			}
			at(c.Key+".ca", err, "")
		}
		if c.Certificate != "" {
			pair, warning, err := loadPair(c.Certificate, c.PrivateKey)
			at(c.Key+".certificate", err, warning)
			o.TLS.Certificates = []tls.Certificate{pair}
		}
		list = append(list, peer.NewRemote(o))
	}
	if problems != nil {
		return nil, nil, problems
	}
	return list, warnings, nil
}

// loadPair reads a certificate and its private key.
func loadPair(certificate, key string) (pair tls.Certificate, warning string, err error) {
	public, err := conf.ReadFile(certificate, maxPeerPEM)
	if err != nil {
		return pair, "", err
	}
	private, warning, err := conf.ReadPrivateFile(key, maxPeerPEM)
	if err != nil {
		return pair, "", err
	}
	pair, err = tls.X509KeyPair(public, private)
	return pair, warning, err
}

// Peers implements admin.Server.
func (v served) Peers(ctx context.Context) admin.Peers {
	p := &v.service.peers
	p.directory.Ask(ctx)
	all := admin.Peers{Peers: p.list(), Holds: []admin.PeerHold{}}
	for _, h := range p.keeper.Holds() {
		all.Holds = append(all.Holds, admin.PeerHold{
			Peer: h.Peer, Of: h.Of, Bytes: h.Length, ReadBytes: h.Read, Since: h.Since.UTC(), LeaseMS: h.Left.Milliseconds(),
		})
	}
	return all
}

// Unheld implements admin.Server.
func (v served) Unheld(ctx context.Context) ([]string, error) {
	return v.service.peers.claims.Check(ctx)
}

// list describes the peers, as they were when they were asked last.
func (p *peers) list() []admin.Peer {
	list := []admin.Peer{}
	for _, s := range p.directory.Status() {
		x := admin.Peer{
			Name: s.Name, Store: hex.EncodeToString(s.Store[:]), Addresses: s.Addresses, Up: s.Up, Problem: s.Problem,
			Requests: s.Requests, Failures: s.Failures, FetchedBytes: s.Fetched, MappedBytes: s.Mapped, WireBytes: s.Wire,
		}
		if !s.Heard.IsZero() {
			x.Heard = new(s.Heard.UTC())
		}
		list = append(list, x)
	}
	return list
}

// figures counts what peers have of this server.
func (p *peers) figures() admin.HoldFigures {
	s := p.keeper.Stats()
	return admin.HoldFigures{Now: int64(s.Holds), Given: s.Given, Expired: s.Expired, ReadBytes: s.ReadBytes}
}

// PeerTokens implements admin.Server.
func (v served) PeerTokens(ctx context.Context) []admin.PeerTokens {
	list := []admin.PeerTokens{}
	for _, p := range v.service.peers.directory.Tokens(ctx) {
		x := admin.PeerTokens{Peer: p.Peer, Tokens: []admin.TokenInfo{}, More: p.More}
		if p.Err != nil {
			x.Problem = p.Err.Error()
		}
		for _, t := range p.Tokens {
			x.Tokens = append(x.Tokens, admin.InfoOf(t))
		}
		list = append(list, x)
	}
	return list
}

// CreatePeerToken implements admin.Server.
func (v served) CreatePeerToken(ctx context.Context, r admin.PeerTokenRequest) (*tokens.Token, tokens.Info, error) {
	p, ok := v.service.peers.directory.ByName(r.Peer)
	if !ok {
		return nil, tokens.Info{}, fmt.Errorf("peer %s: %w: the configuration names no such peer", r.Peer, backstore.ErrNotFound)
	}
	return peer.MakeToken(ctx, p, r.Volume, blockdev.Range{Offset: r.Offset, Length: r.Length}, r.Options)
}
