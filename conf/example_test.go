package conf_test

import (
	"errors"
	"fmt"

	"odx/conf"
)

// A configuration is valid as a whole, or all that is wrong with it is reported.
func ExampleParse() {
	c, err := conf.Parse("odx.yaml", []byte(`
data_dir: /var/lib/odx
portals: ["127.0.0.1:3260"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 10GiB}
`))
	if err != nil {
		panic(err)
	}
	for _, target := range c.Targets {
		for _, lun := range target.LUNs {
			fmt.Printf("%s LUN %d: %s, %s\n", target.Name, lun.Number, lun.Medium(), conf.FormatSize(lun.Size))
		}
	}

	_, err = conf.Parse("odx.yaml", []byte(`
data_dir: /var/lib/odx
portals: ["127.0.0.1:3260"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 10GB}
      - {lun: 0, volume: dst, size: 10GiB}
`))
	if problems, ok := errors.AsType[conf.Problems](err); ok {
		for _, p := range problems {
			fmt.Printf("line %d, %s\n", p.Line, p.Key)
		}
	}
	// Output:
	// iqn.2026-11.example.odx:disks LUN 0: volume src, 10GiB
	// line 7, targets[0].luns[0].size
	// line 8, targets[0].luns[1].lun
}

// A size is a number of bytes, or a number with a binary unit.
func ExampleParseSize() {
	n, err := conf.ParseSize("10GiB")
	fmt.Println(n, err)
	fmt.Println(conf.FormatSize(n))
	// Output:
	// 10737418240 <nil>
	// 10GiB
}
