package main

import (
	"strings"
	"testing"
)

// TestUsageErrors: a command line that is none has exit status 2 and one line that
// says what to write.
func TestUsageErrors(t *testing.T) {
	for args, want := range map[string]string{
		"server":                                   `unknown command "server" for "odx"; did you mean serve?`,
		"bogus":                                    `unknown command "bogus" for "odx"; the commands are access, cluster, completion, config, copy, doctor, `,
		"volume bogus":                             `unknown command "bogus" for "odx volume"; the commands are clone, create, delete, diff, list, migrate, rename, resize, revert, snapshot`,
		"volume bogus --json":                      "unknown flag: --json",
		"volume lst":                               `unknown command "lst" for "odx volume"; did you mean list?`,
		"vhd frobnicate x y":                       `unknown command "frobnicate" for "odx vhd"; the commands are `,
		"token bogus":                              `unknown command "bogus" for "odx token"; the commands are `,
		"file bogus":                               `unknown command "bogus" for "odx file"; the commands are `,
		"store bogus":                              `unknown command "bogus" for "odx store"; the commands are `,
		"help bogus":                               `unknown command "bogus" for "odx"; the commands are access, cluster, completion, config, copy, doctor, `,
		"help server":                              `unknown command "server" for "odx"; did you mean serve?`,
		"help volume bogus":                        `unknown command "bogus" for "odx volume"; the commands are clone, create, `,
		"help volume create x":                     `unknown command "x" for "odx volume create"; it has no commands`,
		"help --bogus":                             "unknown flag: --bogus",
		"serve --portal x":                         "unknown flag: --portal",
		"serve extra":                              "",
		"store info extra":                         "",
		"volume create onlyname":                   "accepts 2 arg(s), received 1; usage: odx volume create NAME SIZE [flags]",
		"copy a":                                   "accepts 2 arg(s), received 1; usage: odx copy SRC DST [flags]",
		"completion bogus":                         `unknown command "bogus" for "odx completion"; the commands are bash, `,
		"volume create v 10GB":                     `invalid size "10GB"; use bytes, or a number with KiB`,
		"volume resize v 1x":                       `invalid size "1x"; use bytes, or a number with KiB`,
		"vhd create d.vhd ten":                     `invalid size "ten"; use bytes, or a number with KiB`,
		"token create v:x":                         `"v:x": invalid size "x"; use bytes, or a number with KiB`,
		"store scrub --mib-per-s":                  "flag needs an argument: --mib-per-s",
		"store scrub --mib-per-s -1":               "--mib-per-s -1 is negative; use 0 for no limit",
		"store dump rows":                          `there is no part "rows" of a store; the parts are superblock, `,
		"token create v --type x":                  "--type x: use default, persistent, change-vulnerable or on-reference",
		"token create v --timeout -1m":             "--timeout -1m0s is negative",
		"token create v --skip -1":                 "--skip -1 is negative",
		"token write nonsense v":                   "not a token: neither 512 bytes nor 512 bytes in base64; write @FILE for a file",
		"token read nonsense":                      "not a token: ",
		"token show nonsense":                      `token identifier "nonsense": want 16 hexadecimal digits`,
		"token delete nonsense":                    "neither an identifier of 16 hexadecimal digits nor a token: ",
		"config check a --config b":                "give FILE or --config, not both",
		"target create disks v":                    `invalid iSCSI name "disks"; it must begin with iqn., eui. or naa.`,
		"lun add t x:y":                            `"x:y": use the name of a volume, file:NAME, view:NAME, backing:PATH or iscsi://HOST[:PORT]/TARGET/LUN`,
		"lun add t v --size 10GB":                  `invalid size "10GB"; use bytes, or a number with KiB`,
		"lun add t v --block-size 520":             "--block-size 520: use 512 or 4096",
		"lun add t v --iops -1":                    "--iops -1 is negative; use 0 for no limit",
		"volume migrate start v b:v --portal here": `--portal "here" is not an address and port; use for example `,
		"volume migrate start v b:v --portal 192.0.2.7":                                                               `--portal "192.0.2.7": missing port; use 192.0.2.7:3260`,
		"volume migrate start v b:v --portal 0.0.0.0:3260":                                                            `--portal "0.0.0.0:3260": initiators cannot connect to any address or port 0; use for example `,
		"volume migrate start v b:v --portal b.example.com:0":                                                         `--portal "b.example.com:0": initiators cannot connect to `,
		"volume migrate start v w --portal 192.0.2.7:3260":                                                            "--portal is for another server, and w is none; write PEER:VOLUME",
		"volume migrate start v iscsi://h/iqn.2026-11.com.example:a/0 --portal 192.0.2.7:3260":                        "--portal is for another server, and iscsi://",
		"volume migrate start v iscsi://h/disk/0":                                                                     "iscsi://h/disk/0: ",
		"volume migrate start v w --login-user odx --login-secret-file s":                                             "a login is for a LUN of another target, and w is none",
		"lun add t iscsi://h/iqn.2026-11.com.example:a/0 --login-user odx":                                            "give --login-secret-file or --login-secret-env",
		"lun add t iscsi://h/iqn.2026-11.com.example:a/0 --login-secret-env S":                                        "give --login-user, too",
		"lun add t iscsi://h/iqn.2026-11.com.example:a/0 --login-user odx --login-secret-env S --login-target-user a": "give --login-target-secret-file or --login-target-secret-env",
		"lun remove t x":                       `invalid LUN "x"; use a number from 0 to 16383`,
		"lun top --interval 1ms":               "--interval 1ms: use at least 100ms",
		"lun top --count -1":                   "--count -1 is negative; use 0 for no end",
		"user add t u":                         "give --secret-file, --secret-env or --secret-from",
		"user set t u":                         "give --secret-file, --secret-env, --secret-from or --initiator",
		"user set t u --initiator a*b":         `invalid pattern "a*b"; use a prefix of an iSCSI name`,
		"access add t":                         "give --initiator or --address; ",
		"access add t --address 1.2.3":         `"1.2.3" is neither an IP address nor a network`,
		"access add t --initiator a --lun":     "flag needs an argument: --lun",
		"access add t --initiator a --lun 1=x": `invalid LUN "x"; use a number from 0 to 16383`,
		"access remove t -1":                   "unknown shorthand flag: '1' in -1",
		"access remove t x":                    `invalid entry "x"; use a number that odx access list prints`,
		"session end 0":                        `invalid session "0"; use the number (TSIH) that odx session list prints`,
		"copy src src":                         "src is both source and destination",
		"copy ./a ./a":                         "./a is both source and destination",
		"copy - -":                             "- and - are both streams; one end has to be a disk or a file",
		"copy - new --create":                  "--create with a stream, whose length is not known in advance; create the volume first, with odx volume create",
		"copy iscsi://host v":                  "iscsi://host: ",
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
