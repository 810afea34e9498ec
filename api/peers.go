package api

import (
	"context"
	"net/http"

	"odx/admin"
	v1 "odx/api/v1"
)

// peerRoutes are the routes of what an administrator sees of other servers, and of tokens of
// files. What servers ask of each other is package peer's.
var peerRoutes = []route{
	{http.MethodGet, "/v1/peers", "The other servers of the configuration, asked now, and what they have of this one.", http.StatusOK, long, reads, looks, func(c *call) (any, error) {
		return asV1(PeersV1)(c.admin.Peers(c.ctx))
	}},
	{http.MethodGet, "/v1/peers/tokens", "The live tokens of the other servers, asked now.", http.StatusOK, long, reads, looks, func(c *call) (any, error) {
		list, err := c.admin.PeerTokens(c.ctx)
		return each(TokensOfPeerV1)(list), err
	}},
	{http.MethodPost, "/v1/files/{name}/token", "Make a token that stands for a file as it is now, to be written to a LUN of this server or of a peer.", http.StatusCreated, short, operates, changes("file token"), func(c *call) (any, error) {
		var p v1.FileTokenRequest
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		c.subject(fileSubject(c.request.PathValue("name")))
		c.changed.After = v1.TokenInfo{} // never the token, which is the right to use it
		made, err := c.admin.CreateToken(c.ctx, fileTokenOf(p, c.request.PathValue("name")))
		if err != nil {
			return nil, err
		}
		c.changed.After = TokenInfoV1(made.TokenInfo)
		return MadeTokenV1(made), nil
	}},
}

// fileTokenOf returns the request for a token of a file.
func fileTokenOf(p v1.FileTokenRequest, name string) admin.TokenRequest {
	return tokenRequestOf(v1.TokenRequest{
		Volume: admin.FilePrefix + name, Offset: p.Offset, Length: p.Length, Type: p.Type,
		InactivitySeconds: p.InactivitySeconds, Priority: p.Priority, Access: p.Access,
	})
}

// Peers implements admin.Peerer.
func (c *Client) Peers(ctx context.Context) (admin.Peers, error) {
	return requestAs(ctx, c, http.MethodGet, "/v1/peers", nil, peersOf)
}

// PeerTokens implements admin.Peerer.
func (c *Client) PeerTokens(ctx context.Context) ([]admin.PeerTokens, error) {
	list, err := roundTrip[[]v1.TokensOfPeer](ctx, c, http.MethodGet, "/v1/peers/tokens", nil)
	if err != nil {
		return nil, err
	}
	all := make([]admin.PeerTokens, len(list))
	for i, p := range list {
		all[i] = admin.PeerTokens{Peer: p.Peer, Problem: p.Problem, More: p.More}
		if all[i].Tokens, err = tokenInfosOf(p.Tokens); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// PeersV1 returns the JSON of the other servers of a server.
func PeersV1(p admin.Peers) v1.Peers {
	return v1.Peers{
		Peers: each(func(p admin.Peer) v1.Peer { return v1.Peer(p) })(p.Peers),
		Holds: each(func(h admin.PeerHold) v1.HoldInfo { return v1.HoldInfo(h) })(p.Holds),
	}
}

func peersOf(p v1.Peers) admin.Peers {
	return admin.Peers{
		Peers: each(func(p v1.Peer) admin.Peer { return admin.Peer(p) })(p.Peers),
		Holds: each(func(h v1.HoldInfo) admin.PeerHold { return admin.PeerHold(h) })(p.Holds),
	}
}

// TokensOfPeerV1 returns the JSON of the tokens of a peer.
func TokensOfPeerV1(p admin.PeerTokens) v1.TokensOfPeer {
	return v1.TokensOfPeer{Peer: p.Peer, Problem: p.Problem, Tokens: TokenInfosV1(p.Tokens), More: p.More}
}
