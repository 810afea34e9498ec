package conf

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is an error in a configuration, with the remedy.
type Problem struct {
	File string
	// Line is the line number, from 1, or 0 if the problem has no line.
	Line int
	// Key is the path of the value in the file, for example
	// "targets[0].luns[1].size". It is empty if the problem has no key.
	Key     string
	Message string
}

// Error returns "file:line: key: message".
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems lists all errors in a configuration, by line.
type Problems []Problem

// Error returns one line per problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int { return a.Line - b.Line })
	return ps
}

// maxProblems bounds the problems that are reported of one file.
const maxProblems = 500

// bounded returns the first problems, and one that says how many more there are.
func (ps Problems) bounded() Problems {
	if len(ps) <= maxProblems {
		return ps
	}
	more := Problem{File: ps[0].File, Message: fmt.Sprintf("%d more problems, which are not listed; is it a configuration?", len(ps)-maxProblems)}
	return append(slices.Clip(ps[:maxProblems]), more)
}

// lineOf returns the line of key, or of the nearest enclosing key.
func lineOf(lines map[string]int, key string) int {
	for key != "" {
		if line, ok := lines[key]; ok {
			return line
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 0
}
