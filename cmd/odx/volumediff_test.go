package main

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "odx/api/v1"
)

func TestVolumeDiffCommand(t *testing.T) {
	eachWay(t, fillSrc(16), func(t *testing.T, path string) {
		script(t, path, []command{
			{args: "volume snapshot src before", stdout: "volume before: made of src, 64MiB\n"},
			{args: "volume create big 128MiB", stdout: "volume big: made, 128MiB\n"},
			{args: "volume diff before src", stdout: "              OFFSET                LENGTH  KIND\n0 ranges differ: 0 B of data, 0 B of holes\n"},
			{args: "volume diff big src", stdout: "              OFFSET                LENGTH  KIND\n" +
				"                   0                 65536  data\n" +
				"1 ranges differ: 64 KiB of data, 0 B of holes; big has 128 MiB, src 64 MiB\n"},
			{args: "volume diff src big --offset 4096 --length 8KiB", stdout: "              OFFSET                LENGTH  KIND\n" +
				"                4096                  8192  hole\n" +
				"1 ranges differ: 0 B of data, 8.0 KiB of holes; src has 64 MiB, big 128 MiB\n"},
			{args: "volume diff none src", stderr: "odx: volume none: not found\n", status: 1},
		})
		for _, flags := range []string{"--json", "--output json"} {
			stdout, stderr, status := output(t, append([]string{"volume", "diff", "src", "--config", path}, strings.Fields(flags)...)...)
			var got struct {
				Ranges []v1.DiffRange `json:"ranges"`
				Result v1.Diff        `json:"result"`
			}
			if err := json.Unmarshal([]byte(stdout), &got); err != nil || status != 0 {
				t.Fatalf("%s: %d %v\n%s%s", flags, status, err, stdout, stderr)
			}
			if len(got.Ranges) != 1 || got.Ranges[0] != (v1.DiffRange{Length: 65536, Kind: v1.DiffData}) || got.Result.Ranges != 1 {
				t.Errorf("%s: %+v", flags, got)
			}
		}
	})
}
