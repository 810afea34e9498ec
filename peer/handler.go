package peer

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	v1 "odx/api/v1"
	"odx/audit"
	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
	"odx/tokens"
)

const (
	// maxRequest bounds the body of a request, in bytes.
	maxRequest = 64 << 10
	// maxWindow bounds the bytes that a request for runs is about.
	maxWindow = 1 << 40
	// maxTokens bounds the tokens of a list.
	maxTokens = 10_000
)

// Handler serves the requests of peers: all below Path. The caller has checked that they
// come from a peer, whose name the actor of their context has (package audit).
func (k *Keeper) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(*http.Request, string) (any, error){
		"GET /v1/peer/hello":             k.hello,
		"POST /v1/peer/holds":            k.serveHold,
		"POST /v1/peer/holds/{id}/renew": k.serveRenew,
		"DELETE /v1/peer/holds/{id}":     k.serveRelease,
		"POST /v1/peer/tokens/show":      k.serveToken,
		"POST /v1/peer/tokens/delete":    k.serveDelete,
		"GET /v1/peer/tokens":            k.serveTokens,
		"POST /v1/peer/tokens":           k.serveMake,
		"POST /v1/peer/claims":           k.serveClaim,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			k.deadline(w)
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
			answer, err := serve(r, peerOf(r))
			respond(w, answer, err)
		})
	}
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request, *held) error{
		"GET /v1/peer/holds/{id}/runs":        k.serveRuns,
		"GET /v1/peer/holds/{id}/differences": k.serveDifferences,
		"POST /v1/peer/holds/{id}/runs":       k.serveRunsOf,
		"POST /v1/peer/holds/{id}/read":       k.serveRead,
		"POST /v1/peer/holds/{id}/lend":       k.serveLend,

		"POST /v1/peer/holds/{id}/fingerprints": k.serveFingerprints,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			k.deadline(w)
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
			if err := k.serveHeld(w, r, serve); err != nil {
				respond(w, nil, err)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		respond(w, nil, fmt.Errorf("%w: no such request of a peer", backstore.ErrNotFound))
	})
	return mux
}

// peerOf returns the name of the caller.
func peerOf(r *http.Request) string { return audit.From(r.Context()).Name }

// deadline bounds the time of a request and its answer. Only a connection of a test knows
// none.
func (k *Keeper) deadline(w http.ResponseWriter) {
	c, end := http.NewResponseController(w), time.Now().Add(k.limits.AnswerTime)
	_, _ = c.SetReadDeadline(end), c.SetWriteDeadline(end)
}

// respond writes an answer without a body of frames.
func respond(w http.ResponseWriter, answer any, err error) {
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(statusOf(err))
		_ = json.NewEncoder(w).Encode(failureOf(err))
		return
	}
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// decode reads the parameters of a request.
func decode(r *http.Request, p any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return fmt.Errorf("%w: parameters: %w", blockdev.ErrInvalid, err)
	}
	return nil
}

// expect returns ErrStore unless the caller means this store.
func (k *Keeper) expect(store string) error {
	if id := k.storeID(); store != id {
		return fmt.Errorf("%w: %s, not %.40q", ErrStore, id, store)
	}
	return nil
}

func (k *Keeper) storeID() string {
	id := k.store.ID()
	return hex.EncodeToString(id[:])
}

func (k *Keeper) hello(*http.Request, string) (any, error) {
	return v1.PeerHello{Version: wireVersion, Store: k.storeID()}, nil
}

func (k *Keeper) serveHold(r *http.Request, peer string) (any, error) {
	var p v1.PeerHoldRequest
	if err := decode(r, &p); err != nil {
		return nil, err
	}
	if err := k.expect(p.Store); err != nil {
		return nil, err
	}
	var h *held
	var err error
	switch {
	case (len(p.Token) > 0) == (p.Volume != ""):
		return nil, fmt.Errorf("%w: a hold is of a token or of a volume", blockdev.ErrInvalid)
	case p.Volume != "":
		h, err = k.holdVolume(r.Context(), peer, p.Volume, p.Base)
		k.given(r.Context(), p.Volume, err)
	case len(p.Token) != tokens.TokenLength:
		err = tokens.ErrInvalidLength
	case p.Hold != "":
		h, err = k.again(peer, holdID(p.Hold), (*tokens.Token)(p.Token), p.Initiator)
	default:
		h, err = k.holdToken(peer, (*tokens.Token)(p.Token), p.Initiator)
		k.given(r.Context(), "token "+(*tokens.Token)(p.Token).ID().String(), err)
	}
	if err != nil {
		return nil, err
	}
	return v1.PeerHold{
		Hold: string(h.id), Store: k.storeID(), Length: h.data.Length(), DedupUnit: k.store.DedupUnit(), LeaseMS: k.limits.Lease.Milliseconds(),
	}, nil
}

// given reports what a peer has asked for.
func (k *Keeper) given(ctx context.Context, of string, err error) {
	if k.asked != nil {
		k.asked(ctx, of, err)
	}
}

func (k *Keeper) serveRenew(r *http.Request, peer string) (any, error) {
	_, done, err := k.use(peer, holdID(r.PathValue("id")))
	if err == nil {
		done()
	}
	return nil, err
}

func (k *Keeper) serveRelease(r *http.Request, peer string) (any, error) {
	k.release(peer, holdID(r.PathValue("id")))
	return nil, nil
}

// serveHeld calls serve with a hold, whose answer is a body of frames. An error is one from
// before the body.
func (k *Keeper) serveHeld(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *http.Request, *held) error) error {
	h, done, err := k.use(peerOf(r), holdID(r.PathValue("id")))
	if err != nil {
		return err
	}
	defer done()
	if h.token != nil {
		if _, err := h.token.Snapshot(); err != nil {
			return err // it has ended, and the policy is to end its copies
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), k.limits.AnswerTime)
	defer cancel()
	defer context.AfterFunc(k.base, cancel)()
	w.Header().Set("Content-Type", "application/octet-stream")
	return serve(w, r.WithContext(ctx), h)
}

// window reads a range of bytes of a hold from the query.
func window(r *http.Request, size int64) (off, length int64, err error) {
	q := r.URL.Query()
	off, err = strconv.ParseInt(q.Get("offset"), 10, 64)
	if err == nil {
		length, err = strconv.ParseInt(q.Get("length"), 10, 64)
	}
	if err != nil || length > maxWindow {
		return 0, 0, fmt.Errorf("%w: offset and length in the query", blockdev.ErrInvalid)
	}
	if !(blockdev.Range{Offset: off, Length: length}).In(size) {
		return 0, 0, fmt.Errorf("%w: %d bytes at %d, %d are held", blockdev.ErrRange, length, off, size)
	}
	return off, length, nil
}

func (k *Keeper) serveRuns(w http.ResponseWriter, r *http.Request, h *held) error {
	off, length, err := window(r, h.data.Length())
	if err != nil {
		return err
	}
	out := newRunWriter(w)
	_ = out.end(h.data.Runs(r.Context(), off, length, out.add)) // fails only if the peer has left
	return nil
}

// serveRunsOf is serveRuns of many ranges.
func (k *Keeper) serveRunsOf(w http.ResponseWriter, r *http.Request, h *held) error {
	ranges, _, err := parseRanges(r.Body, h.data.Length(), maxWindow)
	if err != nil {
		return err
	}
	out := newRunWriter(w)
	for _, x := range ranges {
		if err = h.data.Runs(r.Context(), x.Offset, x.Length, out.add); err != nil {
			break
		}
	}
	_ = out.end(err) // as above
	return nil
}

func (k *Keeper) serveDifferences(w http.ResponseWriter, r *http.Request, h *held) error {
	off, length, err := window(r, h.data.Length())
	if err != nil {
		return err
	}
	out := newDifferenceWriter(w, off)
	_ = out.end(h.data.Diff(r.Context(), h.base, off, length, out.add)) // as above
	return nil
}

// unsummed is the query of a request for bytes whose frames need no checksum of the content.
const unsummed = "sums=blocks"

// buffers are those of answers with bytes.
var buffers = sync.Pool{New: func() any { return new([maxContent]byte) }}

func (k *Keeper) serveRead(w http.ResponseWriter, r *http.Request, h *held) error {
	ranges, total, err := parseRanges(r.Body, h.data.Length(), maxReadBytes)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if k.pace != nil {
		if err := k.pace(ctx, h.peer, total); err != nil {
			return fmt.Errorf("%w: %w", blockdev.ErrBusy, err) // it may read on later
		}
	}
	if err := k.memory.Take(ctx, h.peer, maxContent); err != nil {
		return err
	}
	defer k.memory.Release(h.peer, maxContent)
	buf := buffers.Get().(*[maxContent]byte)
	defer buffers.Put(buf)
	out := newFrameWriter(w, bodyBytes)
	out.unsummed = r.URL.RawQuery == unsummed
	err = sendRanges(ctx, out, h.data, ranges, buf[:])
	_ = out.end(err) // as above
	if err == nil {
		k.numbers.readBytes.Add(total)
		k.mu.Lock()
		h.read += total
		k.mu.Unlock()
	}
	return nil
}

// sendRanges sends the bytes of ranges, laid end to end, in frames as long as buf.
func sendRanges(ctx context.Context, out *frameWriter, s offload.Snapshot, ranges []blockdev.Range, buf []byte) error {
	n := 0 // of buf
	for _, x := range ranges {
		for x.Length > 0 {
			part := buf[n:min(int64(len(buf)), int64(n)+x.Length)]
			if err := s.ReadAt(ctx, part, x.Offset); err != nil {
				return err
			}
			x.Offset, x.Length = x.Offset+int64(len(part)), x.Length-int64(len(part))
			if n += len(part); n == len(buf) {
				if err := out.content(buf); err != nil {
					return err
				}
				n = 0
			}
		}
	}
	if n == 0 {
		return nil
	}
	return out.content(buf[:n])
}

// bytesReader reads a body of bytes.
type bytesReader struct {
	f    *frameReader
	left int64 // bytes that are to come
}

// newBytesReader reads the header of a body of length bytes. checked: as in frameReader.
func newBytesReader(r io.Reader, length int64, checked bool) (*bytesReader, error) {
	f, err := newFrameReader(r, bodyBytes)
	if err != nil {
		return nil, err
	}
	f.checked = checked
	return &bytesReader{f, length}, nil
}

// fill fills p with what comes next; no frame reaches beyond it.
func (b *bytesReader) fill(p []byte) error {
	for len(p) > 0 {
		n, err := b.f.next(min(maxContent, len(p)))
		if err == io.EOF {
			return fmt.Errorf("%w: the body lacks %d bytes", ErrProtocol, b.left)
		}
		if err != nil {
			return err
		}
		if err := b.f.fill(p[:n]); err != nil {
			return err
		}
		p, b.left = p[n:], b.left-int64(n)
	}
	return nil
}

// end reads the end of a body that was read.
func (b *bytesReader) end() error {
	switch _, err := b.f.next(maxContent); err {
	case io.EOF:
		return nil
	case nil:
		return fmt.Errorf("%w: more bytes than were asked for", ErrProtocol)
	default:
		return err
	}
}

// readBytes fills p with the content of a body of just as many bytes.
func readBytes(r io.Reader, p []byte) error {
	b, err := newBytesReader(r, int64(len(p)), false)
	if err != nil {
		return err
	}
	if err := b.fill(p); err != nil {
		return err
	}
	return b.end()
}

// token decodes a request about a token.
func (k *Keeper) token(r *http.Request, peer string) (*tokens.Token, tokens.Requester, error) {
	var p v1.PeerTokenRequest
	if err := decode(r, &p); err != nil {
		return nil, tokens.Requester{}, err
	}
	if err := k.expect(p.Store); err != nil {
		return nil, tokens.Requester{}, err
	}
	if len(p.Token) != tokens.TokenLength {
		return nil, tokens.Requester{}, tokens.ErrInvalidLength
	}
	return (*tokens.Token)(p.Token), tokens.Requester{Initiator: p.Initiator, Peer: peer}, nil
}

func (k *Keeper) serveToken(r *http.Request, peer string) (any, error) {
	t, _, err := k.token(r, peer)
	if err != nil {
		return nil, err
	}
	info, err := k.tokens.Lookup(t)
	if err != nil {
		return nil, err
	}
	return answerOf(info), nil
}

// serveDelete is DEL_TKN of a command that a peer has done: it needs the right to use the
// token.
func (k *Keeper) serveDelete(r *http.Request, peer string) (any, error) {
	t, who, err := k.token(r, peer)
	if err != nil {
		return nil, err
	}
	return nil, k.tokens.DeleteFor(r.Context(), t, who)
}

// serveTokens lists the live tokens; those of one initiator, if the query names one, with their
// management tokens.
func (k *Keeper) serveTokens(r *http.Request, _ string) (any, error) {
	list, initiator := k.tokens.List(), r.URL.Query().Get("initiator")
	if initiator != "" {
		list = slices.DeleteFunc(list, func(i tokens.Info) bool { return i.Creator.Initiator != initiator })
	}
	a := v1.PeerTokens{Tokens: []v1.PeerToken{}, More: max(len(list)-maxTokens, 0)}
	for _, i := range list[:len(list)-a.More] {
		t := answerOf(i)
		if initiator != "" {
			t.Management = i.Management[:]
		}
		a.Tokens = append(a.Tokens, t)
	}
	return a, nil
}

// answerOf is the inverse of infoOf.
func answerOf(i tokens.Info) v1.PeerToken {
	now := time.Now()
	a := v1.PeerToken{
		ID: i.ID.String(), Type: uint32(i.Type), Length: i.Length, BlockLength: i.BlockLength,
		Initiator: i.Creator.Initiator, Target: i.Creator.Target, Volume: i.Creator.Volume,
		CreatedMS: since(i.Created, now), LastUsedMS: since(i.LastUsed, now),
		InactivityMS: i.Inactivity.Milliseconds(), Uses: i.Uses, InUse: i.InUse, Priority: i.Priority, Access: string(i.Access),
	}
	if !i.Expires.IsZero() {
		a.ExpiresMS = new(i.Expires.Sub(now).Milliseconds())
	}
	return a
}

// since returns how long ago t was, 0 for none.
func since(t, now time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return now.Sub(t).Milliseconds()
}

// infoOf returns what a peer says of a token, by the clock of this server.
func infoOf(a v1.PeerToken) (tokens.Info, error) {
	id, err := tokens.ParseID(a.ID)
	if err != nil {
		return tokens.Info{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	now, ms := time.Now(), time.Millisecond
	i := tokens.Info{
		ID: id, Type: tokens.RODType(a.Type), Length: a.Length, BlockLength: a.BlockLength,
		Creator: tokens.Creator{Initiator: a.Initiator, Target: a.Target, Volume: a.Volume},
		Created: now.Add(-time.Duration(a.CreatedMS) * ms), LastUsed: now.Add(-time.Duration(a.LastUsedMS) * ms),
		Inactivity: time.Duration(a.InactivityMS) * ms, Uses: a.Uses, InUse: a.InUse, Priority: a.Priority, Access: tokens.Access(a.Access),
	}
	if a.ExpiresMS != nil {
		i.Expires = now.Add(time.Duration(*a.ExpiresMS) * ms)
	}
	copy(i.Management[:], a.Management)
	return i, nil
}
