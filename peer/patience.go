package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"odx/blockdev"
	"odx/tokens"
)

const (
	// patience is how long the server of a token that was served may fail before it counts as
	// one that does not answer. Until then commands are busy, and their initiator goes on.
	patience = 5 * time.Second
	// retryTime is the time between two requests to a server that fails.
	retryTime = 50 * time.Millisecond
	// maxServed bounds the tokens that are known to have been served.
	maxServed = 256
)

// served knows when tokens were served last by their servers. The zero value is ready for use.
type served struct {
	mu sync.Mutex // guards at
	at map[tokens.Token]time.Time
}

// note notes that a token was served.
func (s *served) note(token *tokens.Token, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = make(map[tokens.Token]time.Time)
	}
	if _, ok := s.at[*token]; !ok && len(s.at) >= maxServed {
		oldest, first := *token, now
		for k, at := range s.at {
			if !at.After(first) {
				oldest, first = k, at
			}
		}
		delete(s.at, oldest)
	}
	s.at[*token] = now
}

// since reports whether a token was served after a time.
func (s *served) since(token *tokens.Token, t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[*token]
	return ok && at.After(t)
}

// slow reports whether a request was not answered in its time, or in that of its connection.
func slow(err error) bool {
	late := net.Error(nil)
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &late) && late.Timeout()
}

// lost reports whether an error is one that may pass: the peer was not reached, or cannot
// answer now. In all others the peer has decided.
func lost(err error) bool {
	return slow(err) || errors.Is(err, ErrDown) || errors.Is(err, ErrLimit) || errors.Is(err, blockdev.ErrClosed) || errors.Is(err, blockdev.ErrBusy)
}

// refusal makes an error of a peer one that a user of a token gets: that which the peer
// decided, or tokens.ErrRemote if it did not decide.
func refusal(err error) error {
	switch {
	case errors.Is(err, ErrLimit), errors.Is(err, blockdev.ErrClosed):
		return busy(err)
	case errors.Is(err, ErrDown), errors.Is(err, ErrProtocol), errors.Is(err, ErrStore), errors.Is(err, ErrGone), slow(err):
		return fmt.Errorf("%w: %w", tokens.ErrRemote, err)
	}
	return err
}

func busy(err error) error { return fmt.Errorf("%w: %w", blockdev.ErrBusy, err) }

// ask asks the server of a token something that moves no data, in the time that it has for an
// answer: longer than that of a command for its data, so that what comes late is there for the
// command that continues. An abort of the command ends it.
func (t *Tokens) ask(ctx context.Context, p Peer, token *tokens.Token, fn func(context.Context) error) error {
	asking, cancel := context.WithTimeout(blockdev.Task(ctx), t.openTime)
	defer cancel()
	err := t.insist(ctx, asking, token, func() error { return fn(asking) })
	if blockdev.Task(ctx).Err() != nil {
		return err // no caller waits for it
	}
	return t.verdict(p, token, err)
}

// insist calls fn, which asks the server of a token within asking, again while the server is lost
// that has served the token just now, and ctx has time left.
func (t *Tokens) insist(ctx, asking context.Context, token *tokens.Token, fn func() error) error {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		err := fn()
		if err == nil || !lost(err) || !t.served.since(token, time.Now().Add(-t.patience)) || ending(ctx) {
			return err
		}
		retry.Reset(retryTime)
		select {
		case <-ctx.Done():
			return err
		case <-asking.Done():
			return err
		case <-retry.C:
		}
	}
}

// ending reports whether the time of a command is nearly over. That of a step
// (blockdev.StopAfter) does not count: the operation goes on with the next one.
func ending(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ok && time.Until(end) < blockdev.Grace
}

// verdict makes an error of a peer one for the user of a token. That the server does not answer
// is only said where it has failed for some time, or from the beginning: a command whose time
// ended, a link that others fill, and a server that starts again are no reason to give up a copy.
func (t *Tokens) verdict(p Peer, token *tokens.Token, err error) error {
	if err == nil || !lost(err) {
		return refusal(err)
	}
	ago := time.Now().Add(-t.patience)
	r, remote := p.(*Remote)
	switch {
	case t.served.since(token, ago), remote && slow(err) && r.heardSince(ago):
		return busy(err)
	case remote && errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrDown):
		return refusal(r.silent(context.DeadlineExceeded))
	}
	return refusal(err)
}
