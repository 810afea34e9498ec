package pair

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	v1 "odx/api/v1"
	"odx/audit"
	"odx/blockdev"
	"odx/peer"
)

// MovePath is where requests about migrations go.
const MovePath = peer.Path + "migrations"

// maxMove bounds the body of a request about a migration, in bytes: it has the reservations
// of a logical unit.
const maxMove = 4 << 20

// The requests of a source to the destination of a migration. All can be repeated.
const (
	// moveOffer makes the other side the destination.
	moveOffer = "offer"
	// moveRound has it do a round; Turn names it. The answer does not wait long for its end.
	moveRound = "round"
	// moveTake has it take over in Epoch with Point, from a source that has given up.
	moveTake = "take"
	// moveKeep says that the source takes its role back in Epoch, unless the destination has
	// taken over. A request to take over in an earlier epoch is refused from then on.
	moveKeep = "keep"
	// moveEnd ends the migration. What has not taken over is deleted.
	moveEnd = "end"
)

// MoveHandler serves the requests of other servers about migrations to this one. The caller
// has checked that they come from a peer.
func (m *Manager) MoveHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m.serveMoveHTTP(req, http.MaxBytesReader(w, req.Body, maxMove)))
	})
}

func (m *Manager) serveMoveHTTP(req *http.Request, body interface{ Read([]byte) (int, error) }) v1.PeerMoveAnswer {
	var q v1.PeerMove
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return moveRefusal(fmt.Errorf("%w: %w", blockdev.ErrInvalid, err))
	}
	// What is asked for is done as a whole: the other side may be gone before its answer.
	a, err := m.ServeMove(context.WithoutCancel(req.Context()), audit.From(req.Context()).Name, q)
	if err != nil {
		m.log.WithField("pair", q.Pair).WithField("request", q.Op).WithError(err).Debug("request of a peer about a migration refused")
		return moveRefusal(err)
	}
	return a
}

// moveRefusal is the answer for an error.
func moveRefusal(err error) v1.PeerMoveAnswer {
	r := refusalV1(err)
	return v1.PeerMoveAnswer{Refused: r.Refused, Message: r.Message}
}

// Move implements Link.
func (l overPeer) Move(ctx context.Context, q v1.PeerMove) (a v1.PeerMoveAnswer, err error) {
	if err := l.Call(ctx, http.MethodPost, MovePath, q, &a); err != nil {
		return v1.PeerMoveAnswer{}, err
	}
	if a.Refused != "" {
		return a, refusalOf(l.Name(), v1.ReplicaAnswer{Refused: a.Refused, Message: a.Message})
	}
	if _, err := idOf(a.Common); err != nil {
		return a, fmt.Errorf("%w: %w", peer.ErrProtocol, err)
	}
	return a, nil
}
