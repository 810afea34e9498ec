package quota

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// take takes memory that is free.
func take(t *testing.T, q *Quota, client string, n int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Take(ctx, client, n); err != nil {
		t.Fatalf("%d bytes for %s: %v", n, client, err)
	}
}

// refused reports whether a client that does not wait gets nothing.
func refused(q *Quota, client string, n int64) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if q.Take(ctx, client, n) != nil {
		return true
	}
	q.Release(client, n)
	return false
}

// queued returns the number of claims that wait.
func (q *Quota) queued() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.queue)
}

func TestQuota_Take(t *testing.T) {
	t.Run("a client leaves half", func(t *testing.T) {
		q := New(16)
		for range 8 {
			take(t, q, "a", 1)
		}
		if !refused(q, "a", 1) {
			t.Error("a gets more than half")
		}
		take(t, q, "b", 1)
	})
	t.Run("more than all, alone", func(t *testing.T) {
		q := New(16)
		take(t, q, "a", 100)
		if !refused(q, "b", 1) {
			t.Error("b gets what is not there")
		}
		q.Release("a", 100)
		take(t, q, "b", 1)
		if !refused(q, "a", 100) {
			t.Error("a gets more than there is next to b")
		}
	})
	t.Run("the first of a client", func(t *testing.T) {
		q := New(16)
		take(t, q, "a", 8)
		take(t, q, "b", 8) // nothing is left then
		if !refused(q, "c", 1) {
			t.Error("c gets what is not there")
		}
	})
	t.Run("one that gives up", func(t *testing.T) {
		q := New(16)
		take(t, q, "a", 16)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := q.Take(ctx, "b", 1); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want %v", err, context.Canceled)
		}
		if n := q.queued(); n != 0 {
			t.Errorf("%d claims are queued", n)
		}
	})
}

// TestQuota_Turns: the client that holds least is served first, and what is large is not
// overtaken for ever by what is small.
func TestQuota_Turns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(16)
		take(t, q, "rich", 6)
		take(t, q, "other", 9)
		got := make(chan string, 3)
		for _, c := range []struct {
			client string
			n      int64
		}{{"rich", 2}, {"poor", 8}, {"late", 1}} {
			go func() {
				if q.Take(t.Context(), c.client, c.n) == nil {
					got <- c.client
				}
			}()
			synctest.Wait()
		}
		if !refused(q, "newcomer", 1) {
			t.Error("a newcomer overtakes queued claims")
		}
		served := func() (clients []string) {
			synctest.Wait()
			for len(got) > 0 {
				clients = append(clients, <-got)
			}
			slices.Sort(clients)
			return clients
		}
		if c := served(); len(c) != 0 {
			t.Errorf("%s were served while too little is free", c)
		}
		q.Release("other", 9)
		if c := served(); !slices.Equal(c, []string{"late", "poor"}) {
			t.Errorf("%s were served first", c)
		}
		q.Release("rich", 6)
		q.Release("poor", 8)
		if c := served(); !slices.Equal(c, []string{"rich"}) {
			t.Errorf("%s was served last", c)
		}
		q.Release("rich", 2)
		q.Release("late", 1)
		if n := q.Held(); n != 0 {
			t.Errorf("%d bytes are held at the end", n)
		}
	})
}

// TestQuota_Concurrent: never more than the limit is held, everyone is served, and nothing
// is held at the end.
func TestQuota_Concurrent(t *testing.T) {
	const limit = 64
	q := New(limit)
	var all sync.WaitGroup
	for k := range 16 {
		all.Go(func() {
			client, r := fmt.Sprint(k%5), rand.New(rand.NewPCG(1, uint64(k)))
			for range 500 {
				n := 1 + r.Int64N(limit)
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if r.IntN(4) == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(50))*time.Microsecond)
				}
				if q.Take(ctx, client, n) == nil {
					if held := q.Held(); held > limit {
						t.Errorf("%d bytes are held, %d is the limit", held, limit)
					}
					q.Release(client, n)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if n := q.Held(); n != 0 || len(q.shares) != 0 || len(q.queue) != 0 {
		t.Errorf("%d bytes are held, %d shares, %d claims at the end", n, len(q.shares), len(q.queue))
	}
}
