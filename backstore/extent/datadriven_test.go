package extent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestTable_DataDriven runs testdata/references.txt, which begins with a description of
// its commands.
func TestTable_DataDriven(t *testing.T) {
	var w *tableScript
	datadriven.RunTest(t, "testdata/references.txt", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd == "table" {
			w = &tableScript{extents: map[ID]*Extent{}}
			w.table, w.usage = newTestTable(t)
		}
		var out []string
		for line := range strings.Lines(d.Input) {
			printed, err := w.run(t, strings.Fields(line))
			switch {
			case errors.Is(err, ErrInconsistent):
				printed = "ErrInconsistent"
			case err != nil:
				printed = "error: " + err.Error()
			}
			if printed != "" {
				out = append(out, strings.TrimSpace(line)+": "+printed)
			}
		}
		return strings.Join(out, "\n")
	})
}

// tableScript is a table, and what was created in it.
type tableScript struct {
	table   *Table
	usage   *Usage
	extents map[ID]*Extent
}

func (w *tableScript) run(t *testing.T, words []string) (string, error) {
	t.Helper()
	switch words[0] {
	case "create":
		id, x := mustCreate(t, w.table)
		w.extents[id] = x
		return fmt.Sprintf("extent %d", id), nil
	case "begin-replay":
		w.table.BeginReplay(nil)
		return "", nil
	case "end-replay":
		return "", w.table.EndReplay()
	case "live":
		return fmt.Sprintf("%d blocks", w.usage.Total()), nil
	}
	id, args := ID(number(t, words[1])), words[2:]
	switch words[0] {
	case "ref":
		return "", w.table.Ref(w.slots(t, id, args))
	case "unref":
		return "", w.table.Unref(w.slots(t, id, args))
	case "references":
		n, blocks, err := w.table.References(id)
		return fmt.Sprintf("%d to %d blocks", n, blocks), err
	case "pin":
		return w.pin(t, id, args)
	case "unpin":
		return "", w.table.Unpin(id)
	}
	t.Fatalf("there is no command %s", words[0])
	return "", nil
}

// slots returns those of some blocks of an extent, or of all.
func (w *tableScript) slots(t *testing.T, id ID, blocks []string) []Slot {
	t.Helper()
	if len(blocks) == 0 {
		return slotsOf(w.table, id)
	}
	var slots []Slot
	for _, b := range blocks {
		slots = append(slots, w.table.Slot(id, number(t, b)))
	}
	return slots
}

func (w *tableScript) pin(t *testing.T, id ID, args []string) (string, error) {
	t.Helper()
	data, blocks := w.extents[id].Fingerprint, int(w.extents[id].Blocks)
	for _, a := range args {
		if a == "other-data" {
			data[31]++
		} else {
			blocks = number(t, a)
		}
	}
	if ok, err := w.table.Pin(id, &data, blocks); !ok || err != nil {
		return "refused", err
	}
	return "pinned", nil
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
