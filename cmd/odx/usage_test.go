package main

import (
	"strings"
	"testing"
)

// TestUsageErrors: a command line that is none has exit status 2 and one line that
// says what to write.
func TestUsageErrors(t *testing.T) {
	for args, want := range map[string]string{
		"server":                       `unknown command "server" for "odx"; did you mean serve?`,
		"bogus":                        `unknown command "bogus" for "odx"; the commands are copy, doctor, `,
		"volume bogus":                 `unknown command "bogus" for "odx volume"; the commands are clone, create, delete, list, resize, snapshot`,
		"volume bogus --json":          "unknown flag: --json",
		"volume lst":                   `unknown command "lst" for "odx volume"; did you mean list?`,
		"vhd frobnicate x y":           `unknown command "frobnicate" for "odx vhd"; the commands are `,
		"token bogus":                  `unknown command "bogus" for "odx token"; the commands are `,
		"file bogus":                   `unknown command "bogus" for "odx file"; the commands are `,
		"store bogus":                  `unknown command "bogus" for "odx store"; the commands are `,
		"help bogus":                   `unknown command "bogus" for "odx"; the commands are copy, doctor, `,
		"help server":                  `unknown command "server" for "odx"; did you mean serve?`,
		"help volume bogus":            `unknown command "bogus" for "odx volume"; the commands are clone, create, `,
		"help volume create x":         `unknown command "x" for "odx volume create"; it has no commands`,
		"help --bogus":                 "unknown flag: --bogus",
		"serve --portal x":             "unknown flag: --portal",
		"serve extra":                  "",
		"store info extra":             "",
		"volume create onlyname":       "accepts 2 arg(s), received 1; usage: odx volume create NAME SIZE [flags]",
		"copy a":                       "accepts 2 arg(s), received 1; usage: odx copy SRC DST [flags]",
		"completion bogus":             `unknown command "bogus" for "odx completion"; the commands are bash, `,
		"volume create v 10GB":         `invalid size "10GB"; use bytes, or a number with KiB`,
		"volume resize v 1x":           `invalid size "1x"; use bytes, or a number with KiB`,
		"vhd create d.vhd ten":         `invalid size "ten"; use bytes, or a number with KiB`,
		"token create v:x":             `"v:x": invalid size "x"; use bytes, or a number with KiB`,
		"store scrub --mib-per-s":      "flag needs an argument: --mib-per-s",
		"store scrub --mib-per-s -1":   "--mib-per-s -1 is negative; use 0 for no limit",
		"store dump rows":              `there is no part "rows" of a store; the parts are superblock, `,
		"token create v --type x":      "--type x: use default, persistent, change-vulnerable or on-reference",
		"token create v --timeout -1m": "--timeout -1m0s is negative",
		"token create v --skip -1":     "--skip -1 is negative",
		"token write nonsense v":       "not a token: neither 512 bytes nor 512 bytes in base64; write @FILE for a file",
		"token read nonsense":          "not a token: ",
		"token show nonsense":          `token identifier "nonsense": want 16 hexadecimal digits`,
		"token delete nonsense":        "neither an identifier of 16 hexadecimal digits nor a token: ",
		"copy src src":                 "src is both source and destination",
		"copy ./a ./a":                 "./a is both source and destination",
		"copy - -":                     "- and - are both streams; one end has to be a disk or a file",
		"copy - new --create":          "--create with a stream, whose length is not known in advance; create the volume first, with odx volume create",
		"copy iscsi://host v":          "iscsi://host: ",
		"copy iscsi://u%secret@host/t/0 iscsi://u%secret@host/t/0": "iscsi://host:3260/t/0 is both source and destination",
		"doctor iscsi://host iscsi://host/t/0":                     "iscsi://host: ",
		"doctor iscsi://host/t/0 src":                              "src: not an iSCSI URL",
		"doctor iscsi://h/t/0 iscsi://h/t/1 --scratch 1GiB":        "--scratch 1GiB: write OFFSET+LENGTH in bytes, for example 1GiB+1MiB",
	} {
		stdout, stderr, status := output(t, strings.Fields(args)...)
		if status != 2 || stdout != "" || !strings.HasPrefix(stderr, "odx: "+want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("odx %v: exit status %d, %q, %q, want %q", args, status, stdout, stderr, want)
		}
	}
	for _, args := range []string{"", "volume", "vhd", "help", "help help", "help completion bash", "volume --help", "help volume", "help volume create", "help help --help"} {
		if stdout, stderr, status := output(t, strings.Fields(args)...); status != 0 || stderr != "" || !strings.Contains(stdout, "Usage:") {
			t.Errorf("odx %s: exit status %d, %q, %q", args, status, stdout, stderr)
		}
	}
}
