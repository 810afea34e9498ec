package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"odx/conf/examples"
)

// manualName is the name of the manual in the headers of its pages.
const manualName = "odx manual"

// newManual is hidden: packages are made with it.
func newManual() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages into a directory",
		Long: "Write a manual page for each command, and odx.yaml(5), into a directory that exists. The date in\n" +
			"them is $SOURCE_DATE_EPOCH if it is set, otherwise today.",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := sourceDate()
			if err != nil {
				return err
			}
			return writeManual(cmd.Root(), args[0], date)
		},
	}
}

// sourceDate returns $SOURCE_DATE_EPOCH (reproducible-builds.org), otherwise the time.
func sourceDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Now().UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("$SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// writeManual writes the page of each command of root, and that of the configuration.
func writeManual(root *cobra.Command, dir string, date time.Time) error {
	page := filepath.Join(dir, "odx.yaml.5")
	if err := os.WriteFile(page, configPage(examples.Full, date), 0o644); err != nil {
		return err
	}
	return writePages(root, dir, date)
}

func writePages(cmd *cobra.Command, dir string, date time.Time) error {
	if err := os.WriteFile(filepath.Join(dir, pageName(cmd)+".1"), commandPage(cmd, date), 0o644); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		if err := writePages(sub, dir, date); err != nil {
			return err
		}
	}
	return nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// commandPage returns the manual page of a command.
func commandPage(cmd *cobra.Command, date time.Time) []byte {
	var b bytes.Buffer
	writeTitle(&b, pageName(cmd), "1", date)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(cmd)), roff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n\\fB%s\\fP%s\n", roff(cmd.CommandPath()), roff(strings.TrimPrefix(cmd.UseLine(), cmd.CommandPath())))
	b.WriteString(".SH DESCRIPTION\n")
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	writeText(&b, text)
	if cmd.HasAvailableSubCommands() {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(&b, ".TP\n\\fB%s\\fP(1)\n%s.\n", roff(pageName(sub)), roff(sub.Short))
			}
		}
	}
	if cmd.HasAvailableFlags() {
		b.WriteString(".SH OPTIONS\n")
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				writeOption(&b, f)
			}
		})
	}
	writeExitStatuses(&b)
	b.WriteString(".SH SEE ALSO\n")
	if cmd.HasParent() {
		fmt.Fprintf(&b, "\\fB%s\\fP(1), ", roff(pageName(cmd.Parent())))
	}
	b.WriteString("\\fBodx.yaml\\fP(5)\n")
	return b.Bytes()
}

func writeTitle(b *bytes.Buffer, name, section string, date time.Time) {
	fmt.Fprintf(b, ".TH \"%s\" \"%s\" \"%s\" \"odx %s\" \"%s\"\n", roff(strings.ToUpper(name)), section, date.Format(time.DateOnly), buildVersion(), manualName)
}

// writeText writes paragraphs. One with indented lines, a table or an example, keeps its
// lines.
func writeText(b *bytes.Buffer, text string) {
	text = strings.ReplaceAll(strings.Trim(text, "\n"), "\t", "    ")
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		kept := strings.HasPrefix(paragraph, " ") || strings.Contains(paragraph, "\n ")
		if kept {
			b.WriteString(".nf\n")
		}
		for line := range strings.Lines(paragraph + "\n") {
			b.WriteString(roff(line))
		}
		if kept {
			b.WriteString(".fi\n")
		}
	}
}

func writeOption(b *bytes.Buffer, f *pflag.Flag) {
	b.WriteString(".TP\n")
	if f.Shorthand != "" {
		fmt.Fprintf(b, "\\fB\\-%s\\fP, ", f.Shorthand)
	}
	value, usage := pflag.UnquoteUsage(f)
	fmt.Fprintf(b, "\\fB\\-\\-%s\\fP", roff(f.Name))
	if value != "" {
		fmt.Fprintf(b, " \\fI%s\\fP", roff(value))
	}
	fmt.Fprintf(b, "\n%s", roff(usage))
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" && f.DefValue != "0s" {
		fmt.Fprintf(b, " (default: %s)", roff(f.DefValue))
	}
	b.WriteString("\n")
}

func writeExitStatuses(b *bytes.Buffer) {
	b.WriteString(".SH EXIT STATUS\n")
	for _, s := range exitStatuses {
		fmt.Fprintf(b, ".TP\n\\fB%d\\fP\n%s\n", s.status, roff(s.meaning))
	}
}

var (
	// newSection is the start of what full.yaml says of a key on the first level.
	newSection = regexp.MustCompile(`\n\n+([^\s])`)
	firstLevel = regexp.MustCompile(`(?m)^(\w+):`)
)

// configPage returns odx.yaml(5): the example that explains every key, a section for each
// key of the first level.
func configPage(example string, date time.Time) []byte {
	var b bytes.Buffer
	writeTitle(&b, "odx.yaml", "5", date)
	b.WriteString(".SH NAME\nodx.yaml \\- configuration of the odx iSCSI target\n" +
		".SH DESCRIPTION\n" +
		"\\fBodx serve\\fP and the commands that administer a store read one YAML file: that of\n" +
		"\\fB--config\\fP, of $ODX_CONFIG, odx.yaml in the working directory, or /etc/odx/odx.yaml. This page is a\n" +
		"file that has every key, with comments that explain it. \\fBodx config check\\fP reports all problems\n" +
		"of a file by line, \\fBodx config schema\\fP prints its JSON Schema for editors.\n" +
		".SH KEYS\n")
	for _, section := range strings.Split(newSection.ReplaceAllString(example, "\x00$1"), "\x00") {
		if key := firstLevel.FindStringSubmatch(section); key != nil {
			fmt.Fprintf(&b, ".SS %s\n", roff(key[1]))
		} else {
			b.WriteString(".SS The file\n")
		}
		b.WriteString(".nf\n")
		for line := range strings.Lines(strings.TrimRight(section, "\n") + "\n") {
			b.WriteString(roff(line))
		}
		b.WriteString(".fi\n")
	}
	b.WriteString(".SH FILES\n/etc/odx/odx.yaml\n.SH SEE ALSO\n\\fBodx(1)\\fP, \\fBodx-serve(1)\\fP, \\fBodx-config-check(1)\\fP\n")
	return b.Bytes()
}

// roff returns a line of text as roff takes it: nothing in it is a request or an escape.
func roff(line string) string {
	line = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(line)
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	return line
}
