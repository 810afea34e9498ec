package pair

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	v1 "odx/api/v1"
	"odx/audit"
	"odx/backstore"
	"odx/blockdev"
	"odx/peer"
)

// Path is where requests about pairs go.
const Path = peer.Path + "replicas"

// maxRequest bounds the body of a request, in bytes.
const maxRequest = 64 << 10

// kinds are the refusals that cross the wire.
var kinds = []struct {
	kind  string
	cause error
}{
	{"no_pair", ErrNoPair}, {"no_common", ErrNoCommon}, {"role", ErrRole}, {"busy", ErrBusy}, {"not_found", backstore.ErrNotFound},
	{"exists", backstore.ErrExists}, {"space", backstore.ErrNoSpace}, {"closed", blockdev.ErrClosed}, {"corrupt", blockdev.ErrCorrupt}, {"invalid", blockdev.ErrInvalid},
}

const failedKind = "failed"

// PeerHandler serves the requests of other servers about pairs. The caller has checked that
// they come from a peer, whose name the actor of their context has (package audit).
func (m *Manager) PeerHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m.serveHTTP(req, http.MaxBytesReader(w, req.Body, maxRequest)))
	})
}

func (m *Manager) serveHTTP(req *http.Request, body interface{ Read([]byte) (int, error) }) v1.ReplicaAnswer {
	var wire v1.ReplicaRequest
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&wire); err != nil {
		return refusalV1(fmt.Errorf("%w: %w", blockdev.ErrInvalid, err))
	}
	q, err := requestOf(wire)
	if err != nil {
		return refusalV1(err)
	}
	if q.Op == opList {
		return m.listed(q)
	}
	// What is asked for is done as a whole: the other side may be gone before its answer.
	a, err := m.Serve(context.WithoutCancel(req.Context()), audit.From(req.Context()).Name, q)
	if err != nil {
		m.log.WithField("pair", q.Pair).WithField("request", string(q.Op)).WithError(err).Debug("request of a peer refused")
		return refusalV1(err)
	}
	return answerV1(a)
}

// listed is the answer to opList.
func (m *Manager) listed(q Request) v1.ReplicaAnswer {
	list, err := m.Offered(q.From, q.Object)
	if err != nil {
		return refusalV1(err)
	}
	a := v1.ReplicaAnswer{Sources: make([]v1.ReplicaSource, 0, len(list))}
	for _, o := range list {
		s := v1.ReplicaSource{Object: o.Object}
		for _, id := range o.Pairs {
			s.Pairs = append(s.Pairs, id.String())
		}
		a.Sources = append(a.Sources, s)
	}
	return a
}

// offeredOf is its inverse.
func offeredOf(list []v1.ReplicaSource) ([]Offered, error) {
	if len(list) > maxOffered {
		return nil, fmt.Errorf("%w: %d sources", peer.ErrProtocol, len(list))
	}
	var offered []Offered
	for _, s := range list {
		o := Offered{Object: s.Object}
		for _, text := range s.Pairs {
			id, err := idOf(text)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", peer.ErrProtocol, err)
			}
			o.Pairs = append(o.Pairs, id)
		}
		offered = append(offered, o)
	}
	return offered, nil
}

// refusalV1 is the answer for an error.
func refusalV1(err error) v1.ReplicaAnswer {
	for _, k := range kinds {
		if errors.Is(err, k.cause) {
			return v1.ReplicaAnswer{Refused: k.kind, Message: err.Error()}
		}
	}
	return v1.ReplicaAnswer{Refused: failedKind, Message: err.Error()}
}

// maxMessage bounds what is shown of the text of a peer.
const maxMessage = 500

// refusalOf is its inverse.
func refusalOf(name string, a v1.ReplicaAnswer) error {
	e := &RefusedError{Peer: name, Text: cmp.Or(a.Message, a.Refused)}
	if len(e.Text) > maxMessage {
		e.Text = e.Text[:maxMessage]
	}
	for _, k := range kinds {
		if k.kind == a.Refused {
			e.Cause = k.cause
		}
	}
	return e
}

// idText returns an ID as it crosses the wire; "" for none.
func idText(id ID) string {
	if id == (ID{}) {
		return ""
	}
	return id.String()
}

// idOf is its inverse.
func idOf(text string) (id ID, err error) {
	if text == "" {
		return id, nil
	}
	if err := id.UnmarshalText([]byte(text)); err != nil {
		return id, fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	return id, nil
}

func requestV1(q Request) v1.ReplicaRequest {
	return v1.ReplicaRequest{
		Op: string(q.Op), Pair: idText(q.Pair), From: idText(q.From), Name: q.Name, Object: q.Object, Epoch: q.Epoch,
		Point: idText(q.Point), Known: idText(q.Known), Resume: idText(q.Resume), Full: q.Full, Units: q.Units,
	}
}

func requestOf(w v1.ReplicaRequest) (q Request, err error) {
	q = Request{Op: Op(w.Op), Name: w.Name, Object: w.Object, Epoch: w.Epoch, Full: w.Full, Units: w.Units}
	var from ID
	for _, x := range []struct {
		to   *ID
		text string
	}{{&q.Pair, w.Pair}, {&from, w.From}, {&q.Point, w.Point}, {&q.Known, w.Known}, {&q.Resume, w.Resume}} {
		var bad error
		*x.to, bad = idOf(x.text)
		err = errors.Join(err, bad)
	}
	q.From = from
	return q, err
}

func answerV1(a Answer) v1.ReplicaAnswer {
	return v1.ReplicaAnswer{
		Role: string(a.Role), Epoch: a.Epoch, Identity: idText(a.Identity), Object: a.Object, Common: idText(a.Common),
		Point: idText(a.Point), AgeMS: a.Age.Milliseconds(), Final: a.Final, Units: unitsV1(a.Units),
	}
}

// maxAge bounds the age that a peer can say a point has: what is later than ten years is not
// known.
const maxAge = 10 * 365 * 24 * time.Hour

func answerOf(w v1.ReplicaAnswer) (a Answer, err error) {
	a = Answer{Role: Role(w.Role), Epoch: w.Epoch, Object: w.Object, Final: w.Final, Units: unitRecords(w.Units)}
	a.Age = min(time.Duration(max(w.AgeMS, 0)), maxAge/time.Millisecond) * time.Millisecond
	for _, x := range []struct {
		to   *ID
		text string
	}{{&a.Identity, w.Identity}, {&a.Common, w.Common}, {&a.Point, w.Point}} {
		var bad error
		*x.to, bad = idOf(x.text)
		err = errors.Join(err, bad)
	}
	if err == nil && len(a.Units) > maxUnits {
		err = fmt.Errorf("%d records of a logical unit", len(a.Units))
	}
	if err != nil {
		return a, fmt.Errorf("%w: %w", peer.ErrProtocol, err)
	}
	return a, nil
}

// Over returns the link over a peer.
func Over(p peer.Peer) Link { return overPeer{p} }

type overPeer struct{ peer.Peer }

// Ask implements Link.
func (l overPeer) Ask(ctx context.Context, q Request) (Answer, error) {
	var w v1.ReplicaAnswer
	if err := l.Call(ctx, http.MethodPost, Path, requestV1(q), &w); err != nil {
		return Answer{}, err
	}
	if w.Refused != "" {
		return Answer{}, refusalOf(l.Name(), w)
	}
	return answerOf(w)
}

// Offered implements Link.
func (l overPeer) Offered(ctx context.Context, from [16]byte, prefix string) ([]Offered, error) {
	var w v1.ReplicaAnswer
	if err := l.Call(ctx, http.MethodPost, Path, requestV1(Request{Op: opList, From: from, Object: prefix}), &w); err != nil {
		return nil, err
	}
	if w.Refused != "" {
		return nil, refusalOf(l.Name(), w)
	}
	return offeredOf(w.Sources)
}

// Hold implements Link.
func (l overPeer) Hold(ctx context.Context, pair, point, base ID) (peer.Hold, error) {
	return l.HoldVolume(ctx, pointName(pair, point), pointName(pair, base))
}
