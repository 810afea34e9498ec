package web

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// functions are those of the templates.
func functions() template.FuncMap {
	return template.FuncMap{
		"bytes":    func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) },
		"ubytes":   humanize.IBytes,
		"rate":     func(perSecond float64) string { return humanize.IBytes(uint64(perSecond)) + "/s" },
		"count":    func(n float64) string { return fmt.Sprintf("%.1f", n) },
		"times":    func(ratio float64) string { return fmt.Sprintf("%.2f", ratio) },
		"latency":  latency,
		"moment":   moment,
		"addr":     func(path string) string { return strings.TrimSuffix(path, "{$}") },
		"join":     func(list []string) string { return strings.Join(list, ", ") },
		"cut":      func(text string) string { return cut(text, maxText) },
		"cutCause": func(text string) string { return cut(text, maxCause) },
		"perSec":   func(aMinute uint64) string { return fmt.Sprintf("%.1f", float64(aMinute)/60) },
		"rateOf":   func(aMinute uint64) string { return humanize.IBytes(aMinute/60) + "/s" },
		"optional": optional,
	}
}

// latency formats a duration to three digits; a dash for none.
func latency(d time.Duration) string {
	switch {
	case d == 0:
		return "–"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1e3)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// moment formats a time in UTC.
func moment(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func optional(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return moment(*t)
}

// maxText bounds a text in a cell, in bytes: a name can have hundreds. maxCause bounds why
// something was not done.
const (
	maxText  = 300
	maxCause = 4000
)

// cut shortens a text.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
