package web

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"odx/admin"
	"odx/api/doctor"
	"odx/audit"
	"odx/conf"
)

// tokenList is what the view of tokens shows.
type tokenList struct {
	Rows   []admin.TokenInfo
	More   int
	Revoke bool // the user may revoke tokens
}

func readTokens(ctx context.Context, p *page, u *user) (any, error) {
	all, err := p.Administrator.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	slices.Reverse(all) // the latest first
	l := tokenList{Revoke: u.May(conf.RoleOperate)}
	l.Rows, l.More = head(all)
	return l, nil
}

// copies is what the view of copies shows.
type copies struct {
	admin.CopyStats
	Kinds    []copyKind
	Refusals []refusal
	Causes   []cause
}

// copyKind is one way to copy.
type copyKind struct {
	Name     string
	Commands uint64
	// Mapped bytes were offloaded; Moved ones were read and written.
	Mapped, Moved uint64
}

// Verdict says whether copies of the kind were offloaded, and why not.
func (k copyKind) Verdict() string {
	switch {
	case k.Mapped+k.Moved == 0:
		return "no copies yet"
	case k.Moved == 0:
		return "offloaded"
	case k.Mapped == 0:
		return "not offloaded: source or destination is outside the store, or both are not aligned alike"
	}
	return "offloaded in part: the rest is outside the store, or not aligned alike"
}

// refusal is a copy command that did nothing, with advice.
type refusal struct {
	admin.CopyRefusal
	Advice string
}

// cause counts refusals by what the initiator was answered.
type cause struct {
	Code   string
	Count  uint64
	Advice string
}

func readCopies(ctx context.Context, p *page, _ *user) (any, error) {
	stats, err := p.Administrator.CopyStats(ctx)
	if err != nil {
		return nil, err
	}
	c := &stats.Commands
	view := copies{CopyStats: stats, Kinds: []copyKind{
		{"tokens made (POPULATE TOKEN)", c.Populated, less(c.PopulatedBytes, c.PopulatedMovedBytes), c.PopulatedMovedBytes},
		{"tokens written (WRITE USING TOKEN)", c.Written, less(c.WrittenBytes, c.WrittenMovedBytes), c.WrittenMovedBytes},
		{"EXTENDED COPY", c.Extended, less(c.ExtendedBytes, c.ExtendedMovedBytes), c.ExtendedMovedBytes},
	}}
	for _, r := range c.Recent {
		view.Refusals = append(view.Refusals, refusal{r, adviceIn(r.Sense)})
	}
	for _, code := range slices.Sorted(maps.Keys(c.RefusedBy)) {
		view.Causes = append(view.Causes, cause{code, c.RefusedBy[code], adviceIn(code)})
	}
	return view, nil
}

// less returns a - b, 0 where counters were read in between.
func less(a, b uint64) uint64 { return a - min(a, b) }

// adviceIn returns the advice for a text that has a sense code such as 23h/07h.
func adviceIn(text string) string {
	var asc, ascq uint8
	for i := range text {
		if n, _ := fmt.Sscanf(text[i:], "%02xh/%02xh", &asc, &ascq); n == 2 {
			return doctor.Advice(uint16(asc)<<8 | uint16(ascq))
		}
	}
	return ""
}

// line is a line of the audit log.
type line struct{ audit.Line }

// Result says how it ended.
func (l line) Result() string {
	if l.Error != "" {
		return "failed: " + l.Error
	}
	return "done"
}
