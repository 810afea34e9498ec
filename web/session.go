package web

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"odx/api"
)

const (
	// lifetime is how long a session lasts at most, idleness how long without a request
	// of its user; those of the script do not count.
	lifetime = 12 * time.Hour
	idleness = 30 * time.Minute
	// maxSessions bounds the sessions of a secret; the one that was used longest ago ends.
	maxSessions = 32
)

// user is a session of someone who has logged in.
type user struct {
	api.Identity
	// Forms is the token that a form has to have.
	Forms string

	began, used time.Time
	said        string // to be shown once
}

// sessions are those of all users, by the hashes of their cookies: what is in memory is of
// no use to who reads it.
type sessions struct {
	now func() time.Time

	mu sync.Mutex
	by map[[sha256.Size]byte]*user
}

func newSessions() sessions {
	return sessions{now: time.Now, by: map[[sha256.Size]byte]*user{}}
}

// begin begins a session, and returns its cookie.
func (s *sessions) begin(who api.Identity) (cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.makeRoom(who.Name, now)
	cookie = rand.Text()
	s.by[sha256.Sum256([]byte(cookie))] = &user{Identity: who, Forms: rand.Text(), began: now, used: now}
	return cookie
}

// makeRoom forgets the sessions that are over, and one of a secret that has too many. The
// caller holds mu.
func (s *sessions) makeRoom(name string, now time.Time) {
	count := 0
	var oldest [sha256.Size]byte
	for id, u := range s.by {
		switch {
		case u.over(now):
			delete(s.by, id)
		case u.Name == name:
			if count++; count == 1 || u.used.Before(s.by[oldest].used) {
				oldest = id
			}
		}
	}
	if count >= maxSessions {
		delete(s.by, oldest)
	}
}

// over reports whether the time of a session is over.
func (u *user) over(now time.Time) bool {
	return now.Sub(u.began) >= lifetime || now.Sub(u.used) >= idleness
}

// find returns a copy of a session, if confirm still knows who it is of. byHand: it counts
// as use.
func (s *sessions) find(cookie string, byHand bool, confirm func(api.Identity) (api.Identity, bool)) (*user, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := sha256.Sum256([]byte(cookie))
	u := s.by[id]
	if u == nil {
		return nil, false
	}
	now := s.now()
	who, ok := confirm(u.Identity)
	if !ok || u.over(now) {
		delete(s.by, id)
		return nil, false
	}
	u.Identity = who
	if byHand {
		u.used = now
	}
	c := *u
	return &c, true
}

// end ends a session.
func (s *sessions) end(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, sha256.Sum256([]byte(cookie)))
}

// say keeps a sentence for the next view of a session.
func (s *sessions) say(cookie, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.by[sha256.Sum256([]byte(cookie))]; u != nil {
		u.said = text
	}
}

// said returns that sentence, once.
func (s *sessions) said(cookie string) (text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.by[sha256.Sum256([]byte(cookie))]; u != nil {
		text, u.said = u.said, ""
	}
	return text
}
