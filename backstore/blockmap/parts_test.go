package blockmap

import "odx/backstore/meta"

// encodeParts hands what all parts of a cut encode to emit.
func encodeParts(parts map[byte]func(func(meta.Op) error) error, emit func(meta.Op) error) error {
	for _, encode := range parts {
		if err := encode(emit); err != nil {
			return err
		}
	}
	return nil
}
