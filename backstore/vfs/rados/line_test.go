package rados

import (
	"errors"
	"strings"
	"testing"
	"time"

	"odx/internal/kit/must"
	"odx/owner"
)

// TestFS_Succeed: the lock of a process that has ended is given up for those after it in its line, for
// no others, and that of a process that lives for none.
func TestFS_Succeed(t *testing.T) {
	twin := NewTwin(sinceStart())
	claim := func(l Line) (owner.Holding, error) {
		f := New(twin.Client())
		must.Succeed(t, f.MkdirAll("/store"))
		if l != (Line{}) {
			must.Succeed(t, f.Succeed(l))
		}
		return f.Owner("/store").Claim(t.Context())
	}
	first, err := claim(Line{"one", 9})
	must.Succeed(t, err)
	for _, l := range []Line{{}, {"one", 9}, {"one", 8}, {"other", 10}, {"on", 10}} {
		if _, err := claim(l); !errors.Is(err, owner.ErrHeld) {
			t.Errorf("%v takes the store: %v", l, err)
		}
	}
	must.Succeed(t, first.Renew(t.Context()))
	third, err := claim(Line{"one", 11}) // the tenth has ended before it claimed anything
	must.Succeed(t, err)
	if third.Epoch() <= first.Epoch() {
		t.Errorf("epoch %d after %d", third.Epoch(), first.Epoch())
	}
	if err := first.Renew(t.Context()); !errors.Is(err, owner.ErrLost) {
		t.Errorf("the first one renews: %v", err)
	}
	must.Succeed(t, third.Release())
	plain, err := claim(Line{})
	must.Succeed(t, err)
	if _, err := claim(Line{"one", 12}); !errors.Is(err, owner.ErrHeld) {
		t.Errorf("the lock of a process in no line is given up: %v", err)
	}
	must.Succeed(t, plain.Release())
}

// TestFS_Succeed_Replaced: a holder that has the lock by the time that it is broken keeps it.
func TestFS_Succeed_Replaced(t *testing.T) {
	c := NewTwin(sinceStart()).Client()
	must.Succeed(t, c.Lock("o", "a", time.Minute, false))
	held, err := c.Holder("o")
	must.Succeed(t, err)
	must.Succeed(t, c.Unlock("o", "a"), c.Lock("o", "b", time.Minute, false), c.Break("o", held))
	must.Succeed(t, c.Lock("o", "b", time.Minute, true))
}

func TestParseLine(t *testing.T) {
	l := Line{"ABC", 12}
	if got, err := ParseLine(l.String()); got != l || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "ABC", "ABC.", ".1", "ABC.0", "ABC.-1", "A/B.1", "ABC.1.2", strings.Repeat("9", 40)} {
		if got, err := ParseLine(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// FuzzParseLine: what is a line has the same text again, and is found in a cookie.
func FuzzParseLine(f *testing.F) {
	f.Add("ABC.12")
	f.Add("A.B.1")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLine(text)
		if err != nil {
			return
		}
		if again, err := ParseLine(l.String()); again != l || err != nil {
			t.Errorf("%q is %v, and then %v, %v", text, l, again, err)
		}
		after := Line{l.ID, l.Number + 1}
		if h := (Holder{Cookie: newCookie(l)}); after.Number > l.Number && !after.follows(h) {
			t.Errorf("%v does not follow %+v", after, h)
		}
	})
}
