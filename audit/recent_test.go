package audit

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"odx/internal/kit/logs"
)

// TestLog_Recent: the last lines are there, the latest first, with and without a file.
func TestLog_Recent(t *testing.T) {
	l := New(logs.Discard(), Options{})
	defer func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if got := l.Recent(); len(got) != 0 {
		t.Errorf("before any: %+v", got)
	}
	ctx := With(t.Context(), Secret("alice", "192.0.2.1"))
	for i := range maxRecent + 5 {
		l.Record(ctx, Change{What: "change", Subject: fmt.Sprint(i), Before: "was", After: map[string]int{"n": i}})
		want := min(i+1, maxRecent)
		if got := l.Recent(); len(got) != want || got[0].Subject != fmt.Sprint(i) || got[want-1].Subject != fmt.Sprint(i+1-want) {
			t.Fatalf("after %d: %d lines, %+v", i, len(got), got)
		}
	}
	l.Record(ctx, Change{What: "change", Err: errors.New("broken")})
	if got := l.Recent(); got[0].Error != "broken" || got[0].By != "secret alice from 192.0.2.1" || got[1].Before != "was" || got[1].After != `{"n":104}` {
		t.Errorf("%+v", got[:2])
	}
}
