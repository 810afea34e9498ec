package meta

import "fmt"

// numbered returns rows that begin with a number.
func numbered(rows, number int) (ops []Op) {
	for i := range rows {
		ops = append(ops, op(fmt.Sprintf("row %02d", i), fmt.Sprintf("%04d%01000d", number, i)))
	}
	return ops
}
