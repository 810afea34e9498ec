package main

import (
	"strconv"
	"strings"
)

// printable returns a text of initiators or disks, such as an alias or who has created a
// disk, for a terminal: what is not printable is escaped, so that it neither moves the
// cursor nor looks like another line.
func printable(text string) string { return escaped(text, "") }

// printableLines is printable for texts of several lines, such as errors.
func printableLines(text string) string { return escaped(text, "\n\t") }

// escaped escapes what is not printable but for some characters.
func escaped(text, but string) string {
	var b strings.Builder
	for _, r := range text {
		if strconv.IsPrint(r) || strings.ContainsRune(but, r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
