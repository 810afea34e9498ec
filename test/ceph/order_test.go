//go:build rados

package ceph_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
)

// worker is a client that reads and writes blocks, one operation at a time, and logs in again
// where its connection ends.
type worker struct {
	p       *plant
	id      int
	rng     *rand.Rand
	history []porcupine.Operation
	open    []porcupine.Operation // writes whose outcome is not known
	done    atomic.Int64          // operations that were answered
}

// action is an operation on a block: a write if it has a number.
type action struct {
	block, number uint64
}

// register is a block as a client sees it.
func register(first []uint64) porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, faultsBlocks)
			for _, o := range history {
				b := o.Input.(action).block
				parts[b] = append(parts[b], o)
			}
			return parts
		},
		Init: func() any { return unset },
		Step: func(state, input, output any) (bool, any) {
			in, now := input.(action), state.(uint64)
			if now == unset {
				now = first[in.block]
			}
			if in.number != 0 {
				return true, in.number
			}
			return output.(uint64) == now, now
		},
		DescribeOperation: func(input, output any) string {
			if in := input.(action); in.number != 0 {
				return fmt.Sprintf("block %d: write %d", in.block, in.number)
			}
			return fmt.Sprintf("block %d: read %d", input.(action).block, output)
		},
	}
}

// unset is the state of a block before its first operation.
const unset = ^uint64(0)

// work reads and writes until stop is closed.
func (w *worker) work(began time.Time, stop <-chan struct{}) error {
	var c *client
	for {
		select {
		case <-stop:
			if c != nil {
				c.close()
			}
			return nil
		default:
		}
		if c == nil {
			var err error
			if c, err = w.p.connect(); err != nil {
				return err
			}
			continue // stop may be closed
		}
		in := action{block: w.rng.Uint64N(faultsBlocks)}
		if w.rng.IntN(5) < 3 {
			in.number = w.p.numbers.Add(1)
		}
		if err := w.act(c, in, began); err != nil && !errors.Is(err, errRefused) {
			c.close()
			c = nil
		}
	}
}

// act does one operation, and writes down what came of it.
func (w *worker) act(c *client, in action, began time.Time) (err error) {
	o := porcupine.Operation{ClientId: w.id, Input: in, Call: int64(time.Since(began)), Output: uint64(0)}
	limit := time.AfterFunc(answerLimit, c.close)
	defer limit.Stop()
	if in.number != 0 {
		err = c.writeAt(in.block, in.number)
	} else {
		o.Output, err = c.readAt(in.block)
	}
	o.Return = int64(time.Since(began))
	switch {
	case err == nil:
		w.history = append(w.history, o)
		w.done.Add(1)
	case in.number != 0:
		w.open = append(w.open, o)
	}
	return err
}

// seen returns what clients saw. Of writes whose outcome is not known, those are in it whose number
// was read: they took effect before the first such read ended. The others may never have.
func seen(workers []*worker) []porcupine.Operation {
	var all []porcupine.Operation
	read := make(map[uint64]int64) // by number, when
	for _, w := range workers {
		all = append(all, w.history...)
		for _, o := range w.history {
			number := o.Output.(uint64)
			if at, ok := read[number]; !ok || o.Return < at {
				read[number] = o.Return
			}
		}
	}
	for _, w := range workers {
		for _, o := range w.open {
			if at, ok := read[o.Input.(action).number]; ok {
				o.Return = max(at, o.Call)
				all = append(all, o)
			}
		}
	}
	return all
}

// wrong returns the operations on blocks for which there is no order, by their begin.
func wrong(first []uint64, history []porcupine.Operation) string {
	model := register(first)
	var b strings.Builder
	for _, of := range model.Partition(history) {
		if porcupine.CheckOperationsTimeout(model, of, time.Minute) == porcupine.Ok {
			continue
		}
		slices.SortFunc(of, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
		for _, o := range of {
			fmt.Fprintf(&b, "\n%v to %v: client %d, %s", time.Duration(o.Call).Round(time.Microsecond), time.Duration(o.Return).Round(time.Microsecond), o.ClientId, model.DescribeOperation(o.Input, o.Output))
		}
	}
	return b.String()
}
