package conf

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// source is the text of a file, for changes of the lines of single nodes. Its methods
// return false where they do not know how: what they return is verified in any case.
type source struct {
	text  string
	lines []int  // offset of each line
	eol   string // of new lines
}

func newSource(text []byte) *source {
	s := &source{text: string(text), lines: []int{0}, eol: "\n"}
	for i, c := range text {
		if c == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	if bytes.Contains(text, []byte("\r\n")) {
		s.eol = "\r\n"
	}
	return s
}

// start returns the offset of a node; -1 if it is not in the text.
func (s *source) start(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(s.lines) {
		return -1
	}
	at := s.lines[n.Line-1]
	if n.Line == 1 {
		at += len(s.text) - len(strings.TrimPrefix(s.text, "\uFEFF"))
	}
	for range n.Column - 1 {
		_, size := utf8.DecodeRuneInString(s.text[at:])
		at += size
	}
	return at
}

// content returns the offset of a node after its anchor and tag.
func (s *source) content(n *yaml.Node) int {
	at := s.start(n)
	for at >= 0 && at < len(s.text) && (s.text[at] == '&' || s.text[at] == '!') {
		word := strings.IndexAny(s.text[at:], " \t\r\n")
		if word < 0 {
			return -1
		}
		at += word
		at += len(s.text[at:]) - len(strings.TrimLeft(s.text[at:], " \t"))
	}
	return at
}

// end returns the offset after a node; -1 if it is not known.
func (s *source) end(n *yaml.Node) int {
	at := s.content(n)
	switch {
	case at < 0:
		return -1
	case n.Kind == yaml.AliasNode:
		return at + len("*") + len(n.Value)
	case n.Kind == yaml.ScalarNode:
		return s.endOfScalar(n, at)
	case n.Style&yaml.FlowStyle != 0:
		return s.endOfFlow(at)
	case len(n.Content) == 0:
		return -1
	}
	last := n.Content[len(n.Content)-1]
	if n.Kind == yaml.MappingNode && last.Kind == yaml.ScalarNode && last.Value == "" && last.Style == 0 {
		return s.afterColon(n.Content[len(n.Content)-2])
	}
	return s.end(last)
}

// afterColon returns the offset after the colon of a key.
func (s *source) afterColon(key *yaml.Node) int {
	at := s.end(key)
	if at < 0 || !strings.HasPrefix(s.text[at:], ":") {
		return -1
	}
	return at + 1
}

// endOfScalar returns the offset after a scalar that begins at an offset. Those of several
// lines without quotes are not known.
func (s *source) endOfScalar(n *yaml.Node, at int) int {
	switch {
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		return s.endOfQuotes(at)
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 || n.Value == "" || !strings.HasPrefix(s.text[at:], n.Value):
		return -1
	default:
		return at + len(n.Value)
	}
}

// endOfQuotes returns the offset after a quoted scalar that begins at an offset.
func (s *source) endOfQuotes(at int) int {
	if at >= len(s.text) {
		return -1
	}
	quote := s.text[at]
	for i := at + 1; i < len(s.text); i++ {
		switch {
		case quote == '"' && s.text[i] == '\\':
			i++
		case s.text[i] != quote:
		case quote == '\'' && i+1 < len(s.text) && s.text[i+1] == quote:
			i++
		default:
			return i + 1
		}
	}
	return -1
}

// endOfFlow returns the offset after the bracket that closes the one at an offset.
func (s *source) endOfFlow(at int) int {
	depth, begins := 0, true // begins: a scalar may begin here
	for i := at; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '[' || c == '{':
			depth++
			begins = true
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
			begins = false
		case begins && (c == '"' || c == '\''):
			end := s.endOfQuotes(i)
			if end < 0 {
				return -1
			}
			i, begins = end-1, false
		case c == '#' && strings.ContainsRune(" \t\r\n", rune(s.text[i-1])):
			eol := strings.IndexByte(s.text[i:], '\n')
			if eol < 0 {
				return -1
			}
			i += eol
			begins = true
		case strings.ContainsRune(" \t\r\n,:", rune(c)):
			begins = true
		default:
			begins = false
		}
	}
	return -1
}

// lineStart and lineEnd return the offsets of the line that an offset is in: lineEnd is after
// the line break.
func (s *source) lineStart(at int) int { return strings.LastIndexByte(s.text[:at], '\n') + 1 }

func (s *source) lineEnd(at int) int {
	if i := strings.IndexByte(s.text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(s.text)
}

// restIsComment reports whether what follows an offset in its line is blank or a comment.
func (s *source) restIsComment(at int) bool {
	rest := strings.TrimLeft(s.text[at:s.lineEnd(at)], " \t")
	return strings.Trim(rest, "\r\n") == "" || rest[0] == '#' && rest != s.text[at:s.lineEnd(at)]
}

// cut returns the text with with in place of what is between two offsets.
func (s *source) cut(from, to int, with string) (string, bool) {
	if from < 0 || to < from {
		return "", false
	}
	return s.text[:from] + with + s.text[to:], true
}

// insertLines inserts lines after the line of an offset.
func (s *source) insertLines(at int, lines string) (string, bool) {
	if at < 0 || !s.restIsComment(at) {
		return "", false
	}
	at = s.lineEnd(at)
	if at == len(s.text) && !strings.HasSuffix(s.text, "\n") {
		lines = s.eol + strings.TrimSuffix(lines, s.eol)
	}
	return s.cut(at, at, lines)
}

// insert inserts an entry before entry i of a list.
func (s *source) insert(list *yaml.Node, i int, item *yaml.Node) (string, bool) {
	if list.Style&yaml.FlowStyle != 0 {
		return s.insertFlow(list, i, item)
	}
	if len(list.Content) == 0 {
		return "", false
	}
	lines, ok := s.render(listOf(likeSiblings(list, item)), list.Column-1)
	if !ok {
		return "", false
	}
	if i == len(list.Content) {
		return s.insertLines(s.end(list), lines)
	}
	at := s.dash(list, i)
	if at < 0 {
		return "", false
	}
	for at > 0 { // a comment above the entry is about the entry
		above := s.lineStart(at - 1)
		if !strings.HasPrefix(strings.TrimLeft(s.text[above:at], " \t"), "#") {
			break
		}
		at = above
	}
	return s.cut(at, at, lines)
}

// likeSiblings returns an entry in the style of the last one of a list.
func likeSiblings(list, item *yaml.Node) *yaml.Node {
	last := list.Content[len(list.Content)-1]
	if last.Kind != item.Kind || last.Style&yaml.FlowStyle != 0 && !isFlat(item) {
		return item
	}
	like := *item
	like.Style = last.Style & yaml.FlowStyle
	return &like
}

// insertFlow is insert for a list in brackets.
func (s *source) insertFlow(list *yaml.Node, i int, item *yaml.Node) (string, bool) {
	text := flow(item)
	switch {
	case len(list.Content) == 0:
		at := s.end(list) - 1
		return s.cut(at, at, text)
	case i == len(list.Content):
		at := s.end(list.Content[i-1])
		return s.cut(at, at, ", "+text)
	default:
		at := s.start(list.Content[i])
		return s.cut(at, at, text+", ")
	}
}

// dash returns the offset of the line with the dash of an entry of a list; -1 if something
// else is before it there.
func (s *source) dash(list *yaml.Node, i int) int {
	at := s.start(list.Content[i])
	for at > 0 {
		begin := s.lineStart(at)
		line := s.text[begin:s.lineEnd(begin)]
		trimmed := strings.TrimLeft(line, " ")
		if len(line)-len(trimmed) == list.Column-1 && strings.HasPrefix(trimmed, "-") {
			return begin
		}
		if begin == 0 {
			break
		}
		at = begin - 1
	}
	return -1
}

// remove removes entry i of a list, with the comments within it. A comment above it stays.
func (s *source) remove(list *yaml.Node, i int) (string, bool) {
	if len(list.Content) == 1 {
		return "", false
	}
	item := list.Content[i]
	if list.Style&yaml.FlowStyle != 0 {
		return s.removeFlow(s.start(item), s.end(item))
	}
	to := s.end(item)
	if to < 0 || !s.restIsComment(to) {
		return "", false
	}
	return s.cut(s.dash(list, i), s.lineEnd(to), "")
}

// removeFlow removes an entry in brackets, and one of the commas around it. Line breaks and
// comments around it stay.
func (s *source) removeFlow(from, to int) (string, bool) {
	if from < 0 || to < 0 {
		return "", false
	}
	after := len(s.text) - len(strings.TrimLeft(s.text[to:], " \t"))
	if strings.HasPrefix(s.text[after:], ",") {
		after++
		after += len(s.text[after:]) - len(strings.TrimLeft(s.text[after:], " \t"))
		return s.cut(from, after, "")
	}
	before := strings.TrimRight(s.text[:from], " \t\r\n")
	if strings.HasSuffix(before, ",") {
		from = len(before) - 1
	}
	return s.cut(from, to, "")
}

// addKey adds a key to a mapping.
func (s *source) addKey(n *yaml.Node, key string, value *yaml.Node) (string, bool) {
	if len(n.Content) == 0 {
		return "", false
	}
	if n.Style&yaml.FlowStyle != 0 {
		at := s.end(n.Content[len(n.Content)-1])
		return s.cut(at, at, ", "+key+": "+flow(value))
	}
	lines, ok := s.render(mappingOf(key, value), n.Column-1)
	if !ok {
		return "", false
	}
	return s.insertLines(s.end(n), lines)
}

// setValue replaces a value by a scalar or a flat list.
func (s *source) setValue(old, value *yaml.Node) (string, bool) {
	if old.Kind != yaml.ScalarNode && old.Style&yaml.FlowStyle == 0 && old.Kind != yaml.AliasNode {
		return "", false
	}
	return s.cut(s.start(old), s.end(old), flow(value))
}

// removeKey removes the key at index i of the contents of a mapping.
func (s *source) removeKey(n *yaml.Node, i int) (string, bool) {
	from, to := s.start(n.Content[i]), s.end(n.Content[i+1])
	if n.Style&yaml.FlowStyle != 0 {
		return s.removeFlow(from, to)
	}
	if from < 0 || to < 0 || !s.restIsComment(to) || strings.TrimSpace(s.text[s.lineStart(from):from]) != "" {
		return "", false
	}
	return s.cut(s.lineStart(from), s.lineEnd(to), "")
}

// render returns the lines of a node of block style, indented by columns.
func (s *source) render(n *yaml.Node, columns int) (string, bool) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if e.Encode(n) != nil || e.Close() != nil || columns < 0 {
		return "", false
	}
	var lines strings.Builder
	for line := range strings.Lines(b.String()) {
		lines.WriteString(strings.Repeat(" ", columns) + strings.TrimSuffix(line, "\n") + s.eol)
	}
	return lines.String(), true
}
